"""How a connection closed, and what deserves attention: every code, its rule and its words.

    findings    the shapes: Verdict, Finding and their enumerations
    limits      from when on a wait counts
    vocabulary  what each code means: the one place for meaning, severity, explanation
    case        a timeline, arranged by what each end did in the close (facts: stays and FINs)
    missing     what the capture did not see of it
    outcome     the verdict: an ordered list of rules, the first that matches wins (standing: its words)
    rules       the findings: one table, code -> rule, in the order in which they are reported; the rules
                stand in stuck, vanished, loss, time_wait, data, resets (with causes) and notices
    judgement   `judge`: both for one timeline
    fault       what is said where closeseq itself fails, and at how many connections it did

To add a finding: describe it in vocabulary/problems.py or notices.py, write its rule (a generator of
findings) in the module of its topic, and put both together in one line of rules.RULES.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from closeseq.verdict.findings import Finding, Initiator, Role, Severity, Verdict
    from closeseq.verdict.judgement import Judgement, judge
    from closeseq.verdict.limits import Limits

__all__ = ["Finding", "Initiator", "Judgement", "Limits", "Role", "Severity", "Verdict", "judge"]

# Loaded when first used: `closeseq explain` needs the vocabulary alone, and should not wait for the rest.
_HOME = {
    **dict.fromkeys(("Finding", "Initiator", "Role", "Severity", "Verdict"), "findings"),
    **dict.fromkeys(("Judgement", "judge"), "judgement"),
    "Limits": "limits",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module it lives in (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'closeseq.verdict' has no attribute {name!r}")
    return getattr(import_module(f"closeseq.verdict.{_HOME[name]}"), name)
