"""Numbers that note what they are compared with.

Whatever is computed with a `Number` is one again; it knows the form that it stands for (module forms). A
comparison is true of today's values only, so the tape notes it: the form of their difference, the bound, and
the outcome. A computation that reads a connection's numbers only in this way runs the same, up to its end,
for every other connection for which all noted conditions have the same outcome.

Nothing can be missed: a Number is no int, so that an operation that is not defined here is an error, and one
that needs the value itself (an index, a shift) notes that it is this very value. A text does not show the
value but leaves a hole for it (module forms), so no decision can rest on a text. One thing passes unnoted:
the hash, which is the same for all Numbers, so that dictionaries and sets compare each of them with each.
Whatever is computed of Numbers stays one, also where it is constant; so a plain number that is a key beside
them is one that the code itself contains, and the two are never the same key.
"""

from __future__ import annotations

import builtins
import math
import operator
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from closeseq.classes.forms import NOTHING, Derived, Wording

if TYPE_CHECKING:
    from closeseq.classes.forms import Forms, Part

EXACT = 1 << 53  # up to here a float holds every whole number
HASH = hash("closeseq.classes.numbers.Number")


class Question(IntEnum):
    """What was asked of a form."""

    AT_MOST = 0  # whether it is at most a bound
    EQUAL = 1  # whether it is this number
    VALUE = 2  # which number it is: this one; another connection may have another


class Condition(NamedTuple):
    """What was asked of a form, and how it came out."""

    form: int  # by its number in `Forms`
    kind: Question
    bound: int  # compared with the form
    outcome: bool  # of VALUE: True


class Tape:
    """What was noted, without what follows from what was noted before.

    Args:
        forms: knows the forms of the numbers that are compared.
    """

    def __init__(self, forms: Forms) -> None:
        self.forms = forms
        self.wording = Wording()  # where texts show a number
        self.conditions: list[Condition] = []
        self._low: dict[int, int | None] = {}  # of forms: what is known of their values by now
        self._high: dict[int, int | None] = {}
        self._unequal: set[tuple[int, int]] = set()

    def known(self, form: int, bound: int) -> bool | None:
        """Return whether a form, by its number, is at most `bound`; None if only looking would show it."""
        forms, turned = self.forms, False
        opposite = forms.opposite[form]
        if opposite >= 0:
            form, bound, turned = opposite, -bound - 1, True
        high = self._high.get(form, forms.high[form])
        if high is not None and bound >= high:
            return not turned
        low = self._low.get(form, forms.low[form])
        if low is not None and bound < low:
            return turned
        return None

    def at_most(self, form: int, bound: int, value: int) -> bool:
        """Return, and note, whether a form is at most a bound.

        Args:
            form: by its number.
            bound: compared with the form alone, without the constant that a Number adds to it.
            value: of the form, for the connection that is replayed.
        """
        forms, result = self.forms, value <= bound
        opposite = forms.opposite[form]
        outcome = result
        if opposite >= 0:
            form, bound, outcome = opposite, -bound - 1, not result
        high = self._high.get(form, forms.high[form])
        if high is not None and bound >= high:
            return result
        low = self._low.get(form, forms.low[form])
        if low is not None and bound < low:
            return result
        self.conditions.append(Condition(form, Question.AT_MOST, bound, outcome))
        if outcome:
            self._high[form] = bound
        else:
            self._low[form] = bound + 1
        return result

    def equals(self, form: int, bound: int, value: int) -> bool:
        """Return, and note, whether a form is equal to a number.

        Args:
            form: by its number.
            bound: the number, compared with the form alone.
            value: of the form, for the connection that is replayed.
        """
        opposite = self.forms.opposite[form]
        if opposite >= 0:
            return self.equals(opposite, -bound, -value)
        low, high = self._range(form)
        if (high is not None and bound > high) or (low is not None and bound < low):
            return False
        if (form, bound) in self._unequal:
            return False
        outcome = value == bound
        if low == bound == high:
            return outcome
        self.conditions.append(Condition(form, Question.EQUAL, bound, outcome))
        if outcome:
            self._low[form] = self._high[form] = bound
        else:
            self._unequal.add((form, bound))
            if low == bound:
                self._low[form] = bound + 1
            if high == bound:
                self._high[form] = bound - 1
        return outcome

    def settle(self, form: int, value: int) -> None:
        """Note that a form, by its number, has this very value: so does every connection of the class."""
        opposite = self.forms.opposite[form]
        if opposite >= 0:
            form, value = opposite, -value
        if self._range(form) != (value, value):
            self.conditions.append(Condition(form, Question.VALUE, value, outcome=True))
            self._low[form] = self._high[form] = value

    def learn(self, form: int, bound: int) -> None:
        """Take in that a form, by its number, is at most a bound, which needs no looking."""
        opposite = self.forms.opposite[form]
        if opposite >= 0:
            low, _ = self._range(opposite)
            self._low[opposite] = -bound if low is None else builtins.max(low, -bound)
        elif form != NOTHING:
            _, high = self._range(form)
            self._high[form] = bound if high is None else builtins.min(high, bound)

    def _range(self, form: int) -> tuple[int | None, int | None]:
        return self._low.get(form, self.forms.low[form]), self._high.get(form, self.forms.high[form])

    def derived(self, name: str, parts: tuple[Part, ...], constant: int, value: int) -> Number:
        """Return a number that is no sum of others.

        Args:
            name: how it is made of its parts, as in `Derived`.
            parts: what it is made of: a form, and a constant that is added to it.
            constant: what else it is made with, such as the divisor; 0 if nothing.
            value: for the connection that is replayed.
        """
        return Number(value, self.forms.leaf(Derived(name, parts, constant)), 0, self)


class Number:
    """A whole number that notes what it is compared with.

    Args:
        value: for the connection that is replayed.
        form: what it stands for, by its number in `Tape.forms`.
        offset: a constant that is added to the form.
        tape: where comparisons are noted.
    """

    __slots__ = ("form", "offset", "tape", "value")

    def __init__(self, value: int, form: int, offset: int, tape: Tape) -> None:
        self.value = value
        self.form = form
        self.offset = offset  # value: that of the form, and this
        self.tape = tape

    # -------------------------------------------------------------------------------- what is a sum

    def __add__(self, other: Any) -> Any:
        if other.__class__ is Number:
            tape = self.tape
            form = tape.forms.sums.get((self.form, other.form))
            if form is None:
                form = tape.forms.add(self.form, other.form)
            return Number(self.value + other.value, form, self.offset + other.offset, tape)
        if isinstance(other, int):
            return Number(self.value + other, self.form, self.offset + other, self.tape) if other else self
        return NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        if other.__class__ is Number:
            tape = self.tape
            form = tape.forms.differences.get((self.form, other.form))
            if form is None:
                form = tape.forms.subtract(self.form, other.form)
            return Number(self.value - other.value, form, self.offset - other.offset, tape)
        if isinstance(other, int):
            return Number(self.value - other, self.form, self.offset - other, self.tape) if other else self
        return NotImplemented

    def __rsub__(self, other: Any) -> Any:
        return -self + other if isinstance(other, int) else NotImplemented

    def __mul__(self, other: Any) -> Any:
        if other.__class__ is Number:
            other = int(other)
        if isinstance(other, int):
            if not other:
                return Number(0, NOTHING, 0, self.tape)
            form = self.tape.forms.multiply(self.form, other)
            return Number(self.value * other, form, self.offset * other, self.tape)
        if isinstance(other, float):
            above, below = other.as_integer_ratio()
            scaled = self * above
            if not -EXACT <= scaled <= EXACT:
                return int(self) * other
            return Scaled(scaled, below)
        return NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> Number:
        return Number(-self.value, self.tape.forms.multiply(self.form, -1), -self.offset, self.tape)

    def __pos__(self) -> Number:
        return self

    def __abs__(self) -> Number:
        return -self if self < 0 else self

    def __round__(self, digits: int | None = None) -> Number:
        return self

    # -------------------------------------------------------------------------------- what is none

    def __and__(self, other: Any) -> Any:
        if other.__class__ is Number:
            other = int(other)
        if not isinstance(other, int):
            return NotImplemented
        return self.tape.derived("and", ((self.form, self.offset),), other, self.value & other)

    __rand__ = __and__

    def __mod__(self, other: Any) -> Any:
        if other.__class__ is Number:
            other = int(other)
        if not isinstance(other, int) or other <= 0:
            return int(self) % other
        return self.tape.derived("mod", ((self.form, self.offset),), other, self.value % other)

    def __floordiv__(self, other: Any) -> Any:
        if other.__class__ is Number:
            other = int(other)
        if not isinstance(other, int) or other <= 0:
            return int(self) // other
        return self.tape.derived("div", ((self.form, self.offset),), other, self.value // other)

    def __index__(self) -> int:
        self.tape.settle(self.form, self.value - self.offset)
        return self.value

    __int__ = __index__

    def __float__(self) -> float:
        return float(int(self))

    def __truediv__(self, other: Any) -> Any:
        return int(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / int(self)

    def __rmod__(self, other: Any) -> Any:
        return other % int(self)

    def __rfloordiv__(self, other: Any) -> Any:
        return other // int(self)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __lshift__(self, other: Any) -> Any:
        return self * (1 << operator.index(other))

    def __rlshift__(self, other: Any) -> Any:
        return other << int(self)

    def __rshift__(self, other: Any) -> Any:
        return self // (1 << operator.index(other))

    def __or__(self, other: Any) -> Any:
        return int(self) | operator.index(other)

    __ror__ = __or__

    def __xor__(self, other: Any) -> Any:
        return int(self) ^ operator.index(other)

    __rxor__ = __xor__

    # ------------------------------------------------------------------------------ what is compared

    def __lt__(self, other: Any) -> bool:
        if other.__class__ is Number:
            return _at_most(self, other, -1)
        if isinstance(other, int):
            tape, offset = self.tape, self.offset
            return tape.at_most(self.form, other - offset - 1, self.value - offset)
        if isinstance(other, float):
            return self < math.ceil(other) if math.isfinite(other) else other > 0
        return NotImplemented

    def __le__(self, other: Any) -> bool:
        if other.__class__ is Number:
            return _at_most(self, other, 0)
        if isinstance(other, int):
            tape, offset = self.tape, self.offset
            return tape.at_most(self.form, other - offset, self.value - offset)
        if isinstance(other, float):
            return self <= math.floor(other) if math.isfinite(other) else other >= 0
        return NotImplemented

    def __gt__(self, other: Any) -> bool:
        if other.__class__ is Number:
            return _at_most(other, self, -1)
        if isinstance(other, int):
            tape, offset = self.tape, self.offset
            return not tape.at_most(self.form, other - offset, self.value - offset)
        if isinstance(other, float):
            return self > math.floor(other) if math.isfinite(other) else other < 0
        return NotImplemented

    def __ge__(self, other: Any) -> bool:
        if other.__class__ is Number:
            return _at_most(other, self, 0)
        if isinstance(other, int):
            tape, offset = self.tape, self.offset
            return not tape.at_most(self.form, other - offset - 1, self.value - offset)
        if isinstance(other, float):
            return self >= math.ceil(other) if math.isfinite(other) else other <= 0
        return NotImplemented

    def __eq__(self, other: object) -> bool:
        if other.__class__ is Number:
            forms, bound = self.tape.forms, other.offset - self.offset
            form = forms.differences.get((self.form, other.form))
            if form is None:
                form = forms.subtract(self.form, other.form)
            return self.tape.equals(form, bound, self.value - other.value + bound)
        if isinstance(other, int):
            return self.tape.equals(self.form, other - self.offset, self.value - self.offset)
        if isinstance(other, float):
            return other.is_integer() and self == int(other)
        return NotImplemented

    def __ne__(self, other: object) -> bool:
        found = self.__eq__(other)
        return found if found is NotImplemented else not found

    def __bool__(self) -> bool:
        return not self.tape.equals(self.form, -self.offset, self.value - self.offset)

    def __hash__(self) -> int:
        return HASH

    # ------------------------------------------------------------------------------- what is a text

    def __format__(self, how: str) -> str:
        return self.tape.wording.mark(format, self, how)

    def __str__(self) -> str:
        return self.tape.wording.mark(str, self)

    def __repr__(self) -> str:
        return str(self.value)


def _at_most(a: Number, b: Number, more: int) -> bool:
    """Return, and note, whether a <= b + more."""
    forms, bound = a.tape.forms, b.offset - a.offset + more
    form = forms.differences.get((a.form, b.form))
    if form is None:
        form = forms.subtract(a.form, b.form)
    return a.tape.at_most(form, bound, a.value - b.value + b.offset - a.offset)


class Scaled:
    """A Number divided by a whole number above 0: what a Number times a float is, where that is exact.

    Args:
        number: what is divided.
        below: by what.
    """

    __slots__ = ("below", "number")

    def __init__(self, number: Number, below: int) -> None:
        self.number = number
        self.below = below

    def whole(self) -> Any:
        """Return the whole number next to it towards 0, as `int` does."""
        return self.number // self.below if self.number >= 0 else -(-self.number // self.below)

    def __int__(self) -> int:
        return int(self.whole())

    def __lt__(self, other: Any) -> Any:
        return self.number < other * self.below if isinstance(other, int | Number) else NotImplemented

    def __le__(self, other: Any) -> Any:
        return self.number <= other * self.below if isinstance(other, int | Number) else NotImplemented

    def __gt__(self, other: Any) -> Any:
        return self.number > other * self.below if isinstance(other, int | Number) else NotImplemented

    def __ge__(self, other: Any) -> Any:
        return self.number >= other * self.below if isinstance(other, int | Number) else NotImplemented

    def __eq__(self, other: object) -> Any:
        return self.number == other * self.below if isinstance(other, int | Number) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self.number)

    def __float__(self) -> float:
        return int(self.number) / self.below
