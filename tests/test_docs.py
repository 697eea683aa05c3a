"""The documentation builds without a warning; every command, option, word and public name is found in it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from html import unescape
from importlib.util import find_spec
from xml.etree.ElementTree import parse

import click
import pytest

import closeseq
from closeseq.cli.main import cli
from closeseq.report.records import schema
from closeseq.verdict import vocabulary
from closeseq.verdict.model import EntryKind
from closeseq.verdict.vocabulary.foreign_entries import FOREIGN
from command_pages import commands, escaped, in_cell, man_page
from places import ROOT

BUILD = ROOT / "scripts" / "build_docs"
FOLDERS = {EntryKind.STATE: "states", EntryKind.VERDICT: "verdicts"}  # the others: findings
needs_docs = pytest.mark.skipif(
    not (find_spec("material") and find_spec("mkdocstrings")),
    reason="needs mkdocs-material and mkdocstrings (pip install '.[docs]'), not installed here",
)


def needs_command(name):
    return pytest.mark.skipif(not shutil.which(name), reason=f"needs {name}, not installed here")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `scripts/build_docs` builds it: a warning is an error."""
    into = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [sys.executable, BUILD, "--into", into],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return into / "site"


def said(page):
    """Return the text of a page's own part, without tags, with single blanks."""
    article = re.search(r"<article.*?</article>", page.read_text(), re.DOTALL)[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", "", article)).split())


def plain(text):
    """Return a text of closeseq's as a page shows it: code and stressed words without their marks."""
    return " ".join(re.sub(r"`([^`]+)`|(?<!\w)\*(\w+)\*(?!\w)", r"\1\2", text.replace("\b", "")).split())


def every_command(command=cli, path="closeseq"):
    yield path, command
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from every_command(one, f"{path} {name}")


@needs_docs
@pytest.mark.timeout(400)
def test_every_command_and_option_is_found(site):
    for path, command in every_command():
        name = path.removeprefix("closeseq").strip().replace(" ", "-") or "closeseq"
        text = said(site / "commands" / f"{name}.html")
        assert path in text
        for option in command.params:
            if isinstance(option, click.Option):
                assert all(flag in text for flag in option.opts), (path, option.opts)
                assert plain(option.help) in text, (path, option.name)
        for paragraph in (command.help or "").split("\n\n"):
            assert plain(paragraph) in text


@needs_docs
@pytest.mark.timeout(400)
def test_every_word_has_a_page_with_its_meaning_and_advice(site):
    for entry in vocabulary.entries():
        folder = site / FOLDERS.get(entry.kind, "findings")
        page = folder / f"{entry.code.lower().replace('_', '-')}.html"
        text = said(page)
        assert text.startswith(entry.code)
        assert entry.meaning in text
        for paragraph in entry.explanation.split("\n\n"):
            assert plain(paragraph) in text
        assert plain(entry.advice)[1:] in text
        assert f">{entry.code}</a>" in (folder / "index.html").read_text()


@needs_docs
@pytest.mark.timeout(400)
def test_every_finding_shows_a_recording_with_its_ladder(site):
    """Only what takes many connections, or a fault of closeseq itself, was not recorded."""
    for entry in vocabulary.entries():
        picture = site / FOLDERS.get(entry.kind, "findings") / f"{entry.code.lower().replace('_', '-')}.svg"
        bare = entry.kind is EntryKind.POPULATION or entry.code == "not-judged"
        if entry.kind is EntryKind.POPULATION:
            text = said(picture.with_suffix(".html"))
            assert "closeseq lab run" in text
            assert f"Of many connections together {entry.code}: " in re.sub(r"\s+", " ", text)
        assert picture.exists() != bare, entry.code
        if picture.exists():
            drawn = "".join(parse(picture).getroot().itertext())
            assert entry.code in drawn
            text = said(picture.with_suffix(".html"))
            assert "closeseq lab run" in text
            assert "$ closeseq timeline captures/" in text


@needs_docs
@pytest.mark.timeout(400)
def test_the_timeline_of_a_page_is_what_its_command_prints(site):
    page = (site / "findings" / "stuck-close-wait.html").read_text()
    blocks = re.findall(r"<code>(.*?)</code>", page, re.DOTALL)
    plain_blocks = [unescape(re.sub(r"<[^>]+>", "", block)) for block in blocks]
    (shown,) = [block for block in plain_blocks if block.startswith("$ closeseq timeline")]
    command, _, rest = shown.partition("\n")
    done = subprocess.run(
        [sys.executable, "-m", *command.removeprefix("$ ").split()],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "100", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT)},
    )
    assert rest.rstrip() == done.stdout.rstrip()


@needs_docs
@pytest.mark.timeout(400)
def test_every_public_name_and_field_of_a_record_is_found(site):
    api = said(site / "api.html")
    assert not [name for name in closeseq.__all__ if not re.search(rf"\b{name}\b", api)]
    record = said(site / "record.html")
    assert not [name for name in schema()["properties"] if not re.search(rf"\b{name}\b", record)]
    words = said(site / "foreign-words.html")
    assert not [one.word for one in FOREIGN if one.word not in words]


@needs_docs
@pytest.mark.timeout(400)
def test_the_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        loads = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"([^\"]*)\"", text)
        assert not [one for one in loads if re.match(r"(https?:)?//", one)], page


@needs_docs
@pytest.mark.timeout(400)
def test_no_markup_is_left_in_the_text(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert "(ladder:" not in text
        assert "console run" not in text
        if page.name != "404.html":
            (article,) = re.findall(r"<article.*?</article>", text, re.DOTALL)
            prose = re.sub(r"<code.*?</code>", "", article, flags=re.DOTALL)
            assert not re.search(r"\\[_*<\[|]", prose), page


COMMAND = re.compile(rf"\bcloseseq ((?:{'|'.join(cli.commands)})\b[^|>&#`\n]*)")


def commands_on(page):
    """Yield the closeseq commands on a page, as far as they go before a pipe or comment."""
    text = re.sub(r'"\$\(.*?\)"', "1", page.read_text().replace("\\\n", " "))
    for found in COMMAND.finditer(text):
        yield found[1].strip()


PAGES = sorted((ROOT / "scripts" / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_on_a_page_is_one(page):
    for command in commands_on(page):
        one, arguments = cli, shlex.split(command.replace("...", ""))
        while isinstance(one, click.Group):
            one, arguments = one.commands[arguments[0]], arguments[1:]
        if arguments:  # else it is only mentioned
            one.make_context("closeseq", arguments)  # raises where an option or value is unknown


def test_the_pages_have_commands():
    assert sum(len(list(commands_on(page))) for page in PAGES) > 20


def test_plain_text_is_plain_in_markdown():
    assert escaped("a_b *that* <x> `code_d` [y] 2*3") == "a\\_b *that* &lt;x> `code_d` \\[y\\] 2\\*3"
    assert in_cell("`a|b` c|d") == "`a|b` c\\|d"


# -- the man page


def test_the_man_page_names_every_command_and_option():
    text = man_page("1.2.3", "2026-01-02").replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")
    lines = " ".join(re.sub(r"^\.\w+ ?", "", line) for line in text.split("\n"))
    for path, command in every_command():
        assert path in lines
        for option in command.params:
            if isinstance(option, click.Option):
                assert all(flag in lines for flag in option.opts)
                assert " ".join(option.help.split()) in " ".join(lines.split())
    for status in ("0", "1", "2", "3", "4", "5", "70", "71", "130"):
        assert f".TP\n.B {status}\n" in text
    assert '.TH CLOSESEQ 1 "2026-01-02" "closeseq 1.2.3" "User Commands"' in text


@needs_command("mandoc")
def test_mandoc_finds_no_fault_in_the_man_page(tmp_path):
    page = tmp_path / "closeseq.1"
    page.write_text(man_page(closeseq.__version__, "2026-01-02"))
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "style", page], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("", 0)


@needs_command("man")
def test_man_shows_it_without_a_warning(tmp_path):
    page = tmp_path / "closeseq.1"
    page.write_text(man_page(closeseq.__version__, "2026-01-02"))
    done = subprocess.run(
        ["man", "--warnings", "-l", page],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"MANWIDTH": "100", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""},
    )
    assert done.stderr == ""
    assert "closeseq analyze ci.pcap --fail-on stuck-close-wait" in done.stdout
    assert "--stuck-after SECONDS" in done.stdout


def test_the_command_lists_know_the_same_commands():
    assert [one.path for one in commands()] == [path for path, _ in every_command()]


# -- completion, by the shell itself

COMPLETE = """
PATH={folder}:$PATH
source <(_CLOSESEQ_COMPLETE=bash_source closeseq)
COMP_WORDS=({words}) COMP_CWORD={at} COMP_LINE="{line}" COMP_POINT={point}
_closeseq_completion closeseq
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the command `closeseq`, as pip would make it."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "closeseq"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from closeseq.__main__ import main\nmain()\n"
    )
    program.chmod(0o755)
    return folder


@needs_command("bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("closeseq t", {"timeline"}),
        ("closeseq timeline -f m", {"mermaid", "msc"}),
        ("closeseq analyze --fail", {"--fail-on"}),
        ("closeseq lab ", {"list", "run"}),
        ("closeseq explain diagram -f ", {"text", "svg", "dot"}),
        ("closeseq timeline --os w", {"windows"}),
    ],
)
def test_bash_completes(installed, typed, offered):
    words = typed.split(" ")
    script = COMPLETE.format(
        folder=installed,
        words=" ".join(f"'{word}'" for word in words),
        at=len(words) - 1,
        line=typed,
        point=len(typed),
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert done.stderr == ""
    assert set(done.stdout.split()) == offered


@needs_command("bash")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_page_on_completion_names_commands_that_work(installed, shell):
    page = (ROOT / "scripts" / "docs" / "shell.md").read_text()
    (line,) = re.findall(rf"^(_CLOSESEQ_COMPLETE={shell}_source closeseq) >", page, re.MULTILINE)
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | {"PATH": f"{installed}:{os.environ['PATH']}"},
    )
    assert f"_CLOSESEQ_COMPLETE={shell}_complete" in done.stdout
