"""Every state, verdict and finding: what it means, why it happens, how to see it, what to do.

This is the one place for meaning and severity; the rules take them from here. It is data and imports
no rule, so that `closeseq explain` is quick.

    state_entries    the eleven states, and the verdicts
    finding_entries  the findings: problems, then notices, then those of many connections
    foreign_entries  other people's words: errors, and codes of other tools
    foreign          finds these, also within a line of a log
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from closeseq.errors import UnknownWordError
from closeseq.verdict.model import Entry, EntryKind
from closeseq.verdict.vocabulary.finding_entries import NOTICES, POPULATIONS, PROBLEMS
from closeseq.verdict.vocabulary.state_entries import STATES, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Collection

_ENTRIES = (*STATES, *VERDICTS, *PROBLEMS, *NOTICES, *POPULATIONS)

# Spellings of other tools and books that differ by more than case and hyphens.
SYNONYMS = {
    "2msl": "time-wait",
    "estab": "established",  # ss
    "finwait1": "fin-wait-1",  # Windows: FIN_WAIT_1 and FINWAIT1, ss: FIN-WAIT-1
    "finwait2": "fin-wait-2",
    "fin-wait1": "fin-wait-1",  # netstat: FIN_WAIT1
    "fin-wait2": "fin-wait-2",
    "syn-recv": "syn-received",  # ss and netstat
    "syn-rcvd": "syn-received",  # RFC 793's figure
    "unconn": "closed",  # ss
}


def _plain(word: str) -> str:
    return re.sub(r"[\s_-]+", "-", word.strip().lower())


_BY_CODE: dict[str, Entry] = {entry.code: entry for entry in _ENTRIES}
assert len(_BY_CODE) == len(_ENTRIES), "two entries have the same code"
# The state CLOSING and the verdict closing differ in case only; in any other spelling it is the state.
_BY_NAME = {_plain(entry.code): entry for entry in reversed(_ENTRIES)}


def entries() -> tuple[Entry, ...]:
    """Return all entries: states, verdicts, and findings, problems before notices, those of many last."""
    return _ENTRIES


def lookup(word: str, kinds: Collection[str] = tuple(EntryKind)) -> Entry:
    """Return the entry of a word in any case, with `-`, `_` or spaces, or as other tools spell it.

    Case matters only for `CLOSING`, a state, and `closing`, a verdict.

    Args:
        word: is looked for among all entries.
        kinds: of the entries that are proposed where there is none.

    Raises:
        UnknownWordError: nothing has this name; its text names the nearest words.
    """
    if (known := _BY_CODE.get(word)) is not None:
        return known
    name = _plain(word)
    found = _BY_NAME.get(SYNONYMS.get(name, name))
    if found is not None:
        return found
    proposed = {_plain(entry.code): entry.code for entry in _ENTRIES if entry.kind in kinds}
    near = [code for plain, code in proposed.items() if name and name in plain]
    near += [proposed[match] for match in get_close_matches(name, proposed, n=3, cutoff=0.5)]
    named = list(dict.fromkeys(near))[:5]
    hint = f"did you mean {' or '.join(named)}?" if named else "`closeseq explain` lists all words"
    raise UnknownWordError(f"{word!r} is no state, verdict or finding; {hint}")


__all__ = ["Entry", "entries", "lookup"]
