"""The forms of pictures that can be asked for by name, and how a file holds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from closeseq.report.containment import contained
from closeseq.report.pictures.dot import dot
from closeseq.report.pictures.ladder import bare_ladder, ladder
from closeseq.report.pictures.mermaid import mermaid
from closeseq.report.pictures.msc import msc
from closeseq.report.pictures.plantuml import plantuml
from closeseq.report.pictures.state_svg import state_svg
from closeseq.report.pictures.svg import drawn_svg
from closeseq.report.pictures.way import Way, way

if TYPE_CHECKING:
    from collections.abc import Callable

    from closeseq.connection import Connection
    from closeseq.report.pictures.ladder import Ladder


@dataclass(frozen=True)
class PictureForm:
    """A form of pictures."""

    draw: Callable[[Connection], str]  # makes a picture of a connection
    bare: Callable[[Connection], str]  # where closeseq itself fails at a connection
    suffix: str  # of a file with one picture
    alone: bool  # whether a file holds one picture only

    def drawn(self, connection: Connection) -> str:
        """Return the picture of a connection, ending in a newline."""
        return contained(connection, self.draw, self.bare).removesuffix("\n") + "\n"


def _of_ladder(draw: Callable[[Ladder], str], suffix: str, *, alone: bool) -> PictureForm:
    def whole(connection: Connection) -> str:
        return draw(ladder(connection))

    def bare(connection: Connection) -> str:
        return draw(bare_ladder(connection))

    return PictureForm(whole, bare, suffix, alone)


def _of_way(draw: Callable[[Way], str], suffix: str, *, alone: bool) -> PictureForm:
    def whole(connection: Connection) -> str:
        return draw(way(connection))

    def bare(_: Connection) -> str:
        return draw(Way())

    return PictureForm(whole, bare, suffix, alone)


FORMS = {
    "svg": _of_ladder(drawn_svg, ".svg", alone=True),
    "diagram": _of_way(state_svg, ".states.svg", alone=True),
    "mermaid": _of_ladder(mermaid, ".md", alone=False),
    "plantuml": _of_ladder(plantuml, ".puml", alone=False),
    "msc": _of_ladder(msc, ".msc", alone=True),
    "dot": _of_way(dot, ".dot", alone=False),
}
