"""Captures of many connections, each written as a script, with endpoints and a beginning of its own."""

from __future__ import annotations

import functools
from struct import pack
from typing import Any

import numpy as np

from capture_files import RAW, Packet
from closeseq.analysis import Analysis
from closeseq.packets.segments import COLUMNS, DTYPES, Segments
from closeseq.reading import BatchCounts
from closeseq.script import ADDRESSES, PORTS, segments
from frame_bytes import tcp

CLIENT, SERVER = ADDRESSES


def captured(scripts, **options) -> Analysis:
    """Return the analysis of connections; options as of `together`."""
    analysis = Analysis("made.pcap")
    made = together(scripts, **options)
    analysis.reading.add(len(made), BatchCounts.of(made))
    analysis.feed(made)
    return analysis


def together(
    scripts, *, every_ns=7_000_000, client_ports=range(1024, 65536), clients=1, servers=1
) -> Segments:
    """Return connections that begin one after the other, from several clients in turn to several servers."""
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for number, script in enumerate(scripts):
        made = _segments(script)
        changed = {"time_ns": made.time_ns + number * every_ns}
        port, client = client_ports[number % len(client_ports)], CLIENT + number % clients
        server = SERVER + number % servers
        for way in ("src", "dst"):
            own = getattr(made, f"{way}_port") == PORTS[0]
            changed[f"{way}_port"] = np.where(own, port, getattr(made, f"{way}_port"))
            changed[f"{way}_low"] = np.where(own, client, server)
        for name in COLUMNS:
            rows[name].append(changed.get(name, getattr(made, name)))
    columns = {name: np.concatenate(parts).astype(DTYPES[name]) for name, parts in rows.items()}
    order = np.argsort(columns["time_ns"], kind="stable")
    columns = {name: values[order] for name, values in columns.items()}
    columns["number"] = np.arange(1, len(order) + 1)
    return Segments(**columns)


@functools.cache
def _segments(script) -> Segments:
    """Return the segments of a script, which nobody changes."""
    return segments(script)


def packets_of_rows(rows: Segments) -> list[Packet]:
    """Return the same as packets of IPv4, for a file."""
    names = ("time_ns", "src_low", "dst_low", "src_port", "dst_port", "seq", "ack", "flags", "length")
    found = []
    for row in zip(*(getattr(rows, name).tolist() for name in names), strict=True):
        time_ns, source, destination, *ports, seq, ack, flags, length = row
        segment = tcp(payload=bytes(length), flags=flags, seq=seq, ack=ack, ports=tuple(ports))
        number = len(found) % 0xFFFF + 1
        header = pack(
            ">BBHHHBBHII", 0x45, 0, 20 + len(segment), number, 0x4000, 63, 6, 0, source, destination
        )
        found.append(Packet(time_ns, header + segment, link_type=RAW))
    return found
