"""The findings: problems, which are something to fix, then notices, which are something to know."""

from __future__ import annotations

from functools import partial

from closeseq.verdict.model import FindingCode, Severity, entry

_problem = partial(entry, severity=Severity.PROBLEM)
_notice = partial(entry, severity=Severity.NOTICE)

PROBLEMS = (
    _problem(
        FindingCode.STUCK_CLOSE_WAIT,
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
        FindingCode.STUCK_FIN_WAIT_2,
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
        FindingCode.STUCK_FIN_WAIT_1,
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
        FindingCode.STUCK_LAST_ACK,
        "its FIN, the second one, is never acknowledged",
        """Both ends have closed, and only the last ACK is missing. Either it is sent and lost each time
        (then closeseq shows the ACKs), or the peer no longer knows the connection, or cannot be reached.
        All data of this end may have arrived; that it knows so is what is missing (RFC 9293 3.10.7.4).""",
        """look for a firewall or NAT that drops what comes after the first FIN; the kernel gives up by itself
        (net.ipv4.tcp_orphan_retries)""",
    ),
    _problem(
        FindingCode.STUCK_CLOSING,
        "both ends closed at once, and its FIN is never acknowledged",
        """The FINs crossed, the peer's was received, and what acknowledges this end's own does not arrive,
        or is not sent. As stuck-last-ack (RFC 9293 3.6, case 3).""",
        """look for a firewall or NAT that drops what comes after the first FIN; the kernel gives up by itself
        (net.ipv4.tcp_orphan_retries)""",
    ),
    _problem(
        FindingCode.HALF_OPEN,
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
        FindingCode.DATA_AFTER_CLOSE,
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
        FindingCode.FINAL_ACK_LOST,
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
        FindingCode.TIME_WAIT_ASSASSINATED,
        "a RST ended a TIME_WAIT before its time",
        """An old segment came to an end in TIME_WAIT, was answered with an ACK as it should be, and the
        other end, which is CLOSED, answered that ACK with RST. The RST ends TIME_WAIT, and with it the
        protection against old segments in a new connection of the same pair: RFC 1337.""",
        """set net.ipv4.tcp_rfc1337=1 on the end that was in TIME_WAIT (the default on Linux is 0); find out
        where the old segment was delayed""",
    ),
)

NOTICES = (
    _notice(
        FindingCode.FIN_LOST,
        "a FIN had to be sent again because it was lost",
        """The FIN itself did not arrive, not its acknowledgement: a later copy was the first that the other
        end took. It costs the retransmission timeout, 0.2 s at first on Linux, and doubles each time (RFC
        6298).""",
        "single ones are normal on a lossy path; if there are many, look for the loss",
    ),
    _notice(
        FindingCode.TIME_WAIT_RESTARTED,
        "TIME_WAIT acknowledged a repeated FIN, and its 2MSL counts anew",
        """The last ACK had been lost, the other end sent its FIN again, and TIME_WAIT did what it is for
        (RFC 9293 3.10.7.4).""",
        "nothing; see final-ack-lost for the loss",
    ),
    _notice(
        FindingCode.TIME_WAIT_REUSED,
        "a SYN opened the same addresses and ports again during TIME_WAIT",
        """It is allowed when the SYN's number or timestamp is newer than the old connection's (RFC 9293
        3.10.7.4, RFC 6191), and so happens to clients that bind a fixed port or use up their ports, and
        with net.ipv4.tcp_tw_reuse.""",
        "nothing; a client should not bind a fixed port without need",
    ),
    _notice(
        FindingCode.BIND_BLOCKED,
        "the listening end is the one that waits out the close, so its port cannot be bound anew",
        """As long as a socket of the server's port is in TIME_WAIT, FIN_WAIT_1, FIN_WAIT_2, CLOSING or
        LAST_ACK, bind() to that port fails with EADDRINUSE ("Address already in use") unless SO_REUSEADDR
        is set. A server that is running is not disturbed; one that is started again is. It happens to the
        end that closes first.

        On Linux both sockets must have SO_REUSEADDR; accepted sockets inherit it from the listening one. To
        see what holds the port: ss -tan 'sport = :PORT'.""",
        "set SO_REUSEADDR before bind(); or design the protocol so that the client closes first",
    ),
    _notice(
        FindingCode.RESET_CAUSE,
        "why a RST was sent: the likely causes in order, with what speaks for and against each",
        """A RST does not say why. Its form tells much: RST+ACK aborts an open socket (closed with unread
        data, SO_LINGER 0, a keepalive or a retransmission that gave up, a process killed with unread data).
        A bare RST, numbered like an ACK, answers for a socket that is not there (data after close,
        FIN_WAIT_2 that ran out, nobody listens, a challenge ACK to a connection that is gone). A TTL or an
        IP id unlike that sender's other packets, or a sender that goes on as if nothing had been, betray a
        middlebox (RFC 9293 3.5.2, 3.10.7).

        The causes are inferences, and marked as assumed; capture at both ends to be sure.""",
        "take the first cause, and check it at the end that is named",
    ),
    _notice(
        FindingCode.CHALLENGE_ACK,
        "a RST or SYN that did not fit was answered with an ACK, and the connection went on",
        """A RST inside the window that is not at exactly the expected number, and any SYN on a synchronized
        connection, are answered with an ACK (RFC 5961 3 and 4, RFC 9293 3.10.7.4). A true peer that has
        lost the connection answers that with a RST that fits; a forger cannot. After a challenge to its
        SYN, Linux sends the SYN again within about 10 ms.""",
        "with a SYN: find out how its sender lost the old connection; with a RST: look where it came from",
    ),
    _notice(
        FindingCode.SLOW_CLOSE,
        "it stayed in CLOSE_WAIT for over a second before it closed",
        """Between end of file and close() the program did something else, while both ends held a socket: it
        waited for a timeout, a lock, a slow disk or database, or finished its work first. Time in which it
        still sent data does not count.""",
        "see what that program does between recv() returning 0 and close(); close first if the work does "
        "not need the socket",
    ),
    _notice(
        FindingCode.HALF_CLOSE,
        "after one FIN, data still flowed the other way and was accepted",
        """The end that closed used shutdown(SHUT_WR): it says that its request is complete, and goes on
        reading the answer. A closed socket would have refused the data with RST. TCP allows it (RFC 9293
        3.6); some middleboxes cut such connections after a short time.""",
        "nothing; give the read a timeout",
    ),
    _notice(
        FindingCode.THREE_SEGMENT_CLOSE,
        "the ACK of the first FIN and the second FIN were one segment",
        """The second end closed before its kernel had sent the ACK, which Linux delays by up to 40 ms. It
        means that its program closed at once when it read end of file, or was about to close anyway.
        Normal; a close in four segments is no better (RFC 9293 3.6).""",
    ),
    _notice(
        FindingCode.FIN_WITH_DATA,
        "a FIN rode on data",
        """The program closed while its last data was still waiting to be sent: behind Nagle's algorithm, a
        full window, or MSG_MORE. Normal.""",
    ),
    _notice(
        FindingCode.KEEPALIVE,
        "keepalive probes were seen",
        """An end with SO_KEEPALIVE asks, on an idle connection, whether the other is still there: a segment
        numbered one below the next, which must be answered (RFC 9293 3.8.4). On Linux it begins after
        net.ipv4.tcp_keepalive_time (2 h), repeats every tcp_keepalive_intvl (75 s) and gives up after
        tcp_keepalive_probes (9) with RST and ETIMEDOUT. Probes of a closed window look the same and are not
        meant here.""",
        "if they are not answered, see half-open",
    ),
    _notice(
        FindingCode.CAPTURE_INCOMPLETE,
        "packets of the connection were not captured",
        """There are holes in the numbers, acknowledgements of what was never seen, only one direction, no
        beginning, or the capture itself reports packets lost. What was seen stays true. What rests on a
        packet *not* having been sent ("never acknowledged", "never closed") is then no more than assumed.""",
        """capture with a snap length of 128 (-s 128), a larger buffer (-B 65536), to a file (-w), on a host
        that sees both directions, from before the connection begins, with a filter on the port and not on
        flags""",
    ),
    _notice(
        FindingCode.DUPLICATE_PACKETS,
        "the same packet came twice: captured twice, or delivered twice by the network",
        """The "any" device, bridges, bonds, VLANs and mirror ports show a packet at each place it passes: in
        another VLAN or direction, with other link addresses or another TTL. closeseq counts it once. A
        network may also duplicate a packet, and its receiver gets both: it comes from the same place again
        some milliseconds later, or the receiver answers it once more, with a D-SACK or from TIME_WAIT. Where
        neither shows, it may be one or the other. All are identical to the IPv4 identification and the
        timestamps and come within a moment, which retransmissions are not.""",
        "capture on one interface; what the network duplicates TCP drops",
    ),
)
