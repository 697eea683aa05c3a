"""What commands that show one capture share: which it is, and what went wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.capture.chains import find_chains
from closeseq.cli.analyze_run import meant, mention
from closeseq.cli.terminal import Refusal, Status, complain, fault_in
from closeseq.packets.value import value

if TYPE_CHECKING:
    from closeseq.capture.chains import Chain
    from closeseq.report.selection import Selection


@value
class OneCapture:
    """The one capture that was named."""

    chain: Chain | None  # its files; None: none of them can be read
    paths: tuple[str, ...]  # of all files that were named
    broken: bool  # whether some of them cannot be read


def one_capture(captures: tuple[str, ...], command: str) -> OneCapture:
    """Return the capture that was named, and report files that cannot be read.

    Args:
        captures: files, directories, patterns and lists.
        command: what shows it, for the refusal.

    Raises:
        Refusal: they are several captures.
    """
    named = meant(captures)
    chains, unread = find_chains(named.paths)
    broken = named.broken + unread
    for one in broken:
        complain(str(one))
    if len(chains) > 1:
        first, then = chains[0].paths[0], chains[1].paths[0]
        raise Refusal(f"{first} and {then} overlap in time; {command} shows one capture: name only its files")
    return OneCapture(chains[0] if chains else None, tuple(named.paths), broken=bool(broken))


def concluded(selection: Selection, *, broken: bool, found: bool = False) -> Status:
    """Report what went wrong, and return the exit status.

    Args:
        selection: what was shown of the capture.
        broken: whether files that were named cannot be read.
        found: whether something named with --fail-on was found.
    """
    analysis = selection.analysis
    mention(selection)
    for unread in analysis.reading.files.errors():
        complain(str(unread))
    if analysis.failed:
        complain(f"{analysis.path}: {fault_in(analysis.faults)}")
        return Status.BUG
    if broken or analysis.reading.error is not None:
        return Status.CAPTURE
    return Status.FOUND if found else Status.DONE
