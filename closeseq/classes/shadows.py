"""What replay and verdict see, while they work on noting numbers, instead of a few functions.

For plain numbers each function here does what the function does that it stands for, so that other replays at
the same time are not disturbed. `min` and `max` of Numbers are numbers of their own: which of them was least
is not noted, since nothing may ever ask. The functions that make texts are called later, when the holes of a
text are filled, so what they compare does not matter.
"""

from __future__ import annotations

import builtins
import pkgutil
from contextlib import contextmanager
from functools import cache, wraps
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any

from closeseq.classes.forms import NOTHING, AddressHole
from closeseq.classes.numbers import Number, Scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from closeseq.classes.forms import Wording

# Where the numbers of a connection are used.
PACKAGES = ("closeseq.tcp", "closeseq.verdict")
MODULES = ("closeseq.connection", "closeseq.connections.conversation")
# Whatever is defined here returns what is shown: texts, or numbers in another unit.
TEXTS = ("closeseq.units", "closeseq.report.text", "closeseq.connections.community")

KEPT = str | builtins.int | Number | AddressHole  # arguments of such a function; all others are lists


@contextmanager
def shadowed(more: tuple[str, ...] = ()) -> Iterator[None]:
    """Replace `min`, `max`, `int` and the functions for texts in these modules, until the block ends.

    Args:
        more: names of other modules in which this is to be done.
    """
    for names, mine, _ in shadows(more):
        names.update(mine)
    try:
        yield
    finally:
        for names, _, own in shadows(more):
            names.update(own)


@cache
def shadows(more: tuple[str, ...] = ()) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Return of each module its names, those that are replaced, and what they stand for otherwise.

    Args:
        more: as for `shadowed`.
    """
    names = [*MODULES, *more]
    for package in PACKAGES:
        found = pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
        names += [package, *(one.name for one in found)]
    result = []
    for name in names:
        module = import_module(name)
        own: dict[str, Any] = {"min": builtins.min, "max": builtins.max, "int": builtins.int}
        mine: dict[str, Any] = {"min": least, "max": greatest, "int": whole}
        for known, value in vars(module).items():
            if isinstance(value, FunctionType) and value.__module__ in TEXTS:
                own[known], mine[known] = value, with_holes(value)
        # From here on the names stand in the module, so that Python's caches of where they are stay good.
        vars(module).update(own)
        result.append((vars(module), mine, own))
    return result


@cache
def with_holes(text: Callable[..., str]) -> Callable[..., str]:
    """Return a function that leaves a hole where `text` would make words of a Number.

    Args:
        text: a function of one of `TEXTS`.
    """

    @wraps(text)
    def words(*given: Any) -> str:
        parts = [one if isinstance(one, KEPT) else list(one) for one in given]
        wordings = (found for part in parts if (found := a_wording(part)) is not None)
        wording = next(wordings, None)
        if wording is None:
            return text(*parts)
        return wording.mark(text, *(part.end if isinstance(part, AddressHole) else part for part in parts))

    return words


def a_wording(part: Any) -> Wording | None:
    """Return where a Number keeps the holes of texts, if this is one or has one in it; None if not."""
    if isinstance(part, AddressHole):
        return part.wording
    if part.__class__ is list:
        return next((one.tape.wording for one in part if one.__class__ is Number), None)
    return part.tape.wording if part.__class__ is Number else None


class NotingInt(type):
    """What `int` is to these modules."""

    def __call__(cls, *given: Any) -> Any:
        """Return `int` of something; a Number already is one."""
        if len(given) == 1 and given[0].__class__ is Number:
            return given[0]
        if len(given) == 1 and given[0].__class__ is Scaled:
            return given[0].whole()
        return builtins.int(*given)

    def __instancecheck__(cls, one: object) -> bool:
        return isinstance(one, builtins.int | Number)


class whole(int, metaclass=NotingInt):  # noqa: N801 - it stands for `int`
    """`int`."""


def least(*given: Any, **how: Any) -> Any:
    """Return `min` of something; `given` and `how` are its arguments, as for `extreme`."""
    return extreme("min", given, how)


def greatest(*given: Any, **how: Any) -> Any:
    """Return `max` of something; `given` and `how` are its arguments, as for `extreme`."""
    return extreme("max", given, how)


def extreme(name: str, given: tuple[Any, ...], how: dict[str, Any]) -> Any:
    """Return the least or greatest of some things; of Numbers it is a Number of its own.

    Args:
        name: "min" or "max".
        given: the arguments of that function: the things, or one iterable of them.
        how: its keyword arguments, `key` and `default`.
    """
    items = given if len(given) > 1 else tuple(given[0])
    for one in items:
        if one.__class__ is Number:
            break
    else:
        return (builtins.min if name == "min" else builtins.max)(items, **how)
    if how.get("key") is not None or not all(isinstance(one, Number | builtins.int) for one in items):
        return (builtins.min if name == "min" else builtins.max)(items, **how)  # of tuples, perhaps
    result = items[0]
    for one in items[1:]:
        result = of_two(name, result, one)
    return result


def of_two(name: str, a: Number | int, b: Number | int) -> Any:
    """Return the least or greatest of two.

    Args:
        name: "min" or "max".
        a: a number.
        b: the other one.

    Returns:
        One of them; or a Number of its own, where which of them it is cannot be known without noting it.
    """
    if a.__class__ is not Number:
        if b.__class__ is not Number:
            return (builtins.min if name == "min" else builtins.max)(a, b)
        a, b = b, a
    assert isinstance(a, Number)
    tape, forms = a.tape, a.tape.forms
    form, offset, value = (b.form, b.offset, b.value) if isinstance(b, Number) else (NOTHING, b, b)
    apart = forms.subtract(a.form, form)
    if apart == NOTHING:
        below: bool | None = a.value <= value
    elif forms.holds_time(apart):  # noted, so that time stays in plain sums
        below = a <= b
    else:
        below = tape.known(apart, offset - a.offset)
    if below is not None:
        if below != (name == "max"):
            return a
        return b if isinstance(b, Number) else Number(b, NOTHING, b, tape)
    # With what each is more than the smaller form, so that it is the same whatever is added to both.
    part, other = (a.form, 0), (form, offset - a.offset)
    if form < a.form:
        part, other = (form, 0), (a.form, a.offset - offset)
    base = a.offset if part[0] == a.form else offset
    value = builtins.max(a.value, value) if name == "max" else builtins.min(a.value, value)
    result = tape.derived(name, (part, other), 0, value - base)
    for known, more in (part, other):
        if name == "max":
            tape.learn(forms.subtract(known, result.form), -more)
        else:
            tape.learn(forms.subtract(result.form, known), more)
    return result + base
