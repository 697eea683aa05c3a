"""The frames that need a walk of their own: tunnels, extension headers, 802.11, MPLS, PPPoE, LLC, many tags.

The walk goes from header to header until it meets TCP, and says where the innermost IP header and the TCP
header stand; they are then read like all others. What each header says is in `headers`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import dpkt

from closeseq.segments.headers import MOST_PARTS, STEPS, TCP
from closeseq.segments.layers import ETHERTYPE, PROTOCOL, Aggregate, Fragmented, Layer, Skip
from closeseq.segments.links import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_LLC,
    LARGEST_LENGTH,
    with_tag,
)

DEEPEST = 32  # headers; more make no sense, and each costs time


class Inner(NamedTuple):
    """Where in a frame the innermost IP header and the TCP header behind it begin."""

    version: int
    ip: int
    tcp: int
    vlan: int = 0  # as in `links`, of the tags on the way
    place: int = 0  # tells apart what the link headers on the way tell apart


class Piece(NamedTuple):
    """An IP fragment of a packet that holds TCP: where in a frame it is, and which part of the packet."""

    version: int
    ip: int
    data: int  # where its part of the packet's payload begins
    offset: int  # bytes, of this part in the payload
    more: bool  # other fragments follow
    identification: int
    vlan: int = 0
    place: int = 0


class Way(NamedTuple):
    """How far the walk of a frame has come, or of a part of it."""

    layer: Layer
    steps: int = 0  # headers so far
    ip: Layer | None = None  # the innermost IP header
    vlan: int = 0
    place: int = 0


def locate(frame: bytes, layer: Layer, vlan: int = 0) -> list[Inner | Piece] | str:
    """Return where the TCP headers of a frame are, or fragments of them, or the reason why it has none.

    Only an 802.11 aggregate has more than one. `frame` is what was captured, `layer` its first header that
    is not read yet, `vlan` the VLANs of the tags in front of it.
    """
    ways, found, reasons = [Way(layer, vlan=vlan)], list[Inner | Piece](), list[str]()
    for way in ways:  # parts of aggregates are added while it goes on
        end = _follow(frame, way, ways)
        if isinstance(end, str):
            reasons.append(end)
        elif end is not None:
            found.append(end)
    return found or next(iter(reasons), "not IP")


def _follow(frame: bytes, way: Way, ways: list[Way]) -> Inner | Piece | str | None:
    """Go on to where the walk ends: a segment, a fragment, a reason, or None for an aggregate's begin."""
    layer, steps, ip, vlan, place = way
    try:
        for _ in range(DEEPEST - steps):
            if layer.space == ETHERTYPE and layer.number in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
                ip = layer
            elif ip and layer.space == PROTOCOL and layer.number == TCP:
                return Inner(4 if ip.number == ETHERTYPE_IPV4 else 6, ip.at, layer.at, vlan, place)
            is_length = layer.space == ETHERTYPE and layer.number <= LARGEST_LENGTH
            step = STEPS.get((layer.space, ETHERTYPE_LLC if is_length else layer.number))
            if step is None:
                return "not TCP" if ip else "not IP"
            following, steps = step(frame, layer.at), steps + 1
            if isinstance(following, Aggregate):
                room = max(0, MOST_PARTS - len(ways))
                ways += [
                    Way(part, steps, ip, with_tag(vlan, part.tag), place ^ part.place)
                    for part in following.layers[:room]
                ]
                return None
            layer = following
            vlan, place = with_tag(vlan, layer.tag), place ^ layer.place
    except (dpkt.NeedData, struct.error):
        return "encapsulation cut short"
    except Skip as end:
        return str(end)
    except Fragmented as end:
        assert ip is not None
        data, offset, more, identification = end.args
        version = 4 if ip.number == ETHERTYPE_IPV4 else 6
        return Piece(version, ip.at, data, offset, more, identification, vlan, place)
    return "encapsulation too deep"
