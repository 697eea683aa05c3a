"""When a saved capture goes on in another file, and how the files are called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SECOND_NS = 1_000_000_000
SIZES = {
    **{unit + "B": 1000**power for power, unit in enumerate(("", "k", "M", "G", "T"))},
    **{unit + "iB": 1024**power for power, unit in enumerate(("K", "M", "G", "T"), start=1)},
}
TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86_400}  # seconds
# A size without its B could be meant as a time, and 100 packets are neither.
AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
EXAMPLES = "write a size like 100MB or 64KiB, or a time like 30s, 10m, 1h, 1d"


@dataclass(frozen=True, slots=True)
class Rotation:
    """How far one file goes; one of the two."""

    size: int | None = None  # bytes
    time_ns: int | None = None


def parse_rotation(text: str) -> Rotation:
    """Return what `--rotate` says: a size (B, kB, MB, GB, TB, KiB, ...) or a time (s, m, h, d).

    Raises:
        ValueError: it is neither, or nothing.
    """
    amount = AMOUNT.fullmatch(text.strip())
    if amount is None:
        raise ValueError(f"{text!r} is neither a size nor a time: {EXAMPLES}")
    number, unit = float(amount[1]), amount[2]
    sizes = {name.lower(): size for name, size in SIZES.items()}
    if unit in TIMES:
        rotation = Rotation(time_ns=_at_least_one(number * TIMES[unit] * SECOND_NS, text))
    elif unit.lower() in sizes:
        rotation = Rotation(size=_at_least_one(number * sizes[unit.lower()], text))
    else:
        raise ValueError(f"{unit!r} in {text!r} is no unit of size or time: {EXAMPLES}")
    return rotation


def _at_least_one(amount: float, text: str) -> int:
    if amount < 1:
        raise ValueError(f"{text!r} is nothing at all: {EXAMPLES}")
    return int(amount)


def numbered(path: str, number: int) -> str:
    """Return the name of one of several files: cap.pcapng gives cap-00001.pcapng and so on."""
    whole = Path(path)
    return str(whole.with_name(f"{whole.stem}-{number:05}{whole.suffix}"))


def already_there(path: str) -> list[str]:
    """Return the files that look as if they had been saved in turn under this name before."""
    whole = Path(path)
    shape = re.compile(re.escape(whole.stem) + r"-\d{5,}" + re.escape(whole.suffix))
    try:
        names = sorted(entry.name for entry in whole.parent.iterdir() if shape.fullmatch(entry.name))
    except OSError:  # opening the first file will tell
        names = []
    return [str(whole.with_name(name)) for name in names]
