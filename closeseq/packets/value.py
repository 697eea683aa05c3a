"""Cheap classes for objects of which a run makes millions: values, individuals, cached properties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

if TYPE_CHECKING:
    import functools
    from collections.abc import Callable

T = TypeVar("T")


def or_0(number: int | None) -> int:
    """Return a number, or 0 if there is none; unlike `number or 0`, it does not ask whether it is 0.

    Connections are judged together if all that is asked of their numbers comes out alike (see classes/).
    """
    return 0 if number is None else number


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """Make a class a dataclass with slots whose instances nobody changes, for use as a decorator.

    As `dataclass(frozen=True, slots=True)`, but only mypy rejects an assignment: to forbid it at run time too
    makes an object of twenty fields eight times as slow to create.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


@dataclass_transform(frozen_default=True, eq_default=False)
def individual(cls: type[T]) -> type[T]:
    """Make a class the same as `value` does, but each instance is equal only to itself."""
    return dataclass(slots=True, eq=False)(cls)


if TYPE_CHECKING:
    cached = functools.cached_property
else:

    class cached:  # noqa: N801 - used like `property`
        """A property that is computed at its first use.

        As `functools.cached_property`, which in Python 3.11 takes a lock each time: a tenth of a judgement.
        """

        def __init__(self, compute: Callable[[Any], Any]) -> None:
            self._compute = compute
            self._name = compute.__name__
            self.__doc__ = compute.__doc__

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            found = instance.__dict__[self._name] = self._compute(instance)
            return found
