"""Pictures of a connection: what they show is the timeline, and the programs that they are for read them."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from itertools import pairwise
from xml.etree.ElementTree import fromstring

import pytest

import closeseq
from closeseq.connections.conversation import End
from closeseq.report.diagram import BOXES, LINES
from closeseq.report.pictures.dot import dot
from closeseq.report.pictures.ladder import Rung, ladder
from closeseq.report.pictures.mermaid import mermaid
from closeseq.report.pictures.msc import msc
from closeseq.report.pictures.palette import ACTIVE, DARK, LIGHT, PASSIVE, kind_of
from closeseq.report.pictures.picture_forms import FORMS
from closeseq.report.pictures.plantuml import plantuml
from closeseq.report.pictures.state_svg import state_svg
from closeseq.report.pictures.style_sheets import LADDER_STYLE, STATES_STYLE
from closeseq.report.pictures.svg import drawn_svg, ladder_svg
from closeseq.report.pictures.way import Passage, Way, way
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Arrival, Certainty
from closeseq.verdict.model import FindingCode, Severity
from picture_tools import needs_mermaid, needs_tool, read_by, read_by_mermaid
from places import CAPTURES, ROOT

ALL = sorted(path.stem for path in CAPTURES.glob("*.pcap"))
TELLING = [
    *("client-closes", "final-ack-lost", "linger-zero", "simultaneous-close", "leaky-server", "refused"),
    *("simultaneous-open", "time-wait-reused", "half-open", "ipv6-crossing-fins", "request-crosses-fin"),
]
HOSTILE = (
    "</text></svg><script>alert(1)</script> & \"q\" 'a' \\n \\ ; # %% {x} [y] `z` ~~ **b** __u__ --d-- ''i'' "
    "<b>bold</b> <U+0041> <&heart> &lt; #35; %date() ]]> --> end é 漢"
)
SVG = "{http://www.w3.org/2000/svg}"


@cache
def connections(name):
    return list(closeseq.analyze(CAPTURES / f"{name}.pcap", stuck_after=2))


def first(name):
    return connections(name)[0]


def hostile():
    """Return a ladder with hostile text wherever a text stands."""
    one = ladder(first("final-ack-lost"))
    rungs = tuple(replace(rung, remark=HOSTILE, words=rung.words and HOSTILE) for rung in one.rungs)
    told = tuple((letter, finding, HOSTILE) for letter, finding, _ in one.findings)
    return replace(
        one, title=HOSTILE, began=HOSTILE, client=HOSTILE, rungs=rungs, standing=(HOSTILE,), findings=told
    )


def hostile_way():
    passage = Passage(End.CLIENT, State.ESTABLISHED, State.FIN_WAIT_1, (HOSTILE,), (HOSTILE,), assumed=True)
    return Way(HOSTILE, {End.CLIENT: State.CLOSED}, {End.CLIENT: State.FIN_WAIT_1}, (passage,))


def squeezed(text):
    """Return a text without blanks, which programs break lines at, and as they like."""
    return re.sub(r"\s+", "", text)


# -- the ladder


@pytest.mark.parametrize("name", ALL)
def test_a_ladder_has_every_step_and_every_transition_of_the_timeline(name):
    for connection in connections(name):
        one, timeline = ladder(connection), connection.timeline
        drawn = [rung.packet for rung in one.rungs if rung.sender or rung.words]
        assert drawn == [step.packet for step in timeline.steps]
        for end in End:
            found = [(m.state, m.certainty) for rung in one.rungs for m in rung.moves if m.end is end]
            assert found == [(t.after, t.certainty) for t in timeline.transitions if t.endpoint is end]
            assert one.first[end] is timeline.first_state(end)
        for index, rung in enumerate(one.rungs):
            for move in rung.received:  # where the arrow ends
                sent = [(at, r) for at, r in enumerate(one.rungs) if r.packet == move.packet and r.sender]
                assert len(sent) <= 1  # none: it is a part of the traffic
                for at, arrow in sent:
                    assert arrow.sender is move.end.peer
                    assert index == at + arrow.lands


def test_an_arrow_that_crossed_another_ends_where_it_took_effect():
    one = ladder(first("simultaneous-close"))
    assert [(rung.packet, rung.lands) for rung in one.rungs if rung.lands] == [(9, 1)]
    assert [rung.lands for rung in ladder(first("client-closes")).rungs] == [0] * 8


def test_a_finding_stands_at_its_packets():
    connection = first("final-ack-lost")
    one = ladder(connection)
    letter = next(letter for letter, finding, _ in one.findings if finding.code == FindingCode.FINAL_ACK_LOST)
    named = [rung.packet for rung in one.rungs if letter in rung.letters]
    assert set(named) >= {11, 12, 13, 14, 15, 16, 17}
    assert 2 not in named


def test_a_packet_within_traffic_stands_at_the_traffic():
    (connection,) = closeseq.analyze(CAPTURES / "client-closes.pcap")
    one = replace(first("final-ack-lost").findings[0], packets=(6,), summary="")
    connection.__dict__["judgement"] = replace(connection.judgement, findings=(one,))
    letters = {rung.packet: rung.letters for rung in ladder(connection).rungs}
    assert letters[4] == ("A",)


def test_of_a_long_ladder_the_first_and_last_rungs_are_shown():
    whole, short = ladder(first("final-ack-lost")), ladder(first("final-ack-lost"), most=6)
    assert len(short.rungs) == 7
    assert short.rungs[:3] == whole.rungs[:3]
    assert short.rungs[-3:] == whole.rungs[-3:]
    assert short.rungs[3].words == f"{len(whole.rungs) - 6} steps left out here"
    last = {move.end: move.state for move in short.rungs[3].moves}
    assert last == {End.CLIENT: State.LAST_ACK, End.SERVER: State.TIME_WAIT}


# -- the ladder as SVG


def tree(text):
    return fromstring(text)  # raises where it is not well-formed


def of_class(root, *names):
    return [one for one in root.iter() if set(names) <= set(one.get("class", "").split())]


@pytest.mark.parametrize("name", ALL)
def test_the_bars_of_the_svg_are_the_states_in_turn(name):
    for connection in connections(name):
        root = tree(ladder_svg(connection))
        left, right = [], []
        for one in of_class(root, "state"):
            (left if one.get("text-anchor") == "end" else right).append(one.text)
        for end, shown in ((End.CLIENT, left), (End.SERVER, right)):
            moves = [t for t in connection.timeline.transitions if t.endpoint is end]
            marks = {Certainty.ASSUMED: "?"}
            names = [f"{t.after}{marks.get(t.certainty, '')}" for t in moves]
            assert shown == [str(connection.timeline.first_state(end)), *names]
        bars = of_class(root, "bar")
        assumed = sum(t.certainty is Certainty.ASSUMED for t in connection.timeline.transitions)
        assert len([one for one in bars if "assumed" in one.get("class").split()]) <= assumed
        assert all(float(one.get("height")) > 0 for one in bars)


@pytest.mark.parametrize("name", ALL)
def test_the_arrows_of_the_svg_are_the_events(name):
    for connection in connections(name):
        root = tree(ladder_svg(connection))
        events = [step for step in connection.timeline.steps if step.event is not None]
        arrows = of_class(root, "arrow")
        assert len(arrows) == len(events)
        for arrow, step in zip(arrows, events, strict=True):
            line = of_class(arrow, "sent")[0]
            assert (float(line.get("x1")) < float(line.get("x2"))) == (step.sender is End.CLIENT)
            assert len(of_class(arrow, "cross")) == (step.arrived is Arrival.NO)
            assert len(of_class(arrow, "tip")) == (step.arrived is not Arrival.NO)
            assert len(of_class(arrow, "sent", "assumed")) == (step.arrived is Arrival.ASSUMED)
            assert ("rst" in arrow.get("class").split()) == step.event.rst
            label = "".join(of_class(arrow, "label")[0].itertext())
            flags, _, numbers = label.partition("  ")
            assert {word[0] for word in flags.split()} | {"P"} == {*step.flags, "P"}
            assert numbers.startswith(f"seq {step.event.seq}")
        numbers = [int(one.get("data-packet")) for one in root.iter() if one.get("data-packet")]
        numbers = numbers[: len(connection.timeline.steps)]  # a SYN that began the next one may follow
        assert numbers == [step.packet for step in connection.timeline.steps]


def test_fins_that_crossed_are_drawn_crossing():
    root = tree(ladder_svg(first("simultaneous-close")))
    ends = {}
    for rung in of_class(root, "rung"):
        for line in of_class(rung, "sent"):
            at = ends.setdefault(rung.get("data-packet"), {})
            at[float(line.get("x1"))] = float(line.get("y1"))
            at[float(line.get("x2"))] = float(line.get("y2"))
    ours, theirs = ends["9"], ends["10"]
    assert ours[min(ours)] < theirs[min(theirs)]  # at the client
    assert ours[max(ours)] > theirs[max(theirs)]  # at the server


def test_what_is_stuck_stands_out():
    connection = connections("leaky-server")[2]
    stuck = [one.text for one in of_class(tree(ladder_svg(connection)), "state", "stuck")]
    assert stuck == ["CLOSE_WAIT"]
    assert not of_class(tree(ladder_svg(first("client-closes"))), "stuck")


def test_the_svg_stands_alone():
    for connection in connections("leaky-server"):
        root = tree(ladder_svg(connection))
        assert {one.tag.removeprefix(SVG) for one in root.iter()} <= {
            *("svg", "style", "title", "rect", "g", "line", "path", "polygon", "circle", "text", "tspan"),
        }
        names = {name for one in root.iter() for name in one.attrib}
        assert not [name for name in names if name == "id" or "href" in name or name.startswith("on")]
        assert "url(" not in LADDER_STYLE


def cases():
    """Yield the connections of the scripts in tests/cases: some of them no stack would make."""
    for path in sorted((ROOT / "tests" / "cases").glob("*.txt")):
        head = path.read_text().partition("\n-----")[0]
        lines = [line.strip() for line in head.split("\n") if line.startswith("    ") and "=" not in line]
        yield closeseq.from_script(" ".join(lines))


def test_all_of_an_svg_is_within_its_edges():
    drawn = [connection for name in TELLING for connection in connections(name)] + list(cases())
    assert len(drawn) > 120
    for connection in drawn:
        for text in (ladder_svg(connection), state_svg(way(connection))):
            root = tree(text)
            width, height = float(root.get("width")), float(root.get("height"))
            assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
            for one in root.iter():
                for axis, size in (("x", width), ("y", height), ("x2", width), ("y2", height)):
                    assert 0 <= float(one.get(axis, 0)) <= size
            assert not re.search(r"\bnan\b", text)


def test_no_two_names_of_states_are_written_over_each_other():
    for name in TELLING:
        for connection in connections(name):
            for side in ("end", "start"):
                texts = of_class(tree(ladder_svg(connection)), "state")
                rows = [float(one.get("y")) for one in texts if one.get("text-anchor") == side]
                assert all(below - above >= 12 for above, below in pairwise(rows)), name


def test_a_page_may_carry_the_style_itself():
    connection = first("client-closes")
    bare, full = ladder_svg(connection, style=False), ladder_svg(connection)
    assert "<style" not in bare
    assert tree(full)[0].text == LADDER_STYLE
    assert f"<style>{LADDER_STYLE}</style>\n" in full
    assert full.replace(f"<style>{LADDER_STYLE}</style>\n", "") == bare


def test_no_text_between_the_lifelines_is_wider_than_there_is_room():
    """At most as wide as DejaVu Sans, which is wider than most, writes it: 0.6 of its size a character."""
    for name in ALL:
        for connection in connections(name):
            for one in of_class(tree(ladder_svg(connection)), "traffic"):
                assert len(one.text) * 11.5 * 0.6 <= 610 - 250 - 16


def test_the_longest_address_fits_its_box():
    one = ladder(first("client-closes"))
    longest = "[2001:0db8:1111:2222:3333:4444:5555:6666]:65535"
    (small,) = of_class(tree(drawn_svg(replace(one, client=longest))), "address", "small")
    assert small.text == longest
    assert len(longest) * 10.5 * 0.61 <= 320
    assert not of_class(tree(drawn_svg(one)), "small")


def test_a_wait_is_counted_from_the_end_of_the_traffic_before_it():
    connection = first("half-open")  # its traffic lasts for as long as the capture
    assert not of_class(tree(ladder_svg(connection)), "wait")
    assert [one.text for one in of_class(tree(ladder_svg(first("client-closes"))), "wait")] == ["+ 344 ms"]


def test_the_number_can_be_given():
    assert "#1 " in ladder_svg(first("client-closes"))
    assert "#77 " in ladder_svg(first("client-closes"), index=77)


@pytest.mark.parametrize(
    ("sheet", "root"), [(LADDER_STYLE, "closeseq-ladder"), (STATES_STYLE, "closeseq-states")]
)
def test_the_styles_hold_within_a_picture_only_in_light_and_dark(sheet, root):
    light, dark = sheet.split("@media screen and (prefers-color-scheme:dark)")
    for part in (light, dark.strip("{}\n")):
        rules = re.findall(r"([^{}]+)\{[^{}]*\}", part)
        assert rules
        for selector in ",".join(rules).split(","):
            assert f".{root}" in selector
    for state in State:
        assert LIGHT[state].ink in light
        assert DARK[state].ink in dark
    classes = set(re.findall(r"\.([A-Za-z][\w-]*)", sheet))
    used = {part for one in every_class() for part in one.split()} | {*State, "small"}
    assert not classes - used


def every_class():
    """Yield the classes of the pictures of many captures."""
    for name in TELLING:
        for connection in connections(name):
            for text in (ladder_svg(connection), state_svg(way(connection)), state_svg()):
                yield from (one.get("class", "") for one in tree(text).iter())
    midway = state_svg(way(closeseq.from_script("C:A S:A")))
    yield from (one.get("class", "") for one in tree(midway).iter())


# -- contrast: a reader must be able to read


def luminance(color):
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    r, g, b = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("state", State)
def test_the_names_of_states_can_be_read_on_paper_light_and_dark(state):
    assert contrast(LIGHT[state].ink, "#ffffff") >= 4.5  # as WCAG 2 asks of text
    assert contrast(DARK[state].ink, "#14171c") >= 4.5


def test_every_state_that_opens_or_closes_has_its_kind():
    assert not ACTIVE & PASSIVE
    neither = set(State) - ACTIVE - PASSIVE
    assert neither == {State.CLOSED, State.LISTEN, State.ESTABLISHED, State.UNKNOWN}
    assert kind_of(State.LISTEN, State.SYN_RECEIVED) == kind_of(State.LAST_ACK, State.CLOSED) == "passive"
    assert kind_of(State.SYN_RECEIVED, State.FIN_WAIT_1) == kind_of(State.CLOSED, State.SYN_SENT) == "active"
    assert kind_of(State.ESTABLISHED, State.CLOSED) == "other"


# -- the state diagram


def test_the_diagram_has_a_line_for_each_that_the_text_has_and_a_box_for_each_state():
    root = tree(state_svg())
    assert len(of_class(root, "way")) == len(of_class(root, "tip")) == len(LINES)
    assert len(of_class(root, "box")) == sum(map(len, BOXES.values()))
    kinds = [kind for one in of_class(root, "way") for kind in one.get("class").split()[1:]]
    assert set(kinds) == {"active", "passive"}


@pytest.mark.parametrize("name", ALL)
def test_the_way_of_a_connection_is_marked(name):
    for connection in connections(name):
        one = way(connection)
        moves = connection.timeline.transitions
        assert {(p.end, p.before, p.after) for p in one.passages} == {
            (t.endpoint, t.before, t.after) for t in moves
        }
        assert sum(len(p.packets) for p in one.passages) == len(moves)
        root = tree(state_svg(one))
        said = "\n".join("".join(each.itertext()) for each in root.iter(f"{SVG}text"))
        for passage in one.passages:
            assert passage.text in said
        lines = {(p.before, p.after) for p in one.passages if p.kind != "reset"} & set(LINES)
        curves = [p for p in one.passages if (p.before, p.after) not in LINES or p.kind == "reset"]
        assert len(of_class(root, "way", "passed")) == len(lines) + len(curves)
        faint = {each.text for each in of_class(root, "state", "faint")}
        visited = {state for state in State if one.visits(state)}
        assert faint == {str(state) for state in set(BOXES) - visited}


def test_a_reset_is_no_timer_though_it_leads_to_the_same_state():
    one = way(connections("leaky-server")[0])  # the client answers with RST from FIN_WAIT_2
    assert not one.between(State.FIN_WAIT_2, State.CLOSED)
    assert [p.kind for p in one.passages if p.before is State.FIN_WAIT_2] == ["reset"]


def test_a_graph_has_a_line_for_each_passage_and_each_way_not_taken():
    one = way(first("client-closes"))
    lines = re.findall(r"^  (\w+) -> (\w+) \[(.*)\];$", dot(one), re.MULTILINE)
    thick = [line for line in lines if "penwidth" in line[2]]
    assert len(thick) == len(one.passages)
    assert len(lines) - len(thick) == len(LINES) - len({(p.before, p.after) for p in one.passages})
    assert [line[:2] for line in thick if "dashed" in line[2]] == [
        ("SYN_RECEIVED", "ESTABLISHED"),
        ("FIN_WAIT_1", "FIN_WAIT_2"),
        ("LAST_ACK", "CLOSED_AGAIN"),
    ]
    assert len(re.findall(r"^  \w+ -> ", dot(), re.MULTILINE)) == len(LINES)


# -- the programs that these are for


@needs_tool("dot")
def test_graphviz_reads_every_graph():
    for name in TELLING:
        drawn = tree(read_by(["dot", "-Tsvg"], dot(way(first(name)))))
        assert len([one for one in drawn.iter() if one.get("class") == "node"]) >= 12
    said = tree(read_by(["dot", "-Tsvg"], dot(hostile_way())))
    assert squeezed(HOSTILE) in squeezed("".join(one.text or "" for one in said.iter(f"{SVG}text")))


@needs_tool("mscgen")
@pytest.mark.parametrize("name", TELLING)
def test_mscgen_reads_every_chart(name):
    for connection in connections(name):
        one = ladder(connection)
        drawn = tree(read_by(["mscgen", "-T", "svg", "-i", "-", "-o", "-"], msc(one)))
        said = squeezed("".join("".join(each.itertext()) for each in drawn.iter(f"{SVG}text")))
        for rung in one.rungs:
            assert squeezed(f"{rung.flags}, {rung.numbers}" if rung.sender else rung.text) in said


@needs_tool("mscgen")
def test_mscgen_takes_hostile_text_as_text():
    drawn = tree(read_by(["mscgen", "-T", "svg", "-i", "-", "-o", "-"], msc(hostile())))
    assert {one.tag.removeprefix(SVG) for one in drawn.iter()} <= {
        *("svg", "text", "line", "polygon", "polyline", "g", "path", "circle", "rect"),
    }
    said = squeezed("".join("".join(each.itertext()) for each in drawn.iter(f"{SVG}text")))
    assert squeezed("</text></svg><script>alert(1)</script>") in said


@needs_tool("plantuml")
def test_plantuml_reads_every_diagram():
    texts = "".join(plantuml(ladder(first(name))) for name in TELLING)
    assert read_by(["plantuml", "-syntax"], texts).splitlines()[:2] == ["SEQUENCE", "(2 participants)"]
    for drawn in read_by(["plantuml", "-tsvg", "-pipe"], texts + plantuml(hostile())).split("<?xml")[1:]:
        assert "Syntax Error" not in drawn
    said = "".join(tree("<?xml" + drawn).itertext()).replace("\N{NO-BREAK SPACE}", "")
    assert squeezed("</text></svg><script>alert(1)</script>") in squeezed(said)
    assert squeezed("**b** __u__ --d-- ''i'' <b>bold</b> <U+0041> <&heart>") in squeezed(said)


@needs_mermaid()
def test_mermaid_reads_every_diagram():
    ladders = [ladder(connection) for name in TELLING for connection in connections(name)]
    for one, read in zip(ladders, read_by_mermaid([mermaid(one) for one in ladders]), strict=True):
        assert read["title"] == f"#{one.number} {one.title}"
        assert read["participants"] == [f"{end}<br/>{one.address(end)}" for end in End]
        arrows = [message for message in read["messages"] if message[0] != 2]  # 2: a note
        sent = [rung for rung in one.rungs if rung.sender is not None]
        kinds = {Arrival.PROVED: 0, Arrival.ASSUMED: 1, Arrival.NO: 3}
        assert [message[:3] for message in arrows] == [
            [kinds[rung.arrived], rung.sender, rung.sender.peer] for rung in sent
        ]
        for rung, message in zip(sent, arrows, strict=True):
            assert message[3].startswith(f"#{rung.packet} {rung.flags}, {rung.numbers}")
        states = [message[3] for message in read["messages"] if message[0] == 2 and message[1] == message[2]]
        assert sorted(states) == sorted(
            [*map(str, one.first.values()), *(move.name for rung in one.rungs for move in rung.moves)]
        )


@needs_mermaid()
def test_mermaid_takes_hostile_text_as_text():
    (read,) = read_by_mermaid([mermaid(hostile())])
    assert read["title"] == f"#1 {HOSTILE}"
    assert read["participants"][0] == f"client<br/>{HOSTILE}"
    assert sum(HOSTILE in message[3] for message in read["messages"]) > 10


def test_hostile_text_is_text_in_the_svg_pictures():
    for text in (drawn_svg(hostile()), state_svg(hostile_way())):
        root = tree(text)
        assert not list(root.iter(f"{SVG}script"))
        said = "".join("".join(each.itertext()) for each in root.iter(f"{SVG}text"))
        assert squeezed(HOSTILE) in squeezed(said)


# -- by name


def test_every_form_draws_every_connection():
    for form in FORMS.values():
        assert all(form.drawn(one).endswith("\n") for one in connections("leaky-server"))
        assert form.suffix.startswith(".")


def test_a_rung_without_arrow_says_what_it_is():
    assert Rung(0, words="4 segments").text == "~ 4 segments"
    assert Rung(0, remark="client: 2MSL passed").text == "client: 2MSL passed"
    assert ladder(first("client-closes")).findings == ()
    assert any(f.severity is Severity.PROBLEM for _, f, _ in ladder(first("final-ack-lost")).findings)
