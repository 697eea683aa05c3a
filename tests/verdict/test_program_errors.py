"""Which program got which error, at which packet; and where none did."""

from __future__ import annotations

import errno
import socket
import struct
import time

import pytest

import closeseq
from closeseq.report.selection import Wanted
from places import CAPTURES

OPEN = "C:S S:SA C:A"
RETRIES = "C:S +1s C:S* +2s C:S*"
GIVEN = {
    "a RST in ESTABLISHED": (f"{OPEN} ~ S:RA", ["ECONNRESET client #7"]),
    "the client aborts": (f"{OPEN} ~ C:RA", ["ECONNRESET server #7"]),
    "a write after the peer's FIN": (f"{OPEN} ~ S:FA C:A C:PA+9 S:R", ["EPIPE client #10"]),
    "a RST in SYN_SENT": ("C:S S:RA", ["ECONNREFUSED client #2"]),
    "a RST in FIN_WAIT_2": (f"{OPEN} ~ C:FA S:A S:RA", ["ECONNRESET client #9"]),
    "the SYN is given up": (f"{RETRIES} +9s ~", ["ETIMEDOUT client #3"]),
    "in the middle of a connection": ("~ S:RA", ["ECONNRESET client #4"]),
}
NOT_GIVEN = {
    "a close": f"{OPEN} ~ C:FA S:A S:FA C:A",
    "a connection that goes on": f"{OPEN} ~",
    "a RST after both FINs": f"{OPEN} ~ C:FA S:A S:FA C:A C:R",
    "a RST to one in LAST_ACK: its program has closed": f"{OPEN} ~ C:FA S:A S:FA C:R",
    "a RST to a server in SYN_RECEIVED: no program has the socket yet": "C:S S:SA C:R",
    "a RST that is lost": f"{OPEN} ~ S:RA! +300ms C:PA+9 S:A",
    "too few SYNs": "C:S +1s C:S*",
}


def errors(script, now=None):
    connection = closeseq.from_script(script, now=now)
    return [
        f"{one.code} {one.endpoint} #{one.packet}" for one in connection.errors if one.code != "EADDRINUSE"
    ]


@pytest.mark.parametrize(("script", "said"), GIVEN.values(), ids=GIVEN)
def test_an_error(script, said):
    now = 60 if script.endswith("+9s ~") else None
    script = script.removesuffix(" +9s ~")
    assert errors(script, now) == said


@pytest.mark.parametrize("script", NOT_GIVEN.values(), ids=NOT_GIVEN)
def test_no_error(script):
    assert errors(script) == []


def test_a_syn_that_may_still_be_retransmitted_is_not_given_up():
    assert errors(RETRIES, now=5) == []
    assert errors(RETRIES, now=8) == ["ETIMEDOUT client #3"]


def test_no_error_is_more_than_assumed():
    for script, _ in GIVEN.values():
        for error in closeseq.from_script(script.removesuffix(" +9s ~"), now=60).errors:
            assert error.certainty == "assumed"


def test_retransmissions_are_given_up_after_fifteen_minutes_only():
    sent = f"{OPEN} C:PA+9 S:A C:PA+9 +200ms C:PA+9* +400ms C:PA+9* +800ms C:PA+9*"
    assert errors(sent, now=700) == []
    assert errors(sent, now=1100) == ["ETIMEDOUT client #9"]


def test_keepalives_are_given_up_with_rst():
    (connection,) = closeseq.analyze(str(CAPTURES / "keepalive-unanswered.pcap"))
    (error,) = connection.errors
    assert (error.code, error.endpoint, error.packet) == ("ETIMEDOUT", "client", 11)


def test_a_rst_that_is_answered_with_a_challenge_ack_is_no_error():
    (connection,) = closeseq.analyze(str(CAPTURES / "challenge-ack.pcap"))
    assert connection.errors == []


def test_bind_fails_while_the_server_is_in_time_wait():
    (error,) = closeseq.from_script(f"{OPEN} ~ S:FA C:A C:FA S:A").errors
    assert (error.code, error.endpoint) == ("EADDRINUSE", "server")
    assert closeseq.from_script(f"{OPEN} ~ S:FA C:A C:FA S:A", now=90).errors == []


def test_all_members_of_a_class_have_its_errors():
    analysis = closeseq.analyze(str(CAPTURES / "leaky-server.pcap"), stuck_after=2)
    for one in analysis.classes:
        for index in one.members:
            found = [(error.code, error.endpoint) for error in analysis[index].errors]
            assert sorted(found) == sorted(one.outcome.errors)


def test_connections_are_chosen_by_error():
    analysis = closeseq.analyze(str(CAPTURES / "data-after-close.pcap"))
    (one,) = analysis.classes
    assert Wanted(errors=frozenset({"EPIPE", "ECONNRESET"})).of_class(one.outcome)
    assert not Wanted(errors=frozenset({"ECONNRESET"})).of_class(one.outcome)


# The same with real sockets: what Linux's tcp_reset() does.


@pytest.fixture
def connected():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        yield client, server


def failing(call):
    with pytest.raises((ConnectionResetError, BrokenPipeError)) as raised:
        call()
    return errno.errorcode[raised.value.errno]


def abort(one):
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()
    time.sleep(0.05)


def test_the_kernel_says_econnreset_after_the_data_that_waits(connected):
    client, server = connected
    client.send(b"abc")
    abort(client)
    assert server.recv(9) == b"abc"
    assert failing(lambda: server.recv(9)) == "ECONNRESET"


def test_the_kernel_says_epipe_in_close_wait(connected):
    client, server = connected
    client.close()
    time.sleep(0.05)
    assert server.send(b"x") == 1  # seems to work; answered with RST
    time.sleep(0.05)
    assert server.recv(9) == b""
    assert failing(lambda: server.send(b"x")) == "EPIPE"


def test_the_kernel_says_econnreset_after_shutdown(connected):
    client, server = connected
    server.shutdown(socket.SHUT_WR)
    time.sleep(0.05)
    abort(client)
    assert failing(lambda: server.recv(9)) == "ECONNRESET"
