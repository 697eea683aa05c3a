"""The real captures, held against the table in captures/README.md."""

from __future__ import annotations

import pytest

from closeseq.tcp.timers import SECOND, Timers
from closeseq.verdict import Limits, judge
from verdict_examples import CAPTURES, Row, rows, timelines

ROWS = rows()


def test_the_table_names_every_capture():
    names = {path.name for path in CAPTURES.iterdir() if path.name.endswith((".pcap", ".pcapng", ".gz"))}
    assert {row.capture for row in ROWS} == names


@pytest.mark.parametrize("row", ROWS, ids=[row.capture for row in ROWS])
def test_a_capture_is_judged_as_the_table_says(row: Row):
    timers = Timers(fin_timeout_ns=round(row.option("--fin-timeout", 60) * SECOND))
    limits = Limits(stuck_after_ns=round(row.option("--stuck-after", 60) * SECOND))
    judgements = [judge(timeline, limits) for timeline in timelines(row.capture, timers)]
    got = Row(
        row.capture,
        row.options,
        len(judgements),
        list(dict.fromkeys(j.verdict.code for j in judgements)),
        list(dict.fromkeys(j.verdict.initiator.value for j in judgements)),
        sorted({finding.code for j in judgements for finding in j.findings}),
    )
    assert got == row
