"""One run of `analyze -f pcapng`: analyse captures, then write their files again with comments."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from closeseq.capture import open_capture
from closeseq.capture.source import is_url
from closeseq.cli.analyze_run import Job, analyzed, meant
from closeseq.cli.output import opened
from closeseq.cli.terminal import Progress, Refusal, Status, complain
from closeseq.errors import CaptureError
from closeseq.report.selection import Selection
from closeseq.units import count
from closeseq.wireshark.annotate import annotate
from closeseq.wireshark.comments import PacketComments, comments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from closeseq.capture.chains import Chain
    from closeseq.cli.requests import AnalyzeRequest
    from closeseq.connection import Connection
    from closeseq.packets.frames import File
    from closeseq.wireshark.annotate import Annotated

READ_TWICE = "-f pcapng reads a capture twice"


class AnnotateJob:
    """One run, and what it has met so far.

    Args:
        request: what is asked.
    """

    def __init__(self, request: AnalyzeRequest) -> None:
        self._request = request
        self._job = Job(request)
        self._targets: dict[str, str | None] = {}  # of each capture file; None: standard output

    def run(self) -> Status:
        """Read and write; return the exit status.

        Raises:
            Refusal: a capture can be read only once, or there is no place for what is written.
        """
        named = meant(self._request.captures)
        for path in named.paths:
            _refuse_unless_lasting(path)
        self._targets = self._find_targets(named.paths)
        for chain in self._job.chains(named):
            self._annotate(chain, named.paths)
        return self._job.status

    def _find_targets(self, paths: Sequence[str]) -> dict[str, str | None]:
        """Return where each file goes: one to the output, several into a directory of that name."""
        output = self._request.output
        if output is None or output == "-":
            if len(paths) > 1:
                raise Refusal("-f pcapng writes a file for each capture: name a directory with -o")
            if sys.stdout.isatty():
                raise Refusal(
                    "a pcapng is not for a terminal: name a file with -o, or pipe it into a program"
                )
            return dict.fromkeys(paths)
        if len(paths) < 2 and not Path(output).is_dir():  # noqa: PLR2004 - one file
            return dict.fromkeys(paths, output)
        targets: dict[str, str | None] = {}
        for path in paths:
            target = str(Path(output) / _annotated_name(path))
            if target in targets.values():
                raise Refusal(f"two captures would both become {target}: write them into two directories")
            targets[path] = target
        try:
            Path(output).mkdir(exist_ok=True)
        except OSError as error:
            raise Refusal(f"{output} cannot be made a directory: {error.strerror}") from error
        return targets

    def _annotate(self, chain: Chain, captures: Sequence[str]) -> None:
        try:
            analysis = analyzed(chain, self._request.reading, self._request.jobs)
        except CaptureError as error:
            complain(str(error))
            self._job.unread = True
            return
        selection = Selection(analysis, self._request.wanted)
        found = _collected(selection)
        for file in analysis.reading.files.files:
            if file.packets or file.error is None:
                self._write(file, found, captures)
        self._job.conclude(selection)

    def _write(self, file: File, found: PacketComments, captures: Sequence[str]) -> None:
        """Write one file again. What cannot be read of it was reported, or will be, where it was analysed."""
        most = file.packets if self._request.reading.count is not None else None
        progress = Progress(file.path)
        target = self._targets[file.path]
        with _written(target, force=self._request.force, captures=captures) as out:
            try:
                with open_capture(file.path) as capture:
                    done = annotate(capture, found, out, before=file.before, most=most, progress=progress)
            finally:
                progress.clear()
        self._mention(file, done)

    def _mention(self, file: File, done: Annotated) -> None:
        if done.error is not None and file.error is None:
            complain(str(done.error))
            self._job.unread = True
        if done.left_out:
            without = count(done.left_out, "comment")
            complain(f"{file.path}: {without} left out: the packets' blocks (Simple Packet Blocks) take none")


def _refuse_unless_lasting(path: str) -> None:
    """Refuse what can be read only once. What is not there at all is reported when it is opened."""
    if path == "-":
        raise Refusal(f"{READ_TWICE}, and standard input is gone after once: save it to a file first")
    if not is_url(path) and Path(path).exists() and not Path(path).is_file():
        raise Refusal(f"{path}: {READ_TWICE}, and a pipe is gone after once: save it to a file first")


def _annotated_name(path: str) -> str:
    """Return the name of a capture's annotated file: web.pcap.gz gives web.pcapng."""
    name = Path(path).name
    for suffix in (".gz", ".bz2", ".xz", ".zst", ".pcap", ".pcapng", ".cap"):
        name = name.removesuffix(suffix) or name
    return f"{name}.pcapng"


def _collected(selection: Selection) -> PacketComments:
    """Return the comments on the packets of the connections that are asked for."""

    def draw(connection: Connection) -> tuple[int, list[tuple[int, str]]]:
        return connection.id, comments(connection)

    found = PacketComments()
    for number, said in selection.drawn(draw):
        found.add(number, said)
    return found


@contextmanager
def _written(path: str | None, *, force: bool, captures: Sequence[str]) -> Iterator[BinaryIO]:
    """Open where a pcapng goes. A file is there only when it is whole, and overwritten only by force."""
    if path is None:
        yield FileIO(sys.stdout.fileno(), "wb", closefd=False)
        return
    with opened(path, force=force, captures=captures) as output:
        yield FileIO(output.stream.fileno(), "wb", closefd=False)
        output.keep = True
