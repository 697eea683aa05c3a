"""Expressions over the numbers of a connection, each kept once, and texts with holes for numbers.

A *form* is a sum of leaves with whole factors: 3*a - b. A *leaf* is a number of the connection, a column
(connections/skeleton.py), or something that is no sum, such as the lesser of two forms or a remainder: then
it is *derived*, and names the forms it is made of. Forms and leaves are known by their numbers here.

Where a text shows a Number, or a function of closeseq/units.py makes words of one, a mark takes its place,
and a `TextHole` keeps which function, of what. `Template` fills the holes for other connections.
"""

from __future__ import annotations

import re
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from closeseq.connections.conversation import Address, End, Event, Traffic
from closeseq.connections.skeleton import Leaf, Name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from closeseq.connections.conversation import Conversation

NOTHING = 0  # the form without a leaf
NOW = Leaf(-10, "now")  # the moment for which connections are judged, in nanoseconds since the Unix epoch
DROPPED = Leaf(-10, "dropped")  # packets that the capture itself reports lost
ONGOING = Leaf(-10, "ongoing")  # 1 if the capture goes on after that moment, or 0

Part: TypeAlias = tuple[int, int]  # a form, and a constant that is added to it


class Derived(NamedTuple):
    """A leaf that is made of forms: `name` says how."""

    name: str  # "min", "max", "and", "mod", "div"
    parts: tuple[Part, ...]  # what it is made of
    constant: int = 0  # the mask of "and", the divisor of "mod" and "div"


class Forms:
    """All forms and leaves that came up, and what is known of every form from the start.

    Args:
        in_order: whether the packets of a connection are numbered in the order of its steps.
    """

    def __init__(self, *, in_order: bool = True) -> None:
        self._in_order = in_order
        self._form_of: dict[Leaf | Derived, int] = {}
        self.leaves: list[Leaf | Derived] = []
        self._form_number: dict[tuple[tuple[int, int], ...], int] = {}
        self.terms: list[tuple[tuple[int, int], ...]] = []  # of each form: (leaf, factor), by leaf
        self.opposite: list[int] = []  # of each form: itself times -1, if that is how it is asked for; or -1
        self.low: list[int | None] = []  # of each form: its least value, where that is known
        self.high: list[int | None] = []
        self.timed: list[int] = []  # of each form: the factor with which it grows with time; see `wild`
        self.wild: list[bool] = []  # of each form: whether time is in it in another way
        self.sums: dict[tuple[int, int], int] = {}
        self.differences: dict[tuple[int, int], int] = {}
        self._products: dict[tuple[int, int], int] = {}
        self._intern(())

    def __len__(self) -> int:
        return len(self.terms)

    def leaf(self, leaf: Leaf | Derived) -> int:
        """Return the form that is just this leaf."""
        form = self._form_of.get(leaf)
        if form is None:
            self.leaves.append(leaf)
            form = self._form_of[leaf] = self._intern(((len(self.leaves) - 1, 1),))
        return form

    def add(self, a: int, b: int) -> int:
        """Return the form that is the sum of two, each given by its number.

        Args:
            a: a form.
            b: the one that is added to it.
        """
        found = self.sums.get((a, b))
        if found is None:
            found = self.sums[a, b] = self._combine(a, b, 1)
        return found

    def subtract(self, a: int, b: int) -> int:
        """Return the form that is the difference of two, each given by its number.

        Args:
            a: a form.
            b: the one that is taken off it.
        """
        found = self.differences.get((a, b))
        if found is None:
            found = self.differences[a, b] = self._combine(a, b, -1)
        return found

    def multiply(self, a: int, factor: int) -> int:
        """Return the form that is another one times a constant.

        Args:
            a: a form, by its number.
            factor: any whole number but 0.
        """
        found = self._products.get((a, factor))
        if found is None:
            found = self._products[a, factor] = self._intern(
                tuple((leaf, times * factor) for leaf, times in self.terms[a])
            )
        return found

    def holds_time(self, form: int) -> bool:
        """Whether a form changes as time passes."""
        return self.wild[form] or self.timed[form] != 0

    def _combine(self, a: int, b: int, factor: int) -> int:
        found = dict(self.terms[a])
        for leaf, times in self.terms[b]:
            found[leaf] = found.get(leaf, 0) + factor * times
        return self._intern(tuple(sorted((leaf, times) for leaf, times in found.items() if times)))

    def _intern(self, terms: tuple[tuple[int, int], ...]) -> int:
        number = self._form_number.get(terms)
        if number is not None:
            return number
        number = self._form_number[terms] = len(self.terms)
        self.terms.append(terms)
        self.opposite.append(-1)
        low, high = self._bounds(terms)
        self.low.append(low)
        self.high.append(high)
        self.timed.append(sum(times for leaf, times in terms if self.leaves[leaf] == NOW))
        self.wild.append(any(self._is_wild(self.leaves[leaf]) for leaf, _ in terms))
        if terms and terms[0][1] < 0:  # asked for by its opposite
            self.opposite[number] = self._intern(tuple((leaf, -times) for leaf, times in terms))
        return number

    def _is_wild(self, leaf: Leaf | Derived) -> bool:
        return isinstance(leaf, Derived) and any(self.holds_time(form) for form, _ in leaf.parts)

    def _bounds(self, terms: tuple[tuple[int, int], ...]) -> tuple[int | None, int | None]:
        """Return what is known of a form's values without looking: least and greatest."""
        if not terms:
            return 0, 0
        if len(terms) == 1 and terms[0][1] == 1:
            leaf = self.leaves[terms[0][0]]
            if isinstance(leaf, Derived) and leaf.name == "mod":
                return 0, leaf.constant - 1
            if isinstance(leaf, Derived) and leaf.name == "and" and leaf.constant >= 0:
                return 0, leaf.constant
        if self._in_order and len(terms) == 2 and {terms[0][1], terms[1][1]} == {1, -1}:  # noqa: PLR2004
            one, other = (self.leaves[leaf] for leaf, _ in terms)
            if isinstance(one, Leaf) and isinstance(other, Leaf) and one.comes_before(other) is not None:
                later = one.comes_before(other) != (terms[0][1] > 0)
                return (1, None) if later else (None, -1)
        return None, None


MARK = re.compile("\0([0-9]+)\0")  # no text of ours has a NUL in it, and no text of a capture is in them


class TextHole:
    """A place in a text: what is to be called there, and with what.

    Args:
        how: makes the words.
        given: the arguments.
    """

    __slots__ = ("given", "how")

    def __init__(self, how: Callable[..., Any], given: tuple[Any, ...]) -> None:
        self.how = how
        self.given = given


class Wording:
    """The holes of one replay's texts."""

    def __init__(self) -> None:
        self.holes: list[TextHole] = []

    def mark(self, how: Callable[..., Any], *given: Any) -> str:
        """Return what stands in a text where `how(*given)` belongs.

        Args:
            how: makes the words, from another connection's values.
            given: what it is to be called with: Numbers, whole numbers, texts, and lists of them.
        """
        self.holes.append(TextHole(how, given))
        return f"\0{len(self.holes) - 1}\0"

    def pieces(self, text: str) -> list[str | TextHole]:
        """Return a text in pieces, its holes among them."""
        parts = MARK.split(text)
        return [self.holes[int(part)] if place % 2 else part for place, part in enumerate(parts) if part]


class AddressHole(Address):
    """An endpoint's address of which a text shows nothing but a hole."""

    wording: Wording  # keeps the hole
    end: End  # whose address it is

    @classmethod
    def of(cls, address: Address, end: End, wording: Wording) -> AddressHole:
        """Return an address that leaves a hole in a text.

        Args:
            address: what it is otherwise, for all that is not a text.
            end: whose address belongs into the hole.
            wording: keeps the hole.
        """
        place = cls(Name(wording.mark(attrgetter("address"), end)), address.port)
        place.wording, place.end = wording, end
        return place

    def __str__(self) -> str:
        return self.wording.mark(str, self.end)


def placed(conversation: Conversation, wording: Wording, reasons: Mapping[int, str]) -> Conversation:
    """Return a conversation whose addresses, and what its RSTs say, leave holes in texts.

    Args:
        conversation: of a skeleton, on noting numbers.
        wording: keeps the holes.
        reasons: what RSTs say, by packet.
    """
    marks: dict[str, str] = {}  # by what is said: those that say the same are equal, as in the skeleton

    def step_of(step: Event | Traffic) -> Event | Traffic:
        if isinstance(step, Traffic) or not step.reason:
            return step
        mark = marks.get(step.reason)
        if mark is None:
            mark = marks[step.reason] = wording.mark(reasons.__getitem__, step.packet)
        return replace(step, reason=mark)

    return replace(
        conversation,
        client=AddressHole.of(conversation.client, End.CLIENT, wording),
        server=AddressHole.of(conversation.server, End.SERVER, wording),
        steps=tuple(map(step_of, conversation.steps)),
    )
