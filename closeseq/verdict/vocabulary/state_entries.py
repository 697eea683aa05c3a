"""The eleven states, as a connection comes through them, and the verdicts, from no answer to not over yet."""

from __future__ import annotations

from closeseq.tcp.states import State
from closeseq.verdict.model import VerdictCode, entry

STATES = (
    entry(
        State.CLOSED,
        "there is no connection at this endpoint",
        """The connection has not begun yet, or it is over: the FIN was acknowledged in LAST_ACK, 2MSL has
        passed in TIME_WAIT, or a RST was sent or received. No socket table shows it.

        Whatever arrives now is answered by RST (RFC 9293 3.10.7.1).""",
    ),
    entry(
        State.LISTEN,
        "a server waits for connections",
        """The state of the listening socket before the client's SYN has reached it. In closeseq the server
        of a connection begins here; the listening socket itself stays in LISTEN and gives each connection a
        socket of its own (RFC 9293 3.10.7.2). To see it: ss -ltn.""",
    ),
    entry(
        State.SYN_SENT,
        "connect() was called, and the SYN has no answer yet",
        """The client has sent SYN. It goes to ESTABLISHED with the SYN+ACK, to CLOSED with a RST
        ("connection refused"), and retransmits its SYN otherwise: on Linux net.ipv4.tcp_syn_retries times
        (6, about two minutes).

        Many sockets in SYN_SENT mean that SYNs, or the answers to them, are dropped: a firewall that drops
        instead of rejecting, a wrong address, a host that is down (RFC 9293 3.10.7.3). To see it: ss -tn
        state syn-sent.""",
        "check at the server whether the SYN arrives (tcpdump), then whether its answer leaves",
    ),
    entry(
        State.SYN_RECEIVED,
        "the SYN was answered with SYN+ACK, and the last ACK of the handshake has not come",
        """The server has answered and waits for the third segment. It stays here when that is lost, when the
        SYN came from a forged address (a SYN flood), or when the client answers with RST (a port scan).

        In a simultaneous open both endpoints are in it (RFC 9293 3.5, figure 7). The socket table calls it
        SYN-RECV: ss -tn state syn-recv.""",
    ),
    entry(
        State.ESTABLISHED,
        "the connection is open in both directions",
        """The handshake is complete and nobody has closed. An endpoint also stays here, as long as it sends
        nothing, when its peer has crashed or been cut off: TCP sends nothing on an idle connection
        (half-open, RFC 9293 3.5.1). To see it: ss -tno state established; the timer column shows keepalives
        and retransmissions.""",
    ),
    entry(
        State.FIN_WAIT_1,
        "this endpoint closed first; its FIN is not acknowledged yet",
        """The program called close() or shutdown(SHUT_WR), and FIN was sent, or waits behind data that may
        not be sent because the peer's window is 0. Normally it lasts a round trip.

        When it stays, the peer or the path is gone, or the peer's program does not read. Linux retransmits
        the FIN of a socket without owner net.ipv4.tcp_orphan_retries times (RFC 9293 3.6). To see it: ss
        -tno state fin-wait-1; a Send-Q that is not 0 means that data is in the way.""",
        "see stuck-fin-wait-1",
    ),
    entry(
        State.FIN_WAIT_2,
        "this endpoint closed first, its FIN was acknowledged; it waits for the peer's FIN",
        """The peer's kernel has received the FIN. The peer's *program* has not closed yet: the peer is in
        CLOSE_WAIT all that time.

        A socket that its program has closed with close() is dropped by Linux after
        net.ipv4.tcp_fin_timeout (60 s), without a packet; what the peer sends after that is answered by
        RST. A socket that still has an owner, after shutdown(SHUT_WR), waits for ever (RFC 9293 3.6). To
        see it: ss -tno state fin-wait-2.""",
        "the fault is at the peer; see stuck-fin-wait-2 and stuck-close-wait",
    ),
    entry(
        State.CLOSE_WAIT,
        "the peer has closed, and this endpoint's program has not closed yet",
        """The kernel has acknowledged the peer's FIN, and recv() returns 0. Now the program must call
        close(). No kernel timer ends this state, no sysctl shortens it.

        A short time in CLOSE_WAIT is normal, also a long one while the program still sends an answer (a
        half-close). Sockets that pile up here are a leak in the program that owns them: it ignores the 0
        from recv(), never reads the socket, leaves it in a pool, or hangs (RFC 9293 3.6). To see it, with
        the process: ss -tnp state close-wait.""",
        "fix the program that owns the socket: close() when recv() returns 0; see stuck-close-wait",
    ),
    entry(
        State.CLOSING,
        "both endpoints closed at once; this one's FIN is not acknowledged yet",
        """The FINs crossed: this endpoint had sent its own when the peer's came, which did not acknowledge
        it. With the acknowledgement it goes to TIME_WAIT; both endpoints do (RFC 9293 3.6, case 3). Rare,
        and over within a round trip.

        In capitals it is this state; in small letters, `closing`, the verdict of a close that has not
        ended.""",
        "see stuck-closing if it stays",
    ),
    entry(
        State.LAST_ACK,
        "this endpoint closed second and waits for the last ACK",
        """Both directions are closed, and this endpoint's FIN, the second one, is not acknowledged yet. With
        the ACK the socket is gone. If the ACK is lost, the FIN is retransmitted, and the peer, in TIME_WAIT,
        acknowledges it again (RFC 9293 3.10.7.4). To see it: ss -tno state last-ack.""",
        "see final-ack-lost and stuck-last-ack if it stays",
    ),
    entry(
        State.TIME_WAIT,
        "this endpoint closed first, both FINs are acknowledged; it keeps the pair for 2MSL",
        """It acknowledges the peer's FIN again if the last ACK was lost, and keeps delayed segments of this
        connection from a new one of the same addresses and ports (RFC 9293 3.6.1). It lasts 60 s on Linux,
        which is fixed, 30 s on macOS, up to 240 s on Windows. It costs a few hundred bytes, no file
        descriptor, and no program can leak it.

        The endpoint that closes first is in it. It matters to a server that is restarted without
        SO_REUSEADDR (bind-blocked), and to a client that opens ten thousands of connections to one address
        and runs out of ports. To see it: ss -tn state time-wait, or ss -s.""",
        """do not shorten it; set SO_REUSEADDR on listening sockets; reuse connections instead of opening
        many; net.ipv4.tcp_tw_reuse=1 helps clients, and so does a wider net.ipv4.ip_local_port_range""",
    ),
    entry(
        State.UNKNOWN,
        "the beginning of the connection was not captured, and nothing yet shows this endpoint's state",
        """closeseq knows only what packets show. An endpoint that sends data or ACKs is at least
        ESTABLISHED; until then its state is not known. Whether it had closed before the capture began stays
        unknown too.""",
        "capture from before the connection begins",
    ),
)


VERDICTS = (
    entry(
        VerdictCode.UNANSWERED,
        "SYN, no answer",
        """The client's SYN and its retransmissions got no answer. The server's host is down, the address is
        wrong, or a firewall drops the SYN or the answer. A host that is up and does not listen would have
        answered with RST (refused). The program gets ETIMEDOUT, EHOSTUNREACH, or its own timeout.""",
        "capture at the server: if the SYN arrives there, check its firewall, its routes back, and its "
        "listen queue (nstat -az TcpExtListenDrops)",
    ),
    entry(
        VerdictCode.REFUSED,
        "SYN answered by RST: nobody listens, or a firewall rejects",
        """The host is there, the port is not open. The program gets ECONNREFUSED at once; if packets were
        lost or dropped, connect() would wait (RFC 9293 3.10.7.1).

        A firewall that rejects with tcp-reset looks the same, but for a TTL unlike the host's own.""",
        "start the server, or correct the address or port; ss -ltn at the server shows what listens where "
        "(a server bound to 127.0.0.1 refuses on every other address)",
    ),
    entry(
        VerdictCode.ABORTED_OPEN,
        "the handshake was reset or given up before both endpoints were ESTABLISHED",
        """A SYN was answered, but the connection never came up: the client answered the SYN+ACK with RST (a
        port scan, a forged sender, a connect() that was cancelled), the server reset it, or the last ACK
        never came (a SYN flood, loss).""",
        "single ones are harmless; many from one address are a scan, many from everywhere a flood "
        "(net.ipv4.tcp_syncookies=1)",
    ),
    entry(
        VerdictCode.RESET,
        "a RST ended it",
        """One endpoint sent RST, or one was sent in its name, and data that was under way is lost. The
        summary shows which one, and in which phase: before any FIN, after one, after both. The program at
        the peer gets ECONNRESET. A RST after both FINs were acknowledged ends nothing any more and does not
        change a graceful close (RFC 9293 3.5.3).""",
        "the finding reset-cause lists the likely causes",
    ),
    entry(
        VerdictCode.SIMULTANEOUS,
        "both endpoints closed at the same time, and both FINs were acknowledged",
        """Each endpoint sent its FIN before it had received the other's; at least one went through CLOSING,
        and both end in TIME_WAIT (RFC 9293 3.6, case 3). Nothing is wrong.""",
    ),
    entry(
        VerdictCode.GRACEFUL,
        "both endpoints closed, one after the other, and both FINs were acknowledged",
        """The normal close: FIN, ACK, FIN, ACK, the middle two perhaps in one segment. All data arrived.
        The endpoint that closed first stays in TIME_WAIT for 2MSL (RFC 9293 3.6).""",
    ),
    entry(
        VerdictCode.CLOSING,
        "a close has begun and not ended; the endpoints' states show how far it is",
        """At least one FIN was sent, and at least one endpoint still waits. When the capture ends a moment
        later, nothing is wrong. When it lasts, a finding stuck-... names the endpoint to fix. (The state is
        written in capitals, CLOSING.)""",
        "look at the endpoint in CLOSE_WAIT first: its program must close",
    ),
    entry(
        VerdictCode.OPEN,
        "no FIN, no RST: the connection is still open",
        """Nobody has closed as far as was captured. An endpoint of an open connection may still be gone: see
        half-open.""",
    ),
    entry(
        VerdictCode.REPLACED,
        "a new connection began on the same addresses and ports before this one had ended",
        """A SYN with another number came for the same pair, so at least its sender no longer has the old
        connection: it crashed, was rebooted, gave up, or its close was not captured. Its peer keeps the old
        one until the new SYN or a keepalive shows that it is gone (RFC 9293 3.5.1).""",
        "find out why the old one ended without FIN or RST: a crash, a killed virtual machine, a NAT that "
        "dropped it",
    ),
    entry(
        VerdictCode.NOT_JUDGED,
        "closeseq itself failed at this connection; it is not judged",
        """A fault in closeseq, not in the connection. Its packets are listed; states that closeseq could not
        infer are UNKNOWN. All other connections are judged as usual, and the exit status is 70.""",
        "report it to the maintainers: the output of `closeseq --version`, the summary of the connection, "
        "which names the place where closeseq failed, and, if you may share them, its packets: `tcpdump -r "
        "CAPTURE -w fault.pcap host ADDRESS and port PORT`",
    ),
)
