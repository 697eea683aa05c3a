"""The page of `report`, read without a browser: what it says, and that a capture cannot write into it."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from random import Random

import pytest

from capture_files import pcap
from chain_files import as_file, packets_of
from closeseq.cli.main import run
from closeseq.report.page import overview as counting
from closeseq.report.page.document import Page, in_script, policy
from closeseq.report.page.overview import Overview
from closeseq.report.selection import Selection
from pages import HOSTILE, Parsed, hostile_capture, written
from places import CAPTURES
from populations import captured

LEAKY = CAPTURES / "leaky-server.pcap"


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    return Parsed(written(tmp_path_factory.mktemp("leaky"), LEAKY, "--stuck-after", "2")[1])


def test_the_first_lines_name_the_program_to_fix(leaky):
    (sentence,) = leaky.of("h1")
    assert (
        sentence
        == "The server 127.0.0.1:8080: its peer has closed, and its program has not closed the socket."
    )
    (how_often,) = leaky.of("p", **{"class": "how-often"})
    assert how_often == "stuck-close-wait in 5 of 5 connections, since 2026-11-21 03:55:06.447 UTC."
    (advice,) = leaky.of("p", **{"class": "advice"})
    assert advice.strip().startswith(
        "Fix the program at the server 127.0.0.1:8080: it must close() its socket"
    )


def test_a_capture_without_a_problem_says_so(tmp_path):
    page = Parsed(written(tmp_path, CAPTURES / "three-segment-close.pcap")[1])
    assert page.of("h1") == ["No problems found."]
    assert page.of("section", id="answer", **{"class": "good"})


def test_programs_that_have_not_closed_yet_are_named(tmp_path):
    page = Parsed(written(tmp_path, LEAKY)[1])
    assert page.of("h1") == ["3 sockets in CLOSE_WAIT when the capture ended, at the server 127.0.0.1:8080."]
    (told,) = page.of("p", **{"class": "how-often"})
    assert told.startswith("No problem yet: the peer has closed")
    assert "after 60 s" in told


def test_its_records_are_those_of_analyze(leaky, tmp_path):
    out = tmp_path / "out.json"
    assert run(["analyze", str(LEAKY), "--stuck-after", "2", "-f", "json", "-o", str(out)]) == 0
    assert leaky.json("record") == json.loads(out.read_text())


def test_every_connection_has_a_row_and_every_word_is_explained(leaky):
    data = leaky.json("data")
    assert data["table"]["columns"]["id"] == [1] * 5
    used = {ending[0] for ending in data["table"]["endings"]}
    used |= {code for ending in data["table"]["endings"] for code, _ in ending[4] + ending[5]}
    assert set(data["words"]) == used
    assert "stuck-close-wait" in used


def test_it_loads_nothing(leaky):
    for name, attributes in leaky.elements:
        assert name not in {"link", "img", "iframe", "object", "embed", "base"}
        assert not {"src", "style"} & set(attributes)
        assert not [key for key in attributes if key.startswith("on")]
        assert (attributes.get("href") or "#").startswith("#")


def test_its_policy_names_the_one_style_and_the_one_script(leaky):
    (style,) = leaky.of("style")
    (script,) = leaky.of("script", type=None)
    allowed = {
        kind: f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
        for kind, text in (("style", style), ("script", script))
    }
    metas = [
        attributes for name, attributes in leaky.elements if name == "meta" and "http-equiv" in attributes
    ]
    (meta,) = metas
    assert meta["http-equiv"] == "Content-Security-Policy"
    told = dict(part.strip().split(" ", 1) for part in meta["content"].split(";"))
    assert told["default-src"] == "'none'"
    assert told["style-src"] == allowed["style"]
    assert told["script-src"] == allowed["script"]
    assert meta["content"] == policy(style, script)


def test_a_hostile_capture_writes_nothing_into_it(tmp_path):
    path = hostile_capture(tmp_path)
    _, text = written(tmp_path, path)
    page = Parsed(text)
    assert "img" not in {name for name, _ in page.elements}
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    assert [attributes.get("id") for name, attributes in page.elements if name == "script"] == [
        "data",
        "record",
        None,
    ]
    assert page.of("p", **{"class": "capture"}) == [str(path)]
    (one,) = page.json("record")["connections"]
    assert one["capture"] == str(path)
    assert HOSTILE.replace('"', "\\x22") in json.dumps(one["findings"])
    assert "<img" not in text


def test_json_ends_no_element():
    escaped = in_script(json.dumps({"a": "</script><!--<script>"}))
    assert "<" not in escaped
    assert json.loads(escaped) == {"a": "</script><!--<script>"}


def test_a_capture_without_packets_is_a_page_too(tmp_path):
    path = tmp_path / "empty.pcap"
    path.write_bytes(pcap([]))
    page = Parsed(written(tmp_path, path)[1])
    assert page.of("h1") == ["The capture holds no packets."]
    assert page.of("table") == []


def test_a_capture_in_several_files_names_packets_by_file(tmp_path):
    packets = packets_of("final-ack-lost.pcap")
    for number, part in enumerate((packets[:9], packets[9:]), 1):
        (tmp_path / f"r{number}.pcap").write_bytes(as_file(part, Random(number)))
    page = Parsed(written(tmp_path, tmp_path / "r1.pcap", tmp_path / "r2.pcap")[1])
    (title,) = page.of("p", **{"class": "capture"})
    assert title == f"{tmp_path}/r1.pcap to {tmp_path}/r2.pcap (2 files)"
    named = page.of("button", **{"class": "packet"})
    assert "#2:2" in named
    assert all(":" in name for name in named)
    assert page.of("button", **{"class": "packet", "data-packet": "11"}) == ["#2:2"] * named.count("#2:2")


def test_it_says_what_it_leaves_out(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "MOST_ROWS", 3)
    page = Parsed(written(tmp_path, LEAKY, "--ladders", "2", "--stuck-after", "1.5", "-p", "8080")[1])
    remarks = page.of("li")
    command = f"closeseq timeline {LEAKY} -p 8080 --stuck-after 1.5"
    assert any(
        "ladder and record: 2 of 5 connections" in one and f"{command} --connection ID" in one
        for one in remarks
    )
    (remark,) = page.of("p", **{"class": "remark"})[:1]
    assert remark.startswith("The table holds 3 of 5 connections")
    assert len(page.of("template")) == 2
    assert len(page.json("record")["connections"]) == 2
    assert page.json("record")["count"] == 5
    assert page.json("data")["command"] == command


def test_all_is_shown_of_a_small_capture_and_nothing_is_said_to_be_left_out(leaky):
    assert len(leaky.of("template")) == 5
    assert not [one for one in leaky.of("li") if "Shown whole" in one]


def test_what_many_connections_show_together_is_the_answer_where_nothing_else_is():
    opening, end = "C:S S:SA C:A C:PA+90 S:PA+500 C:A", "+5s S:FA C:A C:FA S:A"
    analysis = captured([f"{opening} {end}"] * 9 + [f"{opening} +4.6s C:PA+90 S:PA+500 C:A {end}"])
    selection = Selection(analysis)
    overview = Overview.of(selection)
    page = Page(selection, overview, [], command="closeseq timeline made.pcap", version="1")
    parsed = Parsed("".join(page.pieces()))
    (sentence,) = parsed.of("h1")
    assert sentence.startswith("Clients of 198.51.100.2:80 send requests on ")
    assert parsed.of("b", **{"class": "problem"}) == ["timeouts-in-wrong-order"]
    assert any("idle-timeout" in one for one in parsed.of("b"))
