"""Records: the shape that programs rely on, held against the schema that ships in the package."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import jsonschema
import pytest
from communityid import CommunityID, FlowTuple
from hypothesis import given
from hypothesis import strategies as st

import closeseq
from closeseq.connections.conversation import Address
from closeseq.errors import CaptureError
from closeseq.report import rows
from closeseq.report.records import (
    CSV_COLUMNS,
    community_id,
    csv_header,
    csv_lines,
    encode,
    header,
    json_object,
    jsonl,
    named,
    record,
    schema,
)
from closeseq.report.selection import Selection
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from closeseq.verdict import vocabulary
from closeseq.verdict.model import Initiator, Role
from closeseq.watch.updates import UpdateKind
from places import ROOT
from report_examples import (
    HANDSHAKE,
    MadeAnalysis,
    close_wait,
    line,
    lost_final_ack,
    made,
    reading,
    traffic,
)

CAPTURES = sorted((ROOT / "captures").glob("*.pcap"))

EXAMPLE = {
    "schema": "closeseq/1",
    "capture": "made.pcap",
    "id": 1,
    "incarnation": 1,
    "community_id": "1:ZRvEZVPECvmzAqwuLLBgziVKOvw=",
    "start": "2026-11-20T12:18:06.194806000Z",
    "duration": 0.525064,
    "packets": 11,
    "opener": "seen",
    "client": {
        "address": "127.0.0.1",
        "port": 43286,
        "state": "CLOSED",
        "role": "passive-closer",
        "packets": 6,
        "bytes": 5,
        "expires": None,
    },
    "server": {
        "address": "127.0.0.1",
        "port": 19999,
        "state": "TIME_WAIT",
        "role": "active-closer",
        "packets": 5,
        "bytes": 2,
        "expires": 60.525,
    },
    "verdict": "graceful",
    "initiator": "server",
    "shape": "C:S S:SA C:A ~ S:FA C:A C:FA S:A C:FA S:A",
    "summary": "server closed first; final ACK lost once",
    "path": {
        "client": {"lost": 0, "reordered": 0, "missed": 0, "response": None},
        "server": {"lost": 0, "reordered": 0, "missed": 0, "response": None},
    },
    "aka": {"zeek_conn_state": "SF", "zeek_history": "ShADdfFa", "wireshark_completeness": 31},
}
EVENT = {
    "packet": 9,
    "time": 0.315144,
    "from": "server",
    "flags": "A",
    "seq": 0,
    "ack": 1,
    "length": 0,
    "position": "new",
    "arrived": "no",
    "note": "lost: its FIN comes again in #10",
    "client": "LAST_ACK",
    "server": "TIME_WAIT",
    "traffic": None,
}
TRAFFIC = {
    "packet": 4,
    "time": 0.00005,
    "from": None,
    "flags": None,
    "seq": None,
    "ack": None,
    "length": None,
    "position": None,
    "arrived": None,
    "note": None,
    "client": "ESTABLISHED",
    "server": "ESTABLISHED",
    "traffic": {
        "client": {"packets": 1, "bytes": 5, "retransmissions": 0},
        "server": {"packets": 1, "bytes": 2, "retransmissions": 0},
        "last": 0.00015,
    },
}
FINDING = {
    "code": "final-ack-lost",
    "severity": "problem",
    "endpoint": "client",
    "certainty": "proved",
    "since": 0.315144,
    "duration": 0.21,
    "packets": [9, 10],
    "summary": "final-ack-lost happened",
    "advice": "mend final-ack-lost",
}


def validator(part=None):
    whole = schema()
    if part is None:
        return jsonschema.Draft202012Validator(whole)
    return jsonschema.Draft202012Validator(
        {"$defs": {"record": whole}, "$ref": f"{whole['$id']}#/$defs/{part}"}
    )


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(schema())


def test_a_record_says_everything_under_its_stable_names():
    told = record(lost_final_ack())
    assert {name: told[name] for name in EXAMPLE} == EXAMPLE
    assert set(told) == {*EXAMPLE, "findings", "timeline", "transitions"}
    assert told["findings"][1] == FINDING
    assert told["timeline"][3] == TRAFFIC
    assert told["timeline"][7] == EVENT
    assert told["transitions"][0] == {
        "packet": 1,
        "time": 0.0,
        "endpoint": "client",
        "from": "CLOSED",
        "to": "SYN_SENT",
        "cause": "sent it",
        "certainty": "observed",
    }


def test_a_transition_by_timer_has_no_packet():
    connection = made(HANDSHAKE, timers=[(60.5, "server", "CLOSED", "2MSL passed")], now=61.0)
    last = record(connection)["transitions"][-1]
    assert last == {
        "packet": None,
        "time": 60.5,
        "endpoint": "server",
        "from": "ESTABLISHED",
        "to": "CLOSED",
        "cause": "2MSL passed",
        "certainty": "timer",
    }
    validator().validate(record(connection))


@pytest.mark.parametrize(
    "connection",
    [
        lost_final_ack(),
        close_wait(),
        close_wait(reported=True),
        made([line(traffic(1, 0, 5, None), "UNKNOWN", "UNKNOWN")]),
    ],
    ids=["lost final ACK", "CLOSE_WAIT", "stuck in CLOSE_WAIT", "traffic only"],
)
def test_records_fit_the_schema(connection):
    validator().validate(record(connection))


def test_the_schema_knows_every_state_certainty_role_and_initiator():
    parts = schema()["$defs"]
    assert set(parts["state"]["enum"]) == set(State)
    assert set(parts["certainty"]["enum"]) == set(Certainty)
    assert set(parts["endpoint"]["properties"]["role"]["enum"]) == set(Role)
    assert set(schema()["properties"]["initiator"]["enum"]) == set(Initiator)


def test_the_schema_knows_every_verdict():
    verdicts = {entry.code for entry in vocabulary.entries() if entry.kind == "verdict"}
    assert set(schema()["properties"]["verdict"]["enum"]) == verdicts


def test_the_schema_refuses_a_field_it_does_not_know():
    told = record(lost_final_ack()) | {"mood": "good"}
    with pytest.raises(jsonschema.ValidationError, match="mood"):
        validator().validate(told)


def test_jsonl_is_one_object_a_line():
    lines = list(jsonl(Selection(MadeAnalysis([lost_final_ack(), close_wait(number=2)]))))
    assert [json.loads(text)["id"] for text in lines] == [1, 2]
    assert all(text.count("\n") == 1 for text in lines)


@pytest.mark.parametrize("capture", CAPTURES[::3], ids=lambda path: path.stem)
def test_a_line_of_json_says_what_the_record_says(capture):
    selection = Selection(closeseq.analyze(str(capture)))
    lines, records = list(jsonl(selection)), [record(one) for one in selection]
    assert [json.loads(text) for text in lines] == records
    assert [list(json.loads(text)) for text in lines] == [list(one) for one in records]


@pytest.mark.parametrize("name", ["café.pcap", "\U0001f984.pcap", 'a"b\\c\n.pcap', "\x7f\u2028.pcap"])
def test_json_is_ascii_whatever_a_capture_is_called(name):
    (text,) = jsonl(Selection(MadeAnalysis([replace(lost_final_ack(), capture=name)])))
    assert text.isascii()
    assert json.loads(text)["capture"] == name


def test_json_takes_what_is_no_unicode_at_all():
    live = rows.LiveRow(UpdateKind.CLOSED, "now", {"owner": "\udcff"})
    assert json.loads(encode(live)) == {"event": "closed", "as_of": "now", "kernel": {"owner": "\udcff"}}


PORT = st.integers(0, 65535)
ENDS = st.one_of(
    st.tuples(*[st.builds(Address, st.ip_addresses(v=4).map(str), PORT)] * 2),
    st.tuples(*[st.builds(Address, st.ip_addresses(v=6).map(str), PORT)] * 2),
)


@given(ENDS, st.booleans())
def test_the_community_id_is_that_of_its_own_package(ends, same_address):
    client, server = ends
    if same_address:
        server = Address(client.address, server.port)
    flow = FlowTuple.make_tcp(client.address, server.address, client.port, server.port)
    assert community_id(client, server) == CommunityID().calc(flow)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_json_wraps_the_connections_with_what_was_read(number):
    analysis = MadeAnalysis([close_wait(number=i + 1) for i in range(number)])
    told = json.loads("".join(json_object(Selection(analysis))))
    assert told["packets"] == 10
    assert told["count"] == number
    assert [connection["id"] for connection in told["connections"]] == [*range(1, number + 1)]


def test_a_capture_fits_its_part_of_the_schema():
    analysis = MadeAnalysis([lost_final_ack()])
    told = json.loads("".join(json_object(Selection(analysis))))
    registry_free = {**schema(), "$ref": "#/$defs/capture"}
    for name in ("type", "properties", "required", "additionalProperties"):
        del registry_free[name]
    del registry_free["$defs"]["capture"]["properties"]["connections"]["items"]
    jsonschema.Draft202012Validator(registry_free).validate(told)
    for connection in told["connections"]:
        validator().validate(connection)


def test_an_empty_capture_and_one_that_turned_bad_have_a_header_too():
    assert header(reading(), 0)["start"] is None
    error = CaptureError("the record is cut short", path="x\x1b.pcap", packet=7)
    assert header(reading(error=error), 0)["error"] == "x\\x1b.pcap: packet 7: the record is cut short"


def test_a_name_that_is_no_utf8_is_still_text():
    assert named(b"\xff.pcap".decode("utf-8", "surrogateescape")) == "\\xff.pcap"


def test_csv_has_a_line_a_connection_and_its_columns_in_order():
    selection = Selection(MadeAnalysis([lost_final_ack(), close_wait(reported=True, number=2)]))
    told = list(csv.DictReader(io.StringIO(csv_header() + "".join(csv_lines(selection)))))
    assert tuple(told[0]) == CSV_COLUMNS
    assert [row["verdict"] for row in told] == ["graceful", "closing"]
    assert told[0]["server_expires"] == "60.525"
    assert told[0]["client_expires"] == ""
    assert told[0]["notices"] == "three-segment-close"
    assert told[1]["problems"] == "stuck-fin-wait-2 stuck-close-wait"
    assert told[0]["zeek_history"] == "ShADdfFa"


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_records_of_real_connections_fit_the_schema(capture):
    check = validator()
    connections = closeseq.analyze(str(capture))
    assert len(connections)
    for connection in connections:
        check.validate(record(connection))


def test_a_record_holds_what_the_connection_of_the_python_api_says():
    connection = closeseq.from_script("C:S S:SA C:A ~ C:FA S:A S:FA C:A")
    told = record(connection)
    assert told["verdict"] == connection.verdict == "graceful"
    assert told["client"]["state"] == connection.client.state == "TIME_WAIT"
    assert told["packets"] == connection.packets
    assert told["shape"] == connection.shape
    assert told["timeline"][-1]["time"] == pytest.approx(connection.duration)
    assert told["aka"]["zeek_conn_state"] == "SF"
    validator().validate(told)
