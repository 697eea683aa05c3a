"""One run of `timeline` that draws pictures: into one output, or into a file each in a directory."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from closeseq.cli.analyze_run import Job, first_of, meant
from closeseq.cli.output import opened, streamed
from closeseq.cli.terminal import Refusal, Status, complain
from closeseq.report.pictures.picture_forms import FORMS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from closeseq.capture.names import NamedFiles
    from closeseq.cli.output import Output
    from closeseq.cli.requests import AnalyzeRequest
    from closeseq.connection import Connection
    from closeseq.report.selection import Selection


class PictureJob(Job):
    """One run, and what it has met so far.

    Args:
        request: what is asked.
    """

    def __init__(self, request: AnalyzeRequest) -> None:
        super().__init__(request)
        self.form = FORMS[request.form]
        self.drawn = 0

    def run(self) -> Status:
        """Read and draw; return the exit status.

        Raises:
            Refusal: one file cannot hold what is asked for, or cannot be written.
        """
        target = self.request.output
        named = meant(self.request.captures)
        if target is not None and (target.endswith(os.sep) or Path(target).is_dir()):
            self._into(Path(target), named)
            return self.status
        with opened(target, force=self.request.force, captures=named.paths) as output:
            texts: Iterable[str] = self._texts(named, output)
            if self.form.alone:
                texts = list(texts)  # nothing is written before it is clear that there is only one
            output.write(texts)
            output.keep &= self.drawn > 0  # no picture is no file
        return self.status

    def _texts(self, named: NamedFiles, output: Output) -> Iterator[str]:
        """Yield all pictures for one output, with an empty line between them."""
        for selection in self.selections(self.chains(named), output):
            self._refuse_more(self.drawn + sum(map(len, self._chosen(selection))))
            for _, text in self._drawn(selection):
                yield "\n" * (self.drawn > 0) + text
                self.drawn += 1

    def _refuse_more(self, number: int) -> None:
        """Refuse, before anything is written, what one file cannot hold."""
        if number > 1 and self.form.alone:
            raise Refusal(
                f"-f {self.request.form} holds one connection, and more are asked for: choose one with "
                f"--connection ID, or write a file each with -o DIRECTORY{os.sep}"
            )

    def _into(self, folder: Path, named: NamedFiles) -> None:
        """Write each picture into a file of its own, such as web-12.svg."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refusal(
                f"{click.format_filename(folder)} cannot be made: {error.strerror or error}"
            ) from error
        stems: dict[str, str] = {}  # of files, by capture: two captures may have one name
        for selection in self.selections(self.chains(named), streamed(sys.stdout)):
            path = selection.analysis.path
            stem = stems.setdefault(path, _stem(path, taken=stems.values()))
            for number, text in self._drawn(selection):
                target = str(folder / f"{stem}-{number}{self.form.suffix}")
                with opened(target, force=self.request.force, captures=named.paths) as output:
                    output.write([text])
                    output.keep = True

    def _chosen(self, selection: Selection) -> list[Sequence[int]]:
        """Return the connections to draw; of too many those with a problem first."""
        most = self.request.most
        if most is None or selection.wanted.ids or len(selection) <= most:
            return [selection.indices]
        return first_of(selection, most)

    def _drawn(self, selection: Selection) -> Iterator[tuple[int, str]]:
        """Yield the number of each connection with its picture, and say how many there are not."""
        form = self.form

        def draw(connection: Connection) -> tuple[int, str]:
            return connection.id, form.drawn(connection)

        chosen = self._chosen(selection)
        for indices in chosen:
            yield from selection.analysis.drawn(draw, indices)
        left = len(selection) - sum(map(len, chosen))
        if left:
            complain(
                f"{selection.analysis.path}: {left:,} of {len(selection):,} connections are not drawn; those "
                "with a problem come first: --all draws all, --connection ID draws one"
            )


def _stem(path: str, taken: Collection[str]) -> str:
    """Return what the names of a capture's pictures begin with: its own without the endings."""
    stem = "capture" if path == "-" else Path(path).name.split(".")[0] or "capture"
    again = itertools.count(2)
    return next(one for one in itertools.chain([stem], (f"{stem}~{n}" for n in again)) if one not in taken)
