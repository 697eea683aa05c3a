"""How a connection closed, and what deserves attention: every code, its rule and its words.

    model       the types: Verdict, Finding, their codes and other enumerations
    vocabulary/ what each code means: the one place for meaning, severity, explanation
    case        a timeline arranged for judging: each endpoint's part in the close, its time in each state
    incomplete  what the capture did not see of it
    origin      did a RST come from the endpoint whose address it has?
    ending      the verdict: an ordered list of rules, the first that matches wins
    findings/   the rules of the findings, one module a topic, and `found`, which makes a finding
    judgement   `judge`: verdict and findings of one timeline; `RULES`: which findings, in which order
    program_errors  which error of a system call each program got, at which packet
    population/ what many connections show together: idle timeouts, ports that run out
    fault       what is reported where closeseq itself fails, and at how many connections it did

To add a finding: give it a code in model.FindingCode, describe it in vocabulary/finding_entries.py, write its
rule (a generator of findings) in the module of its topic in findings/, and add the line to judgement.RULES.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from closeseq.verdict.judgement import Judgement, judge
    from closeseq.verdict.model import Finding, FindingCode, Initiator, Role, Severity, Verdict, VerdictCode

__all__ = [
    "Finding",
    "FindingCode",
    "Initiator",
    "Judgement",
    "Role",
    "Severity",
    "Verdict",
    "VerdictCode",
    "judge",
]

# Loaded when first used: `closeseq explain` needs the vocabulary alone, and should not wait for the rest.
_HOME = {name: "judgement" if name in ("Judgement", "judge") else "model" for name in __all__}


def __getattr__(name: str) -> Any:
    """Load a public name from the module it lives in (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'closeseq.verdict' has no attribute {name!r}")
    return getattr(import_module(f"closeseq.verdict.{_HOME[name]}"), name)
