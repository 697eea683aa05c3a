"""Was it received? One test for each kind of evidence, strongest first, and for what each may not say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import closeseq
from closeseq.connections.conversation import End
from closeseq.packets.flags import ACK, FIN, SYN
from closeseq.script import conversation
from closeseq.tcp.replay import replay
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Arrival, Certainty
from closeseq.tcp.timers import SECOND, Timers
from segment_rows import MILLISECOND, START_NS, A, B, columns, fed, row

OPEN = "C:S S:SA C:A ~ "


def run(script: str, *, after: float = 0.0, timestamps: bool = False):
    told = conversation(OPEN + script, timestamps=timestamps)
    return replay(told, Timers(), told.last_ns + round(after * SECOND))


def fins(timeline, end: End):
    return [s for s in timeline if s.sender is end and "F" in s.flags]


def entered(timeline, end: End, state: State):
    """Return the transition of an end into a state; None if it was never there."""
    return next((t for t in timeline.transitions if t.endpoint is end and t.after is state), None)


def test_a_later_acknowledgement_proves_that_a_fin_arrived():
    timeline = run("C:FA S:A")
    assert fins(timeline, End.CLIENT)[0].arrived is Arrival.PROVED


def test_an_acknowledgement_below_it_proves_that_a_fin_had_not_arrived():
    timeline = run("C:FA! +0.1s S:A+10 C:A +0.1s C:FA* S:A")
    first, second = fins(timeline, End.CLIENT)
    assert (first.arrived, second.arrived) == (Arrival.NO, Arrival.PROVED)
    assert entered(timeline, End.SERVER, State.CLOSE_WAIT).packet == second.packet


def test_a_timestamp_echo_tells_which_of_several_copies_got_through():
    lost_first = run("C:FA! +0.2s C:FA* S:A", timestamps=True)
    assert [s.arrived for s in fins(lost_first, End.CLIENT)] == [Arrival.NO, Arrival.PROVED]
    lost_answer = run("C:FA S:A? +0.2s C:FA* S:A", timestamps=True)
    assert fins(lost_answer, End.CLIENT)[1].arrived in (Arrival.PROVED, Arrival.ASSUMED)


def test_without_timestamps_which_of_several_copies_got_through_is_only_assumed():
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


def test_an_end_that_goes_on_after_a_reset_did_not_receive_it():
    timeline = run("C:RA! +0.5s S:A+100")
    reset = next(s for s in timeline if "R" in s.flags)
    assert reset.arrived is Arrival.NO
    assert reset.server is State.ESTABLISHED


def test_what_was_under_way_when_a_reset_was_sent_is_no_sign_that_it_did_not_arrive():
    told = conversation("C:S +50ms S:SA C:A ~ S:A+100|C:RA +30ms S:A+0", gap_ns=100_000)
    timeline = replay(told, Timers(), told.last_ns)
    assert timeline.state(End.SERVER) is State.CLOSED


def test_an_end_that_answers_with_reset_was_gone_since_the_first_data_it_left_unanswered():
    timeline = run("S:A+10! +0.2s S:A+10*! +0.4s S:A+10* C:R")
    gone = entered(timeline, End.CLIENT, State.CLOSED)
    reset = next(s for s in timeline if "R" in s.flags)
    assert (gone.packet, gone.certainty) == (reset.packet, Certainty.ASSUMED)
    assert reset.time_ns - gone.time_ns >= 0.6 * SECOND


def test_an_end_that_had_closed_is_gone_only_when_it_answers_data_with_reset():
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


def test_a_number_past_everything_seen_betrays_a_fin_that_was_not_captured():
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
    capture = str(Path(__file__).resolve().parent.parent / "captures" / "time-wait-assassinated.pcap")
    timeline = closeseq.analyze(capture)[0].timeline
    closed = entered(timeline, End.CLIENT, State.CLOSED)
    assert closed.packet == 11
    assert "old duplicate" in next(s.note for s in timeline if s.packet == 12)


def test_a_reset_after_unanswered_keepalives_is_not_assumed_to_have_arrived():
    capture = str(Path(__file__).resolve().parent.parent / "captures" / "keepalive-unanswered.pcap")
    timeline = closeseq.analyze(capture)[0].timeline
    assert timeline.state(End.SERVER) is State.ESTABLISHED
    assert timeline.steps[-1].arrived is Arrival.NO


def test_what_a_fin_that_was_never_captured_did_is_assumed():
    timeline = run("(C:FA) S:A +2s S:A+10 C:A", after=2)
    assert entered(timeline, End.SERVER, State.CLOSE_WAIT).certainty is Certainty.ASSUMED


def test_a_segment_that_waited_before_the_tap_does_not_contradict_what_came_meanwhile():
    capture = str(Path(__file__).resolve().parent.parent / "captures" / "simultaneous-close.pcap")
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


def test_an_end_is_still_there_only_if_it_speaks_when_its_repetition_is_overdue():
    assert run("C:FA! S:FA C:A", after=5).state(End.CLIENT) is State.CLOSING


def test_an_answer_without_a_socket_shows_that_the_fin_had_been_acknowledged_before():
    told = conversation(OPEN + "C:FA! S:FA C:A! +0.2s S:FA* C:A +0.1s C:FA* S:A")
    counted = replay(told, Timers(), told.last_ns)
    assert entered(counted, End.SERVER, State.FIN_WAIT_2).packet == fins(counted, End.CLIENT)[1].packet
    without = replace(told, steps=(*told.steps[:-1], replace(told.steps[-1], ip_id=0)))
    known = entered(replay(without, Timers(), told.last_ns), End.SERVER, State.FIN_WAIT_2)
    assert known.packet == acks(counted, End.CLIENT)[2].packet
    assert known.certainty is Certainty.ASSUMED


def test_answers_that_were_not_captured_tell_that_the_first_of_several_copies_arrived():
    told = conversation("C:S S:SA C:A C:FA S:A? +0.2s C:FA* S:A", timestamps=True)
    received = entered(replay(told, Timers(), told.last_ns), End.SERVER, State.CLOSE_WAIT)
    assert (received.packet, received.certainty) == (4, Certainty.ASSUMED)


def test_a_fin_repeated_without_answer_arrived_if_the_connection_loses_segments_before_the_capture():
    timeline = run("C:FA? +0.2s C:FPA* S:A? +0.2s C:FA* S:A? +0.4s C:FA* S:A?")
    assert entered(timeline, End.SERVER, State.CLOSE_WAIT).certainty is Certainty.ASSUMED


def test_an_end_that_answers_the_ack_of_its_fin_with_rst_had_left_fin_wait_1_before():
    # It aborted, and that RST was lost before the capture point: a socket would have taken the ACK.
    timeline = run("S:FA +80ms C:A +40ms S:R", after=1)
    assert entered(timeline, End.SERVER, State.FIN_WAIT_2) is None
    assert entered(timeline, End.SERVER, State.CLOSED) is not None


def test_an_end_that_answers_a_second_ack_with_rst_may_have_been_in_fin_wait_2():
    timeline = run("S:FA +80ms C:A +80ms C:A +40ms S:R", after=1)
    assert entered(timeline, End.SERVER, State.FIN_WAIT_2) is not None


def test_a_fin_that_is_answered_with_rst_was_not_taken_also_where_it_comes_again():
    timeline = run("S:FA C:R! +200ms S:FA C:R", after=1)
    assert entered(timeline, End.CLIENT, State.CLOSE_WAIT) is None


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
    """Return a row of an end that runs Linux, as its SYN's options tell."""
    options = LINUX if flags & SYN else {"has_timestamps": True}
    time_ns = START_NS + round(at_ms * MILLISECOND)
    return row(source, destination, flags, time_ns=time_ns, **options, **fields)


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
