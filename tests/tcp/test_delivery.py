"""Was it received? One test for each kind of evidence, strongest first, and for what each may not say."""

from __future__ import annotations

from dataclasses import replace

import pytest

import closeseq
from closeseq.connections.conversation import End
from closeseq.packets.segments import ACK, FIN, SYN
from closeseq.script import conversation
from closeseq.settings import SECOND, Timers
from closeseq.tcp.replay import replay
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Arrival, Certainty
from places import CAPTURES
from segment_rows import MILLISECOND, START_NS, A, B, columns, fed, recorded, row

OPEN = "C:S S:SA C:A ~ "


def run(script: str, *, after: float = 0.0, timestamps: bool = False):
    told = conversation(OPEN + script, timestamps=timestamps)
    return replay(told, Timers(), told.last_ns + round(after * SECOND))


def fins(timeline, end: End):
    return [s for s in timeline if s.sender is end and "F" in s.flags]


def entered(timeline, end: End, state: State):
    """Return the transition of an endpoint into a state; None if it was never there."""
    return next((t for t in timeline.transitions if t.endpoint is end and t.after is state), None)


def test_a_later_acknowledgement_proves_that_a_fin_arrived():
    timeline = run("C:FA S:A")
    assert fins(timeline, End.CLIENT)[0].arrived is Arrival.PROVED


def test_an_acknowledgement_below_it_proves_that_a_fin_had_not_arrived():
    timeline = run("C:FA! +0.1s S:A+10 C:A +0.1s C:FA* S:A")
    first, second = fins(timeline, End.CLIENT)
    assert (first.arrived, second.arrived) == (Arrival.NO, Arrival.PROVED)
    assert entered(timeline, End.SERVER, State.CLOSE_WAIT).packet == second.packet


def test_a_timestamp_echo_tells_which_of_several_transmissions_got_through():
    lost_first = run("C:FA! +0.2s C:FA* S:A", timestamps=True)
    assert [s.arrived for s in fins(lost_first, End.CLIENT)] == [Arrival.NO, Arrival.PROVED]
    lost_answer = run("C:FA S:A? +0.2s C:FA* S:A", timestamps=True)
    assert fins(lost_answer, End.CLIENT)[1].arrived in (Arrival.PROVED, Arrival.ASSUMED)


def test_without_timestamps_which_of_several_transmissions_got_through_is_only_assumed():
    timeline = run("C:FA! +0.2s C:FA* S:A")
    assert entered(timeline, End.SERVER, State.CLOSE_WAIT).certainty is Certainty.ASSUMED


def test_a_timestamp_echo_proves_that_a_pure_ack_arrived():
    timeline = run("C:FA S:A +0.1s S:A+10 C:A", timestamps=True)
    ack = next(s for s in timeline if s.sender is End.SERVER and s.flags == "A")
    assert ack.arrived is Arrival.ASSUMED  # the client echoes the data's timestamp, which tells nothing of it
    told = run("C:FA S:A +0.1s C:A", timestamps=True)
    ack = next(s for s in told if s.sender is End.SERVER and s.flags == "A")
    assert ack.arrived is Arrival.PROVED
    assert entered(told, End.CLIENT, State.FIN_WAIT_2).certainty is Certainty.PROVED


def test_an_echo_of_the_same_millisecond_proves_nothing():
    told = conversation("C:S S:SA C:A C:FA S:A C:A", timestamps=True, gap_ns=1000)
    timeline = replay(told, Timers(), told.last_ns)
    assert entered(timeline, End.CLIENT, State.FIN_WAIT_2).certainty is Certainty.ASSUMED


def test_a_fin_sent_again_shows_that_its_acknowledgement_did_not_arrive():
    timeline = run("C:FA S:A! +0.3s C:FA* S:A")
    lost, second = [s for s in timeline if s.sender is End.SERVER and s.flags == "A"]
    assert lost.arrived is Arrival.NO
    assert f"#{fins(timeline, End.CLIENT)[1].packet}" in lost.note
    assert entered(timeline, End.CLIENT, State.FIN_WAIT_2).packet == second.packet


def test_an_acknowledgement_that_crossed_a_repeated_fin_is_not_called_lost():
    told = conversation("C:S +50ms S:SA C:A ~ C:FA +49ms S:A|C:FA*", gap_ns=100_000)
    timeline = replay(told, Timers(), told.last_ns)
    assert timeline.steps[-2].arrived is not Arrival.NO


def test_an_older_echo_in_what_the_receiver_sends_later_shows_that_an_ack_had_not_arrived():
    timeline = run("C:FA S:A! +0.1s C:A", timestamps=True)
    ack = next(s for s in timeline if s.sender is End.SERVER and s.flags == "A")
    assert ack.arrived is Arrival.NO
    assert entered(timeline, End.CLIENT, State.FIN_WAIT_2) is None


def data_and_an_ack(*, between=(), after):
    """Return the connection of a server that is 150 ms away, beside a client that answers in 2 ms.

    The server sends data and then, `between` passed, the ACK of the client's FIN. What comes `after` it is
    followed by data and their ACK, whose echo shows that another ACK of the FIN had come.
    """
    rows = [
        linux(0, A, B, SYN, ip_id=11, tsval=1000),
        linux(150, B, A, SYN | ACK, ack=1, ip_id=0, tsval=5000, tsecr=1000),
        linux(152, A, B, ACK, seq=1, ack=1, ip_id=12, tsval=1152, tsecr=5000),
        linux(400, A, B, FIN | ACK, seq=1, ack=1, ip_id=13, tsval=1400, tsecr=5000),
        linux(540, B, A, ACK, seq=1, ack=1, length=10, ip_id=41, tsval=5390, tsecr=1152),
        *between,
        linux(570, B, A, ACK, seq=11, ack=2, ip_id=42, tsval=5420, tsecr=1400),
        after,
        linux(1000, B, A, ACK, seq=11, ack=2, length=10, ip_id=43, tsval=5850, tsecr=1400),
        linux(1002, A, B, ACK, seq=2, ack=21, ip_id=16, tsval=2002, tsecr=5850),
    ]
    return fed(columns(rows)).conversation(0)


@pytest.mark.parametrize(("at_ms", "certainty"), [(590, Certainty.ASSUMED), (900, Certainty.PROVED)])
def test_an_ack_that_came_late_may_have_been_the_one_unless_it_is_long_overdue(at_ms, certainty):
    # The client has acknowledged the data. What it sends then has an older echo than the server's ACK.
    taken = linux(545, A, B, ACK, seq=2, ack=11, ip_id=14, tsval=1545, tsecr=5390)
    later = linux(at_ms, A, B, ACK, seq=2, ack=11, ip_id=15, tsval=1000 + at_ms, tsecr=5390)
    told = data_and_an_ack(between=[taken], after=later)
    moved = entered(replay(told, Timers(), told.last_ns), End.CLIENT, State.FIN_WAIT_2)
    assert (moved.packet, moved.certainty) == (9, certainty)


@pytest.mark.parametrize("at_ms", [590, 900])
def test_an_ack_past_what_its_receiver_had_acknowledged_is_not_echoed_though_it_came(at_ms):
    # SEG.SEQ <= Last.ACK.sent, or TS.Recent stays as it is (RFC 7323 4.3): the ACK is numbered past the data.
    told = data_and_an_ack(
        after=linux(at_ms, A, B, ACK, seq=2, ack=11, ip_id=14, tsval=1000 + at_ms, tsecr=5390)
    )
    moved = entered(replay(told, Timers(), told.last_ns), End.CLIENT, State.FIN_WAIT_2)
    assert (moved.packet, moved.certainty) == (6, Certainty.ASSUMED)


@pytest.mark.parametrize(("again_ms", "certainty"), [(650, Certainty.ASSUMED), (720, Certainty.PROVED)])
def test_an_ack_that_should_have_come_before_a_retransmission_may_have_come_late(again_ms, certainty):
    # Beside the server; the client answers in 100 ms. Its FIN is acknowledged, and comes again, and what
    # acknowledges it then is known to arrive. Did the first ACK? It was lost, or was under way for long.
    rows = [
        linux(0, A, B, SYN, ip_id=11, tsval=1000),
        linux(0.1, B, A, SYN | ACK, ack=1, ip_id=0, tsval=5000, tsecr=1000),
        linux(100, A, B, ACK, seq=1, ack=1, ip_id=12, tsval=1050, tsecr=5000),
        linux(400, A, B, FIN | ACK, seq=1, ack=1, ip_id=13, tsval=1350, tsecr=5000),
        linux(400.1, B, A, ACK, seq=1, ack=2, ip_id=41, tsval=5400, tsecr=1350),
        linux(again_ms, A, B, FIN | ACK, seq=1, ack=1, ip_id=14, tsval=950 + again_ms, tsecr=5000),
        linux(again_ms + 1, B, A, ACK, seq=1, ack=2, length=10, ip_id=42, tsval=5900, tsecr=1350),
        linux(again_ms + 101, A, B, ACK, seq=2, ack=11, ip_id=15, tsval=1950, tsecr=5900),
    ]
    told = fed(columns(rows)).conversation(0)
    moved = entered(replay(told, Timers(), told.last_ns), End.CLIENT, State.FIN_WAIT_2)
    assert (moved.packet, moved.certainty) == (7, certainty)


def test_an_endpoint_that_goes_on_after_a_reset_did_not_receive_it():
    timeline = run("C:RA! +0.5s S:A+100")
    reset = next(s for s in timeline if "R" in s.flags)
    assert reset.arrived is Arrival.NO
    assert reset.server is State.ESTABLISHED


def test_what_was_under_way_when_a_reset_was_sent_is_no_sign_that_it_did_not_arrive():
    told = conversation("C:S +50ms S:SA C:A ~ S:A+100|C:RA +30ms S:A+0", gap_ns=100_000)
    timeline = replay(told, Timers(), told.last_ns)
    assert timeline.state(End.SERVER) is State.CLOSED


def test_an_endpoint_that_answers_with_reset_was_gone_since_the_first_data_it_left_unanswered():
    timeline = run("S:A+10! +0.2s S:A+10*! +0.4s S:A+10* C:R")
    gone = entered(timeline, End.CLIENT, State.CLOSED)
    reset = next(s for s in timeline if "R" in s.flags)
    assert (gone.packet, gone.certainty) == (reset.packet, Certainty.ASSUMED)
    assert reset.time_ns - gone.time_ns >= 0.6 * SECOND


def test_an_endpoint_that_had_closed_is_gone_only_when_it_answers_data_with_reset():
    timeline = run("C:FA S:A +1s S:A+10! +0.2s S:A+10* C:R")
    gone = entered(timeline, End.CLIENT, State.CLOSED)
    assert gone.time_ns == next(s for s in timeline if "R" in s.flags).time_ns


def test_an_abort_is_only_assumed_where_it_is_open_which_state_it_left():
    timeline = run("S:FA! +0.1s C:FA S:A! +0.1s C:RA", after=2)
    aborted = entered(timeline, End.CLIENT, State.CLOSED)
    assert aborted.certainty is Certainty.ASSUMED


def test_a_fin_that_crossed_a_reset_was_sent_before_the_reset_came_in():
    told = conversation(OPEN + "S:RA|C:FA S:R", gap_ns=10_000)
    timeline = replay(told, Timers(), told.last_ns)
    states = [t.after for t in timeline.transitions if t.endpoint is End.CLIENT]
    assert states[-2:] == [State.FIN_WAIT_1, State.CLOSED]


def test_a_reset_with_another_number_than_expected_changes_nothing():
    told = conversation(OPEN + "C:A+100! C:RA +0.5s")
    timeline = replay(told, Timers(), told.last_ns)
    assert timeline.state(End.CLIENT) is State.CLOSED  # it sent the RST
    challenged = conversation(OPEN + "C:A+100! C:RA S:A")
    assert replay(challenged, Timers(), challenged.last_ns).state(End.SERVER) is State.ESTABLISHED


def test_a_fin_repeated_again_and_again_without_answer_is_not_assumed_to_have_arrived():
    timeline = run("C:FA! +0.2s C:FA*! +0.4s C:FA*!", after=0.1)
    assert timeline.state(End.SERVER) is State.ESTABLISHED
    assert {s.arrived for s in fins(timeline, End.CLIENT)} == {Arrival.NO}


def test_a_single_fin_just_before_the_end_is_assumed_to_have_arrived():
    timeline = run("C:FA")
    assert entered(timeline, End.SERVER, State.CLOSE_WAIT).certainty is Certainty.ASSUMED


def test_a_number_past_everything_seen_shows_a_fin_that_was_not_captured():
    timeline = run("(C:FA) S:A S:A+10 C:A")
    sent = entered(timeline, End.CLIENT, State.FIN_WAIT_1)
    assert sent.certainty is Certainty.ASSUMED  # one byte of data would leave the same trace
    assert "not captured" in sent.cause
    assert timeline.state(End.SERVER) is State.CLOSE_WAIT


def test_when_that_fin_is_captured_later_it_is_proved():
    timeline = run("(C:FA) +0.1s S:A+10! C:A +0.1s C:FA*")
    sent = entered(timeline, End.CLIENT, State.FIN_WAIT_1)
    if sent.certainty is not Certainty.OBSERVED:
        assert sent.certainty is Certainty.PROVED


@pytest.mark.parametrize("gap_ns", [1_000, 5_000, 100_000, 40_000_000])
def test_however_soon_a_fin_follows_the_ack_of_the_peers_its_sender_closed_second(gap_ns):
    told = conversation("C:S S:SA C:A ~ +1s C:FA S:A S:FA C:A", gap_ns=gap_ns)
    timeline = replay(told, Timers(), told.last_ns)
    assert entered(timeline, End.SERVER, State.CLOSE_WAIT) is not None
    assert entered(timeline, End.SERVER, State.LAST_ACK).certainty is Certainty.OBSERVED


def test_nothing_assumed_is_ever_called_proved_in_the_final_ack():
    timeline = run("C:FA S:A S:FA C:A", after=100, timestamps=True)
    assert entered(timeline, End.SERVER, State.CLOSED).certainty is Certainty.ASSUMED


def test_an_old_duplicate_says_nothing_of_what_has_arrived_since():
    capture = str(CAPTURES / "time-wait-assassinated.pcap")
    timeline = closeseq.analyze(capture)[0].timeline
    closed = entered(timeline, End.CLIENT, State.CLOSED)
    assert closed.packet == 11
    assert "old duplicate" in next(s.note for s in timeline if s.packet == 12)


def test_a_reset_after_unanswered_keepalives_is_not_assumed_to_have_arrived():
    capture = str(CAPTURES / "keepalive-unanswered.pcap")
    timeline = closeseq.analyze(capture)[0].timeline
    assert timeline.state(End.SERVER) is State.ESTABLISHED
    assert timeline.steps[-1].arrived is Arrival.NO


def test_what_a_fin_that_was_never_captured_did_is_assumed():
    timeline = run("(C:FA) S:A +2s S:A+10 C:A", after=2)
    assert entered(timeline, End.SERVER, State.CLOSE_WAIT).certainty is Certainty.ASSUMED


def test_a_segment_that_waited_before_the_tap_does_not_contradict_what_came_meanwhile():
    capture = str(CAPTURES / "simultaneous-close.pcap")
    timeline = closeseq.analyze(capture)[0].timeline
    assert timeline.state(End.CLIENT) is State.TIME_WAIT


def acks(timeline, end: End):
    return [s for s in timeline if s.sender is end and s.flags == "A"]


def test_the_acknowledgement_of_a_reset_that_is_challenged_is_not_acted_on():
    timeline = run("C:FA S:A? S:A+40? S:RA C:A S:R")
    assert entered(timeline, End.CLIENT, State.FIN_WAIT_2) is None
    assert timeline.state(End.CLIENT) is State.CLOSED


LOST_TWICE = "S:FA C:A! +0.2s S:FA* C:A! +0.2s S:FA* "


def test_after_acknowledgements_that_were_lost_the_first_that_surely_arrived_counts():
    timeline = run(LOST_TWICE + "C:A! +0.1s C:FA S:A", after=5)
    assert entered(timeline, End.SERVER, State.FIN_WAIT_2).packet == fins(timeline, End.CLIENT)[0].packet


def test_unless_the_fin_had_stopped_being_repeated_before():
    timeline = run(LOST_TWICE + "C:A +1.5s C:FA S:A", after=5)
    assert entered(timeline, End.SERVER, State.FIN_WAIT_2).packet == acks(timeline, End.CLIENT)[3].packet


def test_after_acknowledgements_that_were_lost_the_newest_is_not_assumed_to_arrive_too_soon():
    assert run(LOST_TWICE + "C:A!", after=0.1).state(End.SERVER) is State.FIN_WAIT_1
    assert run(LOST_TWICE + "C:A", after=3).state(End.SERVER) is State.FIN_WAIT_2


def test_unless_the_capture_ends_with_it():
    assert run(LOST_TWICE + "C:A").state(End.SERVER) is State.FIN_WAIT_2


def test_a_fin_that_was_lost_acknowledges_nothing():
    timeline = run("S:FA C:FA! +0.2s C:FA* S:A", timestamps=True)
    assert entered(timeline, End.SERVER, State.FIN_WAIT_2).packet == fins(timeline, End.CLIENT)[1].packet


def test_an_endpoint_is_still_there_only_if_it_speaks_when_its_repetition_is_overdue():
    assert run("C:FA! S:FA C:A", after=5).state(End.CLIENT) is State.CLOSING


def test_an_answer_without_a_socket_shows_that_the_fin_had_been_acknowledged_before():
    told = conversation(OPEN + "C:FA! S:FA C:A! +0.2s S:FA* C:A +0.1s C:FA* S:A")
    counted = replay(told, Timers(), told.last_ns)
    assert entered(counted, End.SERVER, State.FIN_WAIT_2).packet == fins(counted, End.CLIENT)[1].packet
    without = replace(told, steps=(*told.steps[:-1], replace(told.steps[-1], ip_id=0)))
    known = entered(replay(without, Timers(), told.last_ns), End.SERVER, State.FIN_WAIT_2)
    assert known.packet == acks(counted, End.CLIENT)[2].packet
    assert known.certainty is Certainty.ASSUMED


def test_a_rst_that_answers_a_second_ack_shows_that_the_first_ended_last_ack_however_late():
    timeline = run("C:FA S:A S:FA C:A +0.3s S:FA* C:A S:R")
    closed = entered(timeline, End.SERVER, State.CLOSED)
    assert (closed.packet, closed.certainty) == (10, Certainty.ASSUMED)


def test_an_endpoint_that_stops_retransmitting_was_not_acknowledged_while_its_peer_still_asks_for_the_fin():
    assert run("C:FA! +0.3s S:A +3s C:A", after=10).state(End.CLIENT) is State.FIN_WAIT_1


def test_an_abort_sooner_than_its_sender_ever_answered_was_probably_sent_without_the_ack_of_its_fin():
    told = conversation("C:S S:SA +3ms C:A C:FA S:A +1ms C:RA")
    aborted = entered(replay(told, Timers(), told.last_ns), End.CLIENT, State.CLOSED)
    assert (aborted.before, aborted.certainty) == (State.FIN_WAIT_1, Certainty.ASSUMED)


def test_answers_that_were_not_captured_tell_that_the_first_of_several_transmissions_arrived():
    told = conversation("C:S S:SA C:A C:FA S:A? +0.2s C:FA* S:A", timestamps=True)
    received = entered(replay(told, Timers(), told.last_ns), End.SERVER, State.CLOSE_WAIT)
    assert (received.packet, received.certainty) == (4, Certainty.ASSUMED)


def test_a_fin_repeated_without_answer_arrived_if_the_connection_loses_segments_before_the_capture():
    timeline = run("C:FA? +0.2s C:FPA* S:A? +0.2s C:FA* S:A? +0.4s C:FA* S:A?")
    assert entered(timeline, End.SERVER, State.CLOSE_WAIT).certainty is Certainty.ASSUMED


def test_an_endpoint_that_answers_the_ack_of_its_fin_with_rst_had_left_fin_wait_1_before():
    # It aborted, and that RST was lost before the capture point: a socket would have taken the ACK.
    timeline = run("S:FA +80ms C:A +40ms S:R", after=1)
    assert entered(timeline, End.SERVER, State.FIN_WAIT_2) is None
    assert entered(timeline, End.SERVER, State.CLOSED) is not None


def test_an_endpoint_that_answers_a_second_ack_with_rst_may_have_been_in_fin_wait_2():
    timeline = run("S:FA +80ms C:A +80ms C:A +40ms S:R", after=1)
    assert entered(timeline, End.SERVER, State.FIN_WAIT_2) is not None


def test_a_fin_that_is_answered_with_rst_was_not_taken_also_where_it_comes_again():
    timeline = run("S:FA C:R! +200ms S:FA C:R", after=1)
    assert entered(timeline, End.CLIENT, State.CLOSE_WAIT) is None


def test_an_endpoint_that_answers_the_second_fin_with_rst_was_gone_since_the_first():
    # On recordings beside the kernel 31 of 43 had been: for the others there was little time.
    timeline = run("S:FA! +0.2s S:FA*! C:R", after=1)
    assert entered(timeline, End.CLIENT, State.CLOSE_WAIT) is None
    gone = entered(timeline, End.CLIENT, State.CLOSED)
    assert (gone.time_ns, gone.certainty) == (fins(timeline, End.SERVER)[0].time_ns, Certainty.ASSUMED)


def test_after_more_transmissions_it_may_have_taken_the_first_and_closed_uncaptured():
    timeline = run("S:FA C:A? +0.2s S:FA* C:A? +0.4s C:RA? S:FA* C:R", after=1)
    assert entered(timeline, End.CLIENT, State.CLOSE_WAIT).packet == fins(timeline, End.SERVER)[0].packet


def test_the_ack_of_a_syn_within_traffic_counts_from_its_own_time():
    # Lost at first; the SYN+ACK comes again, and what follows within the same stretch is 300 ms later.
    timeline = replay(
        told := conversation("C:S S:SA C:A! +1s S:SA* C:A +300ms S:PA+100 C:A +1s C:FA S:A"),
        Timers(),
        told.last_ns,
    )
    moved = entered(timeline, End.SERVER, State.ESTABLISHED)
    assert moved is not None
    assert moved.time_ns - told.first_ns < 1.2 * SECOND


@pytest.mark.parametrize(
    ("echo", "state"), [("the ACK in between", State.CLOSING), ("the second FIN", State.FIN_WAIT_2)]
)
def test_an_echo_of_what_follows_a_fin_shows_that_the_fin_had_come(echo, state):
    # The FINs cross, and the client's comes again. The server's answer to that echoes the ACK between the
    # two only if the first FIN had come: TS.Recent is of what is in order (RFC 7323 4.3).
    def sent(at_ms, source, destination, flags, seq, ack, tsval, tsecr):  # noqa: PLR0917 - a row of a table
        stamps = {"has_timestamps": True, "tsval": tsval, "tsecr": tsecr}
        time_ns = START_NS + at_ms * MILLISECOND
        return row(source, destination, flags, seq, ack, time_ns=time_ns, **stamps)

    tsecr = {"the ACK in between": 5707, "the second FIN": 6728}[echo]
    rows = [
        sent(0, A, B, SYN, 0, 0, 5300, 0),
        sent(166, B, A, SYN | ACK, 0, 1, 7291, 5300),
        sent(172, A, B, ACK, 1, 1, 5480, 7291),
        sent(321, A, B, FIN | ACK, 1, 1, 5631, 7291),
        sent(404, B, A, FIN | ACK, 1, 1, 7526, 5480),
        sent(407, A, B, ACK, 2, 2, 5707, 7526),
        sent(1418, A, B, FIN | ACK, 1, 2, 6728, 7526),
        sent(1581, B, A, ACK, 2, 2, 8706, tsecr),
    ]
    told = fed(columns(rows)).conversation(0)
    timeline = replay(told, Timers(), told.last_ns)
    others = {State.CLOSING, State.FIN_WAIT_2} - {state}
    assert entered(timeline, End.SERVER, state) is not None
    assert entered(timeline, End.SERVER, *others) is None


@pytest.mark.parametrize(
    ("echo", "state", "until", "certainty"),
    [
        ("the ACK in between", State.CLOSING, "the ACK", Certainty.PROVED),
        ("the second FIN", State.FIN_WAIT_2, "the second FIN", Certainty.PROVED),
        ("nothing", State.FIN_WAIT_2, "the second FIN", Certainty.ASSUMED),  # without timestamps
    ],
)
def test_a_fin_that_had_not_come_when_it_should_have_may_have_come_late(echo, state, until, certainty):
    # Recorded beside the server, which answers in 2 ms; the client is 150 ms away. The client's FIN was held
    # up behind the capture point for 22 ms, and came when the server had closed too. The ACK of it was lost
    # before it was captured, so that the FIN came again.
    def sent(at_ms, source, destination, flags, seq, ack, tsval, tsecr):  # noqa: PLR0917 - a row of a table
        stamps = {"has_timestamps": True, "tsval": tsval, "tsecr": tsecr} if echo != "nothing" else {}
        time_ns = START_NS + round(at_ms * MILLISECOND)
        return row(source, destination, flags, seq, ack, time_ns=time_ns, **stamps)

    tsecr = {"the ACK in between": 6176, "the second FIN": 6396, "nothing": 0}[echo]
    rows = [
        sent(0, A, B, SYN, 0, 0, 5406, 0),
        sent(2.2, B, A, SYN | ACK, 0, 1, 2293, 5406),
        sent(152, A, B, ACK, 1, 1, 5511, 2293),
        sent(644.2, A, B, FIN | ACK, 1, 1, 6050, 2293),
        sent(666.7, B, A, FIN | ACK, 1, 1, 2957, 5511),
        sent(769.8, A, B, ACK, 2, 2, 6176, 2957),
        sent(989.7, A, B, FIN | ACK, 1, 2, 6396, 2957),
        sent(991.9, B, A, ACK, 2, 2, 3282, tsecr),
    ]
    told = fed(columns(rows)).conversation(0)
    timeline = replay(told, Timers(), told.last_ns)
    assert entered(timeline, End.SERVER, state) is not None
    left = entered(timeline, End.SERVER, State.TIME_WAIT)
    assert (left.packet, left.certainty) == ({"the ACK": 6, "the second FIN": 7}[until], certainty)


def test_a_fin_may_wait_behind_data_whose_acknowledgement_was_still_on_its_way():
    # When the server acknowledges the FIN, the ACK of its data has passed the capture point and not reached
    # it: what it had left to send, and its own FIN, may wait for that.
    told = conversation(
        "C:S +198ms S:SA +4ms C:A +200ms C:FA|S:PA+1448 +4ms C:A +140ms S:A +50ms S:FA+1176 +4ms C:A"
    )
    timeline = replay(told, Timers(), told.last_ns)
    taken = entered(timeline, End.SERVER, State.CLOSE_WAIT)
    assert taken is not None
    assert taken.certainty is Certainty.ASSUMED


def test_a_fin_does_not_wait_where_the_peers_fin_acknowledged_all():
    told = conversation("C:S +198ms S:SA +4ms C:A +200ms S:PA+1448 +4ms C:FA +198ms S:A +50ms S:FA +4ms C:A")
    timeline = replay(told, Timers(), told.last_ns)
    taken = entered(timeline, End.SERVER, State.CLOSE_WAIT)
    assert taken is not None
    assert taken.certainty is Certainty.PROVED


@pytest.mark.parametrize(
    ("waits", "certainty"),
    [
        # In the recording the server had closed before: its FIN waited behind data, and the data for the
        # congestion window.
        ("S:A+1448 +2ms C:A +5ms S:FA+1176 +2ms C:A", Certainty.ASSUMED),
        (
            "S:A +50ms S:A+1448 +2ms C:A +5ms S:FA+1176 +2ms C:A",
            Certainty.PROVED,
        ),  # written after the FIN came
        ("S:A+1448 +2ms C:A +900ms S:FA +2ms C:A", Certainty.PROVED),  # nothing left to wait for
    ],
)
def test_a_fin_may_wait_behind_data_that_waits_for_the_congestion_window(waits, certainty):
    told = conversation("C:S +90ms S:SA +2ms C:A +100ms S:A+1448 +2ms C:A +300ms C:FA +90ms " + waits)
    taken = entered(replay(told, Timers(), told.last_ns), End.SERVER, State.CLOSE_WAIT)
    assert taken is not None
    assert taken.certainty is certainty


def test_data_right_behind_the_answer_to_a_fin_had_been_waiting_and_a_fin_perhaps_behind_it():
    # From a recording: the server was in CLOSING.
    told = recorded("""
          0.00 C S     0    0    0 1000/0     84
         93.80 S SA    0    1    0 1094/1000   0
         95.76 C A     1    1    0 1096/1094  85
        727.53 S A     1    1 1448 1728/1096 34
       1355.58 C FA    1 1449    0 2356/1728 16
       1445.47 S A  1449    2    0 2445/2356 36
       1445.49 S A  1449    2 1448 2445/2356 37
       1447.46 C A     2 2897    0 2447/2445 17
       1452.27 S FA 2897    2 1176 2452/2447 39
       1454.22 C A     2 4074    0 2454/2452 19
    """)
    taken = entered(replay(told, Timers(), told.last_ns), End.SERVER, State.CLOSE_WAIT)
    assert taken is not None
    assert taken.certainty is Certainty.ASSUMED


def test_where_fins_crossed_the_ack_of_one_may_have_overtaken_the_other():
    # The server's answer is late enough to know of the client's ACK: which of FIN and ACK reached it first,
    # nothing tells. (In a recording beside the kernel it was the ACK.)
    told = conversation("C:S +0.7ms S:SA +0.8ms C:A +50ms C:FA|S:FA +2.6ms C:A +0.83ms S:A", timestamps=True)
    timeline = replay(told, Timers(), told.last_ns)
    taken = entered(timeline, End.SERVER, State.CLOSING)
    assert taken is not None
    assert taken.certainty is Certainty.ASSUMED


def test_a_syn_that_by_its_time_comes_after_its_answer_is_acknowledged_all_the_same():
    # Found by fuzzing: the clock of the capture ran backwards.
    rows = [
        row(A, B, SYN, 0, 0, time_ns=START_NS + 194_639),
        row(B, A, SYN | ACK, 0, 1, time_ns=START_NS),
        row(A, B, ACK, 1, 1, time_ns=START_NS + 194_639),
        row(A, B, ACK, 1, 1, length=10, time_ns=START_NS + 200_000),
        row(B, A, ACK, 1, 11, time_ns=START_NS + 300_000),
        row(B, A, FIN | ACK, 1, 11, time_ns=START_NS + 400_000),
    ]
    told = fed(columns(rows)).conversation(0)
    timeline = replay(told, Timers(), told.last_ns)
    assert entered(timeline, End.SERVER, State.SYN_RECEIVED) is not None


def test_an_abort_soon_after_the_ack_of_a_syn_is_one_of_a_program_that_was_given_the_connection():
    # 60 ms after the ACK passed, where the server's only answer took 100: it came sooner, and did not lack.
    timeline = replay(told := conversation("C:S +100ms S:SA +1ms C:A +60ms S:RA"), Timers(), told.last_ns)
    assert entered(timeline, End.SERVER, State.ESTABLISHED) is not None


LINUX = {"has_timestamps": True, "syn_options": 0x24813}


def linux(at_ms, source, destination, flags, **fields):
    """Return a row of an endpoint that runs Linux, as its SYN's options show."""
    options = LINUX if flags & SYN else {"has_timestamps": True}
    time_ns = START_NS + round(at_ms * MILLISECOND)
    return row(source, destination, flags, time_ns=time_ns, **options, **fields)


@pytest.mark.parametrize(("stamped_ms", "certainty"), [(0, Certainty.ASSUMED), (22, Certainty.PROVED)])
def test_a_fin_stamped_as_the_ack_before_it_may_have_waited_however_late_it_passes(stamped_ms, certainty):
    # The server retransmits data, and its FIN waits behind that; the client's ACKs are lost before they are
    # captured. Its FIN acknowledges all, and the ACK and the FIN of the server leave at once. The FIN is held
    # up for 22 ms before it is captured: by its timestamp alone no program needed that time.
    rows = [
        linux(0, A, B, SYN, ip_id=63, tsval=2759),
        linux(36.4, B, A, SYN | ACK, ack=1, tsval=3577, tsecr=2759),
        linux(72.9, A, B, ACK, seq=1, ack=1, ip_id=64, tsval=2832, tsecr=3577),
        linux(160, B, A, ACK, seq=1, ack=1, length=10, ip_id=53, tsval=3700, tsecr=2832),
        linux(471, B, A, ACK, seq=1, ack=1, length=10, ip_id=54, tsval=4012, tsecr=2832),
        linux(1555, A, B, FIN | ACK, seq=1, ack=11, ip_id=83, tsval=4315, tsecr=4012),
        linux(1592, B, A, ACK, seq=11, ack=2, ip_id=55, tsval=5132, tsecr=4315),
        linux(1614, B, A, FIN | ACK, seq=11, ack=2, ip_id=56, tsval=5132 + stamped_ms, tsecr=4315),
        linux(1650, A, B, ACK, seq=2, ack=12, ip_id=84, tsval=4410, tsecr=5132 + stamped_ms),
    ]
    told = fed(columns(rows)).conversation(0)
    moved = entered(replay(told, Timers(), told.last_ns), End.SERVER, State.CLOSE_WAIT)
    assert moved.certainty is certainty


def test_an_ack_that_passed_behind_a_fin_is_not_proved_to_have_come_before_it():
    # Recorded beside the client, 110 ms from the server. The client's FIN, and its ACK of the server's, pass
    # while an ACK of the server's that does not know of them is on its way. So both came after that was sent,
    # and in their order, unless one overtook the other.
    rows = [
        linux(0, A, B, SYN, ip_id=65, tsval=7612),
        linux(108.2, B, A, SYN | ACK, ack=1, tsval=5931, tsecr=7612),
        linux(110.6, A, B, ACK, seq=1, ack=1, ip_id=66, tsval=7723, tsecr=5931),
        linux(240.8, A, B, ACK, seq=1, ack=1, length=5, ip_id=67, tsval=7853, tsecr=5931),
        linux(270.1, B, A, FIN | ACK, seq=1, ack=1, ip_id=47, tsval=6093, tsecr=7723),
        linux(271.4, A, B, FIN | ACK, seq=6, ack=1, ip_id=68, tsval=7883, tsecr=5931),
        linux(272.6, A, B, ACK, seq=7, ack=2, ip_id=69, tsval=7885, tsecr=6093),
        linux(348.9, B, A, ACK, seq=2, ack=6, ip_id=48, tsval=6172, tsecr=7853),
        linux(380.1, B, A, ACK, seq=2, ack=7, ip_id=49, tsval=6203, tsecr=7883),
        linux(710.5, A, B, FIN | ACK, seq=6, ack=2, ip_id=70, tsval=8323, tsecr=6172),
        linux(818.8, B, A, ACK, seq=2, ack=7, ip_id=0, tsval=6642, tsecr=7885),
    ]
    told = fed(columns(rows)).conversation(0)
    timeline = replay(told, Timers(), told.last_ns)
    assert entered(timeline, End.SERVER, State.FIN_WAIT_2) is None
    for state in (State.CLOSING, State.TIME_WAIT):
        assert entered(timeline, End.SERVER, state).certainty is Certainty.ASSUMED


@pytest.mark.parametrize(("echoed", "state"), [(262, State.CLOSING), (473, State.LAST_ACK)])
def test_a_fin_whose_echo_is_older_than_the_peers_second_fin_did_not_answer_that(echoed, state):
    # The client's FIN, and its ACK of the server's, were lost before the capture point: its numbers step by
    # three. Its second FIN passes after the server's second; only the echo tells that it had not come.
    rows = [
        linux(0, A, B, SYN, ip_id=11, tsval=386),
        linux(0.5, B, A, SYN | ACK, ack=1, tsval=531, tsecr=386),
        linux(3.8, A, B, ACK, seq=1, ack=1, ip_id=12, tsval=394, tsecr=531),
        linux(732.5, B, A, FIN | ACK, seq=1, ack=1, ip_id=49, tsval=262 + 1000, tsecr=394),
        linux(933.0, B, A, FIN | ACK, seq=1, ack=1, ip_id=50, tsval=473 + 1000, tsecr=394),
        linux(935.0, A, B, FIN | ACK, seq=1, ack=2, ip_id=15, tsval=1334, tsecr=echoed + 1000),
        linux(937.0, B, A, ACK, seq=2, ack=2, ip_id=51, tsval=1476, tsecr=1334),
    ]
    told = fed(columns(rows)).conversation(0)
    assert entered(replay(told, Timers(), told.last_ns), End.CLIENT, state) is not None


def test_the_first_repetition_of_a_fin_is_a_tail_loss_probe():
    # Three packets of the server went unseen: its ACK of the client's FIN, and its FIN twice. The second is
    # the probe (RFC 8985 7), the third, 200 ms after that, the one that is seen: so it closed second.
    rows = [
        linux(0, A, B, SYN, ip_id=11, tsval=386),
        linux(0.1, B, A, SYN | ACK, ack=1, tsval=531, tsecr=386),
        linux(0.4, A, B, ACK, seq=1, ack=1, ip_id=12, tsval=386, tsecr=531),
        linux(400, B, A, ACK, seq=1, ack=1, length=10, ip_id=40, tsval=931, tsecr=386),
        linux(400.3, A, B, ACK, seq=1, ack=11, ip_id=13, tsval=786, tsecr=931),
        linux(940, A, B, FIN | ACK, seq=1, ack=11, ip_id=14, tsval=1326, tsecr=931),
        linux(1499, B, A, FIN | ACK, seq=11, ack=2, ip_id=44, tsval=2030, tsecr=1326),
        linux(1499.3, A, B, ACK, seq=2, ack=12, ip_id=15, tsval=1885, tsecr=2030),
    ]
    told = fed(columns(rows)).conversation(0)
    assert entered(replay(told, Timers(), told.last_ns), End.SERVER, State.LAST_ACK) is not None


def of(text: str, end: End, *, since: State = State.ESTABLISHED):
    """Return the states of an endpoint after another one, out of a recording beside the kernel."""
    told = recorded(text)
    states = [t.after for t in replay(told, Timers(), told.last_ns).transitions if t.endpoint is end]
    return states[states.index(since) + 1 :]


def test_where_the_peers_fin_had_been_lost_an_ack_after_it_is_not_assumed_to_arrive():
    # All three copies of the server's FIN: the client's RST does not acknowledge it. Whether the ACK can have
    # come before the RST is open.
    told = conversation(
        "C:S +2ms S:SA +73ms C:A ~ +0.3s S:FA! +0.3s S:FA*! +0.3s S:FA*! +0.2s C:FA +2ms S:A! +77ms C:RA"
    )
    timeline = replay(told, Timers(), told.last_ns)
    assert entered(timeline, End.CLIENT, State.FIN_WAIT_2) is None


def test_unless_another_transmission_is_reported_to_have_come_behind_a_hole():
    told = conversation("C:S S:SA C:A ~ C:PA+5! C:FA+45! +70ms S:FA +1ms C:A +1.8s C:FA* S:A")
    timeline = replay(told, Timers(), told.last_ns)
    assert entered(timeline, End.SERVER, State.FIN_WAIT_2) is not None


def test_a_fin_behind_a_hole_that_is_never_filled_was_not_taken():
    timeline = run("S:PA+50? S:FA|C:FA +0.1s S:R")
    assert entered(timeline, End.CLIENT, State.CLOSING) is None


def test_an_endpoint_that_acknowledges_a_fin_without_a_socket_had_the_ack_of_its_own_before():
    # The FINs crossed, and the ACK of one overtook the other beyond the capture point.
    told = """
          0.00 C S     0   0    0 1000/0    482
          0.13 S SA    0   1    0 1000/1000   0
          1.70 C A     1   1    0 1002/1000 483
        290.71 C PA    1   1    5 1291/1002 485
        290.80 S A     1   6    0 1291/1291 020
        874.69 S FA    1   6    0 1875/1291 022
        875.48 C FA    6   1    0 1876/1291 487
        875.57 S A     2   7    0 1876/1876 023
        879.04 C A     7   2    0 1879/1875   0
    """
    assert of(told, End.CLIENT) == [State.FIN_WAIT_1, State.FIN_WAIT_2, State.TIME_WAIT]
    with_socket = told.replace("1879/1875   0", "1879/1875 488")
    assert of(with_socket, End.CLIENT) == [State.FIN_WAIT_1, State.CLOSING, State.TIME_WAIT]


TAKEN_TWICE = """
      0.00 C S     0   0    0 1000/0    956
    159.04 S SA    0   1    0 1000/1000   0
    162.37 C A     1   1    0 1162/1000 957
    372.09 S FA    1   1    0 1213/1162 805
    863.79 S FA    1   1    0 1705/1162 806
    867.25 C A     2   2    0 1867/1705 959
    918.03 C FA    1   2    0 1918/1705 960
   1077.06 S A     2   2    0 1918/1918   0
"""


def test_linux_says_where_a_fin_came_twice_so_one_that_it_does_not_report_was_the_first():
    # The client's FIN went out between the two; its first copy was lost before the capture point.
    assert of(TAKEN_TWICE, End.CLIENT)[:2] == [State.FIN_WAIT_1, State.CLOSING]
    reported = TAKEN_TWICE.replace(
        "867.25 C A     2   2    0 1867/1705 959", "867.25 C A 2 2 0 1867/1705 959 twice 1-2"
    )
    assert of(reported, End.CLIENT)[:1] == [State.CLOSE_WAIT]


def test_where_the_answer_to_a_transmission_is_missing_that_to_an_earlier_one_may_be_as_well():
    # The server's FIN echoes the last copy, but half a second after it: its ACK was lost unseen.
    told = recorded("""
          0.00 C S     0   0    0 1000/0    180
          0.27 S SA    0   1    0 1000/1000   0
          0.57 C A     1   1    0 1001/1000 181
        150.37 C FA    1   1    0 1150/1000 182
        354.35 C FA    1   1    0 1355/1000 183
        562.38 C FA    1   1    0 1563/1000 184
       1002.46 C FA    1   1    0 2003/1000 185
       1498.36 S FA    1   2    0 2499/2003 863
       1498.62 C A     2   2    0 2499/2499 186
    """)
    taken = entered(replay(told, Timers(), told.last_ns), End.SERVER, State.CLOSE_WAIT)
    assert (taken.packet, taken.certainty) == (4, Certainty.ASSUMED)


@pytest.mark.parametrize(("answered", "states"), [("0.14", [State.FIN_WAIT_1, State.CLOSING]), ("7", [])])
def test_a_fin_within_80_us_of_an_immediate_ack_had_waited_behind_lost_data(answered, states):
    # The server's byte is repeated until the client's FIN acknowledges it. ACK and FIN follow within 10 us.
    at = 1211.17 + float(answered)
    told = f"""
          0.00 C S     0   0    0 1000/0    342
          0.09 S SA    0   1    0 1000/1000   0
          0.42 C A     1   1    0 1001/1000 343
        136.42 S PA    1   1    1 1136/1001 045
        342.96 S PA    1   1    1 1343/1001 046
        635.13 S PA    1   1    1 1635/1001 047
       1211.08 S PA    1   1    1 2211/1001 048
       1211.17 C FA    1   2    0 2212/1635 350
       {at:.2f} S A     2   2    0 2211/2212 049
       {at + 0.01:.2f} S FA    2   2    0 2211/2212 050
       {at + 0.40:.2f} C A     2   3    0 2212/2211 352
    """
    assert of(told, End.SERVER)[: len(states)] == states
    one = recorded(told)
    taken = entered(replay(one, Timers(), one.last_ns), End.SERVER, State.CLOSE_WAIT)
    assert taken is None or taken.certainty is Certainty.ASSUMED  # the FIN may have waited


def test_a_number_that_comes_with_traffic_was_a_byte_and_no_fin():
    told = """
          0.00 C S     0   0    0 1000/0    191
          2.39 S SA    0   1    0 1000/1000   0
          2.74 C A     1   1    0 1003/1000 192
         87.07 C PA    1   1    1 1088/1000 193
         89.43 S A     2   2    0 1087/1088 310
        268.12 S PA    1   2    1 1266/1088 311
        268.23 C A     2   2    0 1269/1266 194
        452.05 S RA    2   2    0 1449/1269 312
    """
    assert of(told, End.SERVER) == of(told, End.CLIENT) == [State.CLOSED]


def test_time_wait_echoes_the_fin_that_it_took_so_another_had_been_answered_uncaptured():
    # The client answers the server's second FIN without a socket, and echoes the first: that brought it the
    # acknowledgement of its own, not the ACK before. (In a recording beside the kernel that was lost.)
    told = recorded("""
          0.00 C S     0   0    0 1000/0    016
          0.42 S SA    0   1    0 1000/1000   0
          0.48 C A     1   1    0 1001/1000 017
        522.28 C FA    1   1    0 1523/1000 022
        567.05 S A     1   2    0 1567/1523 768
        652.58 S FA    1   2    0 1652/1523 769
        730.92 C FA    1   1    0 1732/1000 023
        731.22 S A     2   2    0 1731/1732 770 twice 1-2
        859.08 S FA    1   2    0 1859/1732 771
       1071.08 S FA    1   2    0 2071/1732 772
       1071.14 C A     2   2    0 2072/1859   0
    """)
    heard = entered(replay(told, Timers(), told.last_ns), End.CLIENT, State.FIN_WAIT_2)
    assert heard.packet == 9


def test_an_endpoint_that_is_silent_has_no_acknowledgement_where_the_peer_goes_on_without_its_fin():
    told = """
          0.00 C S     0   0    0 1000/0    537
          0.33 S SA    0   1    0 1000/1000   0
          0.61 C A     1   1    0 1001/1000 538
        933.20 C FA    1   1    0 1933/1000 539
       1143.36 C FA    1   1    0 2144/1000 540
       1700.99 S FA    1   1    0 2700/1001 579
       1701.30 C A     2   2    0 2701/2700 542
       1799.48 C FA    1   2    0 2800/2700 543
       1907.35 S FA    1   1    0 2907/1001 580
       1907.63 C A     2   2    0 2908/2907 544 twice 1-2
       2664.72 C FA    1   2    0 3664/2907 547
       3495.56 S FA    1   1    0 4495/1001 583
       3495.87 C A     2   2    0 4496/4495 548 twice 1-2
       5287.59 S FA    1   1    0 6287/1001 584
       5287.87 C A     2   2    0 6288/6287 550 twice 1-2
    """
    assert of(told, End.CLIENT) == [State.FIN_WAIT_1, State.CLOSING]


def test_a_reset_at_the_number_of_the_fin_does_not_end_time_wait():
    # The client's ACKs passed each other; the older one is answered with the RST.
    told = """
          0.00 C S     0   0    0 1000/0    295
         62.52 S SA    0   1    0 1000/1000   0
         89.33 C A     1   1    0 1089/1000 296
        249.68 C FA    1   1    0 1249/1000 298
        315.79 S A     1   2    0 1254/1249 546
        319.86 S PA    1   2    5 1258/1249 547
        349.61 S FA    6   2    0 1287/1249 548
        376.53 C A     2   7    0 1376/1287 300
        387.60 C A     2   6    0 1346/1258 299
        450.25 S R     6   0    0 -           0
    """
    assert of(told, End.CLIENT) == [State.FIN_WAIT_1, State.FIN_WAIT_2, State.TIME_WAIT]


@pytest.mark.parametrize(("ip_id", "certainty"), [(298, Certainty.ASSUMED), (297, Certainty.PROVED)])
def test_a_fin_kept_back_by_lost_data_may_have_been_sent_uncaptured_when_that_was_acknowledged(
    ip_id, certainty
):
    # The server's FIN acknowledges what the client repeated. A packet of the client went unseen after that:
    # in the recording, its FIN, which had waited. So it was in CLOSING.
    told = recorded(f"""
          0.00 C S     0    0    0 1000/0    284
          0.72 S SA    0    1    0 1000/1000   0
          1.10 C A     1    1    0 1001/1000 285
        373.00 C PA    1    1 1176 1374/1000 293
        579.94 C PA    1    1 1176 1581/1000 295
        979.97 S FA    1 1177    0 1980/1581 180
        980.49 C A  1177    2    0 1981/1980 296
       1363.94 C FA 1177    2    0 2365/1980 {ip_id}
       1364.40 S A     2 1178    0 2365/2365 181
    """)
    taken = entered(replay(told, Timers(), told.last_ns), End.CLIENT, State.CLOSE_WAIT)
    assert taken is None or taken.certainty is certainty


def at_once(lost: int) -> Certainty:
    """Return how sure it is that the server closed second, if so many of its packets were not captured."""
    told = recorded(f"""
          0.00 C S     0   0    0 1000/0    653
          0.01 S SA    0   1    0 1000/1000   0
          0.02 C A     1   1    0 1000/1000 654
         54.66 S PA    1   1    5 1054/1000 169
         54.67 C A     1   6    0 1054/1054 655
        183.35 S PA    6   1    5 1183/1054 170
        183.36 C A     1  11    0 1183/1183 656
        686.59 C FA    1  11    0 1686/1183 657
        892.91 C FA    1  11    0 1893/1183 658
        892.92 S A    11   2    0 1893/1893 {171 + lost}
        892.94 S FPA  11   2    0 1893/1893 {172 + lost}
        892.95 C A     2  12    0 1893/1893   0
    """)
    return entered(replay(told, Timers(), told.last_ns + SECOND * 5), End.SERVER, State.CLOSE_WAIT).certainty


def test_an_answer_that_comes_after_uncaptured_packets_may_come_from_an_endpoint_that_had_closed():
    # From a recording: the server had closed 0.5 s before, and its own host had dropped that FIN twice.
    assert at_once(lost=0) is Certainty.PROVED
    assert at_once(lost=2) is Certainty.ASSUMED


def test_an_end_that_answers_a_syn_with_a_plain_ack_had_received_a_syn_ack():
    # Both opened. The client's SYN and its first SYN+ACK were lost, so the server never was in SYN_RECEIVED:
    # it repeats its SYN, and then acknowledges without one.
    told = recorded("""
          0.00 C S     0   0    0 1000/0      1
          0.03 S S     0   0    0 5000/0      1
          0.05 C SA    0   1    0 1000/5000   0
       1011.45 S S     0   0    0 6011/0      2
       1011.50 C SA    0   1    0 2011/6011   0
       1011.52 S A     1   1    0 6011/2011   3
       2735.70 C FA    1   1    0 3735/6011   2
       2735.72 S A     1   2    0 7735/3735   4
    """)
    timeline = replay(told, Timers(), told.last_ns)
    moves = [t for t in timeline.transitions if t.endpoint is End.SERVER]
    assert [t.after for t in moves] == [State.SYN_SENT, State.ESTABLISHED, State.CLOSE_WAIT]
    assert (moves[1].packet, moves[1].certainty) == (5, Certainty.PROVED)
    assert [s.arrived for s in timeline.steps if s.packet in (1, 3)] == [Arrival.NO, Arrival.NO]


def test_an_end_that_received_data_with_a_syn_may_send_and_close_in_syn_received():
    # Fast Open (RFC 7413 4.2.2). Recorded beside the client: its ACK passes before the answer, which had been
    # sent long before that ACK came.
    told = recorded("""
          0.00 C S     0   0    5 1000/0      1
         80.59 S SA    0   6    0 5040/1000   0
         80.63 C A     6   1    0 1081/5040   2
         80.80 S PA    1   6    6 5040/1000   1
         80.81 C A     6   7    0 1081/5040   3
         80.84 S FA    7   6    0 5040/1000   2
        122.96 C A     6   8    0 1123/5040   4
        183.26 C FA    6   8    0 1183/5040   5
        281.94 S A     8   7    0 5241/1183   3
    """)
    timeline = replay(told, Timers(), told.last_ns)
    assert entered(timeline, End.SERVER, State.ESTABLISHED).certainty is Certainty.ASSUMED
    assert entered(timeline, End.SERVER, State.FIN_WAIT_1).certainty is Certainty.OBSERVED


def test_a_window_probe_is_not_lost_because_its_timestamp_is_not_echoed():
    # Its number is old, so the receiver answers it, and keeps nothing of it.
    told = recorded("""
          0.00 C S     0   0    0 1000/0      1
          0.04 S SA    0   1    0 5000/1000   0
          0.05 C A     1   1    0 1000/5000   2
         10.00 C PA    1   1    5 1010/5000   3
         10.02 S A     1   6    0 5010/1010   7
       1000.48 S FA    1   6    0 6000/1010   8
       1042.52 C A     6   2    0 2042/6000   4
       1834.50 C A     5   2    0 2834/6000   5
       1834.56 S A     2   6    0 6835/2042   9
       2500.83 S A     2   6    0 7501/2042  10
    """)
    (probe,) = (s for s in replay(told, Timers(), told.last_ns) if s.packet == 8)
    assert (probe.arrived, probe.note) == (Arrival.ASSUMED, "keepalive or window probe")


def test_a_segment_that_a_fin_overtook_is_no_old_duplicate():
    told = recorded("""
          0.00 C S     0   0    0 1000/0      1
          0.04 S SA    0   1    0 5000/1000   0
         60.62 C A     1   1    0 1061/5000   2
        212.54 C FA  101   1    0 1183/5000   4
        212.58 S A     1   1    0 5212/1061   7 sack 102
        232.44 C PA    1   1  100 1182/5000   3
        232.48 S A     1 102    0 5232/1182   8
    """)
    timeline = replay(told, Timers(), told.last_ns)
    (overtaken,) = (s for s in timeline.steps if s.packet == 6)
    assert overtaken.note is not None
    assert "out of order" in overtaken.note


def test_the_ack_of_a_fin_may_overtake_another_fin_that_comes_late():
    # Recorded from the server's FIN on; that was held up beyond the capture point, and the ACK behind it came
    # first. The client answers without a socket: it was in FIN_WAIT_2 before TIME_WAIT, not in CLOSING.
    told = recorded("""
          0.00 S FA    1   1    0 2690/4856 505
         30.09 C FA    1   1    0 4916/2600 348
         30.13 S A     2   2    0 2720/4916 506
        160.50 C A     2   2    0 5046/2690   0
    """)
    taken = entered(replay(told, Timers(), told.last_ns), End.CLIENT, State.CLOSING)
    assert taken is None or taken.certainty is Certainty.ASSUMED
