"""From frames to columns: find the TCP header of each frame, check it, read it; all frames at once.

Nothing here runs once a packet. A frame falls out at the first check it fails, and is counted there.
No checksum is verified: with checksum offload the sender's own capture holds none. `narrow` then keeps the
segments of some ports or hosts.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import numpy as np

from closeseq.packets.frames import Frames
from closeseq.packets.gather import gather_padded, select
from closeseq.packets.protocols import (
    FRAGMENT_OFFSET,
    LINKTYPE_ETHERNET,
    LINKTYPE_RAW,
    LINKTYPE_SLL,
    LINKTYPE_SLL2,
    TUNNEL_PORTS,
)
from closeseq.packets.segments import COLUMNS, DTYPES, Segments
from closeseq.segments import reset_payload, tcp_options
from closeseq.segments.layouts import (
    FAMILIES,
    TCP,
    TCP_FIXED,
    UINT16,
    Family,
)
from closeseq.segments.links import (
    KIND_OF_PROTOCOL,
    LINKS,
    WALKED,
    Networks,
    NextHeader,
    Tally,
    find_networks,
    with_number,
)

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray

    from closeseq.segments.encapsulation import Piece
    from closeseq.segments.fragments import Fragments

LARGEST_PACKET = 65_575  # bytes, of IPv6; of IPv4 it is 40 less
# Ethernet pads a frame's payload to 46 bytes, so the wire length gives the IP length only above.
SMALLEST_OFFLOAD = 47

LOW_HALF = (1 << 64) - 1

# By link type: the length of a link header, of those that are nothing but addresses and a direction.
PLAIN_LENGTHS = np.full(1 << 16, -1, np.int64)
for _number in (LINKTYPE_ETHERNET, LINKTYPE_SLL, LINKTYPE_SLL2):
    PLAIN_LENGTHS[_number] = LINKS[_number].length


@dataclass(frozen=True, slots=True)
class TcpPackets:
    """IP packets of one family that hold a TCP header, and where it is; columns with one entry a packet."""

    family: Family
    row: NDArray[np.int64]  # index of the frame in the batch
    position: NDArray[np.int64]  # of the IP header in the buffer
    tcp: NDArray[np.int64]  # of the TCP header in the buffer


class Decoder:
    """Decodes batch after batch of one capture. It keeps the fragments of unfinished packets.

    Args:
        fragments: those of earlier files.
    """

    def __init__(self, fragments: Fragments | None = None) -> None:
        self._fragments = fragments

    @property
    def fragments(self) -> Fragments | None:
        """The packets of which some fragments have come, and not all; None without any."""
        return self._fragments or None

    def decode(self, frames: Frames) -> Segments:
        """Return the TCP segments of a batch in capture order, with counts of the frames that gave none.

        It never raises, whatever the frames contain.
        """
        tally = Tally()
        networks = find_networks(frames, tally)
        walked = [np.flatnonzero(networks.kind == NextHeader.NESTED)]
        found = []
        for family in FAMILIES:
            rows = np.flatnonzero(networks.kind == family.version)
            if len(rows):
                packets, nested = _find_tcp(frames, family, rows, networks.position[rows], tally)
                found.append(packets)
                walked.append(nested)
        rows = np.sort(np.concatenate(walked))
        parts = []
        if len(rows):
            inner, joined = self._walk(frames, networks, rows, tally)
            found += inner
            parts += _read_joined(joined, tally)
        parts += [_read(frames, packets, tally) for packets in found if len(packets.row)]
        return _join(frames, networks, parts, tally)

    def _walk(
        self, frames: Frames, networks: Networks, rows: NDArray[np.int64], tally: Tally
    ) -> tuple[list[TcpPackets], list[tuple[int, bytes]]]:
        """Walk along the headers of these frames, one by one (see `encapsulation`).

        Returns:
            Their innermost packets, and the packets that a fragment completes, each with the fragment's row.
        """
        from closeseq.segments import encapsulation, layers  # dpkt is imported for few captures only

        found: dict[int, list[tuple[int, int, int]]] = {family.version: [] for family in FAMILIES}
        joined: list[tuple[int, bytes]] = []
        for row in rows.tolist():
            offset, link_type = int(frames.offset[row]), int(frames.link_type[row])
            frame = frames.buffer[offset : offset + int(frames.captured[row])].tobytes()
            start, ethertype = int(networks.position[row]) - offset, int(networks.ethertype[row])
            layer = (layers.LINK, link_type) if link_type in WALKED else (layers.ETHERTYPE, ethertype)
            ends = encapsulation.locate(frame, layers.Layer(*layer, start), int(networks.vlan[row]))
            if isinstance(ends, str):
                tally.skipped[ends] += 1
                continue
            for end in ends:
                if isinstance(end, encapsulation.Inner):
                    found[end.version].append((row, offset + end.ip, offset + end.tcp))
                elif (packet := self._joined(frame, end, int(frames.time_ns[row]))) is not None:
                    joined.append((row, packet))
                else:
                    tally.skipped["IP fragment"] += 1
            networks.vlan[row], place = ends[0].vlan, np.array([ends[0].place], dtype=np.uint64)
            networks.place[row] = with_number(networks.place[[row]], place)[0]
        tables = [
            (family, np.array(found[family.version], dtype=np.int64).reshape(-1, 3)) for family in FAMILIES
        ]
        return [TcpPackets(family, *table.T) for family, table in tables], joined

    def _joined(self, frame: bytes, piece: Piece, time_ns: int) -> bytes | None:
        """Return the packet that a fragment completes; None if none."""
        if self._fragments is None:
            from closeseq.segments.fragments import Fragments

            self._fragments = Fragments()
        return self._fragments.add(frame, piece, time_ns)


def decode(frames: Frames) -> Segments:
    """Return the TCP segments of a single batch, as `Decoder` does, without earlier fragments."""
    return Decoder().decode(frames)


def _find_tcp(
    frames: Frames, family: Family, rows: NDArray[np.int64], position: NDArray[np.int64], tally: Tally
) -> tuple[TcpPackets, NDArray[np.int64]]:
    """Return the packets with TCP right behind the IP header, and the rows of those to be walked."""
    captured_end = frames.offset[rows] + frames.captured[rows]
    header = gather_padded(frames.buffer, position, family.layout)
    behind = position + family.header_bytes(header)
    fragment = family.fragment(header)
    kind = KIND_OF_PROTOCOL[header[family.protocol]]
    udp = np.flatnonzero(kind == NextHeader.UDP)
    if len(udp):
        port = gather_padded(frames.buffer, behind[udp] + 2, UINT16)
        whole = behind[udp] + 4 <= captured_end[udp]
        kind[udp[whole & np.isin(port, TUNNEL_PORTS)]] = NextHeader.NESTED
    pieces = (fragment != 0) & (kind == NextHeader.TCP)
    kind[pieces] = NextHeader.NESTED
    good = tally.passing(
        ("IP header cut short", position + family.layout.itemsize <= captured_end),
        (
            "malformed IP header",
            (family.version_of(header) == family.version) & (behind - position >= family.layout.itemsize),
        ),
        # The first fragment of a tunnel is enough: its inner IP header gives the segment's length. A segment
        # needs all its fragments: only the last one gives its length, and so the sequence number of its FIN
        # and of what follows. Without it the segment is a gap.
        ("IP fragment", pieces | (fragment & FRAGMENT_OFFSET == 0)),
        ("not TCP", (kind == NextHeader.TCP) | (kind == NextHeader.NESTED)),
    )
    nested = rows[good & (kind == NextHeader.NESTED)]
    if len(nested) or not good.all():
        good &= kind == NextHeader.TCP
        rows, position, behind = rows[good], position[good], behind[good]
    return TcpPackets(family, rows, position, behind), nested


def _read_joined(joined: list[tuple[int, bytes]], tally: Tally) -> list[dict[str, NDArray[Any]]]:
    """Return the columns of packets joined of fragments, each given as its row and its first bytes."""
    if not joined:
        return []
    captured = np.array([len(octets) for _, octets in joined], dtype=np.int64)
    count = len(joined)
    frames = Frames(
        buffer=np.frombuffer(b"".join(octets for _, octets in joined), dtype=np.uint8),
        offset=np.cumsum(captured) - captured,
        captured=captured,
        wire=np.full(count, LARGEST_PACKET, dtype=np.int64),
        time_ns=np.zeros(count, dtype=np.int64),
        number=np.zeros(count, dtype=np.int64),
        link_type=np.full(count, LINKTYPE_RAW, dtype=np.uint16),
    )
    networks = find_networks(frames, tally)
    parts = []
    for family in FAMILIES:
        rows = np.flatnonzero(networks.kind == family.version)
        packets, _ = _find_tcp(frames, family, rows, networks.position[rows], tally)
        parts.append(_read(frames, packets, tally))
    row = np.array([row for row, _ in joined], dtype=np.int64)
    for part in parts:
        part["row"] = row[part["row"]]
        tally.note("put together from IP fragments", np.ones(len(part["row"]), dtype=np.bool_))
    return [part for part in parts if len(part["row"])]


def _read(frames: Frames, packets: TcpPackets, tally: Tally) -> dict[str, NDArray[Any]]:
    """Return the columns of the packets whose lengths add up, and "row", the index of the frame."""
    family, row, position, tcp = packets.family, packets.row, packets.position, packets.tcp
    offset = frames.offset[row]
    captured_end = offset + frames.captured[row]
    ip_header = gather_padded(frames.buffer, position, family.layout)
    tcp_header = gather_padded(frames.buffer, tcp, TCP)
    header_bytes = (tcp_header["data_offset"] >> 4).astype(np.int64) * 4
    depth = position - offset
    on_wire = frames.wire[row] - depth  # the packet and perhaps the link's padding
    stated = family.ip_bytes(ip_header)
    offloaded = stated == 0
    room = np.where(offloaded, on_wire, stated) - (tcp - position)  # TCP header and payload
    good = tally.passing(
        ("malformed IP header", (room >= 0) & ~(offloaded & (on_wire < SMALLEST_OFFLOAD))),
        ("malformed TCP header", room >= TCP_FIXED),
        ("TCP header cut short", tcp + TCP_FIXED <= captured_end),
        ("malformed TCP header", (header_bytes >= TCP_FIXED) & (header_bytes <= room)),
    )
    tally.note("segmentation offload: IP length 0", good & offloaded)
    # A receiver would discard it, but mostly a tool has cut the frames and did not keep their length.
    tally.note("IP length exceeds the length on the wire", good & (stated > on_wire))
    if not good.all():
        row, tcp, header_bytes, room = row[good], tcp[good], header_bytes[good], room[good]
        depth = depth[good]
        captured_end = captured_end[good]
        ip_header, tcp_header = select(ip_header, good), select(tcp_header, good)
    options_end = np.minimum(tcp + header_bytes, captured_end)
    return {
        "row": row,
        "depth": depth,
        **{name: ip_header[field] for name, field in family.columns.items()},
        **{name: np.full(len(row), value, dtype=DTYPES[name]) for name, value in family.constants.items()},
        "src_port": tcp_header["source_port"],
        "dst_port": tcp_header["destination_port"],
        "seq": tcp_header["sequence_number"],
        "ack": tcp_header["acknowledgment_number"],
        "flags": tcp_header["control_bits"],
        "window": tcp_header["window"],
        "length": room - header_bytes,
        **tcp_options.read(frames.buffer, tcp_header, tcp + TCP_FIXED, options_end),
        "reasons": reset_payload.read(
            frames.buffer,
            tcp_header["control_bits"],
            options=tcp + TCP_FIXED,
            payload=tcp + header_bytes,
            past=np.minimum(tcp + room, captured_end),
        ),
    }


def _join(frames: Frames, networks: Networks, parts: list[dict[str, NDArray[Any]]], tally: Tally) -> Segments:
    """Return the parts as one, in capture order, with the dtypes of `Segments`."""
    rows = np.concatenate([np.empty(0, dtype=np.int64), *(part["row"] for part in parts)])
    order = np.argsort(rows, kind="stable") if len(parts) > 1 else None
    columns = {}
    for name in COLUMNS:
        if name in ("number", "time_ns"):
            column = getattr(frames, name)[rows]
        elif name == "vlan":
            column = networks.vlan[rows]
        elif name == "place":
            # A packet seen bare and in a tunnel, or tagged and not, stands at different places in its frames.
            depth = np.concatenate([np.empty(0, dtype=np.int64), *(part["depth"] for part in parts)])
            column = with_number(networks.place[rows], depth.astype(np.uint64))
            vlan = networks.vlan[rows]
            plain = PLAIN_LENGTHS[frames.link_type[rows]] + 4 * (vlan > 0) + 4 * (vlan >= 1 << 16)
            column = (column & ~np.uint64(1)) | (depth != plain).astype(np.uint64)
        else:
            nothing: NDArray[Any] = np.empty(0, dtype=DTYPES[name])
            column = np.concatenate([nothing, *(part[name] for part in parts)], dtype=DTYPES[name])
        columns[name] = column if order is None else column[order]
    reasons = {
        int(frames.number[part["row"][at]]): reason
        for part in parts
        for at, reason in part.get("reasons", ())
    }
    return Segments(**columns, skipped=dict(tally.skipped), notes=dict(tally.notes), reasons=reasons)


def narrow(segments: Segments, ports: AbstractSet[int], hosts: AbstractSet[str]) -> Segments:
    """Return the rows that have one of the ports, and one of the addresses, at either end.

    Args:
        segments: a batch; the counts of what was skipped stay with it.
        ports: 0 to 65535; an empty set asks for any.
        hosts: IP addresses as text; an empty set asks for any.

    Raises:
        ValueError: a host is no IP address.
        OverflowError: a port is out of range.
    """
    keep = np.ones(len(segments), dtype=np.bool_)
    if ports:
        wanted = np.array(sorted(ports), dtype=np.uint16)
        keep &= np.isin(segments.src_port, wanted) | np.isin(segments.dst_port, wanted)
    if hosts:
        named = np.zeros(len(segments), dtype=np.bool_)
        for host in hosts:
            named |= _has(segments, host)
        keep &= named
    return segments if keep.all() else segments.take(keep)


def _has(segments: Segments, host: str) -> NDArray[np.bool_]:
    """Return which rows have this address at either end: a boolean column."""
    address = ip_address(host)
    high, low = np.uint64(int(address) >> 64), np.uint64(int(address) & LOW_HALF)
    source = (segments.src_high == high) & (segments.src_low == low)
    destination = (segments.dst_high == high) & (segments.dst_low == low)
    named: NDArray[np.bool_] = (segments.version == address.version) & (source | destination)
    return named
