"""Inference held against the kernel: on the committed captures, and on answers that were tampered with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from closeseq.connections.conversation import Address, End
from closeseq.lab.agreement import Recording, agreement, views
from closeseq.lab.experiments import experiments
from closeseq.lab.kernel_answers import Answers, Move, by_ends
from closeseq.linux.tracepoint import SocketTransition
from closeseq.tcp.states import State
from places import CAPTURES

NAMES = sorted(path.name.removesuffix(".kernel.jsonl") for path in CAPTURES.glob("*.kernel.jsonl"))


def recording(name):
    return Recording(CAPTURES / f"{name}.pcap", experiments()[name].settings)


def answers(name):
    return Answers.read(CAPTURES / f"{name}.kernel.jsonl")


def compared(name, said):
    return agreement(recording(name), said)


def with_state(said, step, state):
    """Return answers in which the first socket of a step is in another state."""
    moment = said.moments[step]
    first, *others = moment.sockets
    said.moments[step] = replace(moment, sockets=(replace(first, state=state), *others))
    return said


@pytest.mark.parametrize("name", NAMES)
def test_what_a_capture_tells_is_what_the_kernel_said(name):
    agreed = compared(name, answers(name))
    assert agreed.wrong == []
    assert agreed.moments


@pytest.mark.parametrize("name", NAMES)
def test_the_answers_are_read_as_they_were_written(name, tmp_path):
    answers(name).write(tmp_path / "again")
    assert Answers.read(tmp_path / "again") == answers(name)
    assert (tmp_path / "again").read_text() == (CAPTURES / f"{name}.kernel.jsonl").read_text()


def test_the_kernels_transitions_are_kept_too():
    with_transitions = [name for name in NAMES if answers(name).moves]
    assert len(with_transitions) > len(NAMES) // 2
    assert {move.after for name in with_transitions for move in answers(name).moves} >= {
        *(State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSING, State.CLOSE_WAIT),
        *(State.LAST_ACK, State.SYN_SENT, State.SYN_RECEIVED, State.CLOSED),
    }


def test_another_state_in_the_kernels_table_is_a_disagreement():
    agreed = compared("slow-close", with_state(answers("slow-close"), 0, State.ESTABLISHED))
    assert len(agreed.wrong) == 1
    assert "kernel ESTABLISHED" in agreed.wrong[0]


def test_a_transition_that_the_kernel_did_not_make_is_one():
    said = answers("client-interrupted")
    said.moves = [move for move in said.moves if move.after is not State.CLOSE_WAIT]
    agreed = compared("client-interrupted", said)
    assert len(agreed.wrong) == 1
    assert "server" in agreed.wrong[0]


def test_a_certain_transition_that_the_kernel_did_not_make_is_told_as_such():
    said = answers("client-interrupted")
    said.moves = [move for move in said.moves if move.after is not State.FIN_WAIT_1]
    assert "was called observed" in "".join(compared("client-interrupted", said).wrong)


def test_what_packets_cannot_tell_must_be_declared():
    said = answers("fin-behind-window")
    assert compared("fin-behind-window", said).hidden
    said.moments = [replace(moment, hidden={}) for moment in said.moments]
    agreed = compared("fin-behind-window", said)
    assert not agreed.hidden
    assert "kernel FIN_WAIT_1" in agreed.wrong[0]


def test_and_must_not_be_declared_where_packets_do_tell():
    said = answers("slow-close")
    said.moments = [replace(moment, hidden={End.SERVER: "who knows"}) for moment in said.moments]
    assert any(
        "packets show a state" in line and "who knows" in line for line in compared("slow-close", said).wrong
    )


def test_a_timer_that_runs_out_at_another_time_is_a_disagreement():
    said = answers("client-interrupted")
    moment = said.moments[-1]
    (waiting,) = moment.sockets
    assert waiting.state is State.TIME_WAIT
    said.moments[-1] = replace(moment, sockets=(replace(waiting, expires_ms=waiting.expires_ms - 5000),))
    assert "inferred to last" in "".join(compared("client-interrupted", said).wrong)


def test_an_assumption_that_later_packets_put_right_is_counted():
    agreed = compared("final-ack-lost", answers("final-ack-lost"))
    assert agreed.revised
    assert not agreed.wrong


def test_a_moment_shows_the_connections_of_then():
    said = answers("time-wait-reused")
    whole = recording("time-wait-reused").until()
    shown = [{view.connection.id for view in views(whole, moment)} for moment in said.moments]
    assert shown[0] == {1}
    assert shown[-1] == {2}


def test_without_the_tracepoint_sequences_are_not_compared():
    said = answers("client-interrupted")
    said.moves = None
    assert compared("client-interrupted", said).sequences is None


def test_moves_of_other_connections_do_not_count():
    said = answers("client-interrupted")
    last = said.moves[-1]
    said.moves.append(Move(last.time_ns, 1, 2, State.CLOSED, State.SYN_SENT))
    assert compared("client-interrupted", said).wrong == []


def traced(time_ns, local, remote, before, after):
    ends = Address("127.0.0.1", local), Address("127.0.0.1", remote)
    return SocketTransition(time_ns, *ends, State(before), State(after), 0xFFFF8881)


def test_a_socket_that_follows_in_the_same_memory_does_not_take_what_was_traced_of_the_one_before():
    own = [
        traced(1, 0, 8080, "CLOSED", "SYN_SENT"),  # it has no port yet
        traced(2, 20001, 8080, "SYN_SENT", "ESTABLISHED"),
        traced(3, 20001, 8080, "ESTABLISHED", "CLOSED"),
    ]
    # Of another program's only what comes after its first transition passes the filter for ports.
    foreign = [traced(9, 20001, 443, "SYN_SENT", "ESTABLISHED")]
    assert by_ends([*own, *foreign]) == {(20001, 8080): own, (20001, 443): foreign}
    accepted = [traced(11, 8080, 20002, "SYN_RECEIVED", "ESTABLISHED")]
    assert by_ends([*own, *accepted]) == {(20001, 8080): own, (8080, 20002): accepted}
