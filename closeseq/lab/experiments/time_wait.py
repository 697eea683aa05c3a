"""What TIME_WAIT is for, and what can happen to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.lab import actions
from closeseq.lab.actions import echo, read_to_end
from closeseq.lab.experiments.losses import PURE_ACK, TO_CLIENT, server_closes_up_to_last_ack
from closeseq.lab.kernel_answers import PORT
from closeseq.lab.network import losing, set_parameter
from closeseq.lab.registry import experiment
from closeseq.settings import SECOND
from closeseq.tcp.states import State

ANY_SEGMENT = "Linux begins 2MSL anew with any segment that reaches TIME_WAIT, and not only with a FIN"

if TYPE_CHECKING:
    from scapy.packet import Packet

    from closeseq.lab.bench import Bench


def asking(segment: Packet) -> bool:
    """Whether it is the client's question."""
    return segment.dport == PORT and b"hello" in bytes(segment.payload)


def check_restarted(bench: Bench, end: End, before_ns: int | None) -> None:
    """State that 2MSL has begun anew: the kernel's timer runs out later than it did before.

    Args:
        bench: of the experiment, after the step that restarts it.
        end: the endpoint in TIME_WAIT.
        before_ns: when the timer would have run out before, since the Unix epoch; None: it did not run.
    """
    now_ns = bench.end(end).clock_ns
    later = (now_ns or 0) - (before_ns or 0)
    bench.check(
        f"the kernel's 2MSL of the {end} has begun anew: it ends {later / SECOND:.1f} s later than before",
        before_ns and later > SECOND // 20,
    )


@experiment("graceful", "server", "bind-blocked final-ack-lost time-wait-restarted", needs="nft")
def final_ack_lost(bench: Bench) -> None:
    """The final ACK is lost until the client has sent its FIN four times; the next ACK gets through.

    This is what TIME_WAIT is for: the server acknowledges each repeated FIN, and 2MSL begins anew. All its
    ACKs echo the timestamp of the *first* FIN: TIME_WAIT does not take over that of a repetition.
    """
    client, _ = server_closes_up_to_last_ack(bench)
    with losing(f"{TO_CLIENT} {PURE_ACK}") as final_ack:
        client.close()
        bench.step("the client closes; the final ACK is lost")
        first = bench.end(End.SERVER).clock_ns
        final_ack.wait_for(3)
    bench.step("the path is well again; the FIN comes again and is acknowledged", wait=2)
    check_restarted(bench, End.SERVER, first)


@experiment("graceful", "server", "bind-blocked final-ack-lost time-wait-restarted", needs="nft")
def final_ack_lost_unseen(bench: Bench) -> None:
    """The final ACK is lost before the capture point; the repeated FIN is acknowledged.

    The client's FIN seems unanswered. That it did arrive shows in the second ACK, which echoes its
    timestamp and not that of the repetition.
    """
    client, _ = server_closes_up_to_last_ack(bench)
    with losing(f"{TO_CLIENT} {PURE_ACK}", before_capture=True) as final_ack:
        client.close()
        final_ack.wait_for(1)
    bench.step("the client closes; the final ACK is lost; the FIN comes again and is acknowledged", wait=0.5)


@experiment("graceful", "server", "final-ack-lost reset-cause", needs="nft")
def final_ack_lost_reset(bench: Bench) -> None:
    """The final ACK is lost and the server's TIME_WAIT is gone: the repeated FIN is answered by RST.

    TIME_WAIT is destroyed here as a reboot would do it. The client's program has closed and notices
    nothing of it; had it waited for its data to be acknowledged (SO_LINGER), it would get ECONNRESET.
    """
    client, _ = server_closes_up_to_last_ack(bench)
    with losing(f"{TO_CLIENT} {PURE_ACK}"):
        client.close()
        bench.forget(State.TIME_WAIT)
        bench.step("the client closes; the final ACK is lost; the server forgets its TIME_WAIT", wait=0.5)


def closed_by_the_server(bench: Bench) -> Packet:
    """Have a connection that the server closed first, and return the client's question."""
    client, server = bench.connection()
    echo(client, server)
    old = actions.last_segment(bench, asking)
    server.close()
    bench.step("the server closes")
    read_to_end(client)
    client.close()
    bench.step("the client closes; the server is in TIME_WAIT", wait=0.7)
    return old


@experiment("graceful", "server", "reset-cause time-wait-assassinated")
def time_wait_assassinated(bench: Bench) -> None:
    """An old duplicate reaches the server's TIME_WAIT, which is ended by that (RFC 1337).

    TIME_WAIT acknowledges what it did not expect; the client, long CLOSED, answers this ACK by RST; and
    the RST ends TIME_WAIT early, because Linux has tcp_rfc1337 switched off by default.
    """
    set_parameter("tcp_rfc1337", 0)
    old = closed_by_the_server(bench)
    actions.send_again(old)
    bench.step("an old duplicate of the client's question arrives")
    bench.check("TIME_WAIT is gone", bench.end(End.SERVER).entry is None)


@experiment("graceful", "server", "reset-cause time-wait-assassinated")
def time_wait_protected(bench: Bench) -> None:
    """The same old duplicate, and tcp_rfc1337 is switched on: TIME_WAIT stays.

    The packets are the same as in time-wait-assassinated. Whether the RST ended TIME_WAIT is a setting of
    the server's kernel, and no packet tells of it.
    """
    set_parameter("tcp_rfc1337", 1)
    old = closed_by_the_server(bench)
    before = bench.end(End.SERVER).clock_ns
    actions.send_again(old)
    why = "tcp_rfc1337 is 1 there: the RST was ignored, and nothing is sent then"
    bench.step("an old duplicate of the client's question arrives", hidden={End.SERVER: why})
    bench.check("TIME_WAIT is still there", bench.end(End.SERVER).kernel is State.TIME_WAIT)
    check_restarted(bench, End.SERVER, before)


@experiment("simultaneous", "both", "bind-blocked")
def wandering_duplicate(bench: Bench) -> None:
    """An old segment reaches TIME_WAIT, and does no harm.

    Both ends close at once, so that both are in TIME_WAIT. The old duplicate of the client's question is
    acknowledged and thrown away; the ACK finds the client's TIME_WAIT, which keeps silent, where a CLOSED
    end would have sent a RST.
    """
    client, server = bench.connection()
    echo(client, server)
    old = actions.last_segment(bench, asking)
    actions.close_both_on_a_slow_line(client, server)
    bench.step("both close; the FINs cross", wait=0.7)
    before = bench.end(End.SERVER).clock_ns
    actions.send_again(old)
    bench.step("an old duplicate of the client's question arrives", wait=0.2, clock=ANY_SEGMENT)
    states = {end: bench.end(end).kernel for end in End}
    bench.check("both ends are still in TIME_WAIT", set(states.values()) == {State.TIME_WAIT})
    check_restarted(bench, End.SERVER, before)
