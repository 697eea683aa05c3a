"""The header formats as numpy dtypes, fields named as in the RFCs.

`packets.gather` gathers columns of them; a position is an index into the buffer of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from closeseq.packets.protocols import FRAGMENT_OFFSET

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

IPV4 = np.dtype(  # RFC 791 3.1
    [
        ("version_ihl", "u1"),
        ("type_of_service", "u1"),
        ("total_length", ">u2"),
        ("identification", ">u2"),
        ("flags_fragment_offset", ">u2"),
        ("time_to_live", "u1"),
        ("protocol", "u1"),
        ("header_checksum", ">u2"),
        ("source", ">u4"),
        ("destination", ">u4"),
    ]
)
IPV6 = np.dtype(  # RFC 8200 3
    [
        ("version_class_flow", ">u4"),
        ("payload_length", ">u2"),
        ("next_header", "u1"),
        ("hop_limit", "u1"),
        ("source_high", ">u8"),
        ("source_low", ">u8"),
        ("destination_high", ">u8"),
        ("destination_low", ">u8"),
    ]
)
TCP = np.dtype(  # RFC 9293 3.1, and the options as nearly every segment carries them (RFC 7323 appendix A)
    [
        ("source_port", ">u2"),
        ("destination_port", ">u2"),
        ("sequence_number", ">u4"),
        ("acknowledgment_number", ">u4"),
        ("data_offset", "u1"),
        ("control_bits", "u1"),
        ("window", ">u2"),
        ("checksum", ">u2"),
        ("urgent_pointer", ">u2"),
        ("options_lead", ">u4"),
        ("tsval", ">u4"),
        ("tsecr", ">u4"),
    ]
)
TCP_FIXED = 20  # bytes of the TCP header in front of the options
UINT16 = np.dtype(">u2")


@dataclass(frozen=True, slots=True)
class Family:
    """One version of IP: its header, and what to read out of a column of such headers."""

    version: int  # 4 or 6
    layout: np.dtype  # of the header, without options
    version_of: Callable[[NDArray[np.void]], NDArray[np.integer[Any]]]  # what the header itself says
    header_bytes: Callable[[NDArray[np.void]], NDArray[np.int64]]  # without extension headers
    # bytes of header and payload; 0 if the header leaves it open
    ip_bytes: Callable[[NDArray[np.void]], NDArray[np.int64]]
    # the bits of MORE_FRAGMENTS and FRAGMENT_OFFSET
    fragment: Callable[[NDArray[np.void]], NDArray[np.integer[Any]]]
    protocol: str  # the field with the number of what follows
    columns: Mapping[str, str]  # column of Segments -> field
    constants: Mapping[str, int]  # column of Segments -> value


MORE_FRAGMENTS = 0x2000  # RFC 791 3.1: a bit beside FRAGMENT_OFFSET

FAMILIES = (
    Family(
        version=4,
        layout=IPV4,
        version_of=lambda header: header["version_ihl"] >> 4,
        header_bytes=lambda header: (header["version_ihl"] & 0x0F).astype(np.int64) * 4,
        ip_bytes=lambda header: header["total_length"].astype(np.int64),
        fragment=lambda header: header["flags_fragment_offset"] & (MORE_FRAGMENTS | FRAGMENT_OFFSET),
        protocol="protocol",
        columns={
            "src_low": "source",
            "dst_low": "destination",
            "ttl": "time_to_live",
            "ip_id": "identification",
        },
        constants={"version": 4, "src_high": 0, "dst_high": 0},
    ),
    Family(
        version=6,
        layout=IPV6,
        version_of=lambda header: header["version_class_flow"] >> 28,
        header_bytes=lambda header: np.full(len(header), IPV6.itemsize, dtype=np.int64),
        ip_bytes=lambda header: _ipv6_bytes(header["payload_length"].astype(np.int64)),
        fragment=lambda header: np.zeros(len(header), dtype=np.uint16),  # an extension header: walked
        protocol="next_header",
        columns={
            "src_high": "source_high",
            "src_low": "source_low",
            "dst_high": "destination_high",
            "dst_low": "destination_low",
            "ttl": "hop_limit",
        },
        constants={"version": 6, "ip_id": -1},
    ),
)


def _ipv6_bytes(payload_length: NDArray[np.int64]) -> NDArray[np.int64]:
    # RFC 2675 3: 0 is a jumbo payload, whose length (if stated at all) is in an option.
    return np.where(payload_length == 0, 0, payload_length + IPV6.itemsize)
