"""Captures of many connections, each written as a script, with endpoints and a beginning of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from closeseq.analysis import Analysis
from closeseq.packets.segments import COLUMNS, DTYPES, Segments
from closeseq.script import PORTS, START_NS, segments

CLIENT = 0xC0000201  # of scripts


def captured(scripts, **options) -> Analysis:
    """Return the analysis of connections; options as of `together`."""
    analysis = Analysis("made.pcap")
    made = together(scripts, **options)
    analysis.reading.add(len(made), made)
    analysis.feed(made)
    return analysis


def together(scripts, *, every_ns=7_000_000, client_ports=range(1024, 65536), clients=1) -> Segments:
    """Return connections that begin one after the other, from several clients in turn."""
    rows: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for number, script in enumerate(scripts):
        made = segments(script, start_ns=START_NS + number * every_ns)
        port, client = client_ports[number % len(client_ports)], CLIENT + number % clients
        for way in ("src", "dst"):
            own = getattr(made, f"{way}_port") == PORTS[0]
            getattr(made, f"{way}_port")[own] = port
            getattr(made, f"{way}_low")[own] = client
        for name in COLUMNS:
            rows[name].append(getattr(made, name))
    columns = {name: np.concatenate(parts).astype(DTYPES[name]) for name, parts in rows.items()}
    order = np.argsort(columns["time_ns"], kind="stable")
    columns = {name: values[order] for name, values in columns.items()}
    columns["number"] = np.arange(1, len(order) + 1)
    return Segments(**columns)
