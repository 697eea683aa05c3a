"""One connection out of its rows, as plain Python; and what its duplicates were.

`describe` does the same for whole columns of many connections, in a fifth of the time. This form is for the
replays of classes/: there the values of a row are objects that note how they are compared (see `skeleton`).
tests/classes/test_classes.py holds both equal.

What duplicates were (captured twice, or delivered twice) is decided here for both. Where the frames leave it
open (`duplicates.AGAIN`), two other things decide:

- A capture that sees packets twice sees nearly all of them twice; a network that duplicates does so now and
  then.
- Who gets a segment twice answers the second with an ACK, which reports it if it has a D-SACK (RFC 2883). In
  TIME_WAIT too it answers a FIN (RFC 9293 3.10.7.4). For a segment that was captured twice nobody does.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from closeseq.connections.conversation import (
    Address,
    Conversation,
    Duplicates,
    End,
    Event,
    Opener,
    Path,
    Position,
    Stream,
    Traffic,
)
from closeseq.connections.sequence_space import POSITIONS
from closeseq.connections.state import NEVER_NS, NONE
from closeseq.packets.segments import ACK, SYN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from closeseq.connections.orientation import Endpoint

IPV6 = 6  # the version
FEWEST = 4  # packets of an endpoint, of which MOST must have come twice to show a capture that sees all twice
MOST = 0.75
ANSWER_NS = 1_000_000_000  # within which a duplicate is answered

Row = dict[str, Any]  # one row of a table, as plain Python values


def compose(
    history: Row,
    sides: Sequence[Row],
    chain: Sequence[Row],
    *,
    named: list[Address],
    vlans: list[tuple[int, ...]],
    client: int,
    opener: Opener,
    successor: Row | None,
    reasons: Mapping[int, str],
) -> Conversation:
    """Return a connection out of its rows.

    Args:
        history: its row of `Histories`.
        sides: the rows of `Sides` of client and server.
        chain: its steps, first to last: rows of `KeptEvents` and of `Stretches`.
        named: client and server.
        vlans: in which the packets of client and server were first seen.
        client: which end of the pair is the client, 0 or 1.
        opener: how that is known.
        successor: the row of `KeptEvents` of the SYN that opened the next connection of the pair; None
            without one.
        reasons: what its RSTs say of their reason, by place in the chain; most say nothing.
    """
    ends = (End.CLIENT, End.SERVER) if client == 0 else (End.SERVER, End.CLIENT)
    origins = syn_numbers(chain)
    steps = tuple(
        event(row, ends, origins, reasons.get(place, "")) if "flags" in row else traffic(row, client, origins)
        for place, row in enumerate(chain)
    )
    return Conversation(
        id=history["id"],
        incarnation=history["incarnation"],
        client=named[0],
        server=named[1],
        opener=opener,
        steps=steps,
        client_packets=sides[0]["packets"],
        server_packets=sides[1]["packets"],
        client_bytes=sides[0]["bytes"],
        server_bytes=sides[1]["bytes"],
        first_ns=history["first_ns"],
        last_ns=history["last_ns"],
        copies=history["copies"],
        client_path=path(sides[0], sides[1]),
        server_path=path(sides[1], sides[0]),
        duplicates=duplicates(history, dict(zip(End, sides, strict=True)), steps)
        if history["copies"]
        else Duplicates(),
        client_vlans=vlans[0],
        server_vlans=vlans[1],
        successor=None if successor is None else event(successor, ends, (0, 0)),
    )


def path(own: Row, peer: Row) -> Path:
    """Return what the path did to an endpoint's segments.

    Args:
        own: its row of `Sides`.
        peer: that of its peer.
    """
    response_ns, missed = own["response_ns"], own["missed"]
    number, time_ns = own["missed_number"], own["missed_ns"]
    if own["holes"] and own["hole_start"] < peer["acked_end"]:
        if not missed:
            number, time_ns = own["hole_number"], own["hole_ns"]
        missed += 1
    return Path(
        response_ns=None if response_ns == NEVER_NS else response_ns,
        answers=own["answers"],
        moves=own["moves"],
        reordered=own["reordered"],
        lost_before=own["lost"],
        lost_after=max(own["repeated"] - peer["dsacks"], 0),
        missed=missed,
        missed_packet=number,
        missed_ns=time_ns,
    )


def syn_numbers(chain: Sequence[Row]) -> tuple[int, int]:
    """Return the number of each end's first SYN, 0 without one: relative numbers count from there.

    Args:
        chain: a connection's steps, first to last, as for `compose`.

    Returns:
        Of end 0 and of end 1, relative to their origins as in `KeptEvents`.
    """
    numbers = [0, 0]
    for row in reversed(chain):
        if "flags" in row and row["flags"] & SYN:
            numbers[row["sender"]] = row["seq"]
    return numbers[0], numbers[1]


def event(row: Row, ends: tuple[End, End], origins: tuple[int, int], reason: str = "") -> Event:
    """Return a row of `KeptEvents` as an event.

    Args:
        row: the row.
        ends: what end 0 and end 1 of the pair are, client and server or the other way round.
        origins: from which number of end 0 and of end 1 relative numbers count, from `syn_numbers`.
        reason: what a RST says of its reason.
    """
    sender = row["sender"]
    acknowledges = bool(row["flags"] & ACK)
    ack = row["ack"] - origins[1 - sender]
    dsack = (ack + row["dsack_left"], ack + row["dsack_right"])
    return Event(
        packet=row["number"],
        time_ns=row["time_ns"],
        sender=ends[sender],
        flags=row["flags"],
        seq=row["seq"] - origins[sender],
        ack=ack if acknowledges else None,
        length=row["length"],
        position=POSITIONS[row["position"]],
        window=row["window"],
        tsval=row["tsval"] if row["has_timestamps"] else None,
        tsecr=row["tsecr"] if row["has_timestamps"] else None,
        dsack=dsack if acknowledges and dsack[0] != dsack[1] else None,
        sack=ack + row["sacked"] if acknowledges and row["sacked"] else None,
        ttl=row["ttl"],
        ip_id=row["ip_id"],
        syn_options=row["syn_options"],
        elsewhere=bool(row["elsewhere"]),
        reason=reason,
    )


def traffic(row: Row, client: int, origins: tuple[int, int]) -> Traffic:
    """Return a row of `Stretches` as traffic.

    Args:
        row: the row.
        client: which end of the pair is the client, 0 or 1.
        origins: as for `event`.
    """
    return Traffic(client=stream(row, client, origins), server=stream(row, 1 - client, origins))


def stream(row: Row, end: int, origins: tuple[int, int]) -> Stream:
    """Return what one end sent in a stretch of traffic.

    Args:
        row: of `Stretches`.
        end: 0 or 1.
        origins: as for `event`.
    """
    if not row["segments"][end]:
        return Stream()
    stamped = row["has_timestamps"][end]
    return Stream(
        segments=row["segments"][end],
        bytes=row["bytes"][end],
        first_packet=row["first_number"][end],
        last_packet=row["last_number"][end],
        first_ns=row["first_ns"][end],
        last_ns=row["last_ns"][end],
        retransmissions=row["retransmissions"][end],
        gaps=row["gaps"][end],
        reordered=row["reordered"][end],
        probes=row["probes"][end],
        probe_packet=row["probe_number"][end],
        probe_ns=row["probe_ns"][end],
        end=None if row["end"][end] == NONE else row["end"][end] - origins[end],
        ack=None if row["ack"][end] == NONE else row["ack"][end] - origins[1 - end],
        tsval=row["tsval"][end] if stamped else None,
        tsecr=row["tsecr"][end] if stamped else None,
        ip_id=row["ip_id"][end],
        zero_windows=row["zero_windows"][end],
        controls=row["controls"][end],
        unanswered=row["unanswered"][end],
        unanswered_packet=row["unanswered_number"][end],
        unanswered_ns=row["unanswered_ns"][end],
    )


def tags(vlan: int) -> tuple[int, ...]:
    """Return the identifiers of the tags in a number of `Segments.vlan`, the outermost first."""
    if not vlan:
        return ()
    parts = [vlan >> shift & 0xFFFF for shift in (48, 32, 16, 0)]
    return tuple(part for part in parts if part)


def address_of(endpoint: Endpoint) -> Address:
    """Return an endpoint's address as text, and its port."""
    version, high, low, port = endpoint
    return Address(address_text(version, high << 64 | low), port)


@lru_cache(maxsize=1 << 14)
def address_text(version: int, number: int) -> str:
    """Return an IP address as text. Cached: servers, and most clients, have more than one connection.

    Args:
        version: 4 or 6.
        number: the address, 32 or 128 bits.
    """
    return str(IPv6Address(number) if version == IPV6 else IPv4Address(number))


def duplicates(history: Row, sides: dict[End, Row], steps: Sequence[Event | Traffic]) -> Duplicates:
    """Return how many of a connection's duplicates were of which kind.

    Args:
        history: its row of `Histories`.
        sides: the rows of `Sides` of its endpoints.
        steps: its events and traffic.
    """
    captured, delivered, unclear = history["elsewhere"], 0, 0
    packets: tuple[int, ...] = ()
    for end, side in sides.items():
        again = side["doubled"]
        answer = answer_to_fin(end, side, steps) if side["fin_again"] else None
        delivered += side["delivered"]
        if answer is not None:
            packets += (side["fin_again"], answer.packet)
        if side["packets"] >= FEWEST and again >= MOST * side["packets"]:
            captured += again
            continue
        answered = min(again, int(answer is not None and not side["fin_again_later"]))
        if again and not sent_again(end, steps):
            answered = max(answered, min(again, sides[end.peer]["dsacks"]))
        delivered += answered
        unclear += again - answered
    return Duplicates(captured, delivered, unclear, history["repeated_resets"], packets)


def answer_to_fin(end: End, side: Row, steps: Sequence[Event | Traffic]) -> Event | None:
    """Return the ACK with which the peer answered the duplicate of this endpoint's FIN; None without one.

    Args:
        end: which endpoint.
        side: its row of `Sides`; `fin_again` is the duplicate's packet.
        steps: the connection's events and traffic.
    """
    number, time_ns = side["fin_again"], side["fin_again_ns"]
    events = [step for step in steps if isinstance(step, Event)]
    fins = [e for e in events if e.sender is end and e.fin]
    if not fins or fins[-1].packet > number:  # the FIN was retransmitted, so an ACK may be for that
        return None
    fin = fins[-1]
    acks = [
        e
        for e in events
        if e.sender is end.peer and e.packet > fin.packet and (e.ack or 0) >= fin.end and not e.rst
    ]
    # The first one answers the FIN itself, wherever between the two it stands.
    for ack in acks[1:]:
        if ack.packet > number and ack.pure_ack and ack.time_ns - time_ns <= ANSWER_NS:
            return ack
    return None


def sent_again(end: End, steps: Sequence[Event | Traffic]) -> bool:
    """Return whether an endpoint retransmitted anything.

    Args:
        end: which endpoint.
        steps: the connection's events and traffic.
    """
    again = (Position.RETRANSMISSION, Position.OVERLAP)
    return any(
        (step.sender is end and step.end > step.seq and step.position in again)
        if isinstance(step, Event)
        else step.of(end).retransmissions > 0
        for step in steps
    )
