"""From frames to columns: find the TCP header of each frame, judge it, read it; all frames at once.

Nothing here runs once a packet. A frame falls out at the first check it fails, and is counted there.
No checksum is verified: with checksum offload the sender's own capture holds none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from closeseq.packets.segments import COLUMNS, DTYPES, Segments
from closeseq.segments import options
from closeseq.segments.layouts import (
    FAMILIES,
    FRAGMENT_OFFSET,
    TCP,
    TCP_FIXED,
    UINT16,
    Family,
    gather,
    select,
)
from closeseq.segments.links import KIND_OF_PROTOCOL, TUNNEL_PORTS, Kind, Networks, find_networks
from closeseq.segments.tally import Tally

if TYPE_CHECKING:
    from closeseq.packets.frames import Frames

# Ethernet pads a frame's payload to 46 bytes, so the wire length tells the IP length only above.
SMALLEST_OFFLOAD = 47


@dataclass(frozen=True, slots=True)
class Packets:
    """IP packets of one family that hold a TCP header, and where; columns of equal length."""

    family: Family
    row: np.ndarray  # int64, index of the frame in the batch
    position: np.ndarray  # int64, of the IP header in the buffer
    tcp: np.ndarray  # int64, of the TCP header in the buffer


def decode(frames: Frames) -> Segments:
    """Return the TCP segments of a batch in capture order, and the counts of what gave none.

    It depends on nothing but the batch, and raises nothing, whatever the frames contain.
    """
    tally = Tally()
    networks = find_networks(frames, tally)
    irregular = [np.flatnonzero(networks.kind == Kind.NESTED)]
    found = []
    for family in FAMILIES:
        rows = np.flatnonzero(networks.kind == family.version)
        if len(rows):
            packets, nested = _find_tcp(frames, family, rows, networks.position[rows], tally)
            found.append(packets)
            irregular.append(nested)
    found += _find_irregular(frames, networks, np.concatenate(irregular), tally)
    parts = [_read(frames, packets, tally) for packets in found if len(packets.row)]
    return _join(frames, parts, tally)


def _find_tcp(
    frames: Frames, family: Family, rows: np.ndarray, position: np.ndarray, tally: Tally
) -> tuple[Packets, np.ndarray]:
    """Return the packets with TCP right behind the IP header, and the rows of those that are irregular."""
    captured_end = frames.offset[rows] + frames.captured[rows]
    header = gather(frames.buffer, position, family.layout)
    behind = position + family.header_bytes(header)
    fragment = family.fragment(header)
    kind = KIND_OF_PROTOCOL[header[family.protocol]]
    udp = np.flatnonzero(kind == Kind.UDP)
    if len(udp):
        port = gather(frames.buffer, behind[udp] + 2, UINT16)
        whole = behind[udp] + 4 <= captured_end[udp]
        kind[udp[whole & np.isin(port, TUNNEL_PORTS)]] = Kind.NESTED
    good = tally.passing(
        ("IP header cut short", position + family.layout.itemsize <= captured_end),
        (
            "malformed IP header",
            (family.version_of(header) == family.version) & (behind - position >= family.layout.itemsize),
        ),
        # A first fragment holds the TCP header, but not the length of the segment: where its sender goes
        # on, and which number its FIN has, it does not tell. Without it the segment is an honest gap. The
        # first fragment of a tunnel is another matter: there the inner IP header tells.
        ("IP fragment", (fragment & FRAGMENT_OFFSET == 0) & ((fragment == 0) | (kind != Kind.TCP))),
        ("not TCP", (kind == Kind.TCP) | (kind == Kind.NESTED)),
    )
    nested = rows[good & (kind == Kind.NESTED)]
    if len(nested) or not good.all():
        good &= kind == Kind.TCP
        rows, position, behind = rows[good], position[good], behind[good]
    return Packets(family, rows, position, behind), nested


def _find_irregular(frames: Frames, networks: Networks, rows: np.ndarray, tally: Tally) -> list[Packets]:
    """Return the innermost packets of the frames that only a walk along their headers can read."""
    if not len(rows):
        return []
    from closeseq.segments import irregular  # dpkt is imported for few captures only

    found: dict[int, list[tuple[int, int, int]]] = {family.version: [] for family in FAMILIES}
    for row in rows.tolist():
        offset = int(frames.offset[row])
        frame = frames.buffer[offset : offset + int(frames.captured[row])].tobytes()
        start = int(networks.position[row]) - offset
        inner = irregular.locate(frame, int(networks.ethertype[row]), start)
        if isinstance(inner, str):
            tally.skipped[inner] += 1
        else:
            found[inner.version].append((row, offset + inner.ip, offset + inner.tcp))
    tables = [(family, np.array(found[family.version], dtype=np.int64).reshape(-1, 3)) for family in FAMILIES]
    return [Packets(family, *table.T) for family, table in tables]


def _read(frames: Frames, packets: Packets, tally: Tally) -> dict[str, np.ndarray]:
    """Return the columns of the packets whose lengths add up, and "row", the index of the frame."""
    family, row, position, tcp = packets.family, packets.row, packets.position, packets.tcp
    offset = frames.offset[row]
    captured_end = offset + frames.captured[row]
    ip_header = gather(frames.buffer, position, family.layout)
    tcp_header = gather(frames.buffer, tcp, TCP)
    header_bytes = (tcp_header["data_offset"] >> 4).astype(np.int64) * 4
    on_wire = offset + frames.wire[row] - position  # the packet and perhaps the link's padding
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
    # A receiver would discard it, but the usual cause is a tool that cut the frames and forgot their length.
    tally.note("IP length exceeds the length on the wire", good & (stated > on_wire))
    if not good.all():
        row, tcp, header_bytes, room = row[good], tcp[good], header_bytes[good], room[good]
        captured_end = captured_end[good]
        ip_header, tcp_header = select(ip_header, good), select(tcp_header, good)
    options_end = np.minimum(tcp + header_bytes, captured_end)
    return {
        "row": row,
        **{name: ip_header[field] for name, field in family.columns.items()},
        **{name: np.full(len(row), value, dtype=DTYPES[name]) for name, value in family.constants.items()},
        "src_port": tcp_header["source_port"],
        "dst_port": tcp_header["destination_port"],
        "seq": tcp_header["sequence_number"],
        "ack": tcp_header["acknowledgment_number"],
        "flags": tcp_header["control_bits"],
        "window": tcp_header["window"],
        "length": room - header_bytes,
        **options.read(frames.buffer, tcp_header, tcp + TCP_FIXED, options_end),
    }


def _join(frames: Frames, parts: list[dict[str, np.ndarray]], tally: Tally) -> Segments:
    """Return the parts as one, in capture order, with the dtypes of `Segments`."""
    rows = np.concatenate([np.empty(0, dtype=np.int64), *(part["row"] for part in parts)])
    order = np.argsort(rows, kind="stable") if len(parts) > 1 else None
    columns = {}
    for name in COLUMNS:
        if name in ("number", "time_ns"):
            column = getattr(frames, name)[rows]
        else:
            nothing: np.ndarray = np.empty(0, dtype=DTYPES[name])
            column = np.concatenate([nothing, *(part[name] for part in parts)], dtype=DTYPES[name])
        columns[name] = column if order is None else column[order]
    return Segments(**columns, skipped=dict(tally.skipped), notes=dict(tally.notes))
