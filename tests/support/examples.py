"""How many examples a property tries whose examples cost more, or find less, than others'."""

from __future__ import annotations

from hypothesis import settings

USUAL = 100  # of the profile `repeatable`


def examples(number: int) -> settings:
    """Return settings for so many examples in the usual profile, and in others in proportion to theirs."""
    return settings(max_examples=max(1, number * settings.default.max_examples // USUAL))
