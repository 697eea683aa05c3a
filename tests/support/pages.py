"""Pages of `closeseq report` for tests: written in this process, and read again without a browser."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from capture_files import ETHERNET, Packet, pcap, read_file
from closeseq.cli.main import run
from places import CAPTURES

if TYPE_CHECKING:
    from pathlib import Path

# What a browser would run if any of it came into a page as HTML.
HOSTILE = "</script><img src=x onerror=document.title='owned'><!--"
SECOND = 10**9


class Parsed(HTMLParser):
    """A page as its elements: name, attributes, and the text directly in each."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        if tag not in ("meta", "input"):
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self.elements[self._open.pop()][0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]] += data

    def of(self, tag: str, **wanted: str) -> list[str]:
        """Return the texts of the elements with this name and these attributes."""
        return [
            text
            for (name, attributes), text in zip(self.elements, self.texts, strict=True)
            if name == tag and all(attributes.get(key) == value for key, value in wanted.items())
        ]

    def json(self, ident: str) -> Any:
        """Return what the JSON in the page with this id holds."""
        (text,) = self.of("script", id=ident)
        return json.loads(text)


def written(folder: Path, *arguments: str, status: int = 0) -> tuple[Path, str]:
    """Write a page about a capture in this process; return its path and text."""
    path = folder / "report.html"
    assert run(["report", *map(str, arguments), "--force", "-o", str(path)]) == status
    return path, path.read_text(encoding="utf-8")


def many_connections(path: Path) -> None:
    """Write a capture of many connections to one port: every other capture of the lab, all at once."""
    found = []
    for number, capture in enumerate(sorted(CAPTURES.glob("*.pcap"))[::2]):
        packets = read_file(capture).packets
        if packets[0].link_type == ETHERNET:
            shift = 1_800_000_000 * SECOND + number * SECOND // 7 - packets[0].time_ns
            found += [packet._replace(time_ns=packet.time_ns + shift) for packet in packets]
    path.write_bytes(pcap(sorted(found, key=lambda packet: packet.time_ns), nano=True))


def hostile_capture(folder: Path) -> Path:
    """Write a capture whose path, and the reason in whose RST, would be HTML."""
    place = folder / HOSTILE.partition("/")[0]
    place.mkdir()
    path = place / f"{HOSTILE.partition('/')[2]}.pcap"
    client, server = ("10.0.0.1", 40000), ("10.0.0.2", 80)

    def segment(end, flags, seq, ack, payload=b""):
        (source, sport), (to, dport) = (client, server) if end == "C" else (server, client)
        tcp = TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack)
        return bytes(Ether() / IP(src=source, dst=to) / tcp / payload)

    frames = [
        segment("C", "S", 100, 0),
        segment("S", "SA", 500, 101),
        segment("C", "A", 101, 501),
        segment("C", "PA", 101, 501, b"hello"),
        segment("S", "A", 501, 106),
        segment("S", "RA", 501, 106, HOSTILE.encode()),
    ]
    began = 1_700_000_000 * SECOND
    path.write_bytes(pcap([Packet(began + at * SECOND // 10, data) for at, data in enumerate(frames)]))
    return path
