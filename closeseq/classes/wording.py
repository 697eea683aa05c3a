"""Texts with holes: what a replay on noting numbers says, to be said again with other numbers.

Where a text shows a Number, or a function of verdict/text.py makes words of one, a mark is left in its place,
and the hole is noted: which function, of what. `Template` fills the holes for other connections.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from closeseq.connections.conversation import Address, End

if TYPE_CHECKING:
    from collections.abc import Callable

    from closeseq.connections.conversation import Conversation

MARK = re.compile("\0([0-9]+)\0")  # no text of ours has a NUL in it, and no text of a capture is in them


class Hole:
    """A place in a text: what is to be called there, and with what."""

    __slots__ = ("given", "how")

    def __init__(self, how: Callable[..., str], given: tuple[Any, ...]) -> None:
        self.how = how
        self.given = given


class Wording:
    """The holes of one replay's texts."""

    def __init__(self) -> None:
        self.holes: list[Hole] = []

    def mark(self, how: Callable[..., str], *given: Any) -> str:
        """Return what stands in a text where `how(*given)` belongs."""
        self.holes.append(Hole(how, given))
        return f"\0{len(self.holes) - 1}\0"

    def pieces(self, text: str) -> list[str | Hole]:
        """Return a text in pieces, its holes among them."""
        parts = MARK.split(text)
        return [self.holes[int(part)] if place % 2 else part for place, part in enumerate(parts) if part]


class Place(Address):
    """An endpoint's address of which a text shows nothing but a hole."""

    wording: Wording
    end: End

    @classmethod
    def of(cls, address: Address, end: End, wording: Wording) -> Place:
        """Return an address that leaves a hole in a text."""
        place = cls(*address)
        place.wording, place.end = wording, end
        return place

    def __str__(self) -> str:
        return self.wording.mark(str, self.end)


def placed(conversation: Conversation, wording: Wording) -> Conversation:
    """Return a conversation whose addresses leave holes in texts."""
    client = Place.of(conversation.client, End.CLIENT, wording)
    return replace(conversation, client=client, server=Place.of(conversation.server, End.SERVER, wording))
