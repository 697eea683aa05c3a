"""What happens to an endpoint in TIME_WAIT, and what cannot be bound meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import End, Event, Opener
from closeseq.tcp.states import CLOSED_ITS_SIDE, State
from closeseq.tcp.timeline import Certainty
from closeseq.units import span, times
from closeseq.verdict.case import weakest
from closeseq.verdict.findings import found
from closeseq.verdict.model import FindingCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.verdict.case import Case, Stay
    from closeseq.verdict.model import Finding


def time_wait_restarted(case: Case) -> Iterator[Finding]:
    """TIME_WAIT acknowledged a retransmitted FIN: 2MSL counts anew (RFC 9293 3.10.7.4)."""
    for stay in case.in_state(State.TIME_WAIT):
        end = stay.end
        restarts = list(_retransmissions(case, stay))
        if not restarts:
            continue
        fin, ack = restarts[-1]
        expiry = case.timeline.expiries.get(end)
        left = f"; it now ends {span(expiry - fin.time_ns)} after #{fin.packet}" if expiry else ""
        shown = [event.packet for pair in restarts for event in pair]
        yield found(
            FindingCode.TIME_WAIT_RESTARTED,
            end,
            weakest(stay.entered.certainty, Certainty.PROVED),
            since_ns=restarts[0][0].time_ns,
            until_ns=None,
            packets=shown,
            summary=(
                f"the {end}, in TIME_WAIT, acknowledged the {end.peer}'s retransmitted FIN "
                f"{times(len(restarts))} (last #{fin.packet}, #{ack.packet}); 2MSL counts from "
                f"there{left}"
            ),
            advice=(
                "no change is needed: this is what TIME_WAIT is for; other findings show the loss that "
                "made it necessary"
            ),
        )


def _retransmissions(case: Case, stay: Stay) -> Iterator[tuple[Event, Event]]:
    """Yield each retransmitted FIN that reached TIME_WAIT, with its acknowledgement."""
    close = case.close(stay.end.peer)
    entered = stay.entered.packet or 0
    left = stay.left.packet if stay.left is not None and stay.left.packet is not None else None
    seen: Event | None = None
    for event in case.events:
        if event.packet <= entered or (left is not None and event.packet >= left):
            continue
        if event.sender is stay.end.peer and event.fin and event in close.transmissions[1:]:
            seen = event
        elif event.sender is stay.end and seen is not None and event.pure_ack:
            yield seen, event
            seen = None


def time_wait_assassinated(case: Case) -> Iterator[Finding]:
    """A RST reached an endpoint in TIME_WAIT (RFC 1337)."""
    for stay in case.in_state(State.TIME_WAIT):
        end = stay.end
        reset = case.by_reset(stay.left)
        if reset is None or reset.sender is end or reset.time_ns < stay.since_ns:
            continue
        held = reset.time_ns - stay.since_ns
        before = [e for e in case.events if e.sender is end and e.packet < reset.packet]
        provoked = f", in answer to #{before[-1].packet}" if before and reset.ack is None else ""
        yield found(
            FindingCode.TIME_WAIT_ASSASSINATED,
            end,
            weakest(stay.left.certainty) if stay.left else Certainty.ASSUMED,
            since_ns=reset.time_ns,
            until_ns=None,
            packets=[*([stay.entered.packet] if stay.entered.packet else []), reset.packet],
            summary=(
                f"a RST from the {end.peer} (#{reset.packet}{provoked}) ended the {end}'s TIME_WAIT "
                f"after {span(held)}; old segments may now reach a new connection of the same ports"
            ),
            advice=(
                f"set net.ipv4.tcp_rfc1337=1 at the {end} (Linux ignores RSTs in TIME_WAIT only then); "
                "find where the delayed segment came from that provoked the RST"
            ),
        )


def time_wait_reused(case: Case) -> Iterator[Finding]:
    """A SYN reopened the pair while an endpoint was in TIME_WAIT."""
    successor = case.conversation.successor
    for stay in case.in_state(State.TIME_WAIT) if successor is not None else ():
        end = stay.end
        assert successor is not None
        if stay.left is not None and stay.left.time_ns < successor.time_ns:
            continue
        held = successor.time_ns - stay.since_ns
        own = successor.sender is end
        yield found(
            FindingCode.TIME_WAIT_REUSED,
            end,
            weakest(stay.entered.certainty),
            since_ns=successor.time_ns,
            until_ns=None,
            packets=[stay.entered.packet] if stay.entered.packet is not None else [],
            summary=(
                f"{span(held)} into the {end}'s TIME_WAIT a SYN (#{successor.packet}) opened the same "
                "addresses and ports again" + (f", from the {end} itself" if own else "")
            ),
            advice=(
                "no change is needed: newer timestamps (net.ipv4.tcp_tw_reuse) make it safe"
                if own
                else "no change is needed if the SYN's number or timestamp is newer (RFC 9293 3.10.7.4, "
                "RFC 6191); a client that reuses a port so soon should let the kernel choose its port"
            ),
        )


def bind_blocked(case: Case) -> Iterator[Finding]:
    """The server's port is in a state in which bind() without SO_REUSEADDR fails."""
    end = End.SERVER
    stay = case.present(end)
    if stay is None or stay.state not in CLOSED_ITS_SIDE or case.conversation.successor is not None:
        return
    if any(e.sender is end and e.letters == "S" for e in case.events):
        return  # a simultaneous open: nobody listens
    guessed = case.conversation.opener is Opener.INFERRED
    expiry = case.timeline.expiries.get(end)
    port = case.conversation.address(end).port
    close = case.close(end)
    until = (
        f"for another {span(max(expiry - case.now_ns, 0))}"
        + (", if no program owns the socket any more" if stay.state is State.FIN_WAIT_2 else "")
        if expiry is not None
        else "until its FIN is acknowledged or its kernel gives up"
    )
    shown = list(case.arrived((*close.packets[:1], stay.entered.packet)))
    yield found(
        FindingCode.BIND_BLOCKED,
        end,
        Certainty.ASSUMED if guessed else weakest(stay.entered.certainty),
        since_ns=stay.since_ns,
        until_ns=case.until(stay),
        packets=shown,
        summary=(
            f"the {end} is in {stay.state}: bind() to its port {port} without SO_REUSEADDR fails with "
            f"EADDRINUSE {until}"
        ),
        advice=(
            "set SO_REUSEADDR on the listening socket before bind(), in every run of the program (on "
            "Linux the socket that waits must have had it as well); or let the client close first"
        ),
    )
