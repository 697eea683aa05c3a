"""What a RST says of its reason, and how that reads. Anybody can write it: it proves nothing.

Three forms: a code in the payload (draft-ietf-tcpm-rst-diagnostic-payload), plain text in the payload (RFC
9293 3.5.3), and the option MP_TCPRST (RFC 8684 3.6).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

MOST_BYTES = 64  # of a payload that are kept
DIAGNOSTIC = struct.Struct(">HHI")  # magic, code, enterprise number
MAGIC = b"\x33\xaa"
CODES = {3: "data after close", 4: "abort", 14: "time-out", 17: "middlebox"}
MPTCP_REASONS = (
    "unspecified error",
    "MPTCP-specific error",
    "lack of resources",
    "administratively prohibited",
    "too much outstanding data",
    "unacceptable performance",
    "middlebox interference",
)
PRINTABLE = range(0x20, 0x7F)


class ReasonKind(IntEnum):
    """Where the reason stands."""

    PAYLOAD = 0
    MPTCP = 1


class ResetReason(NamedTuple):
    """What a RST carries beside its header."""

    kind: ReasonKind  # where it stands
    octets: bytes  # the first of its payload; or the one byte of the option


def malformed(reason: ResetReason) -> bool:
    """Whether this only begins like a reason, and says nothing."""
    return (
        reason.kind is ReasonKind.PAYLOAD
        and reason.octets.startswith(MAGIC)
        and len(reason.octets) != DIAGNOSTIC.size
    )


def wording(reason: ResetReason) -> str:
    """Return a reason as text that any terminal may show; another text for each, if it is not malformed."""
    octets = reason.octets
    if reason.kind is ReasonKind.MPTCP:
        code = octets[0]
        return f"MP_TCPRST reason {_named(code, dict(enumerate(MPTCP_REASONS)))}"
    if not octets.startswith(MAGIC):
        return f'text "{"".join(map(_escaped, octets))}"'
    _, code, enterprise = DIAGNOSTIC.unpack(octets)
    if enterprise:
        return f"diagnostic code {code} of enterprise {enterprise}"
    return f"diagnostic code {_named(code, CODES)}"


def _named(code: int, names: dict[int, str]) -> str:
    return f"{code} ({names[code]})" if code in names else f"{code}"


def _escaped(octet: int) -> str:
    if octet in PRINTABLE and octet not in b'"\\':
        return chr(octet)
    return f"\\x{octet:02x}"
