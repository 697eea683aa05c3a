"""What Wireshark's own tools make of annotated captures: tshark, capinfos, editcap."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import closeseq
from capture_files import ETHERNET, pcap, read_file, read_stream
from closeseq.cli.main import run
from closeseq.verdict.model import FindingCode
from closeseq.wireshark.comments import comments
from places import CAPTURES, ROOT
from wireshark_tools import fields, needs_tool, numbers, tool

PLUGIN = ("-X", f"lua_script:{ROOT / 'closeseq/wireshark/closeseq.lua'}")
FILES = sorted([*CAPTURES.glob("*.pcap"), *CAPTURES.glob("*.pcapng"), *CAPTURES.glob("*.pcap.gz")])
STATES = ("closeseq.client.state", "closeseq.server.state")


def annotated(tmp_path, *captures, options=()):
    target = tmp_path / "annotated.pcapng"
    assert run(["analyze", *map(str, captures), "-f", "pcapng", "-o", str(target), "--force", *options]) == 0
    return target


class Expected:
    """What closeseq says of a capture, by packets whose numbers begin behind `before`."""

    def __init__(self, path, before):
        self.findings, self.moved, self.states = {}, set(), {}
        for connection in closeseq.analyze(str(path)):
            for finding in connection.findings:
                shown = {before + packet for packet in finding.packets}
                self.findings.setdefault(finding.code.value, set()).update(shown)
            steps = connection.timeline.steps
            shown = {id(transition) for step in steps for transition in step.transitions}
            for transition in connection.timeline.transitions:
                if transition.packet is not None and id(transition) not in shown:
                    self.moved.add(before + transition.packet)  # by a packet of the next connection
                    last = steps[-1].client.value, transition.after.value
                    self.states.setdefault(before + transition.packet, set()).add(last)
            for step in steps:
                states = step.client.value, step.server.value
                self.states.setdefault(before + step.packet, set()).add(states)
                for transition in step.transitions:
                    crossing = step.event is not None or transition.packet < step.packet
                    self.moved.add(before + (step.packet if crossing else transition.packet))
        self.findings = {code: packets for code, packets in self.findings.items() if packets}


@needs_tool("tshark")
def test_filters_find_exactly_the_packets_of_the_findings(tmp_path):
    """By the text of comments without a plugin, and by the plugin's fields: in every capture of the lab.

    They are read as the sections of one file.
    """
    whole, before, captures = tmp_path / "whole.pcapng", [0], []
    with whole.open("wb") as file:
        for path in FILES:
            data = annotated(tmp_path, path).read_bytes()
            packets = read_stream(data).packets
            assert packets == read_file(path).packets
            file.write(data)
            captures.append(Expected(path, before[-1]))
            before.append(before[-1] + len(packets))
    names = ("frame.number", "frame.comment", "closeseq.finding", "closeseq.transition", *STATES)
    rows = fields(whole, *names, more=PLUGIN)
    assert len(rows) == before[-1]
    for index, capture in enumerate(captures):
        by_text, by_field, moved = {}, {}, set()
        for row in rows[before[index] : before[index + 1]]:
            number, said, codes, transitions, client, server = int(row[0]), *row[1:]
            for code in FindingCode:
                if f" {code} (" in said:
                    by_text.setdefault(code.value, set()).add(number)
            for code in filter(None, codes.split("|")):
                by_field.setdefault(code, set()).add(number)
            moved |= {number} if transitions else set()
            for states in zip(client.split("|"), server.split("|"), strict=True) if client else ():
                assert states in capture.states.get(number, {states})
        assert by_text == by_field == capture.findings, FILES[index]
        assert moved == capture.moved, FILES[index]


@needs_tool("tshark")
def test_filters_as_a_user_writes_them(tmp_path):
    target = annotated(tmp_path, CAPTURES / "final-ack-lost.pcap")
    (connection,) = closeseq.analyze(str(CAPTURES / "final-ack-lost.pcap"))
    ours = [packet for packet, _ in comments(connection)]
    assert numbers(target, 'frame.comment contains "closeseq"') == ours
    (finding,) = (one for one in connection.findings if one.code == "final-ack-lost")
    assert numbers(target, 'frame.comment contains "final-ack-lost"') == sorted(finding.packets)
    for where in ('closeseq.finding == "final-ack-lost"', 'closeseq.severity == "problem"'):
        assert numbers(target, where, PLUGIN) == sorted(finding.packets)
    assert numbers(target, 'closeseq.server.state == "TIME_WAIT"', PLUGIN) == list(range(10, 18))
    assert numbers(target, 'closeseq.client.certainty == "assumed"', PLUGIN) == [17]
    assert numbers(target, 'closeseq.note contains "lost"', PLUGIN) == [11, 13, 15]
    assert numbers(target, "closeseq.connection == 1", PLUGIN) == ours


@needs_tool("tshark")
def test_a_hostile_comment_gives_no_field_and_no_error(tmp_path):
    """In a capture, comments may be anybody's."""
    said = [
        "closeseq: #1",
        "closeseq: #99999999999999999999 client CLOSED; server CLOSED",
        "closeseq: #1 client ; server ; problem ; notice (((; note: ",
        "closeseq: #1 client <script>; problem %s%n (client, proved); problem a-b (client, proved, more)",
        "closeseq: #1 " + "; " * 5000,
        "closeseq: #1 client A -> B (x) -> C",
        "",
    ]
    plain, given = tmp_path / "plain.pcapng", tmp_path / "given.pcapng"
    tool("editcap", "-F", "pcapng", CAPTURES / "final-ack-lost.pcap", plain)
    options = [part for number, text in enumerate(said, 1) for part in ("-a", f"{number}:{text}")]
    tool("editcap", *options, plain, given)
    rows = fields(given, "frame.number", "closeseq.finding", "_ws.lua.error", more=PLUGIN)
    assert {row[1] for row in rows} == {""}
    assert {row[2] for row in rows} == {""}


@needs_tool("tshark", "capinfos")
@pytest.mark.parametrize("nano", [False, True])
def test_capinfos_sees_the_resolution_and_link_type_of_a_pcap(tmp_path, nano):
    packets = read_file(CAPTURES / "final-ack-lost.pcap").packets
    path = tmp_path / "given.pcap"
    path.write_bytes(pcap(packets, nano=nano))
    told = tool("capinfos", annotated(tmp_path, path))
    assert f"Time precision = {'nano' if nano else 'micro'}seconds" in told
    assert "Encapsulation = Ethernet" in told
    assert f"Number of packets = {len(packets)}" in told
    assert packets[0].link_type == ETHERNET


@needs_tool("editcap")
@pytest.mark.parametrize("name", ["final-ack-lost.pcap", "client-closes.pcapng", "long-way.pcap"])
def test_editcap_takes_the_comments_out(tmp_path, name):
    """As a pcap, which has no comments, the annotated capture and the original are the same."""
    target, one, two = annotated(tmp_path, CAPTURES / name), tmp_path / "one", tmp_path / "two"
    tool("editcap", "-F", "nsecpcap", target, one)
    tool("editcap", "-F", "nsecpcap", CAPTURES / name, two)
    snap_length = slice(16, 20)  # which editcap takes over from a pcap only
    same = [bytearray(path.read_bytes()) for path in (one, two)]
    for data in same:
        data[snap_length] = bytes(4)
    assert same[0] == same[1]


DISCARD = "--discard-packet-comments"


@needs_tool("editcap")
def test_editcap_gives_a_pcapng_back_byte_for_byte(tmp_path):
    helped = subprocess.run(["editcap", "--help"], capture_output=True, text=True, timeout=60, check=False)
    if DISCARD not in helped.stdout + helped.stderr:
        pytest.skip(f"this editcap has no {DISCARD}, which came with Wireshark 4.4")
    given, back = tmp_path / "given.pcapng", tmp_path / "back.pcapng"
    tool("editcap", "-F", "pcapng", CAPTURES / "leaky-server.pcap", given)
    tool("editcap", DISCARD, annotated(tmp_path, given), back)
    assert back.read_bytes() == given.read_bytes()


@needs_tool("tshark", "mergecap")
def test_several_sections_and_interfaces_are_read(tmp_path):
    """As mergecap and cat make them."""
    merged, both = tmp_path / "merged.pcapng", tmp_path / "both.pcapng"
    tool("mergecap", "-w", merged, CAPTURES / "leaky-server.pcap", CAPTURES / "slow-close.pcap")
    both.write_bytes(merged.read_bytes() + (CAPTURES / "client-closes.pcapng").read_bytes())
    target = annotated(tmp_path, both)
    said = {packet for connection in closeseq.analyze(str(both)) for packet, _ in comments(connection)}
    assert set(numbers(target, 'frame.comment contains "closeseq: #"')) == said


@needs_tool("tshark")
def test_it_goes_through_a_pipe(tmp_path):
    command = [sys.executable, "-m", "closeseq", "analyze", "captures/refused.pcap", "-f", "pcapng"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        shown = subprocess.run(
            ["tshark", "-r", "-", "-Y", 'frame.comment contains "RST" or frame.comment contains "CLOSED"'],
            stdin=process.stdout,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert process.returncode == 0
    assert len(shown.stdout.splitlines()) >= 2


@needs_tool("tshark")
def test_the_readme_shows_what_tshark_prints(tmp_path):
    (shown,) = re.findall(r"```console tshark\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "captures").symlink_to(CAPTURES)
    script = f'closeseq() {{ "{sys.executable}" -m closeseq "$@"; }}\nset -e\n'
    script += "".join(line[2:] + "\n" for line in shown.splitlines() if line.startswith("$ "))
    printed = tool("bash", "-c", f"cd {tmp_path}\n{script}", env={"PYTHONPATH": str(ROOT)})
    expected = [line for line in shown.splitlines() if not line.startswith("$ ")]
    assert len(expected) > 3
    assert [line.replace("\t", " ") for line in printed.splitlines()] == expected
