"""A second opinion on what a frame holds: one frame after the other, with dpkt's whole packet objects.

    assert_agreement(frames)   holds closeseq.segments.decode against it

The column decoder uses dpkt only for the formats of rare headers; here dpkt unpacks everything, and the
lengths are worked out from its objects. It reads what a sane capture holds. For hostile bytes dpkt has
opinions of its own (it recurses, guesses, and reads on behind a broken option), so they are not asked here.
"""

from __future__ import annotations

import gzip
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import dpkt
import numpy as np
from dpkt.ethernet import Ethernet, VLANtag8021Q
from dpkt.ip import IP
from dpkt.ip6 import IP6

from closeseq.packets.frames import Frames
from closeseq.packets.segments import COLUMNS, Segments
from closeseq.segments import decode

if TYPE_CHECKING:
    from pathlib import Path

IP_TYPES = {0x0800: IP, 0x86DD: IP6}
TAG_TYPES = (0x8100, 0x88A8, 0x9100, 0x9200)
CUT_IP = "IP header cut short"
MALFORMED_IP = "malformed IP header"
OFFLOAD = "segmentation offload: IP length 0"
TOO_LONG = "IP length exceeds the length on the wire"


class Frame(NamedTuple):
    """One frame as it was captured; `wire` is its length on the wire."""

    link_type: int
    data: bytes
    wire: int


class Answer(NamedTuple):
    """What a frame holds: the values of `Segments` from `version` on, and remarks."""

    values: dict[str, int]
    notes: list[str]


class NoSegmentError(Exception):
    """The frame holds no segment to read; the argument is the reason."""


def frames_of(frames: list[Frame], gap: int = 3) -> Frames:
    """Return the frames as a batch, with `gap` bytes of something else in front of each one."""
    buffer, offset = bytearray(), []
    for frame in frames:
        buffer += b"\xa5" * gap
        offset.append(len(buffer))
        buffer += frame.data
    return Frames(
        buffer=np.frombuffer(bytes(buffer), dtype=np.uint8),
        offset=np.array(offset, dtype=np.int64),
        captured=np.array([len(frame.data) for frame in frames], dtype=np.int64),
        wire=np.array([frame.wire for frame in frames], dtype=np.int64),
        time_ns=np.arange(len(frames), dtype=np.int64) * 1000 + 1_700_000_000_000_000_000,
        number=np.arange(1, len(frames) + 1, dtype=np.int64),
        link_type=np.array([frame.link_type for frame in frames], dtype=np.uint16),
    )


def frames_in(path: Path) -> Frames:
    """Return the frames of a capture file as dpkt's reader gives them; it does not tell the wire length."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        reader = dpkt.pcap.UniversalReader(file)
        return frames_of([Frame(reader.datalink(), data, len(data)) for _, data in reader])


def rows_of(segments: Segments) -> list[dict[str, int]]:
    """Return the rows as dictionaries of plain integers, without what only the way to the packet tells."""
    columns = {name: getattr(segments, name).tolist() for name in COLUMNS if name not in ("vlan", "place")}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def assert_agreement(frames: Frames) -> Segments:
    """Assert that the column decoder and dpkt read the same out of each frame; return what they read."""
    rows, skipped, notes = [], Counter(), Counter()
    for at in range(len(frames)):
        offset, captured = int(frames.offset[at]), int(frames.captured[at])
        data = frames.buffer[offset : offset + captured].tobytes()
        try:
            answer = read(Frame(int(frames.link_type[at]), data, int(frames.wire[at])))
        except NoSegmentError as reason:
            skipped[str(reason)] += 1
        else:
            row = {"number": int(frames.number[at]), "time_ns": int(frames.time_ns[at])} | answer.values
            rows.append(row)
            notes.update(answer.notes)
    segments = decode(frames)
    assert rows_of(segments) == rows
    assert dict(segments.skipped) == dict(skipped)
    assert dict(segments.notes) == dict(notes)
    assert len(segments) + sum(segments.skipped.values()) == len(frames)
    return segments


def read(frame: Frame) -> Answer:
    """Return what the frame holds. Raises NoSegmentError with the reason if that is no segment."""
    packet, at = _network(frame)
    while True:
        if not isinstance(packet, IP | IP6):
            raise NoSegmentError("not TCP" if at else "not IP")
        protocol, behind, fragment = _inspect(packet)
        if fragment:
            raise NoSegmentError("IP fragment")
        inner = packet.data
        while isinstance(inner, dpkt.ah.AH):
            protocol, behind, inner = inner.nxt, behind + len(inner) - len(inner.data), inner.data
        if protocol == 6:
            return _segment(frame, packet, inner, at, at + behind)
        packet, at = _inside(protocol, inner, at + behind)


def _network(frame: Frame) -> tuple[Any, int]:
    """Return dpkt's object for the IP packet in the frame, and where in the frame that begins."""
    data, kind = frame.data, frame.link_type
    if kind in (12, 14, 101):
        kind = {4: 228, 6: 229}.get(data[0] >> 4 if data else 0, kind)
    headers = {0: 4, 1: 14, 9: 4, 12: 1, 14: 1, 50: 4, 51: 6, 101: 1, 104: 4, 108: 4}
    headers |= {113: 16, 228: 1, 229: 1, 276: 20}
    if kind not in headers:
        raise NoSegmentError(f"link type {kind} not known")
    if len(data) < headers[kind]:
        raise NoSegmentError(
            "encapsulation cut short" if data and kind in (9, 50, 51) else "link header cut short"
        )
    match kind:
        case 0 | 108:
            family = int.from_bytes(data[:4], "big")
            family = family if family < 256 else int.from_bytes(data[:4], "little")
            types = {2: 0x0800} | dict.fromkeys((10, 24, 28, 30), 0x86DD)
            return _typed(types.get(family, 0xFFFF), data, 4)
        case 1:
            return _ethernet(data, 0)
        case 9 | 50:
            return dpkt.ppp.PPP(data).data, 4
        case 51:
            return _pppoe(data, 0)
        case 104:
            return _typed(int.from_bytes(data[2:4], "big"), data, 4)
        case 113:
            return _typed(dpkt.sll.SLL(data).ethtype, data, 16)
        case 276:
            return _typed(dpkt.sll2.SLL2(data).ethtype, data, 20)
        case 228:
            return _typed(0x0800, data, 0)
        case 229:
            return _typed(0x86DD, data, 0)
    raise NoSegmentError("not IP")


def _ethernet(data: bytes, at: int) -> tuple[Any, int]:
    ethertype = int.from_bytes(data[at + 12 : at + 14], "big")
    if ethertype > 1500 and ethertype not in (0x8847, 0x8848):
        return _typed(ethertype, data, at + 14)
    packet = Ethernet(data[at:])
    if hasattr(packet, "llc"):
        return packet.llc.data, at + 14 + (8 if packet.llc.is_snap else 3)
    behind = at + 14 + 4 * len(packet.mpls_labels)
    if isinstance(packet.data, Ethernet):  # dpkt has left out the control word
        return _ethernet(data, behind + 4)
    return packet.data, behind


def _typed(ethertype: int, data: bytes, at: int) -> tuple[Any, int]:
    tags = 0
    while ethertype in TAG_TYPES:
        if len(data) < at + 4:
            raise NoSegmentError("link header cut short" if tags < 2 else "encapsulation cut short")
        ethertype, at, tags = VLANtag8021Q(data[at : at + 4]).type, at + 4, tags + 1
    if ethertype == 0x8864:
        return _pppoe(data, at)
    if ethertype not in IP_TYPES:
        raise NoSegmentError("not IP")
    if len(data) - at < (20 if ethertype == 0x0800 else 40):
        raise NoSegmentError(CUT_IP if tags < 3 else "encapsulation cut short")
    try:
        return IP_TYPES[ethertype](data[at:]), at
    except dpkt.NeedData:
        raise NoSegmentError("encapsulation cut short") from None  # within the extension headers
    except dpkt.UnpackError:
        raise NoSegmentError(MALFORMED_IP) from None


def _pppoe(data: bytes, at: int) -> tuple[Any, int]:
    packet = dpkt.pppoe.PPPoE(data[at:])
    if not isinstance(packet.data, dpkt.pppoe.PPP):
        raise NoSegmentError("not IP")
    return packet.data.data, at + 6 + (1 if data[at + 6] & 1 else 2)


def _inspect(packet: Any) -> tuple[int, int, bool]:
    """Return what follows the IP header, how far behind its beginning, and whether this is a fragment."""
    if isinstance(packet, IP):
        if packet.v != 4:
            raise NoSegmentError(MALFORMED_IP)
        return packet.p, packet.hl * 4, bool(packet.offset or (packet.mf and packet.p in (6, 51)))
    if packet.v != 6:
        raise NoSegmentError(MALFORMED_IP)
    headers = packet.all_extension_headers
    fragments = [header for header in headers if isinstance(header, dpkt.ip6.IP6FragmentHeader)]
    cut = any(f.frag_off or (f.m_flag and f.nxt in (6, 51, 60)) for f in fragments)
    return packet.p, 40 + sum(header.length for header in headers), cut


def _inside(protocol: int, inner: Any, at: int) -> tuple[Any, int]:
    """Return the packet in a tunnel, and where in the frame that begins."""
    if isinstance(inner, IP | IP6):
        return inner, at
    if isinstance(inner, dpkt.gre.GRE):
        skipped = len(inner) - len(inner.data)
        if isinstance(inner.data, Ethernet):
            packet, more = _ethernet(bytes(inner.data), 0)
            return packet, at + skipped + more
        return inner.data, at + skipped
    if isinstance(inner, dpkt.udp.UDP) and inner.dport in (4789, 8472, 6081):
        skipped = 8 + (8 if inner.dport != 6081 else 8 + 4 * (inner.data[0] & 0x3F))
        if inner.dport == 6081 and inner.data[2:4] != b"\x65\x58":
            return _typed_at(int.from_bytes(inner.data[2:4], "big"), inner.data[skipped - 8 :], at + skipped)
        packet, more = _ethernet(inner.data[skipped - 8 :], 0)
        return packet, at + skipped + more
    raise NoSegmentError("not TCP" if protocol not in (4, 41, 47) else "encapsulation cut short")


def _typed_at(ethertype: int, data: bytes, at: int) -> tuple[Any, int]:
    packet, more = _typed(ethertype, data, 0)
    return packet, at + more


def _segment(frame: Frame, packet: Any, segment: Any, at: int, tcp_at: int) -> Answer:
    on_wire = frame.wire - at
    stated = packet.len if isinstance(packet, IP) else packet.plen and packet.plen + 40
    room = (stated or on_wire) - (tcp_at - at)
    captured = frame.data[tcp_at:]
    if room < 0 or (not stated and on_wire <= 46):
        raise NoSegmentError(MALFORMED_IP)
    if room < 20:
        raise NoSegmentError("malformed TCP header")
    if len(captured) < 20:
        raise NoSegmentError("TCP header cut short")
    if not isinstance(segment, dpkt.tcp.TCP) or segment.off * 4 > room:
        raise NoSegmentError("malformed TCP header")
    notes = [OFFLOAD] if not stated else [TOO_LONG] if stated > on_wire else []
    return Answer(_addresses(packet) | _fields(segment) | {"length": room - segment.off * 4}, notes)


def _addresses(packet: Any) -> dict[str, int]:
    src, dst = int.from_bytes(packet.src, "big"), int.from_bytes(packet.dst, "big")
    low = (1 << 64) - 1
    return {
        "version": packet.v,
        "src_high": src >> 64,
        "src_low": src & low,
        "dst_high": dst >> 64,
        "dst_low": dst & low,
        "ttl": packet.ttl if isinstance(packet, IP) else packet.hlim,
        "ip_id": packet.id if isinstance(packet, IP) else -1,
    }


def _fields(segment: Any) -> dict[str, int]:
    stamps = [
        int.from_bytes(data, "big") for kind, data in options_of(segment.opts) if kind == 8 and len(data) == 8
    ]
    sacks = [data for kind, data in options_of(segment.opts) if kind == 5 and data and len(data) % 8 == 0]
    left, right = duplicate_of(sacks[-1], segment.ack) if sacks and segment.flags & 0x10 else (0, 0)
    return {
        "src_port": segment.sport,
        "dst_port": segment.dport,
        "seq": segment.seq,
        "ack": segment.ack,
        "flags": segment.flags & 0xFF,
        "window": segment.win,
        "has_timestamps": bool(stamps),
        "tsval": stamps[-1] >> 32 if stamps else 0,
        "tsecr": stamps[-1] & 0xFFFFFFFF if stamps else 0,
        "dsack_left": left,
        "dsack_right": right,
        "sacked": beyond_ack(sacks[-1], segment.ack) if sacks and segment.flags & 0x10 else 0,
        "syn_options": kinds_of(segment) if segment.flags & 0x02 else 0,
    }


def options_of(octets: bytes) -> list[tuple[int, bytes]]:
    """Return the options that dpkt finds, up to the end of the list or a broken one, where dpkt reads on."""
    options, at = [], 0
    for option in dpkt.tcp.parse_opts(octets):
        if option is None or option[0] == 0:
            break
        kind, data = option
        if kind != 1 and octets[at + 1] != 2 + len(data):
            break
        options.append((kind, data))
        at += 1 if kind == 1 else 2 + len(data)
    return options


def beyond_ack(sack: bytes, ack: int) -> int:
    """Return how far the blocks of a SACK option reach beyond the acknowledgment; 0 if they do not."""
    edges = [int.from_bytes(sack[at : at + 4], "big") for at in range(4, min(len(sack), 32), 8)]
    return max([0, *((edge - ack + (1 << 31)) % (1 << 32) - (1 << 31) for edge in edges)])


def kinds_of(segment: Any) -> int:
    """Return the kinds of up to eight options, four bits each; none where timestamps stand alone."""
    if len(segment.opts) == 12 and segment.opts[:4] == bytes([1, 1, 8, 10]):
        return 0
    kinds = 0
    for kind, _ in options_of(segment.opts)[:8]:
        kinds = kinds << 4 | min(kind, 15)
    return kinds


def duplicate_of(sack: bytes, ack: int) -> tuple[int, int]:
    """Return the edges of the D-SACK (RFC 2883 4) in a SACK option, or zeros."""
    edges = [int.from_bytes(sack[at : at + 4], "big") for at in range(0, len(sack), 4)]

    def beyond(a: int, b: int) -> int:
        return (a - b + (1 << 31)) % (1 << 32) - (1 << 31)

    left, right = edges[:2]
    below = beyond(right, ack) <= 0
    within = len(edges) > 2 and beyond(left, edges[2]) >= 0 and beyond(right, edges[3]) <= 0
    return (left, right) if beyond(right, left) > 0 and (below or within) else (0, 0)
