"""Analyses of several scripts at once, for what is asked of classes."""

from __future__ import annotations

import dataclasses

import numpy as np

from closeseq.analysis import Analysis
from closeseq.script import PORTS, segments
from closeseq.settings import SECOND, Limits, Settings
from segment_rows import joined

SETTINGS = Settings(limits=Limits(stuck_after_ns=5 * SECOND))


def together(parts):
    """Return the connections of several captures of one pair in one, each with a client port of its own."""
    renamed = []
    for number, part in enumerate(parts):
        ports = {
            name: np.where(getattr(part, name) == PORTS[0], 10_000 + number, getattr(part, name)).astype("u2")
            for name in ("src_port", "dst_port")
        }
        renamed.append(dataclasses.replace(part, **ports))
    rows = joined(renamed)
    rows = rows.take(np.argsort(rows.time_ns, kind="stable"))
    return dataclasses.replace(rows, number=np.arange(1, len(rows) + 1))


def analysed(rows, now_ns=None):
    """Return the analysis of these rows, at a moment."""
    analysis = Analysis("", SETTINGS)
    analysis.feed(rows)
    analysis.reading.ended_ns = now_ns
    return analysis


def classes_of(scripts, now_ns=None, **options):
    """Return the analysis of these scripts, and the classes as lists of indices."""
    analysis = analysed(together([segments(script, **options) for script in scripts]), now_ns)
    return analysis, [one.members for one in analysis.classes]
