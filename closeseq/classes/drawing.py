"""What a report makes of each connection, made once for a class.

A connection on noting numbers is drawn as any other is. The result is a text with holes, and the text of
another member is that with its numbers in them. No conversation, timeline or judgement is made for it. What
drawing compares is noted too, so that a class has one text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from closeseq.classes.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from closeseq.classes.columns import Columns
    from closeseq.classes.forms import TextHole, Wording
    from closeseq.classes.numbers import Number
    from closeseq.classes.slots import Ends, Get, Values
    from closeseq.connection import Connection


class NumberHole(NamedTuple):
    """A place in a text for a number, in the way in which the report writes numbers."""

    how: Callable[..., Any]  # makes it, an int or a float, of a connection's number
    number: Number


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a report draws connections as text; to be called with a connection."""

    draw: Callable[[Connection], str]  # of one that is judged
    # Of one on noting numbers: its text in pieces, and what leaves its holes. May raise anything.
    pieces: Callable[[Connection, Wording], Sequence[str | TextHole | NumberHole]]
    numbers: Callable[[list[Any]], Sequence[str]]  # writes numbers
    modules: tuple[str, ...]  # in which `draw` handles the numbers of a connection

    def __call__(self, connection: Connection) -> str:
        """Return the text of a connection that is judged."""
        return self.draw(connection)


class TextTemplate:
    """The text of one class.

    Args:
        connection: judged on noting numbers, with texts.
        wording: the holes of its texts.
        drawing: what makes its text.
    """

    def __init__(self, connection: Connection, wording: Wording, drawing: Drawing) -> None:
        self._slots = Slots(wording)
        self._write = drawing.numbers
        numbers: dict[Callable[..., Any], dict[int, None]] = {}  # by what makes them: their slots, in order
        texts: list[Get] = []
        turns: list[tuple[Callable[..., Any] | None, int]] = []  # of each hole: what makes it, and of what
        format_ = []
        for piece in drawing.pieces(connection, wording):
            if isinstance(piece, str):
                format_.append(piece.replace("%", "%%"))
                continue
            format_.append("%s")
            if isinstance(piece, NumberHole):
                slot = self._slots.slot(piece.number)
                numbers.setdefault(piece.how, {})[slot] = None
                turns.append((piece.how, slot))
            else:
                turns.append((None, len(texts)))
                texts.append(self._slots.hole(piece))
        self._format = "".join(format_)
        self._numbers = [(how, [*slots]) for how, slots in numbers.items()]
        self._texts = texts
        made = [*((how, slot) for how, slots in self._numbers for slot in slots)]
        place: dict[Any, int] = {one: at for at, one in enumerate(made)}
        place |= {(None, at): len(made) + at for at in range(len(texts))}
        self._order = [place[turn] for turn in turns]

    def values(self, columns: Columns, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the values of some connections; see `Slots.values`.

        Args:
            columns: the numbers of the connections of a skeleton.
            rows: int64, which of these, ascending.
        """
        return self._slots.values(columns, rows)

    def text(self, values: Values, ends: Ends) -> str:
        """Return the text of a connection of this class.

        Args:
            values: its row of `values`, as plain Python.
            ends: its client and server.
        """
        numbers: list[Any] = []
        for how, slots in self._numbers:
            numbers += [how(values[slot]) for slot in slots]
        found = [*self._write(numbers), *[text(values, ends) for text in self._texts]]
        return self._format % tuple([found[at] for at in self._order])
