"""The state diagram for Graphviz, from the transition table; with a connection's way through it, or whole."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from closeseq.report.diagram import HEADING, in_words, label_of, ways_between
from closeseq.report.pictures.palette import INK, LIGHT, kind_of
from closeseq.tcp.states import TRANSITIONS, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from closeseq.report.pictures.way import Passage, Way

FAINT, DIM, PLAIN = "#d4d8de", "#9aa3b0", "#3f4752"
# A connection begins in one CLOSED and ends in another, as RFC 9293 draws it.
AGAIN = "CLOSED_AGAIN"
TITLE_LINE = 100  # characters


def dot(way: Way | None = None) -> str:
    """Return a graph in the language of Graphviz.

    Args:
        way: that of a connection, which then stands out; None for the diagram alone.
    """
    return "\n".join(["digraph closeseq {", *(f"  {line}" for line in _lines(way)), "}", ""])


def quoted(text: str) -> str:
    r"""Return a text in quotes, with line ends as `\n`; Graphviz would also read `\N` and `&lt;`."""
    escapes = {ord("\\"): "\\\\", ord('"'): '\\"', ord("\n"): "\\n", ord("&"): "&amp;"}
    return f'"{text.translate(escapes)}"'


def _lines(way: Way | None) -> Iterator[str]:
    words = [HEADING, *in_words(TRANSITIONS)] if way is None else [way.title]
    title = "\n".join(line for text in words for line in wrap(text, TITLE_LINE))
    yield f"label={quoted(title)}; labelloc=t; fontname=sans; fontsize=13;"
    yield "rankdir=TB; nodesep=0.6; ranksep=0.5;"
    yield 'node [shape=box, style="rounded,filled", fontname=sans, fontsize=12];'
    yield "edge [fontname=sans, fontsize=10];"
    for state in State:
        if state is not State.UNKNOWN or (way is not None and way.visits(state)):
            yield from _boxes(state, way)
    for (before, after), signals in ways_between(TRANSITIONS).items():
        if way is None or not way.between(before, after):
            label = "\n".join(map(label_of, signals))
            color = INK[kind_of(before, after)] if way is None else FAINT
            text = PLAIN if way is None else DIM
            yield _edge(before, after, label=label, color=color, fontcolor=text)
    for passage in () if way is None else way.passages:
        yield _passed(passage)


def _boxes(state: State, way: Way | None) -> Iterator[str]:
    """Yield the box of a state; CLOSED has two."""
    begins, ends = ("", "") if way is None else (way.standing(state, begins=b) for b in (True, False))
    visited = way is None or way.visits(state)
    fill, ink = (LIGHT[state].fill, LIGHT[state].ink) if visited else ("#ffffff", FAINT)
    names = [(state.value, begins, ends)]
    if state is State.CLOSED:
        names = [(state.value, begins, ""), (AGAIN, "", ends)]
    for name, *standing in names:
        label = "\n".join([state.value, *filter(None, standing)])
        yield _node(name, label=label, fillcolor=fill, color=ink, fontcolor="#000000" if visited else DIM)


def _node(name: str, **attributes: str) -> str:
    return f"{name} [{_given(attributes)}];"


def _edge(before: State, after: State, **attributes: str) -> str:
    end = AGAIN if after is State.CLOSED else after.value
    return f"{before.value} -> {end} [{_given(attributes)}];"


def _given(attributes: dict[str, str]) -> str:
    return ", ".join(f"{name}={quoted(value)}" for name, value in attributes.items())


def _passed(passage: Passage) -> str:
    """Return the line of one endpoint's transition: thick, and dashed if it is assumed."""
    color = INK[passage.kind]
    style = "dashed" if passage.assumed else "solid"
    label = f"{passage.text}\n{', '.join(passage.causes)}"
    return _edge(
        passage.before, passage.after, label=label, color=color, fontcolor=color, penwidth="2.4", style=style
    )
