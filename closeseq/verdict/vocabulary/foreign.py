"""Finds what people have in hand: an error, another tool's code, or a line of a log with one in it."""

from __future__ import annotations

import re

from closeseq.verdict.vocabulary.foreign_entries import FOREIGN, ForeignEntry

SHORTEST_PHRASE = 8  # letters; a shorter word is not looked for within a text


def foreign(text: str) -> list[ForeignEntry]:
    """Return what a text may mean; empty if nothing.

    Several entries where tools use one code for different things. Case is looked at only where it makes a
    difference, as in HAProxy's `cD` and `CD`. A longer text is searched for known phrases.
    """
    word = _spaced(text)
    exact = [entry for entry in FOREIGN if word in entry.words]
    if exact:
        return exact
    name = word.lower()
    found = [entry for entry in FOREIGN if name in map(str.lower, entry.words)]
    return found or _within(name)


def _within(text: str) -> list[ForeignEntry]:
    """Return the entry whose phrase stands in a text; of several, the longest."""
    found = [
        (len(phrase), entry)
        for entry in FOREIGN
        for phrase in map(str.lower, entry.words)
        if (len(phrase) >= SHORTEST_PHRASE or phrase.upper() == entry.error) and _stands(phrase, text)
    ]
    longest = max((size for size, _ in found), default=0)
    return [entry for size, entry in found if size == longest]


def _stands(phrase: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", text) is not None


def _spaced(text: str) -> str:
    return " ".join(text.split())
