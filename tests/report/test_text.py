from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq.report.text import Style, evidence, moment, packets, printable, seconds, when
from closeseq.units import count, span
from report_examples import finding

NS = 1_000_000_000


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 s"),
        (350_000, "0.35 ms"),
        (100_000, "0.1 ms"),
        (999_400_000, "999 ms"),
        (999_600_000, "1 s"),
        (1 * NS, "1 s"),
        (12_400_000_000, "12.4 s"),
        (60 * NS, "60 s"),
        (179 * NS, "179 s"),
        (180 * NS, "3 min"),
        (205 * NS, "3 min 25 s"),
        (3 * 3600 * NS + 61 * NS, "3 h 1 min"),
        (50 * 3600 * NS, "50 h"),
    ],
)
def test_a_length_of_time_has_three_digits_and_the_unit_people_use(ns, text):
    assert span(ns) == text


@given(st.integers(-(1 << 63), 1 << 63))
def test_seconds_have_no_digit_that_is_not_known(ns):
    assert seconds(ns) == round(seconds(ns), 9)


def test_times_keep_every_nanosecond():
    assert moment(1_795_177_086_194_806_001) == "2026-11-20T12:18:06.194806001Z"
    assert when(1_795_177_086_194_806_001) == "2026-11-20 12:18:06.194806 UTC"


def test_times_at_the_edges_of_what_a_capture_can_say_are_still_times():
    assert moment(0) == "1970-01-01T00:00:00.000000000Z"
    assert moment(-1) == "1969-12-31T23:59:59.999999999Z"
    assert moment(2**63 - 1) == "2262-04-11T23:47:16.854775807Z"
    assert moment(-(2**63)) == "1677-09-21T00:12:43.145224192Z"


def test_numbers_agree_with_their_nouns():
    assert count(1, "packet") == "1 packet"
    assert count(12_345, "packet") == "12,345 packets"
    assert count(0, "copy", "copies") == "0 copies"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain.pcap", "plain.pcap"),
        ("größe.pcap", "größe.pcap"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("right\u202eleft", "right\\u202eleft"),
        ("c1\x9b31m", "c1\\x9b31m"),
        (b"\xff.pcap".decode("utf-8", "surrogateescape"), "\\udcff.pcap"),
    ],
)
def test_what_is_not_plainly_visible_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_of_many_packets_the_first_are_named():
    assert packets([8, 9, 9, 12]) == "#8 #9 #12"
    assert packets(range(1, 10), 3) == "#1 #2 #3 and 6 more"


def test_wrapping_indents_and_never_cuts_a_word():
    style = Style(width=30)
    assert style.wrap("one two three four five six seven", first="  - ") == [
        "  - one two three four five",
        "    six seven",
    ]
    assert style.wrap("", first="  ") == [""]
    assert style.wrap("x" * 50) == ["x" * 50]


def test_without_colour_nothing_is_painted_and_blanks_never_are():
    assert Style().paint("state", "state") == "state"
    assert Style(color=True).paint("state", "state") == "\x1b[1mstate\x1b[0m"
    assert Style(color=True).paint("   ", "state") == "   "


def test_packets_that_the_summary_names_are_not_named_again():
    found = finding("fin-lost", "client", [8, 9, 12], summary="FIN #8 was lost and came again as #12")
    assert evidence(found) == "#9"
    assert evidence(finding("fin-lost", "client", [8], summary="FIN #8 was lost")) == ""
