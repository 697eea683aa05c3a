"""Who sent a RST: signs that it was not its alleged sender, and which of them prove it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from closeseq.connections import Connections
from closeseq.connections.conversation import End
from closeseq.packets.reset_reasons import ReasonKind, ResetReason
from closeseq.packets.segments import RST
from closeseq.script import segments
from closeseq.settings import Timers
from closeseq.tcp.replay import replay
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from closeseq.verdict import Initiator, Role, judge
from verdict_examples import OPEN, judged, the

# Each way there and back takes 21 ms: the server's answers, seen at the client.
FAR = "C:S +20ms S:SA C:A C:PA+5 +20ms S:PA+5 C:A C:PA+5 +20ms S:PA+5 C:A C:PA+7 "
LONG = OPEN + 7 * "~ "  # more than eight frames of the server


def judged_rows(rows):
    found = Connections()
    found.feed(rows)
    one = found.conversation(0)
    return judge(replay(one, Timers(), one.last_ns))


def with_odd_reset(script, **odd):
    """Judge a script whose RSTs have other values in these columns."""
    rows = segments(script, timestamps=True)
    resets = rows.flags & RST > 0
    for name, value in odd.items():
        getattr(rows, name)[resets] = value
    return judged_rows(rows)


def foreign(judgement):
    """Return the certainty with which a RST is said not to be its sender's; None if it is not."""
    finding = next(f for f in judgement.findings if f.code == "reset-cause")
    first = finding.summary.split("; or ")[0]
    named = "a middlebox or somebody else" in first or "not the " in first
    return finding.certainty if named else None


@pytest.mark.parametrize(
    ("script", "certainty"),
    [
        (FAR + "S:RA", Certainty.PROVED),  # 1 ms, and nobody could know the number sooner
        (FAR + "+4ms S:RA", None),  # 5 ms: named among others, and not alone
        (FAR + "+20ms S:RA", None),
        (FAR.replace("+20ms S:SA", "S:SA") + "S:RA", None),  # its program is slow, and its TCP is not
        ("C:S +20ms S:SA C:A C:PA+7 S:RA", None),  # one answer
        (FAR + "S:R", None),  # may have crossed the data
    ],
)
def test_a_reset_that_comes_too_soon(script, certainty):
    assert foreign(judged(script)) is certainty


def test_a_reset_that_comes_too_soon_is_a_sign_before_it_is_a_proof():
    finding = the(judged(FAR + "+4ms S:RA"), "reset-cause")
    assert "never answered within less than 21 ms" in finding.summary
    assert finding.certainty is Certainty.ASSUMED


@pytest.mark.parametrize(
    ("script", "certainty"),
    [
        (OPEN + "C:PA+5 S:R +1.5s S:PA+9 C:R", Certainty.PROVED),
        (OPEN + "C:PA+5 S:R +1.5s S:FA C:R", Certainty.PROVED),
        (OPEN + "C:PA+5 S:R! +5ms C:PA+5 S:A", Certainty.PROVED),  # acknowledged after the RST
        (OPEN + "C:PA+5 S:R S:PA+9 C:R", None),  # the RST may have overtaken it
        (OPEN + "C:PA+5 S:R +1.5s C:PA+5* S:R", None),
        (OPEN + "S:RA! +5ms C:PA+5 S:R", None),  # the RST was lost
        ("C:S S:SA C:R +1.5s C:S", None),
    ],
)
def test_the_alleged_sender_goes_on(script, certainty):
    assert foreign(judged(script)) is certainty


def test_the_verdict_does_not_blame_whom_a_box_speaks_for():
    verdict = judged(OPEN + "C:PA+5 S:R +1.5s S:PA+9 C:R").verdict
    assert verdict.code == "reset"
    assert verdict.initiator is Initiator.NONE
    assert (verdict.client_role, verdict.server_role) == (Role.ABORTED, Role.NONE)
    assert "which the server did not send" in verdict.summary


@pytest.mark.parametrize(
    ("script", "odd", "certainty"),
    [
        (LONG + "S:RA", {"place": 8}, Certainty.PROVED),
        (LONG + "S:RA", {"place": 7}, None),  # the places of 802.11 also differ for other reasons
        (LONG + "S:RA", {"vlan": 5}, Certainty.PROVED),
        (OPEN + "S:RA", {"place": 8}, Certainty.ASSUMED),  # a balanced path may take turns
        (LONG + "+10s S:RA", {"place": 8}, Certainty.ASSUMED),  # the path may be another one by then
        (LONG + "S:RA", {}, None),
        (LONG + "S:RA", {"ttl": 51}, Certainty.ASSUMED),
        (LONG + "S:RA", {"ip_id": 30_000}, None),
        (LONG + "S:R", {"window": 8192}, None),
        (LONG + "S:R S:PA+9", {"ttl": 51}, Certainty.PROVED),  # and its alleged sender goes on
    ],
)
def test_a_reset_unlike_its_senders_other_packets(script, odd, certainty):
    assert foreign(with_odd_reset(script, **odd)) is certainty


def test_another_place_shows_nothing_where_frames_come_by_several_ways():
    rows = segments(LONG + "S:RA", timestamps=True)
    rows.place[:] = rows.number % 5 * 2
    assert foreign(judged_rows(rows)) is None


def test_resets_of_both_endpoints_at_once_need_support():
    exchange = "C:PA+5 +20ms S:PA+5 +20ms C:A "
    rows = segments("C:S +20ms S:SA +20ms C:A " + 3 * exchange + "+1s C:RA|S:RA")
    assert foreign(judged_rows(rows)) is None
    rows.ttl[-2:] = 51
    judgement = judged_rows(rows)
    assert foreign(judgement) is Certainty.PROVED
    assert "gets one at the same moment too" in judgement.findings[0].summary


def test_what_a_reset_says_is_reported_and_proves_nothing():
    rows = segments(OPEN + "S:RA+8")
    number = int(rows.number[-1])
    for octets, text in (
        (b"\x33\xaa\x00\x11\0\0\0\0", "says diagnostic code 17 (middlebox)"),
        (b"\x33\xaa\x00\x63\0\0\0\x09", "says diagnostic code 99 of enterprise 9"),
        (b'go "\x1b[31m', r'says text "go \x22\x1b[31m"'),
        (b"\x33\xaa\x00\x11", None),  # malformed
    ):
        said = replace(rows, reasons={number: ResetReason(ReasonKind.PAYLOAD, octets)})
        finding = the(judged_rows(said), "reset-cause")
        assert (text in finding.summary) if text else "says" not in finding.summary
        assert finding.certainty is Certainty.ASSUMED
    mptcp = replace(rows, reasons={number: ResetReason(ReasonKind.MPTCP, b"\x06")})
    assert "MP_TCPRST reason 6 (middlebox interference)" in the(judged_rows(mptcp), "reset-cause").summary


@pytest.mark.parametrize(
    ("script", "harm"),
    [
        (OPEN + "C:FA S:FA C:A C:R", "after both FINs were acknowledged"),
        (OPEN + "C:RA", "after all data was acknowledged"),
        (OPEN + "S:PA+70 C:FA S:PA+5 C:R", "with 5 bytes of the server never acknowledged"),
        (OPEN + "C:PA+30 S:R", "with 30 bytes of the client never acknowledged"),
        ("C:S S:RA", ""),
        ("C:S S:SA C:A C:RA", ""),  # there was no data
    ],
)
def test_what_a_reset_loses(script, harm):
    summary = the(judged(script), "reset-cause").summary.split(": ")[0]
    assert harm in summary
    assert harm or ("acknowledged" not in summary)


def test_a_reset_from_elsewhere_leaves_its_alleged_senders_state_open_or_as_it_was():
    def left(script, **odd):
        """Return the server's last state before the RST, and after it, with its certainty."""
        rows = segments(script, timestamps=True)
        for name, value in odd.items():
            getattr(rows, name)[-1] = value
        found = Connections()
        found.feed(rows)
        one = replay(found.conversation(0), Timers(), int(rows.time_ns[-1]))
        own = [t for t in one.transitions if t.endpoint is End.SERVER]
        assert one.state(End.CLIENT) is State.CLOSED
        return own[-1].before, own[-1].after, own[-1].certainty

    assert left(LONG + "S:RA") == (State.ESTABLISHED, State.CLOSED, Certainty.OBSERVED)
    # Few frames came the usual way, or long ago: this may be another usual way.
    for script in (OPEN + "~ S:RA", LONG + "+1s S:RA"):
        assert left(script, place=8) == (State.ESTABLISHED, State.CLOSED, Certainty.ASSUMED)
    # It is proved that another sent it, so the server still has the connection.
    assert left(LONG + "S:RA", place=8)[:2] == (State.SYN_RECEIVED, State.ESTABLISHED)
