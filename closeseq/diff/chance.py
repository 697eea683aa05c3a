"""How likely it is that two groups differ as much as they do by chance alone."""

from __future__ import annotations

from math import exp, lgamma

NEGLIGIBLE = 1e-18  # of the sum so far


def of_more(before: int, of_before: int, after: int, of_after: int) -> float:
    """Return how likely at least so many are in the second group, if chance alone put them there.

    This is Fisher's exact test, one-sided. It holds for small numbers too: of 3 connections each, none before
    and one after say nothing (0.5), none and all three say little (0.05).

    Args:
        before, of_before: how many of the first group have the property.
        after, of_after: how many of the second group have it.

    Returns:
        a probability; 1 if the second group is empty, or nobody has the property.
    """
    having, total = before + after, of_before + of_after
    most = min(having, of_after)
    if not after:
        return 1.0
    whole = _log_choose(total, of_after)
    found = 0.0
    for number in range(after, most + 1):
        log = _log_choose(having, number) + _log_choose(total - having, of_after - number) - whole
        part = exp(log)
        found += part
        # Above the expected number each part is smaller than the one before.
        if number * total > having * of_after and part < found * NEGLIGIBLE:
            break
    return min(found, 1.0)


def _log_choose(total: int, number: int) -> float:
    """Return the logarithm of the number of ways to choose; minus infinity if there is none."""
    if not 0 <= number <= total:
        return float("-inf")
    return lgamma(total + 1) - lgamma(number + 1) - lgamma(total - number + 1)
