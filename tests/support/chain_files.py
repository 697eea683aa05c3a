"""A capture cut into files, and the records of these put side by side with those of the whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import closeseq
from capture_files import ETHERNET, Packet, enhanced, interface, pcap_header, pcap_record, read_file, section
from packing import PACK
from places import CAPTURES

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

SECOND = 10**9
GAP = re.compile(r" \(no file covers the [^()]* between #\d+ and #\d+\)")
PLACE = re.compile(r"#(\d+):(\d+)")


def packets_of(name: str) -> list[Packet]:
    return read_file(CAPTURES / name).packets


def busy(dice: Random, rounds: int = 2, every: int = 1, first: int = 0) -> list[Packet]:
    """Return the packets of all captures of the lab at once, and again when their TIME_WAIT is over or not.

    The same ports are then used again, by connections that ended in every way there is.

    Args:
        dice: decides by how much they are shifted.
        rounds: how often each capture comes.
        every: of the captures one in so many.
        first: the first of them.
    """
    found = []
    began = 1_800_000_000 * SECOND
    for path in sorted(CAPTURES.glob("*.pcap"))[first::every]:
        packets = read_file(path).packets
        if packets[0].link_type != ETHERNET:
            continue
        for turn in range(rounds):
            shift = began + turn * dice.choice([20, 90]) * SECOND + dice.randrange(9 * SECOND)
            found += [p._replace(time_ns=p.time_ns - packets[0].time_ns + shift) for p in packets]
    return sorted(found, key=lambda packet: packet.time_ns)


def as_file(packets: list[Packet], dice: Random) -> bytes:
    """Return a file with these packets: pcap or pcapng, of either byte order, plain or compressed."""
    order, link = dice.choice("<>"), packets[0].link_type if packets else ETHERNET
    if dice.random() < 0.5:
        data = pcap_header(order, 0xA1B23C4D, link=link)
        data += b"".join(pcap_record(packet, order, 1) for packet in packets)
    else:
        data = section(order) + interface(order, link=link, tsresol=9)
        data += b"".join(enhanced(packet, order, ticks=packet.time_ns) for packet in packets)
    pack = PACK.get(dice.choice(["", "", *PACK]))
    return pack(data) if pack else data


def cuts_by_count(packets: list[Packet], dice: Random, most: int = 9) -> list[int]:
    return sorted(dice.randrange(len(packets) + 1) for _ in range(dice.randint(1, most)))


def cuts_by_time(packets: list[Packet], dice: Random, most: int = 9) -> list[int]:
    first, last = packets[0].time_ns, packets[-1].time_ns
    times = sorted(dice.randint(first, last) for _ in range(dice.randint(1, most)))
    return [sum(packet.time_ns < time for packet in packets) for time in times]


def written(folder: Path, packets: list[Packet], cuts: list[int], dice: Random) -> list[str]:
    """Write the pieces under names that do not tell their order, and return these in any order."""
    edges = [0, *cuts, len(packets)]
    numbers = dice.sample(range(100), len(edges))
    paths = []
    for number, begin, end in zip(numbers, edges, edges[1:], strict=False):
        path = folder / f"piece-{number:03}.pcap"
        path.write_bytes(as_file(packets[begin:end], dice))
        paths.append(str(path))
    return dice.sample(paths, len(paths))


def records(analysis: closeseq.Analysis) -> list[dict]:
    return [closeseq.record(connection) for connection in analysis]


def expected_records(whole: closeseq.Analysis) -> list[dict]:
    """Return the records of a whole capture without its name; made once, for it is compared with several."""
    made = vars(whole).get("expected_records")
    if made is None:
        made = vars(whole)["expected_records"] = [told | {"capture": ""} for told in records(whole)]
    return made


def as_of_one_file(told: dict, files) -> dict:
    """Return the record of a connection in several files without what these add, which is checked."""
    named = told.pop("files")
    for one in [*told["timeline"], *told["transitions"]]:
        assert one.pop("file_packet") == (one["packet"] and files.name(one["packet"]))
    for finding in told["findings"]:
        assert finding.pop("file_packets") == [files.name(packet) for packet in finding["packets"]]
    assert named == {str(number): files.files[number - 1].path for number in map(int, named)}
    ranges = [packets_in(files.files[n - 1]) for n in map(int, named)]
    assert all(any(one["packet"] in packets for packets in ranges) for one in told["timeline"])
    assert told["capture"] == files.path(told["timeline"][0]["packet"])
    return without_places(told, files) | {"capture": ""}


def packets_in(file) -> range:
    return range(file.before + 1, file.before + file.packets + 1)


def without_places(told, files):
    """Return what is told with running numbers in its texts, and no gap between files in them."""
    if isinstance(told, dict):
        return {name: without_places(value, files) for name, value in told.items()}
    if isinstance(told, list):
        return [without_places(value, files) for value in told]
    if not isinstance(told, str):
        return told
    running = PLACE.sub(lambda at: f"#{files.begins[int(at[1]) - 1] + int(at[2])}", told)
    return GAP.sub("", running)


def assert_same(whole: closeseq.Analysis, parts: closeseq.Analysis) -> None:
    """Hold a chain against the capture that it was cut from."""
    expected = expected_records(whole)
    files = parts.reading.files
    got = records(parts)
    if files.several:
        got = [as_of_one_file(told, files) for told in got]
    assert [told | {"capture": ""} for told in got] == expected
    assert (parts.verdicts, parts.shapes, parts.findings) == (whole.verdicts, whole.shapes, whole.findings)
    for name in (
        "packets",
        "segments",
        "skipped",
        "notes",
        "copies",
        "first_ns",
        "last_ns",
        "end_ns",
        "error",
    ):
        assert getattr(parts.reading, name) == getattr(whole.reading, name), name


def assert_places(packets: list[Packet], parts: closeseq.Analysis) -> None:
    """Look up packets by their places in the files, and hold them against those of the whole."""
    files = parts.reading.files
    contents = [read_file(file.path).packets for file in files.files]
    assert [len(content) for content in contents] == [file.packets for file in files.files]
    for running, packet in enumerate(packets, 1):
        file, number = files.place(running)
        assert contents[file - 1][number - 1] == packet._replace(wire=max(packet.wire, len(packet.data)))


# The captures whose packets are in the order of their times, by name.
IN_ORDER = sorted(
    path.name
    for path in CAPTURES.glob("*.pcap")
    if (times := [packet.time_ns for packet in packets_of(path.name)]) == sorted(times)
)
