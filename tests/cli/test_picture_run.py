"""`timeline -f` with a picture, and `explain diagram -f`: what goes where, and what is refused."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

import pytest
from click.testing import CliRunner

from closeseq.cli.main import cli
from closeseq.cli.options import PICTURES
from closeseq.report.pictures.picture_forms import FORMS
from places import CAPTURES

LEAKY, CLEAN = CAPTURES / "leaky-server.pcap", CAPTURES / "client-closes.pcap"


def run(*arguments):
    return CliRunner().invoke(cli, list(map(str, arguments)))


def test_the_options_name_every_form():
    assert tuple(FORMS) == PICTURES


@pytest.mark.parametrize("form", PICTURES)
def test_one_connection_goes_to_standard_output(form):
    done = run("timeline", CLEAN, "-f", form)
    assert (done.exit_code, done.stderr) == (0, "")
    begins = {"svg": "<svg", "diagram": "<svg", "mermaid": "```mermaid\n", "plantuml": "@startuml\n"}
    begins |= {"msc": "msc {\n", "dot": "digraph closeseq {\n"}
    assert done.stdout.startswith(begins[form])
    assert "client closed first" in done.stdout


@pytest.mark.parametrize(
    ("form", "begins"), [("mermaid", "```mermaid"), ("plantuml", "@start"), ("dot", "digraph")]
)
def test_several_connections_follow_one_another(form, begins):
    done = run("timeline", LEAKY, "-f", form)
    assert done.exit_code == 0
    assert done.stdout.count(f"\n\n{begins}") == 4


@pytest.mark.parametrize("form", ["svg", "diagram", "msc"])
def test_several_connections_need_a_directory(form, tmp_path):
    done = run("timeline", LEAKY, "-f", form)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "--connection ID" in done.stderr
    assert "-o DIRECTORY/" in done.stderr
    target = tmp_path / "one"
    assert run("timeline", LEAKY, "-f", form, "-o", target).exit_code == 2
    assert not target.exists()
    assert run("timeline", CLEAN, LEAKY, "--each", "-f", form).exit_code == 2
    assert run("timeline", LEAKY, "-f", form, "--connection", 2).exit_code == 0


def test_a_directory_has_a_file_for_each(tmp_path):
    folder = tmp_path / "new" / "pictures"
    done = run("timeline", LEAKY, CLEAN, "--each", "-f", "svg", "-o", f"{folder}/")
    assert (done.exit_code, done.output) == (0, "")
    names = {f"leaky-server-{number}.svg" for number in range(1, 6)} | {"client-closes-1.svg"}
    assert {path.name for path in folder.iterdir()} == names
    for path in folder.iterdir():
        fromstring(path.read_text())
    again = run("timeline", CLEAN, "-f", "svg", "-o", folder)
    assert again.exit_code == 2
    assert "exists already; --force" in again.stderr
    assert run("timeline", CLEAN, "-f", "svg", "-o", folder, "--force").exit_code == 0
    assert run("timeline", CLEAN, "-f", "diagram", "-o", folder).exit_code == 0  # a name of its own


def test_captures_of_one_name_get_files_of_their_own(tmp_path):
    for day in ("monday", "tuesday"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "web.pcap").write_bytes(CLEAN.read_bytes())
    captures = (tmp_path / "monday" / "web.pcap", tmp_path / "tuesday" / "web.pcap")
    assert run("timeline", *captures, "--each", "-f", "msc", "-o", f"{tmp_path}/out/").exit_code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"web-1.msc", "web~2-1.msc"}


def test_a_file_where_a_directory_is_meant_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    done = run("timeline", CLEAN, "-f", "svg", "-o", f"{tmp_path}/file/")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "file" in done.stderr


def test_of_too_many_those_with_a_problem_are_drawn_and_the_rest_is_mentioned(tmp_path):
    done = run("timeline", LEAKY, "-f", "mermaid", "--limit", 2, "--stuck-after", 2)
    assert done.stdout.count("```mermaid") == 2
    assert "3 of 5 connections are not drawn" in done.stderr
    assert run("timeline", LEAKY, "-f", "svg", "--limit", 1).exit_code == 0
    assert run("timeline", LEAKY, "-f", "mermaid", "--limit", 2, "--all").stdout.count("```mermaid") == 5


def test_no_connection_is_no_file(tmp_path):
    target = tmp_path / "none.svg"
    done = run("timeline", CLEAN, "--verdict", "reset", "-f", "svg", "-o", target)
    assert done.exit_code == 0
    assert "none of 1 connection with --verdict reset" in done.stderr
    assert not target.exists()


def test_the_exit_status_is_that_of_the_text(tmp_path):
    assert run("timeline", CLEAN, "-f", "svg", "--fail-on", "graceful").exit_code == 1
    assert run("timeline", tmp_path / "missing.pcap", "-f", "dot").exit_code == 3
    assert run("timeline", CLEAN, "-f", "png").exit_code == 2


def test_the_state_diagram_itself():
    assert fromstring(run("explain", "diagram", "-f", "svg").stdout).get("class") == "closeseq-states"
    assert run("explain", "diagram", "-f", "dot").stdout.startswith("digraph closeseq {\n")
    assert run("explain", "diagram", "-f", "text").stdout == run("explain", "diagram").stdout


@pytest.mark.parametrize("words", [(), ("CLOSED",), ("diagram", "CLOSED")])
def test_only_the_diagram_is_a_picture(words):
    done = run("explain", *words, "-f", "svg")
    assert done.exit_code == 2
    assert done.output == "closeseq: -f svg is for the word 'diagram' alone\n"
