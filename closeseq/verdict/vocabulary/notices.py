"""The findings that are something to know."""

from __future__ import annotations

from closeseq.verdict.findings import Severity
from closeseq.verdict.vocabulary.entry import Entry, entry


def _notice(code: str, meaning: str, explanation: str, advice: str = "") -> Entry:
    return entry(code, "finding", Severity.NOTICE, meaning=meaning, explanation=explanation, advice=advice)


NOTICES = (
    _notice(
        "fin-lost",
        "a FIN had to be sent again because it was lost",
        """The FIN itself did not arrive, not its acknowledgement: a later copy was the first that the other
        end took. It costs the retransmission timeout, 0.2 s at first on Linux, and doubles each time (RFC
        6298).""",
        "single ones are normal on a lossy path; if there are many, look for the loss",
    ),
    _notice(
        "time-wait-restarted",
        "TIME_WAIT acknowledged a repeated FIN, and its 2MSL counts anew",
        """The last ACK had been lost, the other end sent its FIN again, and TIME_WAIT did what it is for
        (RFC 9293 3.10.7.4).""",
        "nothing; see final-ack-lost for the loss",
    ),
    _notice(
        "time-wait-reused",
        "a SYN opened the same addresses and ports again during TIME_WAIT",
        """It is allowed when the SYN's number or timestamp is newer than the old connection's (RFC 9293
        3.10.7.4, RFC 6191), and so happens to clients that bind a fixed port or use up their ports, and
        with net.ipv4.tcp_tw_reuse.""",
        "nothing; a client should not bind a fixed port without need",
    ),
    _notice(
        "bind-blocked",
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
        "reset-cause",
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
        "challenge-ack",
        "a RST or SYN that did not fit was answered with an ACK, and the connection went on",
        """A RST inside the window that is not at exactly the expected number, and any SYN on a synchronized
        connection, are answered with an ACK (RFC 5961 3 and 4, RFC 9293 3.10.7.4). A true peer that has
        lost the connection answers that with a RST that fits; a forger cannot. After a challenge to its
        SYN, Linux sends the SYN again within about 10 ms.""",
        "with a SYN: find out how its sender lost the old connection; with a RST: look where it came from",
    ),
    _notice(
        "slow-close",
        "it stayed in CLOSE_WAIT for over a second before it closed",
        """Between end of file and close() the program did something else, while both ends held a socket: it
        waited for a timeout, a lock, a slow disk or database, or finished its work first. Time in which it
        still sent data does not count.""",
        "see what that program does between recv() returning 0 and close(); close first if the work does "
        "not need the socket",
    ),
    _notice(
        "half-close",
        "after one FIN, data still flowed the other way and was accepted",
        """The end that closed used shutdown(SHUT_WR): it says that its request is complete, and goes on
        reading the answer. A closed socket would have refused the data with RST. TCP allows it (RFC 9293
        3.6); some middleboxes cut such connections after a short time.""",
        "nothing; give the read a timeout",
    ),
    _notice(
        "three-segment-close",
        "the ACK of the first FIN and the second FIN were one segment",
        """The second end closed before its kernel had sent the ACK, which Linux delays by up to 40 ms. It
        means that its program closed at once when it read end of file, or was about to close anyway.
        Normal; a close in four segments is no better (RFC 9293 3.6).""",
    ),
    _notice(
        "fin-with-data",
        "a FIN rode on data",
        """The program closed while its last data was still waiting to be sent: behind Nagle's algorithm, a
        full window, or MSG_MORE. Normal.""",
    ),
    _notice(
        "keepalive",
        "keepalive probes were seen",
        """An end with SO_KEEPALIVE asks, on an idle connection, whether the other is still there: a segment
        numbered one below the next, which must be answered (RFC 9293 3.8.4). On Linux it begins after
        net.ipv4.tcp_keepalive_time (2 h), repeats every tcp_keepalive_intvl (75 s) and gives up after
        tcp_keepalive_probes (9) with RST and ETIMEDOUT. Probes of a closed window look the same and are not
        meant here.""",
        "if they are not answered, see half-open",
    ),
    _notice(
        "capture-incomplete",
        "packets of the connection were not captured",
        """There are holes in the numbers, acknowledgements of what was never seen, only one direction, no
        beginning, or the capture itself reports packets lost. What was seen stays true. What rests on a
        packet *not* having been sent ("never acknowledged", "never closed") is then no more than assumed.""",
        """capture with a snap length of 128 (-s 128), a larger buffer (-B 65536), to a file (-w), on a host
        that sees both directions, from before the connection begins, with a filter on the port and not on
        flags""",
    ),
    _notice(
        "duplicate-packets",
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
