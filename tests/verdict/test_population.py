"""What many connections show together; and that nothing is said where they show nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest

import closeseq
from closeseq.analysis import Analysis
from closeseq.connections.idling import NOT
from closeseq.connections.strays import MOST
from closeseq.lab.experiments import experiments
from closeseq.reading import BatchCounts
from closeseq.script import PORTS
from closeseq.settings import SECOND, EphemeralPorts, Settings, Timers
from closeseq.verdict import vocabulary
from closeseq.verdict.model import PopulationCode
from closeseq.verdict.population.defaults import IDLE_DEFAULTS
from closeseq.verdict.population.rules import populations
from places import CAPTURES
from populations import captured, together

OPEN = "C:S S:SA C:A C:PA+90 S:PA+500 C:A"
BY_SERVER = "S:FA C:A C:FA S:A"
BY_CLIENT = "C:FA S:A S:FA C:A"


def idle(seconds, close=BY_SERVER, before=OPEN):
    return f"{before} +{seconds}s {close}"


def codes(analysis):
    return [one.code for one in analysis.population]


def test_a_server_that_closes_after_the_same_idleness():
    given = [idle(round(5 + random.Random(i).uniform(0, 0.02), 3)) for i in range(12)]
    (one,) = captured([*given, *(f"{OPEN} {BY_SERVER}" for _ in range(3))]).population
    assert (one.code, one.endpoint, one.members, one.of) == ("idle-timeout", "server", 12, 15)
    assert one.value_ns == pytest.approx(5.01 * SECOND, rel=0.01)
    assert one.summary.startswith("the server 198.51.100.2:80 closes after 5.01 s of idleness (12 of 15)")
    assert "this is the default of Node.js 8 to 25 (server.keepAliveTimeout), Apache httpd" in one.summary
    assert one.certainty == "assumed"


def test_a_timeout_that_is_no_default_names_no_product():
    (one,) = captured([idle(8)] * 9).population
    assert "default" not in one.summary


def test_clients_that_close_after_the_same_idleness():
    (one,) = captured([idle(90, BY_CLIENT)] * 9).population
    assert (one.code, one.endpoint, one.members) == ("idle-timeout", "client", 9)
    assert one.summary.startswith("clients of 198.51.100.2:80 close after 90 s of idleness (9 of 9)")


def test_it_may_end_with_a_reset():
    one, _habit = captured([idle(350, "S:RA")] * 9).population
    assert "AWS Network Load Balancer" in one.summary


def test_two_timeouts_of_one_server():
    found = captured([idle(2)] * 6 + [idle(60)] * 6).population
    assert [round(one.value_ns / SECOND) for one in found] == [2, 60]


NOTHING = {
    "closes at once": [f"{OPEN} {BY_SERVER}"] * 50,
    "too few": [idle(5)] * 4,
    "of any length": [idle(round(random.Random(i).uniform(1, 60), 3)) for i in range(300)],
    "a few together by chance": [idle(1.9)] * 6
    + [idle(round(random.Random(i).uniform(1, 4), 3)) for i in range(20)],
    "asked for": [f"{OPEN} +5s C:PA+9 {BY_SERVER}" for _ in range(20)],
    "keepalives come before": [f"{OPEN} +5s C:K S:A {BY_SERVER}" for _ in range(20)],
    "still open": [f"{OPEN} +5s C:PA+9 S:A" for _ in range(20)],
    "retransmissions come before": [f"{OPEN} C:PA+9 +5s C:PA+9* C:RA" for _ in range(20)],
}


@pytest.mark.parametrize("scripts", NOTHING.values(), ids=NOTHING)
def test_nothing_is_said(scripts):
    assert captured(scripts).population == []


@pytest.mark.parametrize("capture", sorted(CAPTURES.glob("*.pcap")), ids=lambda one: one.stem)
def test_nothing_is_said_but_what_an_experiment_is_to_show(capture):
    expected = experiments()[capture.stem].population
    assert {one.code for one in closeseq.analyze(str(capture)).population} <= expected


def test_the_silence_before_a_close_is_that_of_its_closer():
    late_ack = "C:S S:SA C:A C:PA+90 S:PA+500 +300ms C:A +4700ms S:FA C:A"
    analysis = captured([late_ack, f"{OPEN} {BY_SERVER}"])
    assert analysis.closes.idle_ns[0] == pytest.approx(5 * SECOND, rel=0.001)
    assert analysis.closes.idle_ns[1] == NOT


def test_pools_that_keep_connections_nearly_as_long_as_the_server():
    used_again = f"{OPEN} +4.6s C:PA+90 S:PA+500 C:A"
    analysis = captured([idle(5)] * 9 + [idle(5, before=used_again)])
    assert codes(analysis) == ["timeouts-in-wrong-order", "idle-timeout"]
    first = analysis.population[0]
    assert first.members == 1
    assert "idled for up to 4.6 s (1 connection), and the server closes after 5 s" in first.summary


@pytest.mark.parametrize("again", ["+3s C:PA+90 S:PA+500 C:A", "+4.6s C:K S:A", "+4.6s S:PA+10 C:A"])
def test_pools_that_give_up_sooner(again):
    analysis = captured([idle(5)] * 9 + [idle(5, before=f"{OPEN} {again}")])
    assert codes(analysis) == ["idle-timeout"]


def test_a_late_first_request_is_no_use_again():
    late = "C:S S:SA C:A +4.6s C:PA+90 S:PA+500 C:A"
    assert codes(captured([idle(5)] * 9 + [idle(5, before=late)])) == ["idle-timeout"]


EACH = f"C:S S:SA C:A C:PA+90 S:PA+500 C:A {BY_CLIENT}"


def test_a_client_that_runs_out_of_ports():
    analysis = captured([EACH] * 2000, every_ns=SECOND // 1000)
    (one,) = analysis.population
    assert (one.code, one.client, one.members) == ("port-pressure", "192.0.2.1", 2000)
    assert one.value_ns == pytest.approx((28_232 - 2000) / 1000 * SECOND, rel=0.01)
    assert "opens a connection for every request, it seems, and closes 1,000 connections a" in one.summary
    assert "holds 2,000 of 28,232 ports in TIME_WAIT, and at this rate they run out in 26.2 s" in one.summary


def test_a_client_that_will_hold_many_ports():
    (one,) = captured([EACH] * 1000, every_ns=SECOND // 300).population
    assert "at this rate it will hold 18," in one.summary
    assert one.value_ns == 0


CALM = {
    "slowly": ([EACH] * 600, {"every_ns": SECOND // 100}),
    "from many clients": ([EACH] * 2000, {"every_ns": SECOND // 1000, "clients": 10}),
    "closed by the server": ([f"{OPEN} {BY_SERVER}"] * 2000, {"every_ns": SECOND // 1000}),
    "a short burst": ([EACH] * 400, {"every_ns": SECOND // 1000}),
    "ended by RST": ([f"{OPEN} C:RA"] * 2000, {"every_ns": SECOND // 1000}),
}


@pytest.mark.parametrize(("scripts", "options"), CALM.values(), ids=CALM)
def test_ports_that_do_not_run_out(scripts, options):
    assert "port-pressure" not in codes(captured(scripts, **options))


def test_a_shorter_time_wait_holds_fewer_ports():
    analysis = captured([EACH] * 2000, every_ns=SECOND // 1000)
    assert populations(analysis.closes, Settings(timers=Timers(SECOND, SECOND))) == []


def test_the_ports_of_a_client_with_few():
    few = Settings(ephemeral_ports=EphemeralPorts(100))
    (one,) = populations(captured([EACH] * 100, every_ns=SECOND // 1000).closes, few)
    assert "closes 100 connections within a second to 198.51.100.2:80 first" in one.summary
    assert "holds 100 of 100 ports in TIME_WAIT, and they have run out: connect() fails with" in one.summary
    assert populations(captured([EACH] * 40, every_ns=SECOND // 1000).closes, few) == []


def test_only_this_machines_clients_have_this_machines_ports():
    closes = captured([EACH] * 100, every_ns=SECOND // 1000).closes
    for address, number in (("192.0.2.1", 1), ("192.0.2.9", 0)):
        own = Settings(ephemeral_ports=EphemeralPorts(own=100, addresses=frozenset({address})))
        assert len(populations(closes, own)) == number


def test_an_endpoint_that_always_ends_with_reset():
    (one,) = captured([f"{OPEN} C:RA"] * 19 + [f"{OPEN} {BY_CLIENT}"]).population
    assert (one.code, one.endpoint, one.members, one.of) == ("resets-by-habit", "client", 19, 20)
    (one,) = captured([f"{OPEN} S:RA"] * 5 + [f"{OPEN} {BY_CLIENT}"] * 20).population
    assert (one.code, one.endpoint, one.members, one.of) == ("resets-by-habit", "server", 5, 5)
    assert one.certainty == "assumed"


NO_HABIT = {
    "too few": [f"{OPEN} C:RA"] * 4,
    "not always": [f"{OPEN} C:RA"] * 18 + [f"{OPEN} {BY_CLIENT}"] * 2,
    "data is lost": [f"{OPEN} S:PA+500 C:R"] * 20,
    "after a FIN": [f"{OPEN} S:FA C:A C:PA+9 S:R"] * 20,
    "refused": ["C:S S:RA"] * 20,
    "a scan": ["C:S S:SA C:R"] * 20,
}


@pytest.mark.parametrize("scripts", NO_HABIT.values(), ids=NO_HABIT)
def test_resets_that_are_no_habit(scripts):
    assert captured(scripts).population == []


ELSEWHERE = 0xC6336463  # 198.51.100.99, an address that no script has


def forgotten(script, *, last, way="dst", change=lambda _rows: None):
    """Return the analysis of a connection whose last rows come from another address than its others."""
    rows = together([script])
    sent = len(rows) - last
    for name in ("src", "dst"):
        own = (getattr(rows, f"{name}_port") == PORTS[1]) == (way == "dst")
        own &= np.arange(len(rows)) >= sent
        getattr(rows, f"{name}_low")[own] = ELSEWHERE
    change(rows)
    analysis = Analysis("made.pcap")
    analysis.reading.add(len(rows), BatchCounts.of(rows))
    analysis.feed(rows)
    return analysis


def test_a_nat_that_forgets_the_servers_address():
    (one,) = forgotten(f"{OPEN} S:PA+26 C:R", last=2).population
    assert (one.code, one.certainty, one.endpoint, one.members) == ("forgotten-by-nat", "proved", "client", 1)
    assert one.server.port == 80
    assert "the client 192.0.2.1 from 198.51.100.99:80 instead" in one.summary
    assert "(#2 belongs to #1)" in one.summary


def test_a_nat_that_forgets_the_clients_address():
    (one,) = forgotten(f"{OPEN} C:PA+26 S:R", last=2, way="src").population
    assert (one.code, one.endpoint) == ("forgotten-by-nat", "server")
    assert "segments of the client 192.0.2.1:1024 reach the server 198.51.100.2" in one.summary


def shifted(rows):
    rows.seq[-2:] += np.uint32(1 << 30)
    rows.ack[-2:] += np.uint32(1 << 30)


def from_another_port(rows):
    rows.src_port[-1] = rows.dst_port[-2] = 999


def acknowledged(rows):
    rows.flags[-1] = 16


NO_NAT = {
    "other numbers": ("S:PA+26 C:R", shifted),
    "another port": ("S:PA+26 C:R", from_another_port),
    "no reset": ("S:PA+26 C:A", acknowledged),
}


@pytest.mark.parametrize(("end", "change"), NO_NAT.values(), ids=NO_NAT)
def test_strangers_that_no_nat_has_forgotten(end, change):
    assert forgotten(f"{OPEN} {end}", last=2, change=change).population == []


def test_a_nat_that_forgets_many_is_told_once():
    scripts = [f"{OPEN} S:PA+26 C:R"] * 300
    rows = together(scripts, every_ns=SECOND)
    late = np.flatnonzero(rows.length == 26)
    rows.src_low[late] = ELSEWHERE
    rows.dst_low[late + 1] = ELSEWHERE
    analysis = Analysis("made.pcap")
    analysis.feed(rows)
    (one,) = [one for one in analysis.population if one.code == "forgotten-by-nat"]
    assert one.members == MOST
    assert "#2 belongs to #1, #4 belongs to #3 and #6 belongs to #5, and 253 more" in one.summary


def test_defaults_have_sources():
    assert all(one.source and one.setting and one.seconds > 0 for one in IDLE_DEFAULTS)


def test_every_code_is_explained():
    for code in PopulationCode:
        assert vocabulary.lookup(code).kind == "finding of many connections"
