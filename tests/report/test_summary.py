"""What `analyze` prints, and the tables: whole pages, to be read as such."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import closeseq
from closeseq.connections.conversation import Address
from closeseq.errors import CaptureError
from closeseq.report.problems import allot
from closeseq.report.selection import Selection, Wanted
from closeseq.report.socket_states import sockets, states_table
from closeseq.report.summary import nothing, summary
from closeseq.report.table import table
from closeseq.report.text import Style
from closeseq.verdict import vocabulary
from places import CAPTURES
from report_examples import BEGAN, MadeAnalysis, close_wait, finding, lost_final_ack, ns, reading


def stuck(number):
    return close_wait(reported=True, number=number, port=40000 + number)


def page(analysis, *, most=20, wanted=None, width=100, instead=""):
    selection = Selection(analysis, wanted or Wanted(), instead)
    return "\n".join(summary(selection, Style(width), most))


def test_the_first_lines_tell_what_was_read_and_which_program_to_fix():
    analysis = MadeAnalysis([lost_final_ack(), stuck(2), stuck(3)], reading=reading(packets=21))
    lines = page(analysis).splitlines()
    assert (
        lines[0] == "made.pcap: 21 packets in 12.4 s from 2026-11-20 12:18:06.194806 UTC, 3 TCP connections"
    )
    assert lines[2] == "3 connections with a problem"
    assert lines[3].startswith("      2  stuck-close-wait at the server 127.0.0.1:19999: ")
    assert vocabulary.lookup("stuck-close-wait").meaning[:20] in lines[3]


def test_every_problem_connection_has_a_line_with_its_evidence_under_what_to_do():
    text = page(MadeAnalysis([lost_final_ack(), stuck(2), stuck(3)]))
    problems = text[text.index("\nProblems\n") :]
    assert (
        problems
        == """
Problems
  stuck-close-wait at the server 127.0.0.1:19999 (2 connections)
    mend stuck-close-wait
    #2  with 127.0.0.1:40002: stuck-close-wait happened [#4]
    #3  with 127.0.0.1:40003: stuck-close-wait happened [#4]
  final-ack-lost at the client 127.0.0.1 (1 connection)
    mend final-ack-lost
    #1  :43286 with 127.0.0.1:19999: final-ack-lost happened [#9 #10]"""
    )


def test_verdicts_and_shapes_come_with_counts_most_frequent_first():
    text = page(MadeAnalysis([lost_final_ack(), stuck(2), stuck(3)]))
    verdicts = text[text.index("\nVerdicts\n") : text.index("\nShapes")].split("\n")
    assert [line.split()[:2] for line in verdicts[2:4]] == [["2", "closing"], ["1", "graceful"]]
    assert "      2   66.7 %  C:S S:SA C:A C:FA S:FA C:A\n" in text


def test_of_many_problems_twenty_are_shown_with_the_count_of_the_rest():
    analysis = MadeAnalysis([*(stuck(number) for number in range(1, 31)), lost_final_ack()])
    text = page(analysis)
    assert sum(line.startswith("    #") for line in text.splitlines()) == 20
    assert "    #1  :43286 with" in text  # the rare problem has its share
    assert "11 more problem connections; --all shows them" in text
    assert sum(line.startswith("    #") for line in page(analysis, most=None).splitlines()) == 31
    assert "more problem connections" not in page(analysis, most=None)
    assert sum(line.startswith("    #") for line in page(analysis, most=0).splitlines()) == 0


def test_shares_are_fair_and_come_to_what_is_asked():
    assert allot([30, 1, 5], 20) == [14, 1, 5]
    assert allot([30, 30], 3) == [2, 1]
    assert allot([2], 20) == [2]
    assert allot([], 20) == []


def test_many_shapes_are_cut_to_the_most_frequent():
    connections = [close_wait(number=i) for i in range(1, 31)]
    for i, connection in enumerate(connections):
        connection.shape = f"C:S {'~ ' * i}"
    text = page(MadeAnalysis(connections))
    assert "     20  in 20 more shapes; --all shows them" in text
    assert "more shapes" not in page(MadeAnalysis(connections), most=None)


def test_without_problems_it_says_so():
    text = "\n".join(summary(Selection(closeseq.analyze(str(CAPTURES / "refused.pcap"))), Style(100), 20))
    assert "\n\nNo problems found.\n\nVerdicts\n" in text
    assert "Problems" not in text


def test_without_problems_yet_it_says_which_program_has_not_closed():
    text = page(MadeAnalysis([close_wait(number=1), close_wait(number=2), stuck(3)]))
    assert (
        "\n      2  CLOSE_WAIT at the server 127.0.0.1:19999: " not in text
    )  # there is a problem to fix first
    text = page(MadeAnalysis([close_wait(number=1), close_wait(number=2)]))
    assert (
        "\n\nNo problem yet.\nNot closed when the capture ended; a problem after 60 s in CLOSE_WAIT "
        "(--stuck-after changes that):\n      2  CLOSE_WAIT at the server 127.0.0.1:19999: "
    ) in text


def test_what_the_capture_lacks_stands_before_what_is_concluded_from_it():
    error = CaptureError("the record is cut short", path="made.pcap", packet=9)
    given = reading(
        packets=9, skipped={"not TCP": 2}, notes={"length 0": 1}, dropped=15, copies=3, error=error
    )
    lines = page(MadeAnalysis([close_wait()], reading=given)).splitlines()
    assert lines[1:6] == [
        "  not read to its end: made.pcap: packet 9: the record is cut short",
        "  the capture lost 15 packets (its own drop counter)",
        "  skipped: not TCP (2)",
        "  duplicates: 3 packets captured or delivered more than once, counted once",
        "  notes: length 0 (1)",
    ]


@pytest.mark.parametrize(
    ("given", "ports", "instead", "said"),
    [
        (reading(), [], "", "the capture holds no packets"),
        (
            reading(packets=3, segments=0, skipped={"ARP": 3}),
            [],
            "",
            "no TCP in this capture; it holds ARP (3)",
        ),
        (reading(packets=3), [8081], "", "no TCP packets of port 8081"),
        (
            reading(packets=3),
            [8081],
            "server ports seen: 8080 (1 connection)",
            "no TCP packets of port 8081; server ports seen: 8080 (1 connection)",
        ),
    ],
)
def test_nothing_to_see_is_explained(given, ports, instead, said):
    analysis = MadeAnalysis([], reading=given)
    analysis.settings.ports = frozenset(ports)
    assert nothing(Selection(analysis, instead=instead)) == said
    assert page(analysis, instead=instead).splitlines()[-1] == f"  {said}"


def test_a_selection_is_counted_by_itself():
    analysis = MadeAnalysis([lost_final_ack(), stuck(2), stuck(3)])
    assert "1 of them with --verdict graceful" in page(
        analysis, wanted=Wanted(verdicts=frozenset({"graceful"})), width=200
    )
    chosen = Selection(analysis, Wanted(findings=frozenset({"stuck-close-wait"})))
    assert [c.id for c in chosen] == [2, 3]
    assert chosen.verdicts == {"closing": 2}
    assert chosen.findings == {"stuck-close-wait": 2, "stuck-fin-wait-2": 2}
    assert chosen.shapes == {"C:S S:SA C:A C:FA S:FA C:A": 2}
    assert [c.id for c in Selection(analysis, Wanted(ids=frozenset({3, 99})))] == [3]
    both = Wanted(verdicts=frozenset({"graceful"}), findings=frozenset({"stuck-close-wait"}))
    assert not len(Selection(analysis, both))


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_line_of_the_summary_is_wider_than_the_terminal(width):
    text = page(MadeAnalysis([lost_final_ack(), stuck(2)]), width=width)
    assert max(map(len, text.splitlines())) <= width


def test_names_of_files_cannot_steer_the_terminal():
    analysis = MadeAnalysis([stuck(1)], path="\x1b[2J.pcap")
    assert "\x1b" not in page(analysis)
    assert "\x1b" not in "\n".join(states_table(Selection(analysis), BEGAN, Style()))


TABLE = [
    "id, client, server, verdict, closed by, client state, server state, lasted, problems",
    "1, 127.0.0.1:43286, 127.0.0.1:19999, graceful, server, CLOSED, TIME_WAIT, 525 ms, final-ack-lost",
    (
        "2, 127.0.0.1:40002, 127.0.0.1:19999, closing, client, FIN_WAIT_2, CLOSE_WAIT, 500 ms, "
        "stuck-fin-wait-2 stuck-close-wait"
    ),
]


def test_the_table_has_one_line_a_connection():
    lines = table(Selection(MadeAnalysis([lost_final_ack(), stuck(2)])), Style(width=140))
    assert [re.sub(r"  +", ", ", line.strip()) for line in lines] == TABLE


def test_where_the_width_is_short_the_table_leaves_out_what_matters_least():
    lines = list(table(Selection(MadeAnalysis([lost_final_ack()])), Style(width=100)))
    assert "lasted" not in lines[0]
    assert "problems" in lines[0]
    assert max(map(len, lines)) <= 100


def test_the_table_of_nothing_is_nothing():
    assert list(table(Selection(MadeAnalysis([])), Style())) == []


def test_the_census_lists_both_ends_as_netstat_would():
    lines = list(states_table(Selection(MadeAnalysis([lost_final_ack()])), BEGAN + ns(0.2), Style()))
    assert lines == [
        "made.pcap at 0.200000 s, 2026-11-20 12:18:06.394806 UTC: 2 sockets",
        "Proto    Local Address    Foreign Address    State       Certainty    Connection",
        "tcp      127.0.0.1:43286  127.0.0.1:19999    CLOSE_WAIT  proved       #1 client",
        "tcp      127.0.0.1:19999  127.0.0.1:43286    FIN_WAIT_2  assumed      #1 server",
    ]


def test_an_end_without_a_socket_is_listed_only_when_everything_is_asked_for():
    selection = Selection(MadeAnalysis([lost_final_ack()]))
    assert [s.end for s in sockets(selection, BEGAN + ns(0.00001))] == ["client"]
    assert [s.state for s in sockets(selection, BEGAN + ns(0.00001), everything=True)] == [
        "SYN_SENT",
        "LISTEN",
    ]
    assert [s.state for s in sockets(selection, BEGAN + ns(1))] == ["TIME_WAIT"]
    assert list(sockets(selection, BEGAN - 1, everything=True)) == []


def test_an_ipv6_connection_is_tcp6_with_brackets():
    connection = close_wait()
    ends = {"client": Address("2001:db8::1", 40000), "server": Address("2001:db8::2", 80)}
    connection.conversation = replace(connection.conversation, **ends)
    socket = next(sockets(Selection(MadeAnalysis([connection])), BEGAN + ns(1)))
    assert (socket.proto, socket.local, socket.foreign) == ("tcp6", "[2001:db8::1]:40000", "[2001:db8::2]:80")


def test_a_problem_of_both_ends_is_put_at_neither():
    connection = close_wait()
    connection.findings = (finding("half-open", None, [3]),)
    text = page(MadeAnalysis([connection]))
    assert "half-open (1 connection)" in text
    assert "#1  127.0.0.1:43286 → 127.0.0.1:19999: half-open happened [#3]" in text


def at(server, *numbers):
    """Return stuck connections to a server."""
    made = [stuck(number) for number in numbers]
    for one in made:
        one.conversation = replace(one.conversation, server=Address(server, 80))
    return made


def test_the_worst_problem_comes_first_however_rare():
    leak, recovered = stuck(9), [lost_final_ack() for _ in range(3)]
    lines = page(MadeAnalysis([*recovered, leak])).splitlines()
    assert lines[3].startswith("      1  stuck-close-wait at the server ")
    assert any(line.startswith("      3  final-ack-lost at the client ") for line in lines[4:7])


def test_one_cause_is_one_line_with_its_three_worst_places():
    servers = [*at("10.0.0.1", 1), *at("10.0.0.2", 2, 3, 4), *at("10.0.0.3", 5, 6), *at("10.0.0.4", 7, 8)]
    text = page(MadeAnalysis([*servers, *at("10.0.0.5", 9)]))
    told = " ".join(text[: text.index("Verdicts")].split())
    assert (
        "9 stuck-close-wait at the server "
        "10.0.0.2:80 (3), 10.0.0.3:80 (2), 10.0.0.4:80 (2) and 2 others (2): "
    ) in told
    problems = text[text.index("\nProblems\n") :]
    assert problems.count("mend stuck-close-wait") == 1
    assert re.findall(r"at the server ([\d.]+)", problems) == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    assert "2 more problem connections" in problems
    everything = page(MadeAnalysis([*servers, *at("10.0.0.5", 9)]), most=None)
    assert everything[everything.index("\nProblems\n") :].count("also at the server") == 4
