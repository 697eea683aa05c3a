"""What is said of each packet that matters, as the text of a comment, and many of them kept.

A packet matters if it changes a state, if it shows a finding, or if there is a note on its arrival:

    closeseq: #3 client LAST_ACK; server FIN_WAIT_2 -> TIME_WAIT (proved); notice slow-close (client, proved)

`#3` is the connection. Each endpoint stands there with its state; where the packet changes that, with the
states before and after, and how sure the change is. Findings follow: severity, code, the endpoint it is
about, and its certainty. A note on the packet comes last. `closeseq.lua` reads this form.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.conversation import End
from closeseq.connections.state import ColumnTable, DiskColumns, column
from closeseq.report.containment import contained
from closeseq.report.text import printable
from closeseq.tcp.timeline import Arrival

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from closeseq.connection import Connection
    from closeseq.tcp.timeline import Step, Transition
    from closeseq.verdict.model import Finding

OURS = "closeseq: #"  # how each of our comments begins, and hardly any other
PENDING = 1 << 16  # comments that are sorted together
MOST_KNOWN = 1 << 16  # texts of which it is remembered where they are


def comments(connection: Connection) -> list[tuple[int, str]]:
    """Return the packets of a connection that matter, ascending, and what is said of each.

    Packets are numbered as in the capture, and named in texts as people look them up. There is none if
    closeseq itself fails at this connection.
    """
    return contained(connection, _comments, lambda _: [])


def _comments(connection: Connection) -> list[tuple[int, str]]:
    timeline = connection.timeline
    if not timeline.replayed:
        return []
    steps = sorted(timeline.steps, key=attrgetter("packet"))
    places = [step.packet for step in steps]
    moved: dict[int, list[Transition]] = {}
    shown_at = {id(one): _shown_at(one, step) for step in steps for one in step.transitions}
    for transition in timeline.transitions:
        if transition.packet is not None:  # a timer's has none; that of no step is of another connection
            moved.setdefault(shown_at.get(id(transition), transition.packet), []).append(transition)
    shown: dict[int, list[Finding]] = {}
    for finding in connection.findings:
        for packet in finding.packets:
            shown.setdefault(packet, []).append(finding)
    noted = {step.packet for step in steps if step.event is not None and _note(step)}
    found = []
    for packet in sorted(moved.keys() | shown.keys() | noted):
        step = steps[max(bisect_right(places, packet) - 1, 0)]
        parts = [_endpoint(end, packet, step, moved.get(packet, [])) for end in (End.CLIENT, End.SERVER)]
        parts += [_finding(one) for one in shown.get(packet, [])]
        if packet in noted:
            parts.append(f"note: {_note(step)}")
        found.append((packet, printable(connection.files.text("; ".join(parts)))))
    return found


def _shown_at(transition: Transition, step: Step) -> int:
    """Return the packet at which a transition is shown: where the timeline shows it, in traffic exactly.

    A FIN that crosses another one arrives when the other one has been sent, and is shown there.
    """
    packet = transition.packet
    return packet if packet is not None and step.event is None and packet > step.packet else step.packet


def _endpoint(end: End, packet: int, step: Step, moved: Iterable[Transition]) -> str:
    """Return an endpoint's state after a packet, and those that it went through with it."""
    own = [one for one in moved if one.endpoint is end]
    if not own:
        later = (one for one in step.transitions if one.endpoint is end and _shown_at(one, step) > packet)
        state = next((one.before for one in later), step.client if end is End.CLIENT else step.server)
        return f"{end} {state}"
    way = "".join(f" -> {one.after} ({one.certainty})" for one in own)
    return f"{end} {own[0].before}{way}"


def _finding(finding: Finding) -> str:
    about = f"{finding.endpoint}, " if finding.endpoint is not None else ""
    return f"{finding.severity} {finding.code} ({about}{finding.certainty})"


def _note(step: Step) -> str:
    return step.note or ("lost" if step.arrived is Arrival.NO else "")


class CommentRows(ColumnTable):
    """One row a comment: runs of rows, each run in the order of its packets."""

    packet: NDArray[np.int64] = column(np.int64)  # its number in the capture
    connection: NDArray[np.int64] = column(np.int64)  # its number in the capture
    begin: NDArray[np.int64] = column(np.int64)  # of its text in `CommentTexts`
    length: NDArray[np.int32] = column(np.int32)  # of its text, in bytes


class CommentTexts(ColumnTable):
    """The texts, one behind the other, in UTF-8; one row a byte."""

    byte: NDArray[np.uint8] = column(np.uint8)


class PacketComments:
    """The comments of a capture, by packet. Long tables lie on disk, so there may be any number."""

    def __init__(self) -> None:
        self._scratch = DiskColumns()
        self._rows, self._texts = CommentRows(self._scratch), CommentTexts(self._scratch)
        self._runs: list[tuple[int, int]] = []
        self._pending: list[tuple[int, int, int, int]] = []
        self._known: dict[str, tuple[int, int]] = {}
        self._new: list[bytes] = []  # texts that are not in the table yet
        self._new_bytes = 0

    def __len__(self) -> int:
        return len(self._rows) + len(self._pending)

    def add(self, connection: int, found: Iterable[tuple[int, str]]) -> None:
        """Add what is said of some packets.

        Args:
            connection: its number.
            found: packets by their numbers in the capture, each with a text.
        """
        for packet, text in found:
            place = self._known.get(text)
            if place is None:
                place = self._keep(text)
            self._pending.append((packet, connection, *place))
        if len(self._pending) >= PENDING:
            self._flush()

    def _keep(self, text: str) -> tuple[int, int]:
        data = text.encode()
        place = len(self._texts) + self._new_bytes, len(data)
        self._new.append(data)
        self._new_bytes += len(data)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[text] = place
        return place

    def _flush(self) -> None:
        """Move what is pending into the tables, as one more run."""
        self._texts.grow(self._new_bytes, byte=np.frombuffer(b"".join(self._new), np.uint8))
        self._new, self._new_bytes = [], 0
        packet, connection, begin, length = np.array(self._pending, np.int64).T
        order = np.lexsort((connection, packet))
        first = self._rows.grow(
            len(order),
            packet=packet[order],
            connection=connection[order],
            begin=begin[order],
            length=length[order],
        )
        self._runs.append((first, first + len(order)))
        self._pending = []
        self._scratch.release()

    def among(self, first: int, last: int) -> dict[int, list[str]]:
        """Return the comments on packets from `first` to `last`, by packet, in the order of connections."""
        if self._pending:
            self._flush()
        table, rows = self._rows, []
        for begin, end in self._runs:
            packets = table.packet[begin:end]
            some = begin + np.searchsorted(packets, first), begin + np.searchsorted(packets, last, "right")
            rows += list(
                zip(
                    *(column[slice(*some)].tolist() for column in (table.packet, table.connection)),
                    *(column[slice(*some)].tolist() for column in (table.begin, table.length)),
                    strict=True,
                )
            )
        found: dict[int, list[str]] = {}
        for packet, connection, at, length in sorted(rows):
            text = self._texts.byte[at : at + length].tobytes().decode()
            found.setdefault(packet, []).append(f"{OURS}{connection} {text}")
        self._scratch.release()
        return found
