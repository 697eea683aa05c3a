"""The metrics page: what the official parser makes of it, and that it counts each thing once."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from closeseq.capture import open_capture
from closeseq.script import START_NS, segments
from closeseq.segments import Decoder
from closeseq.settings import Limits, Settings
from closeseq.tcp.states import State
from closeseq.verdict.model import FindingCode, Initiator
from closeseq.watch import Monitor, UpdateKind
from closeseq.watch.metrics import BOUNDS, CLOSED_VERDICTS, FAMILIES, Metrics, dashboard
from places import CAPTURES

OPEN = "C:S S:SA C:A ~ "
SECOND = 10**9
SETTINGS = Settings(limits=Limits(stuck_after_ns=5 * SECOND))


class Counted:
    """A monitor that is fed in real time, tick by tick, and its counters."""

    def __init__(self, ports=()):
        self.monitor = Monitor(SETTINGS)
        self.metrics = Metrics(self.monitor, ports)
        self.updates = []  # (kind, connection)

    def play(self, script, until):
        rows = segments(script)
        for tenth in range(round(until * 10) + 1):
            now = START_NS + tenth * SECOND // 10
            due = (rows.time_ns <= now) & (rows.time_ns > now - SECOND // 10)
            self.monitor.feed(int(due.sum()), rows.take(np.flatnonzero(due)))
            self.take(self.monitor.tick(now))
        return self

    def take(self, updates):
        self.metrics.take(updates)
        self.updates += [(one.kind, seen) for one in updates for seen in one]

    @property
    def values(self):
        return values(self.metrics.page(0))

    def above_0(self, name):
        return {labels: value for (one, labels), value in self.values.items() if one == name and value}


def families(page):
    return list(text_string_to_metric_families(page))


def values(page):
    """Return all samples, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(page)
        for sample in family.samples
    }


def labels(**named):
    return tuple(sorted(named.items()))


def server_port(script):
    return int(segments(script).dst_port[0])


def test_the_official_parser_reads_it_and_finds_what_is_declared():
    page = Counted().metrics.page(0)
    found = {one.name: one for one in families(page)}
    declared = {family.name.removesuffix("_total"): family for family in FAMILIES}
    assert set(found) == set(declared)
    for name, family in declared.items():
        assert (found[name].type, found[name].documentation) == (family.kind, family.meaning)
        for sample in found[name].samples:
            assert set(sample.labels) - {"le"} == set(family.labels)
        assert found[name].samples


def test_names_follow_the_conventions_of_prometheus():
    for family in FAMILIES:
        assert re.fullmatch(r"closeseq_[a-z_]+", family.name)
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert family.name.endswith("_seconds") == (family.kind == "histogram")
        assert all(re.fullmatch("[a-z]+", label) for label in family.labels)


def test_promtool_finds_nothing_to_criticise():
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: it comes with Prometheus")
    page = Counted().metrics.page(0)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_series_is_there_from_the_start_with_0_and_no_other_comes():
    counted = Counted(ports=(80, 443))
    before = counted.values
    assert set(before.values()) == {0.0}
    ports = 3
    of = dict.fromkeys((one for one, _ in before), 0)
    for name, _ in before:
        of[name] += 1
    assert of["closeseq_closes_total"] == len(CLOSED_VERDICTS) * len(Initiator) * ports
    assert of["closeseq_findings_total"] == len(FindingCode) * ports
    assert of["closeseq_close_duration_seconds_bucket"] == (len(BOUNDS) + 1) * ports
    assert of["closeseq_sockets"] == 2 * (len(State) - 2)
    counted.play(OPEN + "C:FA S:A S:FA C:A", until=2).play(OPEN + "C:RA", until=2)
    assert set(counted.values) == set(before)
    assert counted.values != before


def test_a_close_counts_once_with_who_closed_first_and_how_long_it_took():
    script = OPEN + "S:FA C:A +1.5s C:FA S:A"
    counted = Counted(ports=(server_port(script),)).play(script, until=70)
    port = str(server_port(script))
    assert counted.above_0("closeseq_closes_total") == {
        labels(verdict="graceful", initiator="server", port=port): 1
    }
    assert counted.above_0("closeseq_close_duration_seconds_count") == {labels(port=port): 1}
    ((_, connection),) = counted.updates
    fin = next(step for step in connection.timeline if "F" in step.flags)
    took = (connection.timeline.steps[-1].time_ns - fin.time_ns) / SECOND
    assert counted.above_0("closeseq_close_duration_seconds_sum") == {labels(port=port): took}
    assert 1.5 < took < 2.5
    buckets = counted.above_0("closeseq_close_duration_seconds_bucket")
    assert {float(dict(one)["le"]) for one in buckets} == {*(b for b in BOUNDS if b >= 2.5), math.inf}


def test_a_port_that_was_not_asked_for_is_another():
    counted = Counted(ports=(1, 65535)).play(OPEN + "C:FA S:A S:FA C:A", until=2)
    assert counted.above_0("closeseq_closes_total") == {
        labels(verdict="graceful", initiator="client", port="other"): 1
    }


def test_without_a_fin_there_is_no_length_of_a_close():
    counted = Counted().play(OPEN + "C:RA", until=2)
    assert sum(counted.above_0("closeseq_closes_total").values()) == 1
    assert not counted.above_0("closeseq_close_duration_seconds_count")


def test_a_verdict_that_is_revised_does_not_count_twice():
    counted = Counted().play(OPEN + "C:FA S:A S:FA C:A! +1s S:FA* C:A", until=5)
    assert [kind for kind, _ in counted.updates] == [UpdateKind.CLOSED, UpdateKind.REVISED]
    assert sum(counted.above_0("closeseq_closes_total").values()) == 1
    assert counted.above_0("closeseq_revised_total") == {labels(verdict="graceful", port="other"): 1}
    assert counted.above_0("closeseq_findings_total")[labels(code="final-ack-lost", port="other")] == 1


def test_a_finding_counts_once_though_the_connection_is_reported_again_and_again():
    counted = Counted().play(OPEN + "C:FA S:A +8s S:FA C:A", until=20)
    assert [kind for kind, _ in counted.updates] == [UpdateKind.STUCK, UpdateKind.CLOSED]
    counted.take(counted.monitor.end(START_NS + 21 * SECOND))
    found = counted.above_0("closeseq_findings_total")
    assert found[labels(code="stuck-close-wait", port="other")] == 1
    assert set(found.values()) == {1}
    assert {dict(one)["code"] for one in found} == {
        finding.code.value for _, connection in counted.updates for finding in connection.findings
    }


def test_a_stuck_socket_is_in_the_gauge_while_it_is_there():
    counted = Counted().play(OPEN + "C:FA S:A", until=7)
    assert counted.above_0("closeseq_sockets") == {
        labels(endpoint="client", state="FIN_WAIT_2"): 1,
        labels(endpoint="server", state="CLOSE_WAIT"): 1,
    }
    assert counted.above_0("closeseq_open_connections") == {(): 1}
    assert not counted.above_0("closeseq_closes_total")


def test_packets_that_were_lost_are_on_the_page():
    assert values(Counted().metrics.page(17))["closeseq_lost_packets_total", ()] == 17


@pytest.mark.parametrize("capture", sorted(CAPTURES.glob("*.pcap"))[::7], ids=lambda path: path.stem)
def test_of_whole_captures_it_counts_what_was_reported(capture):
    """Each connection once by its verdict, and each of its findings once."""
    counted, decoder, closed, found, packets = Counted(), Decoder(), {}, set(), 0
    with open_capture(str(capture)) as reader:
        for frames in reader.batches():
            packets += len(frames)
            counted.monitor.feed(len(frames), decoder.decode(frames))
            for at in np.linspace(int(frames.time_ns.max()), int(frames.time_ns.max()) + 300 * SECOND, 40):
                counted.take(counted.monitor.tick(int(at)))
    counted.take(counted.monitor.end(int(at)))
    for kind, connection in counted.updates:
        if kind is UpdateKind.CLOSED:
            closed.setdefault(connection.id, (connection.verdict.value, connection.initiator.value))
        found |= {(connection.id, finding.code.value) for finding in connection.findings}
    expected = {}
    for verdict, initiator in closed.values():
        key = labels(verdict=verdict, initiator=initiator, port="other")
        expected[key] = expected.get(key, 0) + 1
    assert counted.above_0("closeseq_closes_total") == expected
    expected = {}
    for _, code in found:
        key = labels(code=code, port="other")
        expected[key] = expected.get(key, 0) + 1
    assert counted.above_0("closeseq_findings_total") == expected
    assert counted.values["closeseq_packets_total", ()] == packets
    assert counted.values["closeseq_connections_total", ()] == len({one.id for _, one in counted.updates})
    page = counted.metrics.page(0)
    addresses = {
        one.conversation.address(end).address for _, one in counted.updates for end in ("client", "server")
    }
    assert addresses
    assert not [address for address in addresses if address in page]


def expressions():
    board = json.loads(dashboard())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def test_the_grafana_board_asks_for_every_metric_and_for_no_other():
    exposed = {name for name, _ in Counted().values}
    asked = {name for one in expressions() for name in re.findall(r"closeseq_\w+", one)}
    assert asked <= exposed
    histogram = re.compile("_(sum|count)$")  # of the histogram the buckets are enough
    families = {re.sub("_bucket$", "", name) for name in exposed if not histogram.search(name)}
    assert {re.sub("_bucket$", "", name) for name in asked} == families


def test_the_grafana_board_uses_labels_and_values_that_there_are():
    known = Counted().values
    for expression in expressions():
        for name, matchers in re.findall(r"(closeseq_\w+)\{([^}]*)\}", expression):
            series = [dict(found) for one, found in known if one == name]
            for label, value in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
                if label == "instance":  # which Prometheus adds
                    continue
                assert all(label in one for one in series), (name, label)
                assert value.startswith("$") or any(one[label] == value for one in series)
            for label in re.findall(r"by \(([^)]*)\)", expression)[:1]:
                wanted = {one.strip() for one in label.split(",")} - {"instance"}
                assert all(wanted <= set(one) for one in series), (name, wanted)


def test_the_grafana_board_is_whole():
    board = json.loads(dashboard())
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers) >= 6
    for panel in board["panels"]:
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        assert all(one["datasource"]["uid"] == "${source}" for one in panel["targets"])
    variables = {one["name"] for one in board["templating"]["list"]}
    used = {name for one in expressions() for name in re.findall(r"\$(\w+)", one)} - {"__rate_interval"}
    assert used | {"source"} == variables
