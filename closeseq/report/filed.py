"""What records say besides, where a capture goes on through several files.

`packet` stays what it is: a number that runs on from file to file, so that programs can compare two of them.
Beside it stands `file_packet`, "3:17", by which the packet is looked up: the 17th of file 3, whose name is in
`files`. Texts name packets in the latter way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from closeseq.report.text import moment, named, printable, seconds

if TYPE_CHECKING:
    from closeseq.packets.files import File, Files
    from closeseq.reading import Reading

Record: TypeAlias = dict[str, Any]


def in_files(record: Record, files: Files) -> Record:
    """Add to a connection's record where each of its packets is, and the names of the files."""
    packets = set()
    for one in [*record["timeline"], *record["transitions"]]:
        packet = one["packet"]
        one["file_packet"] = None if packet is None else files.name(packet)
        packets.add(packet)
        for text in ("note", "cause"):
            if one.get(text):
                one[text] = files.text(one[text])
    for finding in record["findings"]:
        packets.update(finding["packets"])
        finding["file_packets"] = [files.name(packet) for packet in finding["packets"]]
        finding["summary"] = files.text(finding["summary"])
    record["summary"] = files.text(record["summary"])
    among = files.among(packet for packet in packets if packet is not None)
    record["files"] = {str(number): named(path) for number, path in among.items()}
    return record


def of_files(reading: Reading) -> Record:
    """Return what a capture's header says of its files, if there are several."""
    files = reading.files
    told: Record = {}
    if files.several:
        told["files"] = [_file(number, file) for number, file in enumerate(files.files, 1)]
        told["gaps"] = [
            {
                "before": files.name(gap.before),
                "after": files.name(gap.after),
                "duration": seconds(gap.to_ns - gap.from_ns),
            }
            for gap in files.gaps()
        ]
    if reading.empty:
        told["empty"] = [named(path) for path in reading.empty]
    if reading.beside:
        told["beside"] = [named(path) for path in reading.beside]
    return told


def _file(number: int, file: File) -> Record:
    return {
        "number": number,
        "name": named(file.path),
        "packets": file.packets,
        "start": None if file.first_ns is None else moment(file.first_ns),
        "end": None if file.last_ns is None else moment(file.last_ns),
        "error": None if file.error is None else printable(str(file.error)),
    }
