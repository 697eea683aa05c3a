"""What a report makes of each connection, made once for a class.

A connection on noting numbers is drawn as any other is. The result is a text with holes, and the text of
another member is that with its numbers in them. No conversation, timeline or judgement is made for it. What
drawing compares is noted too, so that a class has one text.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from closeseq.classes.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from closeseq.classes.forms import TextHole, Wording
    from closeseq.classes.numbers import Number
    from closeseq.classes.slots import Ends, Get, Values
    from closeseq.connection import Connection


class NumberHole(NamedTuple):
    """A place in a text for a number, in the way in which the report writes numbers."""

    number: Number
    how: Callable[[int], Any] | None = None  # makes another number of it; None for the number itself


@dataclass(frozen=True, slots=True)
class Drawer:
    """How a report draws connections as text; to be called with a connection."""

    draw: Callable[[Connection], str]  # of one that is judged
    # Of one on noting numbers: its text in pieces, and what leaves its holes. May raise anything.
    pieces: Callable[[Connection, Wording], Sequence[str | TextHole | NumberHole]]
    numbers: Callable[[list[Any]], Sequence[str]]  # writes numbers as they stand in the text
    texts: Callable[[list[str]], Sequence[str]]  # writes the contents of holes as they stand in it
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

    def __init__(self, connection: Connection, wording: Wording, drawing: Drawer) -> None:
        self.slots = Slots(wording)
        self._drawing = drawing
        numbers: dict[Callable[[int], Any] | None, dict[int, None]] = {None: {}}  # by how: slots, in order
        texts: list[Get] = []
        turns: list[tuple[object, int]] = []  # of each hole: what makes it, and of what
        parts = [""]  # of the text, each second one for a hole
        for piece in drawing.pieces(connection, wording):
            if isinstance(piece, str):
                parts[-1] += piece
                continue
            parts += ["", ""]
            if isinstance(piece, NumberHole):
                slot = self.slots.slot(piece.number)
                numbers.setdefault(piece.how, {})[slot] = None
                turns.append((piece.how, slot))
            else:
                turns.append((texts, len(texts)))
                texts.append(self.slots.hole(piece))
        self._parts = parts
        made: list[tuple[object, int]] = [(how, slot) for how, slots in numbers.items() for slot in slots]
        made += [(texts, at) for at in range(len(texts))]
        place = {(id(how), at): number for number, (how, at) in enumerate(made)}
        self._order = picked([place[id(how), at] for how, at in turns])
        self._whole = picked([*numbers.pop(None)])
        self._made = [(how, picked([*slots])) for how, slots in numbers.items() if how is not None]
        self._texts = texts

    def text(self, values: Values, ends: Ends) -> str:
        """Return the text of a connection of this class.

        Args:
            values: its row of `slots.values`, as plain Python.
            ends: its client and server.
        """
        numbers = [*self._whole(values)]
        for how, slots in self._made:
            numbers += map(how, slots(values))
        drawing, texts = self._drawing, [text(values, ends) for text in self._texts]
        self._parts[1::2] = self._order([*drawing.numbers(numbers), *drawing.texts(texts)])
        return "".join(self._parts)


def picked(places: list[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Return what picks the items at these places of a sequence, in this order."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda items: tuple(items[place] for place in places)
