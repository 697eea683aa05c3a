from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq.errors import ScriptError
from closeseq.packets.segments import COLUMNS, DTYPES, MODULUS, letters
from closeseq.script import GAP_NS, NUMBERS, START_NS, conversation, conversations, segments

OPEN = "C:S S:SA C:A "


def wire(script, numbers=(1000, 5000), **options):
    """Return flags, sequence number, acknowledgement and length of each segment, as on the wire."""
    rows = segments(script, numbers=numbers, **options)
    columns = zip(
        rows.flags.tolist(), rows.seq.tolist(), rows.ack.tolist(), rows.length.tolist(), strict=True
    )
    return [(letters(flags), *numbers) for flags, *numbers in columns]


def test_each_segment_acknowledges_all_that_was_sent_before_it():
    assert wire("C:S S:SA C:A C:A+10 S:A C:FA S:FA C:A") == [
        *[("S", 1000, 0, 0), ("SA", 5000, 1001, 0), ("A", 1001, 5001, 0), ("A", 1001, 5001, 10)],
        *[("A", 5001, 1011, 0), ("FA", 1011, 5001, 0), ("FA", 5001, 1012, 0), ("A", 1012, 5002, 0)],
    ]


def test_segments_that_cross_know_nothing_of_each_other():
    assert wire(OPEN + "C:FA|S:FA C:A")[3:] == [
        *[("FA", 1001, 5001, 0), ("FA", 5001, 1001, 0), ("A", 1002, 5002, 0)],
    ]


def test_what_is_lost_after_the_capture_is_not_acknowledged():
    assert wire(OPEN + "C:FA! S:A C:FA* S:A")[3:] == [
        *[("FA", 1001, 5001, 0), ("A", 5001, 1001, 0), ("FA", 1001, 5001, 0), ("A", 5001, 1002, 0)],
    ]
    assert wire(OPEN + "!C:FA") == wire(OPEN + "C:FA!")


def test_what_is_lost_before_the_capture_consumes_numbers_and_is_not_there():
    assert wire(OPEN + "C:A+10? C:A S:A")[3:] == [("A", 1011, 5001, 0), ("A", 5001, 1001, 0)]


def test_what_the_capture_missed_is_received_and_not_there():
    assert wire(OPEN + "(C:FA) S:A")[3:] == [("A", 5001, 1002, 0)]


def test_a_hole_is_acknowledged_past_when_it_is_filled():
    assert wire(OPEN + "C:A+10! C:A+20 S:A C:A* S:A")[5:] == [
        *[("A", 5001, 1001, 0), ("A", 1001, 5001, 10), ("A", 5001, 1031, 0)],
    ]


def test_what_was_acknowledged_can_be_sent_again_too():
    assert wire(OPEN + "C:FA S:A C:FA*")[-1] == ("FA", 1001, 5001, 0)
    assert wire(OPEN + "C:FA S:A C:FA")[-1] == ("FA", 1001, 5001, 0)


def test_a_reset_in_answer_has_the_number_that_it_answers():
    assert wire(OPEN + "C:A+10 S:R")[-1] == ("R", 5001, 0, 0)
    assert wire("C:S S:RA")[-1] == ("RA", 0, 1001, 0)
    assert wire("C:A+10 S:R")[-1] == ("R", 5001, 0, 0)


def test_an_abort_has_the_next_number():
    assert wire(OPEN + "C:A+10 C:RA")[-1] == ("RA", 1011, 5001, 0)
    assert wire("C:RA")[-1] == ("RA", 1001, 5001, 0)


def test_a_script_may_begin_in_the_middle():
    assert wire("C:A+10 S:A+5 C:A") == [("A", 1001, 5001, 10), ("A", 5001, 1011, 5), ("A", 1011, 5006, 0)]


def test_a_simultaneous_open_sends_its_syns_again():
    assert wire("C:S|S:S C:SA|S:SA")[2:] == [("SA", 1000, 5001, 0), ("SA", 5000, 1001, 0)]


def test_another_syn_begins_another_connection():
    first, second = conversations(OPEN + "C:FA S:A S:FA C:A +61s C:S S:SA")
    assert (first.incarnation, second.incarnation) == (1, 2)
    assert len(conversations("C:S! +1s C:S* S:SA")) == 1


def test_a_keepalive_is_numbered_one_below():
    assert wire(OPEN + "C:K S:A")[3:] == [("A", 1000, 5001, 0), ("A", 5001, 1001, 0)]


def test_a_little_traffic_goes_both_ways_as_long_as_it_may():
    assert [row[0] for row in wire(OPEN + "~")[3:]] == ["AP", "AP", "A"]
    assert wire(OPEN + "C:FA ~")[4:] == [("AP", 5001, 1002, 200), ("A", 1002, 5201, 0)]
    assert wire(OPEN + "S:FA ~")[4:] == [("AP", 1001, 5002, 100), ("A", 5002, 1101, 0)]


def test_a_window_may_be_said():
    assert segments("C:A S:A/0 S:A+5/17").window.tolist() == [65535, 0, 17]


def test_time_goes_on_by_the_gap_and_by_pauses():
    times = segments("C:S +2.5s S:SA +300ms C:A", gap_ns=7).time_ns - START_NS
    assert times.tolist() == [0, 2_500_000_007, 2_800_000_014]
    assert segments("C:S S:SA", start_ns=5).time_ns.tolist() == [5, 5 + GAP_NS]


def test_timestamps_run_in_milliseconds_and_are_echoed_as_received():
    rows = segments("C:S S:SA C:A +1s C:FA! +200ms C:FA* S:A", timestamps=True)
    assert rows.has_timestamps.all()
    sent = rows.tsval.tolist()
    assert [value - sent[0] for value in (sent[2], sent[3], sent[4])] == [2, 1003, 1204]
    assert rows.tsecr.tolist() == [0, sent[0], sent[1], sent[1], sent[1], sent[4]]
    assert not segments("C:S S:SA").has_timestamps.any()


def test_the_initial_numbers_wrap_within_the_first_bytes():
    rows = segments(OPEN + "~")
    assert (rows.seq[0], rows.seq[1]) == NUMBERS
    assert rows.seq[-1] < rows.seq[0]


def test_the_columns_are_as_segments_declares_them():
    rows = segments("C:S S:SA")
    assert all(getattr(rows, name).dtype == DTYPES[name] for name in COLUMNS)
    assert rows.number.tolist() == [1, 2]


def test_no_two_packets_of_an_end_have_the_same_ip_id():
    rows = segments(OPEN + "C:FA! C:FA! C:FA!")
    assert len(set(rows.ip_id[rows.src_port == 40000].tolist())) == 5


def test_linux_says_where_a_segment_came_twice():
    script = "C:S S:SA C:A C:A+5 S:A? C:A+5* S:A S:A"
    rows = segments(script)
    reported = [
        (int(left), int(right)) for left, right in zip(rows.dsack_left, rows.dsack_right, strict=True)
    ]
    first = int(rows.seq[3])
    assert reported[5] == (first, (first + 5) % MODULUS)
    assert reported[6] == (0, 0)  # once
    other = segments(script, system="bsd")
    assert not other.dsack_right.any()


MISTAKES = {
    "C:X": "'C:X'",
    "S:SA C:FA|X:A": "'X:A' in 'C:FA|X:A'",
    "CFA": "'CFA'",
    "C:A+": "'C:A+'",
    "(C:A": "'(C:A'",
    "+2": "'+2'",
    "C:S C:KA": "C:KA",
    "C:FA*": "C:FA*",
    "C:A*": "C:A*",
    "C:FA C:A+5": "C:A+5",
    "C:FA C:FA+5": "C:FA+5",
    "C:FA S:FA ~": "~",
    "C:A/65536": "C:A/65536",
    "C:A+9999999999999999999999": "C:A+9999999999999999999999",
    "(C:FA!)": "(C:FA!)",
}


@pytest.mark.parametrize("script", MISTAKES)
def test_a_mistake_names_its_word(script):
    with pytest.raises(ScriptError, match="^" + re.escape(MISTAKES[script]) + ": "):
        segments(script)


@pytest.mark.parametrize("script", ["", "C:S?", "(C:S)", "+1s"])
def test_a_conversation_needs_a_segment(script):
    assert len(segments(script)) == 0
    with pytest.raises(ScriptError):
        conversation(script)


@given(st.text(alphabet="CS:SFRAPK+1209/!?*|~() .ms", max_size=30))
def test_any_text_is_a_script_or_a_script_error(text):
    try:
        rows = segments(text)
    except ScriptError:
        return
    assert len(conversations(text)) > 0 or len(rows) == 0
