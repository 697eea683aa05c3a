"""What is said of a packet."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

import closeseq
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from closeseq.verdict.model import FindingCode, Severity
from closeseq.wireshark.comments import comments
from places import CAPTURES

STATE, CERTAINTY = "|".join(State), "|".join(Certainty)
ENDPOINT = rf"(?:{STATE})(?: -> (?:{STATE}) \((?:{CERTAINTY})\))*"
FINDING = rf"(?:{'|'.join(Severity)}) (?:{'|'.join(FindingCode)}) \((?:(?:client|server), )?(?:{CERTAINTY})\)"
COMMENT = re.compile(
    rf"client (?P<client>{ENDPOINT}); server (?P<server>{ENDPOINT})(?:; {FINDING})*(?:; note: [ -~]+)?"
)
CAPTURED = sorted(path.name for path in CAPTURES.glob("*.pcap"))


def said(name, **options):
    (connection,) = closeseq.analyze(str(CAPTURES / name), **options)
    return dict(comments(connection))


def test_of_each_endpoint_the_state_and_how_it_came_to_it():
    found = said("final-ack-lost.pcap")
    assert found[1] == "client CLOSED -> SYN_SENT (observed); server LISTEN -> SYN_RECEIVED (proved)"
    assert found[9] == "client CLOSE_WAIT; server FIN_WAIT_1 -> FIN_WAIT_2 (assumed)"
    assert found[13] == (
        "client LAST_ACK; server TIME_WAIT; problem final-ack-lost (client, proved); notice "
        "time-wait-restarted (server, proved); note: lost: the FIN that it acknowledges comes again in #14"
    )
    assert list(found) == [1, 2, 3, *range(8, 18)]


def test_a_fin_that_crosses_another_arrives_where_the_timeline_shows_it():
    found = said("crossing-fins.pcap")
    assert found[8] == "client ESTABLISHED -> FIN_WAIT_1 (observed); server ESTABLISHED"
    assert found[9].startswith(
        "client FIN_WAIT_1 -> CLOSING (proved); "
        "server ESTABLISHED -> FIN_WAIT_1 (observed) -> CLOSING (assumed); "
    )


def test_a_packet_of_the_next_connection_may_end_this_one():
    one, two = closeseq.analyze(str(CAPTURES / "time-wait-reused.pcap"))
    (packet, text), *_ = [found for found in comments(one) if found[0] > 11]
    assert packet == 12
    assert "server TIME_WAIT -> CLOSED" in text
    assert dict(comments(two))[12].startswith("client CLOSED -> SYN_SENT")


@pytest.mark.parametrize("name", CAPTURED)
def test_comments_have_one_form_and_follow_from_one_another(name):
    """An endpoint is where the comment before left it, unless a timer or an RST of no packet moved it."""
    connections = closeseq.analyze(str(CAPTURES / name), stuck_after=1)
    assert len(connections)
    for connection in connections:
        assert_one_form(connection)


def assert_one_form(connection):
    found = comments(connection)
    packets = [packet for packet, _ in found]
    assert packets == sorted(set(packets))
    forms = [COMMENT.fullmatch(text) for _, text in found]
    assert all(forms), [text for _, text in found]
    by_timer = {t.after.value for t in connection.timeline.transitions if t.packet is None}
    for end in ("client", "server"):
        for before, then in pairwise(form[end] for form in forms):
            left = re.sub(r" \(\w+\)", "", before).split(" -> ")[-1]
            came = then.split(" -> ")[0]
            assert came == left or came in by_timer
    shown = {packet for finding in connection.findings for packet in finding.packets}
    assert shown <= set(packets)
