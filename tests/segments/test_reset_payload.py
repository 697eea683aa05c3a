"""What RSTs carry beside their header."""

from __future__ import annotations

import numpy as np
import pytest

from closeseq.packets.reset_reasons import MOST_BYTES, ReasonKind, ResetReason
from closeseq.packets.segments import ACK, RST
from closeseq.segments.reset_payload import read

MP_TCPRST = b"\x1e\x04\x80\x03"
TIMESTAMPS = b"\x01\x01\x08\x0a" + bytes(8)


def said(options=b"", payload=b"", flags=RST):
    """Return what a segment with these options and this payload says."""
    buffer = np.frombuffer(b"#" * 5 + options + payload + b"padding", np.uint8)
    begin = np.array([5])
    found = read(
        buffer,
        np.array([flags], np.uint8),
        options=begin,
        payload=begin + len(options),
        past=begin + len(options) + len(payload),
    )
    return dict(found).get(0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"options": TIMESTAMPS}, None),
        ({"payload": b"blocked"}, ResetReason(ReasonKind.PAYLOAD, b"blocked")),
        ({"payload": b"x" * 500}, ResetReason(ReasonKind.PAYLOAD, b"x" * MOST_BYTES)),
        ({"payload": bytes(6)}, None),  # Ethernet's padding, or a stack's
        ({"payload": b"data", "flags": ACK}, None),
        ({"options": TIMESTAMPS + MP_TCPRST}, ResetReason(ReasonKind.MPTCP, b"\x03")),
        ({"options": b"\x1e\x04\x10\x03"}, None),  # another subtype
        ({"options": b"\x1e\x09\x80\x03"}, None),  # cut short
        ({"options": b"\x1e\x00\x80\x03"}, None),
        ({"options": b"\x00" + MP_TCPRST}, None),  # behind the end of the options
    ],
)
def test_a_reason(given, expected):
    assert said(**given) == expected
