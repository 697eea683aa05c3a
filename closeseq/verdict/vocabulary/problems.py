"""The findings that are something to mend."""

from __future__ import annotations

from closeseq.verdict.findings import Severity
from closeseq.verdict.vocabulary.entry import Entry, entry


def _problem(code: str, meaning: str, explanation: str, advice: str) -> Entry:
    return entry(code, "finding", Severity.PROBLEM, meaning=meaning, explanation=explanation, advice=advice)


PROBLEMS = (
    _problem(
        "stuck-close-wait",
        "its peer has closed, and its program has not closed the socket",
        """The kernel told the program end of file (recv() returned 0) and since then waits for close(). It
        waits for ever: no timer and no sysctl ends CLOSE_WAIT. Each such socket holds a file descriptor,
        until accept() fails with EMFILE.

        It is a bug in *that* program, not in the network and not at the peer: a reader that takes 0 bytes
        for "nothing yet"; a writer that never reads and so never learns of it; a connection pool that keeps
        dead connections; a thread that hangs with the socket in its hands; a descriptor inherited by a
        child process, so that close() in the parent closes nothing.

        closeseq reports it from --stuck-after on (60 s), or from when the peer's FIN_WAIT_2 ran out. While
        data still flows over the half-closed connection, it does not (RFC 9293 3.6).""",
        """find the process with ss -tnp state close-wait (or lsof -i TCP:PORT), see what it does (gdb,
        py-spy, jstack), and make it close() the socket when recv() returns 0. Restarting it frees the
        sockets and mends nothing""",
    ),
    _problem(
        "stuck-fin-wait-2",
        "it has closed, and its peer does not close",
        """Its FIN was acknowledged, so the peer's kernel knows; the peer's program has not closed its side,
        and is in CLOSE_WAIT. The fault is at that other end.

        If the socket here has lost its owner (close(), or the process ended), Linux drops it after
        net.ipv4.tcp_fin_timeout, 60 s. If it still has one (shutdown(SHUT_WR) and then a read that waits),
        it waits for ever (RFC 9293 3.6).""",
        """mend the program at the other end, see stuck-close-wait. Here: give the read after
        shutdown(SHUT_WR) a timeout, or close(); TCP_LINGER2 shortens the wait of a single socket""",
    ),
    _problem(
        "stuck-fin-wait-1",
        "its FIN is not acknowledged",
        """The FIN was sent, perhaps many times, or waits behind data that may not be sent, and nobody
        acknowledges it. The peer crashed, was cut off, or a firewall drops the packets; or the peer's
        window is 0 because its program does not read.

        Linux gives up on a socket without owner after net.ipv4.tcp_orphan_retries repetitions (the default
        0 means 8), with backoff some two minutes or less (RFC 9293 3.8.3). Many of them hold memory: nstat
        -az TcpExtTCPAbortOnMemory, ss -s ("orphan").""",
        """find out whether the peer is alive, and what between drops packets. If its window is 0, mend its
        program: it has to read. TCP_USER_TIMEOUT limits the wait""",
    ),
    _problem(
        "stuck-last-ack",
        "its FIN, the second one, is never acknowledged",
        """Both ends have closed, and only the last ACK is missing. Either it is sent and lost each time
        (then closeseq shows the ACKs), or the peer no longer knows the connection, or cannot be reached.
        All data of this end may have arrived; that it knows so is what is missing (RFC 9293 3.10.7.4).""",
        """look for a firewall or NAT that drops what comes after the first FIN; the kernel gives up by itself
        (net.ipv4.tcp_orphan_retries)""",
    ),
    _problem(
        "stuck-closing",
        "both ends closed at once, and its FIN is never acknowledged",
        """The FINs crossed, the peer's was received, and what acknowledges this end's own does not arrive,
        or is not sent. As stuck-last-ack (RFC 9293 3.6, case 3).""",
        """look for a firewall or NAT that drops what comes after the first FIN; the kernel gives up by itself
        (net.ipv4.tcp_orphan_retries)""",
    ),
    _problem(
        "half-open",
        "its peer is gone: what it sends again, or its keepalives, get no answer",
        """One end has crashed, lost power, or been cut off from the other (a NAT or firewall that forgot an
        idle connection does the same), and the other still holds the connection for ESTABLISHED. An end
        that does not send never notices. One that sends repeats its data, on Linux net.ipv4.tcp_retries2
        times (15, some 15 minutes), then the program gets ETIMEDOUT (RFC 9293 3.5.1).""",
        """set SO_KEEPALIVE with TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT, shorter than the shortest
        timeout of the firewalls between (the default begins after 2 h), and TCP_USER_TIMEOUT; better still,
        a heartbeat in the protocol, at both ends""",
    ),
    _problem(
        "data-after-close",
        "data sent to an end that had closed was answered by RST, and is lost",
        """After close() a socket takes no more data: its kernel answers with RST. The sender gets
        ECONNRESET from its next call, EPIPE (and the signal SIGPIPE) from the one after; what it had sent
        before and the other had not read may be lost with it. FIN itself does not tell "I will not read any
        more" from "I have nothing more to say", so that the first write after it always seems to succeed
        (RFC 9293 3.6, RFC 1122 4.2.2.13).""",
        """decide who is wrong: an end that closes although it wants the answer must use shutdown(SHUT_WR)
        and read to the end; an end that goes on writing must read, and stop at end of file. Ignore SIGPIPE
        or send with MSG_NOSIGNAL""",
    ),
    _problem(
        "final-ack-lost",
        "the last ACK did not arrive, and the FIN in LAST_ACK was sent again",
        """The end that closed second repeats its FIN until it is acknowledged. Three outcomes: the other
        end is in TIME_WAIT and acknowledges again, which is what TIME_WAIT is for; TIME_WAIT is gone
        (reboot, too many of them, a RST) and a RST answers; or nobody answers, and LAST_ACK lasts until the
        kernel gives up.

        The ACK is lost on its way, or a firewall forgets the connection with the FINs and drops what comes
        after. No data is lost, for the FIN was received in order (RFC 9293 3.6.1).""",
        """look for packet loss and for firewalls with short timeouts for closing connections; do not shorten
        TIME_WAIT (net.ipv4.tcp_max_tw_buckets)""",
    ),
    _problem(
        "time-wait-assassinated",
        "a RST ended a TIME_WAIT before its time",
        """An old segment came to an end in TIME_WAIT, was answered with an ACK as it should be, and the
        other end, which is CLOSED, answered that ACK with RST. The RST ends TIME_WAIT, and with it the
        protection against old segments in a new connection of the same pair: RFC 1337.""",
        """set net.ipv4.tcp_rfc1337=1 on the end that was in TIME_WAIT (the default on Linux is 0); find out
        where the old segment was delayed""",
    ),
)
