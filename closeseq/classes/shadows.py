"""What replay and verdict see, while they work on noting numbers, instead of a few functions of their own.

For plain numbers each of these does what the function does that it stands for, so that nobody who replays
at the same time is disturbed. `min` and `max` of Numbers are numbers of their own: which of them was least
is not noted, since nobody may ever ask. The functions that make texts get plain numbers: what a text says
is not promised for a class, so it does not matter what they compare.
"""

from __future__ import annotations

import builtins
import pkgutil
from contextlib import contextmanager
from functools import cache, wraps
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any

from closeseq.classes.noting import Number, Scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# Where the numbers of a connection are looked at.
PACKAGES = ("closeseq.tcp", "closeseq.verdict")
MODULES = ("closeseq.connection", "closeseq.connections.conversation", "closeseq.connections.shape")
TEXTS = "closeseq.verdict.text"  # whatever is defined here returns texts


@contextmanager
def shadowed() -> Iterator[None]:
    """Let these modules see the functions of this module."""
    for names, mine, _ in shadows():
        names.update(mine)
    try:
        yield
    finally:
        for names, _, own in shadows():
            names.update(own)


@cache
def shadows() -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Return the names of each module, and those of them that change: what they stand for, and stood for."""
    names = list(MODULES)
    for package in PACKAGES:
        found = pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
        names += [package, *(one.name for one in found)]
    result = []
    for name in names:
        module = import_module(name)
        own: dict[str, Any] = {"min": builtins.min, "max": builtins.max, "int": builtins.int}
        mine: dict[str, Any] = {"min": least, "max": greatest, "int": whole}
        for known, value in vars(module).items():
            if isinstance(value, FunctionType) and value.__module__ == TEXTS:
                own[known], mine[known] = value, told(value)
        # From here on the names stand in the module, so that Python's caches of where they are stay good.
        vars(module).update(own)
        result.append((vars(module), mine, own))
    return result


@cache
def told(text: Callable[..., str]) -> Callable[..., str]:
    """Return a function that makes a text of plain numbers."""

    @wraps(text)
    def tell(*given: Any, **named: Any) -> str:
        return text(*(one.value if one.__class__ is Number else one for one in given), **named)

    return tell


def whole(*given: Any) -> Any:
    """Return `int` of something; a Number already is one."""
    if len(given) == 1 and given[0].__class__ is Number:
        return given[0]
    if len(given) == 1 and given[0].__class__ is Scaled:
        return given[0].whole()
    return builtins.int(*given)


def least(*given: Any, **how: Any) -> Any:
    """Return `min` of something."""
    return extreme("min", given, how)


def greatest(*given: Any, **how: Any) -> Any:
    """Return `max` of something."""
    return extreme("max", given, how)


def extreme(name: str, given: tuple[Any, ...], how: dict[str, Any]) -> Any:
    """Return the least or greatest: of Numbers as one of its own."""
    items = list(given[0]) if len(given) == 1 else list(given)
    numbers = [one for one in items if one.__class__ is Number]
    if not numbers or how.get("key") is not None or not plain(items):
        return (builtins.min if name == "min" else builtins.max)(items, **how)
    return of_numbers(name, items, numbers[0])


def plain(items: Iterable[Any]) -> bool:
    """Whether these are Numbers, and whole numbers."""
    return all(one.__class__ is Number or isinstance(one, builtins.int) for one in items)


def of_numbers(name: str, items: list[Any], one: Number) -> Any:
    """Return the least or greatest of these, of which one is a Number."""
    tape = one.tape
    forms, sign = tape.forms, 1 if name == "max" else -1
    found: dict[int, int] = {}  # of each form the constant that matters
    for item in items:
        form, offset = (item.form, item.offset) if item.__class__ is Number else (0, item)
        found[form] = offset if form not in found else sign * builtins.max(sign * found[form], sign * offset)
    parts = [part for part in found.items() if not is_idle(tape, part, found, sign)]
    if any(forms.holds_time(form) for form in found) and len(parts) > 1:
        return (builtins.min if name == "min" else builtins.max)(items)  # so that time stays in plain sums
    values = [item.value if item.__class__ is Number else item for item in items]
    value = sign * builtins.max(sign * value for value in values)
    if len(parts) == 1:
        form, offset = parts[0]
        return Number(value, form, offset, tape) if form else offset
    parts.sort()
    base = parts[0][1]
    result = tape.derived(name, tuple((form, offset - base) for form, offset in parts), 0, value - base)
    for form, offset in parts:  # max - part >= 0
        difference = forms.subtract(form, result.form) if sign > 0 else forms.subtract(result.form, form)
        tape.learn(difference, sign * (base - offset))
    return result + base


def is_idle(tape: Any, part: tuple[int, int], found: dict[int, int], sign: int) -> bool:
    """Whether something is known never to be the one that counts, beside another."""
    form, offset = part
    for other, its in found.items():
        if other == form:
            continue
        # form + offset <= other + its (for the least: >=), and where both may be equal the smaller form stays
        below, above = ((form, offset), (other, its)) if sign > 0 else ((other, its), (form, offset))
        strict = 0 if other < form else -1
        if tape.known(tape.forms.subtract(below[0], above[0]), above[1] - below[1] + strict):
            return True
    return False
