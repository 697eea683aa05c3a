"""What `--help` says, as Markdown and as a man page: taken from the commands themselves."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from closeseq.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "closeseq"
UNBROKEN = "\b\n"  # before what click leaves as it is


@dataclass(frozen=True)
class CommandHelp:
    """The help of one command. Texts are plain: neither Markdown nor roff yet."""

    path: str  # "closeseq lab run"
    summary: str
    usage: str
    paragraphs: tuple[str, ...]
    options: tuple[tuple[str, str], ...]  # names with what they take, and the explanation
    epilog: tuple[tuple[str, tuple[str, ...]], ...]  # title and lines; or a paragraph without lines
    subcommands: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The name of its page, without an ending."""
        return self.path.removeprefix(NAME).strip().replace(" ", "-") or NAME


def commands() -> list[CommandHelp]:
    """Return the help of every command, the first for `closeseq` itself."""
    return list(_commands(cli, NAME, None))


def _commands(command: click.Command, path: str, parent: click.Context | None) -> Iterator[CommandHelp]:
    name = path.rpartition(" ")[2]
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    inner = command.commands if isinstance(command, click.Group) else {}
    found = [one.get_help_record(context) for one in command.get_params(context)]
    records = [record for record in found if record and record[1]]  # an argument is told of in the text
    yield CommandHelp(
        path,
        command.get_short_help_str(200).rstrip("."),
        " ".join([path, *command.collect_usage_pieces(context)]),
        tuple(_paragraphs(command.help or "")),
        tuple((names, " ".join(text.split())) for names, text in records),
        tuple(_sections(command.epilog or "")),
        tuple(f"{path} {name}" for name in inner),
    )
    for name, one in inner.items():
        yield from _commands(one, f"{path} {name}", context)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).replace("\b", "").split("\n\n"):
        if paragraph.strip():
            yield " ".join(paragraph.split())


def _sections(epilog: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what stands after the options: examples as lines under their title, the rest as paragraphs."""
    for part in re.split(r"\n\s*\n", inspect.cleandoc(epilog.replace("\b", ""))):
        lines = part.strip("\n").split("\n")
        if lines[0].endswith(":"):
            yield lines[0][:-1], tuple(line.removeprefix("  ") for line in lines[1:])
        elif part.strip():
            yield " ".join(part.split()), ()


# -- Markdown


def markdown(one: CommandHelp) -> str:
    """Return the page of a command."""
    parts = [f"# {one.path}", f"```text\n{one.usage}\n```", *map(escaped, one.paragraphs)]
    if one.subcommands:
        names = [f"- [{path}]({CommandHelp(path, '', '', (), (), ()).file}.md)" for path in one.subcommands]
        parts += ["## Commands", "\n".join(names)]
    parts += ["## Options", "\n".join(_table(one))]
    for title, lines in one.epilog:
        parts += [f"## {title}", "```text\n" + "\n".join(lines) + "\n```"] if lines else [escaped(title)]
    return "\n\n".join(parts) + "\n"


def _table(one: CommandHelp) -> Iterator[str]:
    yield "| option | |"
    yield "|---|---|"
    for names, text in one.options:
        yield f"| {in_cell(f'`{names}`')} | {in_cell(escaped(text))} |"


def in_cell(text: str) -> str:
    """Return Markdown for a cell of a table, where `|` ends a cell unless it is in code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else part.replace("|", "\\|") for part in parts)


def escaped(text: str) -> str:
    """Return plain text as Markdown: what is in backticks stays code, a word between asterisks stressed."""
    parts = re.split(r"(`[^`\n]+`|(?<!\w)\*\w+\*(?!\w))", text)
    return "".join(part if index % 2 else _text(part) for index, part in enumerate(parts))


def _text(text: str) -> str:
    return re.sub(r"([\\*_\[\]#`])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")


# -- the man page


def man_page(version: str, date: str) -> str:
    """Return one page for all commands, for man(1).

    Args:
        version: of closeseq.
        date: of the page, as ISO 8601.
    """
    first, *others = commands()
    lines = [
        f'.TH CLOSESEQ 1 "{date}" "closeseq {version}" "User Commands"',
        ".SH NAME",
        f"{NAME} \\- {_roff(first.paragraphs[0][0].lower() + first.paragraphs[0][1:]).rstrip('.')}",
        ".SH SYNOPSIS",
        *[line for one in (first, *others) if not one.subcommands for line in (".PP", _roff(one.usage))][1:],
        ".SH DESCRIPTION",
        *_parted(first.paragraphs[1:]),
        ".SH COMMANDS",
    ]
    for one in others:
        lines += [f".SS {_roff(one.path)}", *_parted(one.paragraphs)]
        lines += [line for names, text in one.options for line in (".TP", f".B {_roff(names)}", _roff(text))]
        lines += [line for section in one.epilog for line in _section(*section)]
    lines += [".SH OPTIONS"]
    lines += [line for names, text in first.options for line in (".TP", f".B {_roff(names)}", _roff(text))]
    for title, text in first.epilog:
        if title.startswith("Exit status"):
            lines += [".SH EXIT STATUS", *_statuses(title)]
        else:
            lines += [f".SH {title.upper()}", *_unfilled(text)]
    lines += [".SH SEE ALSO", ".BR tcpdump (1),", ".BR tshark (1),", ".BR ss (8),", ".BR tcp (7)"]
    return "\n".join(wrapped(lines)) + "\n"


def _section(title: str, lines: tuple[str, ...]) -> list[str]:
    return [".PP", f"{_roff(title)}:", ".PP", *_unfilled(lines)] if lines else [".PP", _roff(title)]


def _statuses(text: str) -> Iterator[str]:
    """Yield a list of the exit statuses, from "Exit status: 0 done; 1 found; ..."."""
    for status, meaning in re.findall(r"(?:^|[:;]) (\d+) ((?:[^;(]|\([^)]*\))+)", text):
        yield from (".TP", f".B {status}", _roff(meaning.rstrip(". ")))


def _parted(paragraphs: tuple[str, ...]) -> Iterator[str]:
    for index, text in enumerate(paragraphs):
        yield from ([".PP"] if index else [])
        yield _roff(text)


def _unfilled(lines: tuple[str, ...]) -> list[str]:
    return [".nf", ".RS 4", *map(_roff, lines), ".RE", ".fi"]


def _roff(text: str) -> str:
    """Return text that roff takes as text: minus signs to be copied, no control line."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain[:1] in {".", "'"} else plain


def wrapped(lines: list[str]) -> Iterator[str]:
    """Yield lines of at most 80 characters, where roff fills them anyway."""
    filling = True
    for line in lines:
        if line in {".nf", ".fi"}:
            filling = line == ".fi"
        if not filling or line.startswith((".", "'")) or len(line) <= WIDEST:
            yield line
            continue
        rest = line
        while len(rest) > WIDEST:
            cut = rest.rfind(" ", 0, WIDEST)
            if cut <= 0:
                break
            yield rest[:cut]
            rest = rest[cut + 1 :]
            rest = f"\\&{rest}" if rest[:1] in {".", "'"} else rest
        yield rest


WIDEST = 78
