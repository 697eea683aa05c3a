"""Which file a capture goes on in, where what writes it begins a new file now and then.

    tcpdump -C         f, f1, f2 ...; with -W f0, f1, f2, and then f0 written anew
    tcpdump -G         f with the time in its name, as strftime writes it
    dumpcap -b         f_00001_20261125220000.pcapng, f_00002_...
    closeseq --rotate  f-00001.pcapng, f-00002.pcapng

Names say which files may be of one rotation, and their first packets which of them comes next.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import NamedTuple

from closeseq.capture.reader import open_capture
from closeseq.errors import CaptureError

DIGITS = re.compile("[0-9]+")
FEWEST_DIGITS = 4  # hours and minutes; names that differ in fewer are as likely those of two captures
WINDOW = 1 << 16  # bytes read to learn of a file's first packet
SLACK_NS = 1_000_000_000  # a new file's first packet may be so much before the last of the old one


class Present(NamedTuple):
    """The file that has nothing more, as far as that tells which one comes after it."""

    path: str
    changed_ns: int | None  # when it was last written to; None if that tells nothing
    first_ns: int | None  # time of its first packet; of the file before, if it has none
    last_ns: int | None  # time of the latest packet so far


def successor(present: Present, *, missed: bool) -> str | None:
    """Return the file that comes next, if it has a packet already.

    That is, of the files whose names are of one rotation with this one's, the one whose first packet comes
    next. It cannot be long before this one's last packet: of two captures that run side by side none comes
    after the other.

    Args:
        present: the file that has nothing more.
        missed: whether files in between may be gone, so that numbers need not follow one another.
    """
    found = []
    for path in candidates(present.path, missed=missed):
        try:
            status = path.stat()
        except OSError:  # it went at this moment
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        if present.changed_ns is not None and status.st_mtime_ns < present.changed_ns:
            continue
        begins_ns = first_ns(str(path))
        if begins_ns is not None and _comes_after(begins_ns, present):
            found.append((begins_ns, str(path)))
    return min(found)[1] if found else None


def _comes_after(begins_ns: int, present: Present) -> bool:
    if present.first_ns is None or present.last_ns is None:
        return True
    return begins_ns > present.first_ns and begins_ns >= present.last_ns - SLACK_NS


def candidates(path: str, *, missed: bool) -> list[Path]:
    """Return the files that may come after this one by their names, in no order."""
    here = Path(path)
    try:
        names = [entry.name for entry in here.parent.iterdir()]
    except OSError:  # whoever follows may look into the file, and no longer into its folder
        return []
    return [here.with_name(name) for name in names if of_one_rotation(here.name, name, missed=missed)]


def of_one_rotation(name: str, other: str, *, missed: bool = False) -> bool:
    """Return whether `other` may come after `name`, by their names."""
    if name == other:
        return False
    (base, number), (other_base, other_number) = _split(name), _split(other)
    if base == other_base and other_number:  # tcpdump -C
        following = str(int(number or 0) + 1).zfill(len(number))
        return missed or other_number in {following, "0" * len(number)}
    return _alike(name, other) or _alike(base, other_base)


def _alike(name: str, other: str) -> bool:
    """Return whether names are the same but for digits that may be a time, or a long number."""
    digits = sum(map(len, DIGITS.findall(name)))
    return name != other and digits >= FEWEST_DIGITS and _without_digits(name) == _without_digits(other)


def _without_digits(name: str) -> str:
    return DIGITS.sub(lambda run: "0" * len(run[0]), name)


def _split(name: str) -> tuple[str, str]:
    """Return a name and the number at its end, which may be empty."""
    base = name.rstrip("0123456789")
    return base, name[len(base) :]


def first_ns(path: str) -> int | None:
    """Return the time of a capture's first packet; None if it is no capture, or has none yet."""
    try:
        with open_capture(path, batch=1, window=WINDOW) as capture:
            return next((int(frames.time_ns[0]) for frames in capture.batches()), None)
    except CaptureError:
        return None
