"""The records of a pcap: what their headers say, and the chain that their lengths make of them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

import numpy as np

from closeseq.capture.records import gather, gather_runs, numbers

RECORD_HEADER = 16
CAPTURED_AT, WIRE_AT = 8, 12  # the two lengths' places in a record header; each other's in old files
DAY = 86_400  # seconds; records of one window are seldom further apart


class Lengths(Enum):
    """How the two lengths of a record stand."""

    CAPTURED_FIRST = auto()
    WIRE_FIRST = auto()
    SMALLER_CAPTURED = auto()  # either way


@dataclass(frozen=True)
class Form:
    """How the records of one pcap are written."""

    order: str  # "<" or ">", of all numbers
    ns_per_unit: int  # nanoseconds in a unit of the fraction of a second
    longest: int  # captured bytes that make sense
    lengths: Lengths

    @cached_property
    def captured_at(self) -> int:
        """Where in a record header the captured length stands; or both, if either may be it."""
        return WIRE_AT if self.lengths is Lengths.WIRE_FIRST else CAPTURED_AT

    @cached_property
    def claimed(self) -> struct.Struct:
        """The lengths at `captured_at` of which the smallest is the captured one."""
        return struct.Struct(self.order + ("II" if self.lengths is Lengths.SMALLER_CAPTURED else "I"))

    @cached_property
    def number(self) -> np.dtype[np.uint32]:
        """Any number of a record header."""
        return np.dtype(f"{self.order}u4")

    @cached_property
    def layout(self) -> np.dtype[np.void]:
        """A record header."""
        names = ["seconds", "fraction", "captured", "wire"]
        if self.lengths is Lengths.WIRE_FIRST:
            names[2:] = ["wire", "captured"]
        return np.dtype([(name, self.number) for name in names])

    def lengths_of(self, header: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the captured lengths and those on the wire, as the headers claim them (int64, bytes)."""
        captured, wire = header["captured"].astype(np.int64), header["wire"].astype(np.int64)
        if self.lengths is Lengths.SMALLER_CAPTURED:
            return np.minimum(captured, wire), np.maximum(captured, wire)
        return captured, wire


class Records:
    """The records of one window as a chain; see `lockstep.Chain`.

    Lengths are not yet checked here. A false one leads out of the window, which ends the walk, or into the
    midst of it, which is no harm: what is found behind a false length is thrown away.
    """

    def __init__(self, window: memoryview, form: Form) -> None:
        self.last = len(window) - RECORD_HEADER
        self._window = window
        self._form = form
        fields = (
            [form.captured_at] if form.lengths is not Lengths.SMALLER_CAPTURED else [CAPTURED_AT, WIRE_AT]
        )
        self._claimed = [numbers(window, form.number, field, self.last + 1) for field in fields]

    def plain(self, at: int, before: int, most: int) -> tuple[list[int], int]:
        """Go from record to record, in a plain loop."""
        window, claimed, captured_at = self._window, self._form.claimed.unpack_from, self._form.captured_at
        found = list[int]()
        before = min(before, self.last + 1)
        for _ in range(most):
            if at >= before:
                break
            found.append(at)
            at += RECORD_HEADER + min(claimed(window, at + captured_at))
        return found, at

    def following(self, at: np.ndarray) -> np.ndarray:
        """Return where the records behind these begin."""
        within = np.minimum(at, self.last)
        captured, *other = (claimed[within] for claimed in self._claimed)
        if other:
            captured = np.minimum(captured, *other)
        behind: np.ndarray = at + captured
        behind += RECORD_HEADER
        return behind

    def plausible(self, at: np.ndarray, width: int, sample: np.ndarray) -> np.ndarray:
        """Tell where records may begin: there is a time near the sample's, and sensible lengths."""
        form = self._form
        earliest = gather(self._window, sample[:1], form.number) - np.uint32(DAY)  # wraps, as does the next
        mask = gather_runs(self._window, at, width, form.number) - earliest <= np.uint32(2 * DAY)
        row, column = np.nonzero(mask)
        header = gather(self._window, at[row] + column, form.layout)
        captured, wire = form.lengths_of(header)
        sensible = (captured <= wire) & (captured <= form.longest) & (wire > 0) & (wire <= form.longest)
        mask[row, column] = sensible & (header["fraction"] < 1_000_000_000 // form.ns_per_unit)
        return mask
