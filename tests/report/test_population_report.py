"""What many connections show together, in the summary and for programs."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from closeseq.cli.main import cli
from closeseq.connections.idling import Closes
from closeseq.report import records, summary
from closeseq.report.selection import Selection, Wanted
from closeseq.report.text import Style
from closeseq.settings import Settings
from closeseq.verdict.population.rules import populations
from places import CAPTURES
from populations import captured

OPEN = "C:S S:SA C:A C:PA+90 S:PA+500 C:A"
END = "+5s S:FA C:A C:FA S:A"
CAPTURE = str(CAPTURES / "server-closes.pcap")


@pytest.fixture(scope="module")
def analysis():
    return captured([f"{OPEN} {END}"] * 9 + [f"{OPEN} +4.6s C:PA+90 S:PA+500 C:A {END}"])


def page(analysis, width=100, wanted=None):
    return list(summary.summary(Selection(analysis, wanted or Wanted()), Style(width), 20))


def valid(value, part):
    schema = records.schema()
    schema = {"$ref": f"#/$defs/{part}", "$defs": schema["$defs"]}
    Draft202012Validator(schema).validate(value)


def test_it_stands_at_the_top_of_the_summary_with_warnings_first(analysis):
    lines = page(analysis)
    at = lines.index("Of many connections together")
    assert at < 5
    assert lines[at + 1].startswith("  timeouts-in-wrong-order: clients of 198.51.100.2:80 send requests on ")
    text = " ".join(" ".join(lines).split())
    assert "client below proxy below server idle-timeout: the server 198.51.100.2:80 closes after 5 s" in text
    assert lines.index("No connection has a problem by itself.") > at


@pytest.mark.parametrize("width", [40, 60, 200])
def test_its_lines_fit(analysis, width):
    lines = page(analysis, width)
    told = lines[
        lines.index("Of many connections together") : lines.index("No connection has a problem by itself.")
    ]
    assert max(map(len, told)) <= width


def test_of_a_part_of_the_connections_nothing_is_said(analysis):
    chosen = Wanted(verdicts=frozenset({"graceful"}))
    assert "Of many connections together" not in page(analysis, wanted=chosen)
    assert records.population(Selection(analysis, chosen)) == {"findings": []}


def test_a_fault_costs_these_lines_only(analysis, monkeypatch):
    monkeypatch.setattr(summary, "together", lambda *_: 1 / 0)
    text = "\n".join(page(analysis))
    assert "closeseq failed to show what connections show together: ZeroDivisionError" in text
    assert "Verdicts" in text


def test_a_fault_in_finding_it_costs_these_lines_only(analysis, monkeypatch):
    monkeypatch.setattr(type(analysis), "population", property(lambda _: 1 / 0))
    text = "\n".join(page(analysis))
    assert "closeseq failed to show what connections show together: ZeroDivisionError" in text
    assert "No problems found." in text


def test_json_has_it(analysis):
    whole = json.loads("".join(records.json_object(Selection(analysis))))
    valid(whole["population"], "population")
    first, second = whole["population"]["findings"]
    assert (first["code"], first["severity"]) == ("timeouts-in-wrong-order", "problem")
    assert (second["code"], second["server"], second["seconds"]) == (
        "idle-timeout",
        {"address": "198.51.100.2", "port": 80},
        pytest.approx(5.001, abs=0.002),
    )


def test_json_lines_end_with_it_if_asked(analysis):
    line = json.loads(records.population_line(analysis.path, analysis.population))
    valid(line, "population_line")
    assert line["kind"] == "population"
    assert len(line["findings"]) == 2


def test_the_option():
    plain = CliRunner().invoke(cli, ["analyze", CAPTURE, "-f", "jsonl"]).output.splitlines()
    with_it = CliRunner().invoke(cli, ["analyze", CAPTURE, "-f", "jsonl", "--population"])
    lines = with_it.output.splitlines()
    assert lines[:-1] == plain
    last = json.loads(lines[-1])
    valid(last, "population_line")
    assert last["findings"] == []


def test_the_option_is_for_json_lines_only():
    done = CliRunner().invoke(cli, ["analyze", CAPTURE, "--population"])
    assert done.exit_code == 2
    assert "--population is for -f jsonl" in done.output


def test_parts_of_a_capture_show_the_same_together(analysis):
    closes = analysis.closes
    parts = [Closes(*(getattr(closes, name)[at::2] for name in closes.__slots__)) for at in (0, 1)]
    assert populations(Closes.joined(parts), Settings()) == analysis.population
