"""The real captures, held against the page that tells of them, and the experiments that made them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import closeseq
from closeseq.lab.experiments import experiments
from closeseq.settings import SECOND, Limits, Timers
from closeseq.verdict import judge
from closeseq.verdict.model import PopulationCode
from places import CAPTURES, ROOT
from verdict_examples import Row, rows, timelines

ROWS = rows()
EXPERIMENTS = list(experiments().values())


def test_the_table_names_every_capture():
    names = {path.name for path in CAPTURES.iterdir() if path.name.endswith((".pcap", ".pcapng", ".gz"))}
    assert {row.capture for row in ROWS} == names


def test_every_experiment_has_its_capture_and_the_kernels_answers():
    for form in (".pcap", ".kernel.jsonl"):
        recorded = {path.name.removesuffix(form) for path in CAPTURES.glob(f"*{form}")}
        assert recorded == set(experiments())


def test_the_page_is_what_the_captures_say():
    done = subprocess.run(
        [sys.executable, "scripts/record_captures", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}scripts/record_captures --page writes it anew"


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


@pytest.mark.parametrize("one", EXPERIMENTS, ids=[one.name for one in EXPERIMENTS])
def test_a_capture_shows_what_its_experiment_is_to_show(one):
    path = str(CAPTURES / f"{one.name}.pcap")
    found = closeseq.analyze(
        path,
        stuck_after=one.stuck_after or 60,
        fin_timeout=one.fin_timeout,
        ephemeral_ports=one.ephemeral_ports,
    )
    assert tuple(dict.fromkeys(each.verdict for each in found)) == one.verdicts
    assert tuple(dict.fromkeys(str(each.initiator) for each in found)) == one.initiators
    # What shows in the silence after the last packet, the capture does not have; nor may it have more,
    # but for waits that ended in that silence.
    codes = {finding.code for each in found for finding in each.findings}
    assert codes - one.findings <= {"bind-blocked"}
    assert {together.code for together in found.population} == one.population


def test_all_verdicts_and_findings_are_in_the_captures():
    verdicts = {verdict for row in ROWS for verdict in row.verdicts}
    findings = {code for row in ROWS for code in row.findings}
    assert verdicts == {code for one in EXPERIMENTS for code in one.verdicts}
    assert findings == {code for one in EXPERIMENTS for code in one.findings}
    assert set(PopulationCode) == {code for one in EXPERIMENTS for code in one.population}
