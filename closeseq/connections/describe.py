"""The border: connections out of the columns, as plain Python. No numpy value passes it.

Column by column for many connections at once; `compose` is the form for one, row by row, and explains why
there are two. tests/connections/test_reference.py compares the result with a plain reimplementation.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from closeseq.connections.compose import address_of, duplicates, tags
from closeseq.connections.conversation import (
    ENDS,
    Conversation,
    Duplicates,
    End,
    Event,
    Opener,
    Path,
    Stream,
    Traffic,
)
from closeseq.connections.orientation import clients, endpoints_of
from closeseq.connections.sequence_space import POSITIONS
from closeseq.connections.skeleton import StepChain, first_events
from closeseq.connections.state import NEVER_NS, NONE
from closeseq.connections.steps import Wordings, some
from closeseq.packets.segments import ACK, RST, SYN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from closeseq.connections.orientation import ClientGuess
    from closeseq.connections.pairs import PairTable
    from closeseq.connections.state import Sides
    from closeseq.connections.steps import KeptEvents, Reasons, Steps
    from closeseq.connections.traffic import Stretches

NOTHING_SENT = Stream()
NO_DUPLICATES = Duplicates()

HISTORY = ("id", "incarnation", "first_ns", "last_ns", "copies")

# Columns of `Stretches` in the order of the fields of `Stream`: before `end`, and after `ip_id`.
SENT = (
    *("segments", "bytes", "first_number", "last_number", "first_ns", "last_ns"),
    *("retransmissions", "gaps", "reordered", "probes", "probe_number", "probe_ns"),
)
SENT_LAST = ("zero_windows", "controls", "unanswered", "unanswered_number", "unanswered_ns")


def conversations(
    index: NDArray[np.int64], table: PairTable, steps: Steps, guess: ClientGuess
) -> Iterator[Conversation]:
    """Return connections; all of them are made at once.

    Args:
        index: int64, ascending: which connections.
        table: all pairs and connections.
        steps: of all connections.
        guess: infers the client where no SYN shows it.
    """
    extent = some(table.histories, steps, index)
    client, seen = clients(table, steps, guess, extent)
    chain = StepChain.of(extent, steps, table.histories.open_stretch[index])
    stepped, past = all_steps(chain, client, steps), np.cumsum(chain.length)
    each = [tuple(stepped[a:b]) for a, b in zip((past - chain.length).tolist(), past.tolist(), strict=True)]
    history = {name: getattr(table.histories, name)[index].tolist() for name in HISTORY}
    pair, sides = table.histories.pair[index], table.sides
    own, peer = 2 * index + client, 2 * index + 1 - client  # rows of Sides: the client's, the server's
    return map(
        Conversation,
        history["id"],
        history["incarnation"],
        *addresses(pair, client, table),
        [Opener.SEEN if one else Opener.INFERRED for one in seen.tolist()],
        each,
        sides.packets[own].tolist(),
        sides.packets[peer].tolist(),
        sides.bytes[own].tolist(),
        sides.bytes[peer].tolist(),
        history["first_ns"],
        history["last_ns"],
        history["copies"],
        paths(sides, own, peer),
        paths(sides, peer, own),
        successors(index, client, table, steps),
        all_duplicates(index, client, each, table),
        *vlans(pair, client, table),
    )


def all_steps(chain: StepChain, client: NDArray[np.int64], steps: Steps) -> list[Event | Traffic]:
    """Return the steps of all connections of a chain, one connection after the other.

    Args:
        chain: where the steps stand.
        client: int64, 0 or 1: the client's end, of each connection of the chain.
        steps: of all connections.
    """
    place = chain.place[chain.is_event]
    row = chain.row[chain.is_event]
    origin = syn_numbers(place, row, len(client), steps.kept)
    result = np.empty(len(chain.row), np.object_)
    result[chain.is_event] = all_events(row, origin[place], client[place], steps)
    other = ~chain.is_event
    place = chain.place[other]
    result[other] = all_traffic(chain.row[other], origin[place], client[place], steps.stretches)
    return list(result)


def syn_numbers(
    place: NDArray[np.int64], row: NDArray[np.int64], connections: int, kept: KeptEvents
) -> NDArray[np.int64]:
    """Return the number of each end's first SYN, 0 without one.

    Args:
        place: int64, the connection of each event, counted within a chain.
        row: int64, the row of `KeptEvents` of each event, connection by connection, each first to last.
        connections: how many the chain has.
        kept: the events of all connections.

    Returns:
        int64, a row a connection, a column an end.
    """
    result = np.zeros((connections, 2), np.int64)
    syn = np.flatnonzero(kept.flags[row] & SYN)[::-1]  # of several the first one stays
    result[place[syn], kept.sender[row[syn]]] = kept.seq[row[syn]]
    return result


def all_events(
    row: NDArray[np.int64], origin: NDArray[np.int64], client: NDArray[np.int64], steps: Steps
) -> list[Event]:
    """Return rows of `KeptEvents` as events.

    Args:
        row: int64, which rows.
        origin: int64, a row for each of these, a column an end: from which number relative ones count.
        client: int64, 0 or 1: the client's end in each row's connection.
        steps: of all connections.
    """
    kept, reasons = steps.kept, steps.reasons
    at, sender, flags = np.arange(len(row)), kept.sender[row], kept.flags[row]
    ack = kept.ack[row] - origin[at, 1 - sender]
    acknowledges, stamped = (flags & ACK) > 0, kept.has_timestamps[row]
    sacked, ip_id = kept.sacked[row], kept.ip_id[row]
    return list(
        map(
            Event,
            kept.number[row].tolist(),
            kept.time_ns[row].tolist(),
            [ENDS[one] for one in (sender ^ client).tolist()],
            flags.tolist(),
            (kept.seq[row] - origin[at, sender]).tolist(),
            optional(ack, acknowledges),
            kept.length[row].tolist(),
            [POSITIONS[one] for one in kept.position[row].tolist()],
            kept.window[row].tolist(),
            optional(kept.tsval[row], stamped),
            optional(kept.tsecr[row], stamped),
            dsacks(ack, kept.dsack_left[row], kept.dsack_right[row], acknowledges),
            optional(ack + sacked, acknowledges & (sacked > 0)),
            kept.ttl[row].tolist(),
            ip_id.tolist(),
            kept.syn_options[row].tolist(),
            (kept.elsewhere[row] > 0).tolist(),
            said(row, kept, reasons),
        )
    )


def said(row: NDArray[np.int64], kept: KeptEvents, reasons: Reasons) -> Iterable[str]:
    """Return what the RSTs among rows of `KeptEvents` say of their reason; nothing for all others.

    Args:
        row: int64, which rows.
        kept: the events of all connections.
        reasons: of all RSTs that say any.

    Returns:
        A text for each row, "" for most. Endless if there are no reasons at all.
    """
    if not len(reasons):
        return repeat("")
    texts, reset = Wordings(reasons), (kept.flags[row] & RST > 0).tolist()
    return [
        texts.get(number, "") if one else ""
        for number, one in zip(kept.number[row].tolist(), reset, strict=True)
    ]


def dsacks(
    ack: NDArray[np.int64], left: NDArray[np.int32], right: NDArray[np.int32], acknowledges: NDArray[np.bool_]
) -> list[tuple[int, int] | None]:
    """Return the D-SACK block of each row; most have none.

    Args:
        ack: int64, the acknowledgement, as it is to be shown.
        left: int32, the block's left edge against that.
        right: int32, its right edge; equal to the left one without a block.
        acknowledges: a mask of the rows with ACK.

    Returns:
        Left and right edge, relative as `ack` is; None without one.
    """
    result: list[tuple[int, int] | None] = [None] * len(ack)
    for one in np.flatnonzero(acknowledges & (left != right)).tolist():
        result[one] = (int(ack[one] + left[one]), int(ack[one] + right[one]))
    return result


def all_traffic(
    row: NDArray[np.int64], origin: NDArray[np.int64], client: NDArray[np.int64], stretches: Stretches
) -> list[Traffic]:
    """Return rows of `Stretches` as traffic.

    Args:
        row: int64, which rows.
        origin: as for `all_events`.
        client: as for `all_events`.
        stretches: of all connections.
    """
    return list(
        map(
            Traffic,
            streams(row, client, origin, stretches),
            streams(row, 1 - client, origin, stretches),
        )
    )


def streams(
    row: NDArray[np.int64], end: NDArray[np.int64], origin: NDArray[np.int64], stretches: Stretches
) -> list[Stream]:
    """Return what one end sent in each of some stretches.

    Args:
        row: int64, which rows of `Stretches`.
        end: int64, 0 or 1, for each.
        origin: as for `all_events`.
        stretches: of all connections.
    """
    result = np.full(len(row), NOTHING_SENT, np.object_)
    sent = np.flatnonzero(stretches.segments[row, end])
    row, end, origin = row[sent], end[sent], origin[sent]
    at = np.arange(len(row))
    stamped = stretches.has_timestamps[row, end]
    highest, ack, ip_id = stretches.end[row, end], stretches.ack[row, end], stretches.ip_id[row, end]
    result[sent] = list(
        map(
            Stream,
            *(getattr(stretches, name)[row, end].tolist() for name in SENT),
            optional(highest - origin[at, end], highest != NONE),
            optional(ack - origin[at, 1 - end], ack != NONE),
            optional(stretches.tsval[row, end], stamped),
            optional(stretches.tsecr[row, end], stamped),
            ip_id.tolist(),
            *(getattr(stretches, name)[row, end].tolist() for name in SENT_LAST),
        )
    )
    return list(result)


def optional(values: NDArray[Any], there: NDArray[np.bool_]) -> list[Any]:
    """Return a column of numbers as a list, None where the mask `there` of the same length is false.

    `values` may hold anything there.
    """
    if there.all():
        listed: list[Any] = values.tolist()
        return listed
    result = values.astype(np.object_)
    result[~there] = None
    return list(result)


def paths(sides: Sides, own: NDArray[np.int64], peer: NDArray[np.int64]) -> list[Path]:
    """Return what the path did to endpoints' segments.

    Args:
        sides: of all connections.
        own: int64, the endpoints' rows of `Sides`.
        peer: int64, their peers' rows.
    """
    response, missed = sides.response_ns[own], sides.missed[own]
    holes = (sides.holes[own] > 0) & (sides.hole_start[own] < sides.acked_end[peer])
    first = holes & (missed == 0)
    return list(
        map(
            Path,
            optional(response, response != NEVER_NS),
            sides.answers[own].tolist(),
            sides.moves[own].tolist(),
            sides.reordered[own].tolist(),
            sides.lost[own].tolist(),
            np.maximum(sides.repeated[own] - sides.dsacks[peer], 0).tolist(),
            (missed + holes).tolist(),
            np.where(first, sides.hole_number[own], sides.missed_number[own]).tolist(),
            np.where(first, sides.hole_ns[own], sides.missed_ns[own]).tolist(),
        )
    )


def addresses(
    pair: NDArray[np.int64], client: NDArray[np.int64], table: PairTable
) -> tuple[list[Any], list[Any]]:
    """Return the addresses and ports of clients and of servers.

    Args:
        pair: int64, the pair of each connection, an index into `Pairs`.
        client: int64, 0 or 1: the client's end in each.
        table: all pairs and connections.
    """
    found, turned = endpoints_of(table.pairs, pair), client.tolist()
    named = [
        (address_of(ends[one]), address_of(ends[1 - one])) for ends, one in zip(found, turned, strict=True)
    ]
    return [one for one, _ in named], [one for _, one in named]


def vlans(
    pair: NDArray[np.int64], client: NDArray[np.int64], table: PairTable
) -> tuple[list[Any], list[Any]]:
    """Return the VLANs in which the packets of clients and of servers were first seen.

    Args:
        pair: as for `addresses`.
        client: as for `addresses`.
        table: all pairs and connections.

    Returns:
        Two lists: of each connection the identifiers, the outermost tag first.
    """
    both = table.pairs.vlan[pair]
    at = np.arange(len(pair))
    ends = both[at, client], both[at, 1 - client]
    if not both.any():
        return [()] * len(pair), [()] * len(pair)
    return [tags(one) for one in ends[0].tolist()], [tags(one) for one in ends[1].tolist()]


def successors(
    index: NDArray[np.int64], client: NDArray[np.int64], table: PairTable, steps: Steps
) -> list[Event | None]:
    """Return the SYN that opened the next connection of each pair; None without one.

    Args:
        index: int64, which connections.
        client: int64, 0 or 1: the client's end in each.
        table: all pairs and connections.
        steps: of all connections.
    """
    result: list[Event | None] = [None] * len(index)
    first = first_events(table.histories.successor[index], table, steps)
    followed = np.flatnonzero(first >= 0)
    origin = np.zeros((len(followed), 2), np.int64)
    found = all_events(first[followed], origin, client[followed], steps)
    for one, event in zip(followed.tolist(), found, strict=True):
        result[one] = event
    return result


def all_duplicates(
    index: NDArray[np.int64],
    client: NDArray[np.int64],
    each: Sequence[Sequence[Event | Traffic]],
    table: PairTable,
) -> list[Duplicates]:
    """Return what the duplicates of each connection were; most have none.

    Args:
        index: int64, which connections.
        client: int64, 0 or 1: the client's end in each.
        each: the steps of each.
        table: all pairs and connections.
    """
    result = [NO_DUPLICATES] * len(index)
    for one in np.flatnonzero(table.histories.copies[index]).tolist():
        own = 2 * int(index[one]) + int(client[one])
        sides = {End.CLIENT: table.sides.row(own), End.SERVER: table.sides.row(own ^ 1)}
        result[one] = duplicates(table.histories.row(int(index[one])), sides, each[one])
    return result
