"""The headers of a frame as layers, for the walk from one to the next (see `encapsulation`).

dpkt is imported here, and so only when a frame has to be walked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import dpkt

if TYPE_CHECKING:
    from collections.abc import Callable

# The spaces that the numbers of layers are from. The first has LINKTYPE_ values.
LINK, ETHERTYPE, PROTOCOL = "link type", "EtherType", "IP protocol"


class Layer(NamedTuple):
    """The next header: a number, the space the number is from, and its position in the frame."""

    space: str  # LINK, ETHERTYPE or PROTOCOL
    number: int  # in that space; of LINK also `wireless.PADDED`
    at: int  # bytes from the frame's begin
    tag: int = 0  # the VLAN that the header in front of it names
    place: int = 0  # of the header in front of it, 32 bits: where the frame was captured, as in `links`


class Aggregate(NamedTuple):
    """Several next headers, each of a packet of its own."""

    layers: tuple[Layer, ...]


class Skip(Exception):  # noqa: N818  # no error, but the end of a walk
    """The walk ends here; the argument is the reason as in `Segments.skipped`."""


class Fragmented(Exception):  # noqa: N818
    """The walk ends at a fragment of a TCP segment; the arguments are `Piece`'s, from `data` on."""


def header(name: str, fields: Any, bits: Any = None) -> Callable[[bytes, int], Any]:
    """Return a function that unpacks one header, and nothing behind it.

    Args:
        name: of the class that it gives.
        fields: name, struct format and default of each, as dpkt's `__hdr__`; big-endian.
        bits: parts of fields, as dpkt's `__bit_fields__`; None without.

    Returns:
        A function of a frame and a position in it. It raises dpkt.NeedData where the frame is too short.
    """
    packet = type(dpkt.Packet)(name, (dpkt.Packet,), {"__hdr__": fields, "__bit_fields__": bits or {}})
    size = packet.__hdr_len__
    return lambda frame, at: packet(frame[at : at + size])


def dpkt_header(packet: Any) -> Callable[[bytes, int], Any]:
    """Return a function that unpacks the header of a dpkt class, and nothing behind it, as `header` does."""
    return header(packet.__name__, packet.__hdr__, getattr(packet, "__bit_fields__", None))


octet = header("Octet", (("value", "B", 0),))
pair = header("Pair", (("value", "H", 0),))
