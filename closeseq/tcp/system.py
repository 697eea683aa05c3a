"""Which operating system an end runs, as its packets tell; a rule that holds on one system asks here.

A SYN's options and their order tell, with the TTL that it began with: Linux sends MSS, SACK permitted,
timestamps, NOP, window scale, from a TTL of 64. Linux also counts the packets of a connection in IPv4's
identification. Without a captured SYN only that is left.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING

from closeseq.connections.conversation import ENDS
from closeseq.packets.sequence import counts_on, steps
from closeseq.tcp.evidence import asked_once

if TYPE_CHECKING:
    from closeseq.connections.conversation import End
    from closeseq.tcp.evidence import Evidence, Said

# The kinds of options that a Linux SYN begins with, four bits each: with SACK and timestamps, with SACK
# alone, with timestamps alone (tcp_options_write).
LINUX_OPTIONS = ("2481", "2114", "2118")
LINUX_TTL = 64
HOPS = 32  # a path is hardly ever longer, so a TTL tells with what it began
ENOUGH = 3  # packets in a row that count up
STRIDE = 16  # a longer step was not made by counting one connection's packets


@asked_once
def linux(evidence: Evidence, end: End) -> bool:
    """Whether an end is known to run Linux."""
    events = [s.event for s in evidence.said[end] if s.event is not None and not s.reset]
    if not events or not LINUX_TTL - HOPS < events[0].ttl <= LINUX_TTL:
        return False
    syn = next((e.syn_options for e in events if e.syn_options), 0)
    if syn:
        return f"{index(syn):x}".startswith(LINUX_OPTIONS)
    return counts_packets(evidence, end)


@asked_once
def sends_dsack(evidence: Evidence, end: End) -> bool:
    """Whether an end says where a segment comes twice (RFC 2883): Linux does, if both ends permit SACK."""
    permitted = all(
        any(s.event and "4" in f"{index(s.event.syn_options):x}" for s in evidence.said[one]) for one in ENDS
    )
    return permitted and linux(evidence, end)


@asked_once
def counts_packets(evidence: Evidence, end: End) -> bool:
    """Whether an end counts the packets of this connection in IPv4's identification (RFC 6864 allows it)."""
    counted, before = 0, None
    for s in evidence.said[end]:
        if s.answer or not s.ip_id:
            continue
        # Where the packets of a stretch of traffic do not count up, it has no number.
        counted += s.segments - 1 + (before is not None and _goes_on(before, s))
        before = s
        if counted >= ENOUGH - 1:
            return True
    return False


def _goes_on(said: Said, following: Said) -> bool:
    before, number = said.ip_id or 0, following.ip_id or 0
    # Of traffic the last number is known: its packets lie between.
    return counts_on(number, before) and steps(number, before) <= STRIDE * following.segments
