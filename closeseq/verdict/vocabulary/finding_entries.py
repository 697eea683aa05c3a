"""The findings: problems, which are something to fix, notices, which are something to know; those of many."""

from __future__ import annotations

from functools import partial

from closeseq.verdict.model import FindingCode, PopulationCode, Severity, entry

_problem = partial(entry, severity=Severity.PROBLEM)
_notice = partial(entry, severity=Severity.NOTICE)

PROBLEMS = (
    _problem(
        FindingCode.STUCK_CLOSE_WAIT,
        "its peer has closed, and its program has not closed the socket",
        """The kernel received the FIN (recv() returns 0) and waits for close(). It waits for ever: no timer
        and no sysctl ends CLOSE_WAIT. Each such socket holds a file descriptor, until accept() fails with
        EMFILE.

        It is a bug in *that* program, not in the network and not at the peer: a reader that takes 0 bytes
        for "nothing yet"; a writer that never reads and so never sees the end of file; a connection pool
        that keeps dead connections; a thread that hangs while it owns the socket; a descriptor inherited by
        a child process, so that close() in the parent closes nothing.

        closeseq reports it after --stuck-after (60 s), or when the peer's FIN_WAIT_2 has expired, but not
        while data still flows over the half-closed connection (RFC 9293 3.6).""",
        """find the process with ss -tnp state close-wait (or lsof -i TCP:PORT), see what it does (gdb,
        py-spy, jstack), and make it close() the socket when recv() returns 0. A restart frees the sockets
        but fixes nothing""",
    ),
    _problem(
        FindingCode.STUCK_FIN_WAIT_2,
        "it has closed, and its peer does not close",
        """Its FIN was acknowledged, so the peer's kernel knows; the peer's program has not closed its side,
        and is in CLOSE_WAIT. The fault is at the peer.

        If no program owns the socket here any more (close(), or the process ended), Linux drops it after
        net.ipv4.tcp_fin_timeout, 60 s. If one still owns it (shutdown(SHUT_WR), then a read), it waits for
        ever (RFC 9293 3.6).""",
        """fix the program at the peer, see stuck-close-wait. Here: give the read after shutdown(SHUT_WR) a
        timeout, or close(); TCP_LINGER2 shortens the wait of a single socket""",
    ),
    _problem(
        FindingCode.STUCK_FIN_WAIT_1,
        "its FIN is not acknowledged",
        """The FIN was sent, perhaps many times, or waits behind data that may not be sent, and nothing
        acknowledges it. The peer crashed, was cut off, or a firewall drops the packets; or the peer's
        window is 0 because its program does not read.

        Linux gives up on a socket without owner after net.ipv4.tcp_orphan_retries retransmissions (the
        default 0 means 8), with backoff some two minutes or less (RFC 9293 3.8.3). Many of them hold
        memory: nstat -az TcpExtTCPAbortOnMemory, ss -s ("orphan").""",
        """find out whether the peer is alive, and what drops packets on the path. If its window is 0, fix
        its program: it must read. TCP_USER_TIMEOUT limits the wait""",
    ),
    _problem(
        FindingCode.STUCK_LAST_ACK,
        "its FIN, the second one, is never acknowledged",
        """Both endpoints have closed, and only the last ACK is missing. Either it is sent and lost each
        time (then closeseq shows the ACKs), or the peer no longer has the connection, or cannot be reached.
        All data may have arrived, but this endpoint does not know (RFC 9293 3.10.7.4).""",
        """look for a firewall or NAT that drops what comes after the first FIN; the kernel gives up by
        itself (net.ipv4.tcp_orphan_retries)""",
    ),
    _problem(
        FindingCode.STUCK_CLOSING,
        "both endpoints closed at once, and its FIN is never acknowledged",
        """The FINs crossed and the peer's was received, but the ACK of this endpoint's own FIN does not
        arrive, or is not sent. As stuck-last-ack (RFC 9293 3.6, case 3).""",
        """look for a firewall or NAT that drops what comes after the first FIN; the kernel gives up by
        itself (net.ipv4.tcp_orphan_retries)""",
    ),
    _problem(
        FindingCode.HALF_OPEN,
        "its peer is gone: its retransmissions, or its keepalives, get no answer",
        """One endpoint has crashed, lost power, or been cut off (a NAT or firewall that dropped an idle
        connection has the same effect), and its peer is still in ESTABLISHED. An endpoint that does not
        send never notices. One that sends retransmits its data, on Linux net.ipv4.tcp_retries2 times (15,
        some 15 minutes), then the program gets ETIMEDOUT (RFC 9293 3.5.1).""",
        """set SO_KEEPALIVE with TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT, shorter than the shortest
        firewall timeout on the path (the default begins after 2 h), and TCP_USER_TIMEOUT; better still, a
        heartbeat in the protocol, at both endpoints""",
    ),
    _problem(
        FindingCode.IDLE_CUT,
        "after a long silence what it sends gets no answer: something on the path dropped the connection",
        """Firewalls, NAT and load balancers forget a connection in which no packet came for some time, and
        tell neither endpoint. Whoever sends next gets nothing but its own retransmissions (then half-open is
        reported as well), or a RST from a device that does not know the connection.

        From one connection a peer that has crashed or restarted looks the same, so the finding is assumed.
        If other connections between the same hosts go on, it is the path. It is reported for silences of
        --stuck-after (60 s) and longer.""",
        """have one endpoint send more often than the shortest idle timeout on the path: SO_KEEPALIVE with
        TCP_KEEPIDLE (Linux begins after 2 h by default), or a heartbeat in the protocol; or lengthen that
        timeout. Connections of a pool should be closed before""",
    ),
    _problem(
        FindingCode.HALF_CLOSE_CUT,
        "inside a half-close, after a long silence, what it sends gets no answer",
        """One endpoint has sent its FIN and waits for the rest of the answer, which the other endpoint sends
        in vain: its data is not acknowledged. Firewalls, NAT and load balancers keep a connection with a FIN
        for a much shorter time than an open one (Linux conntrack: 60 s in CLOSE_WAIT, five days when
        established), so a slow answer after shutdown(SHUT_WR) meets a path that forgot the connection.

        From one connection a peer that crashed looks the same, so the finding is assumed.""",
        """do not half-close before a slow answer: mark the end of the request in the protocol; or lengthen
        the timeout for closing connections (nf_conntrack_tcp_timeout_close_wait, _fin_wait)""",
    ),
    _problem(
        FindingCode.BLOCKED_BY_OLD_CONNECTION,
        "its SYN was answered with an ACK of an older connection that the server still has",
        """The client connects again from the same port, and the server still has the connection before it:
        in CLOSE_WAIT (its program has not closed), in FIN_WAIT_2, or in TIME_WAIT with a SYN that is not
        newer. It answers with an ACK numbered in the old connection (RFC 9293 3.10.7.4, RFC 5961 4). The
        client answers that with RST, which ends the old connection, and opens the new one with its next SYN,
        which Linux sends some 10 ms later, and others after a second. Where a firewall drops that ACK or
        RST, it never opens.

        Problem: it did not open. Notice: it opened in the end; or this is the older connection, of which the
        server was in CLOSE_WAIT or FIN_WAIT_2 when the SYN came (assumed: its packets do not show what
        became of that).""",
        """look at the connection before it: fix the program that left it in CLOSE_WAIT (see
        stuck-close-wait); let the client's kernel choose the port""",
    ),
    _problem(
        FindingCode.ACCEPT_QUEUE_FULL,
        "the handshake was complete, and the server's kernel did not take the connection",
        """The kernel completes handshakes by itself and queues the connections until the program calls
        accept(); listen(backlog) and net.core.somaxconn limit the queue. When it is full, Linux drops the
        ACK that completes a handshake, and the data behind it, and sends its SYN ACK again after 1, 3, 7 s:
        the client has long been ESTABLISHED and waits. With net.ipv4.tcp_abort_on_overflow=1 it answers with
        RST. New SYNs are dropped as well: see slow-open.

        A lost ACK looks the same, so it is reported if the SYN ACK's timestamp echo shows that the ACK had
        arrived (some kernels keep it, Linux 6.18 does not), or if several segments of the client were
        captured near the server before it. Where the server had answered with a SYN cookie, SYN ACK never
        comes again, and nothing is reported. Assumed: lack of memory has the same effect, and so has a
        listening socket that was closed at that moment (RST). Notice: no data was sent, for then
        TCP_DEFER_ACCEPT looks the same.""",
        """make the program call accept() in time (a blocked event loop, all workers busy); give listen() a
        larger backlog and raise net.core.somaxconn. ss -ltn shows the queue (Recv-Q) and its limit (Send-Q),
        nstat -az TcpExtListenOverflows counts""",
    ),
    _problem(
        FindingCode.KEEPALIVE_RACE,
        "the server closed an idle connection, and the client's next request was answered with RST",
        """A server closes a connection on which no request came for its keep-alive timeout. A client that
        sends one at that moment, or later, gets RST: ECONNRESET, "socket hang up", "upstream prematurely
        closed connection", 502 from a proxy.

        Where the request crossed the FIN, neither program did anything wrong: the client's timeout must be
        the shorter one. Where the client had acknowledged the FIN, its pool takes connections that its own
        kernel knows to be closed. If the server never acknowledged the request, its program has not seen it,
        and it is safe to send it again; if it did, nobody can tell.""",
        """let the client drop idle connections sooner than the server (and a proxy sooner than what is
        behind it); check a pooled connection before it is used; repeat a request that was not acknowledged
        on a new connection""",
    ),
    _problem(
        FindingCode.DATA_AFTER_CLOSE,
        "data sent to an endpoint that had closed was answered by RST, and is lost",
        """After close() a socket accepts no more data: its kernel answers with RST. The sender gets
        ECONNRESET from its next call, EPIPE (and the signal SIGPIPE) from the one after; earlier data that
        the peer had not read may be lost too. A FIN does not show whether its sender still reads, so the
        first write after it always seems to succeed (RFC 9293 3.6, RFC 1122 4.2.2.13).""",
        """decide which program to fix: one that closes although it wants the answer must call
        shutdown(SHUT_WR), read until recv() returns 0, then close(); one that goes on writing must read,
        and stop at end of file. Ignore SIGPIPE or send with MSG_NOSIGNAL""",
    ),
    _problem(
        FindingCode.FINAL_ACK_LOST,
        "the last ACK did not arrive, and the FIN in LAST_ACK was retransmitted",
        """The endpoint that closed second retransmits its FIN until it is acknowledged. Three outcomes: its
        peer is in TIME_WAIT and acknowledges again, which is what TIME_WAIT is for; TIME_WAIT is gone
        (reboot, too many of them, a RST) and a RST answers; or nothing answers, and LAST_ACK lasts until
        the kernel gives up.

        The ACK is lost on its way, or a firewall drops the connection with the FINs and what comes after.
        No data is lost, for the FIN was received in order (RFC 9293 3.6.1).""",
        """look for packet loss and for firewalls with short timeouts for closing connections; do not
        shorten TIME_WAIT (net.ipv4.tcp_max_tw_buckets)""",
    ),
    _problem(
        FindingCode.TIME_WAIT_ASSASSINATED,
        "a RST ended a TIME_WAIT before its time",
        """A delayed segment reached an endpoint in TIME_WAIT, which answered with an ACK, as it must; its
        peer, which is CLOSED, answered that ACK with RST. The RST ends TIME_WAIT, and with it the
        protection against delayed segments in a new connection of the same pair: RFC 1337.""",
        """set net.ipv4.tcp_rfc1337=1 at the endpoint that was in TIME_WAIT (the default on Linux is 0);
        find out where the segment was delayed""",
    ),
)

NOTICES = (
    _notice(
        FindingCode.FIN_LOST,
        "a FIN was lost and had to be retransmitted",
        """The FIN itself did not arrive, not its acknowledgement: a retransmission was the first that its
        receiver accepted. It costs the retransmission timeout (RTO), 0.2 s at first on Linux, and doubles
        each time (RFC 6298).""",
        "single ones are normal on a lossy path; if there are many, look for the loss",
    ),
    _notice(
        FindingCode.TIME_WAIT_RESTARTED,
        "TIME_WAIT acknowledged a retransmitted FIN, and its 2MSL counts anew",
        """The last ACK had been lost, the peer retransmitted its FIN, and TIME_WAIT did what it is for (RFC
        9293 3.10.7.4).""",
        "no change is needed; see final-ack-lost for the loss",
    ),
    _notice(
        FindingCode.TIME_WAIT_REUSED,
        "a SYN opened the same addresses and ports again during TIME_WAIT",
        """It is allowed when the SYN's number or timestamp is newer than the old connection's (RFC 9293
        3.10.7.4, RFC 6191), and so happens to clients that bind a fixed port or use up their ports, and
        with net.ipv4.tcp_tw_reuse.""",
        "no change is needed; a client should not bind a fixed port without need",
    ),
    _notice(
        FindingCode.BIND_BLOCKED,
        "the server waits out the close, so its port cannot be bound again without SO_REUSEADDR",
        """As long as a socket of the server's port is in TIME_WAIT, FIN_WAIT_1, FIN_WAIT_2, CLOSING or
        LAST_ACK, bind() to that port fails with EADDRINUSE ("Address already in use") unless SO_REUSEADDR
        is set. A running server is not affected; a restarted one is. It happens to the endpoint that closes
        first.

        On Linux both sockets must have SO_REUSEADDR; accepted sockets inherit it from the listening one. To
        see what holds the port: ss -tan 'sport = :PORT'.""",
        "set SO_REUSEADDR before bind(); or design the protocol so that the client closes first",
    ),
    _notice(
        FindingCode.NEVER_ACCEPTED,
        "the server's kernel acknowledged the client's data and FIN, and its program never sent a byte",
        """The kernel completes the handshake, takes data and acknowledges the FIN without the program. If
        that never sends a byte, it has probably not called accept() yet, or hangs before its first answer;
        the server is in CLOSE_WAIT, for which see stuck-close-wait. Reported after --stuck-after (60 s).""",
        """ss -tanp state close-wait at the server: no process and unread bytes (Recv-Q) mean that the
        connection waits for accept(); else the process that is named hangs""",
    ),
    _notice(
        FindingCode.SLOW_OPEN,
        "the client had to send its SYN again before the open succeeded",
        """A SYN is retransmitted after 1 s, then after 3 s and 7 s in all (RFC 6298; Linux since 6.5 sends
        the first ones a second apart), so the open took at least a second. The SYN, or its answer, was lost
        on the path; or the server dropped the SYN: its accept queue was full (see accept-queue-full), a SYN
        flood filled its SYN queue, a connection tracking table was full, or two hosts behind one address
        took the same port. One in a while is normal.""",
        """if there are many to one server, look at nstat -az TcpExtListenOverflows TcpExtListenDrops there;
        to all servers, look for packet loss""",
    ),
    _notice(
        FindingCode.RESET_CAUSE,
        "why a RST was sent: the likely causes in order, with the evidence for and against each",
        """A RST does not show its cause, but its form shows much: RST+ACK aborts an open socket (closed with
        unread data, SO_LINGER 0, a keepalive or a retransmission that gave up, a process killed with unread
        data, a listening socket closed before the connection was accepted). A bare RST, numbered like an
        ACK, is sent without a socket (data after close, an expired FIN_WAIT_2, nobody listens, a challenge
        ACK to a connection that is gone; RFC 9293 3.5.2, 3.10.7).

        Firewalls, NAT and intrusion prevention send RSTs in an endpoint's name. It is proved that the
        endpoint did not send it where it goes on afterwards (acknowledges what was sent after the RST, or
        sends something new a second later), where the RST came far sooner than that endpoint can answer, or
        where its frame came another way than the endpoint's others (MAC address, VLAN, interface,
        direction). A TTL, an IP id, a number or a window unlike that sender's others are signs, and prove
        nothing alone. What a RST says of its reason (text, a diagnostic code, MP_TCPRST) anybody can write.

        All other causes are inferences, and marked as assumed; capture at both endpoints to be sure. The
        finding also says how much data was under way and never acknowledged. Data that lay unread at the
        receiver is lost as well, and no packet shows it.""",
        "take the first cause, and check it at the endpoint that is named",
    ),
    _notice(
        FindingCode.CHALLENGE_ACK,
        "a RST or SYN that did not fit was answered with an ACK, and the connection went on",
        """A RST inside the window that is not at exactly the expected number, and any SYN on a synchronized
        connection, are answered with an ACK (RFC 5961 3 and 4, RFC 9293 3.10.7.4). A true peer that has
        lost the connection answers with a RST that fits; a forger cannot. After a challenge to its SYN,
        Linux sends the SYN again within about 10 ms.""",
        "SYN: find out how its sender lost the old connection; RST: look where it came from",
    ),
    _notice(
        FindingCode.SLOW_CLOSE,
        "it stayed in CLOSE_WAIT for over a second before it closed",
        """Between end of file and close() the program did something else, while both endpoints held a
        socket: it waited for a timeout, a lock, a slow disk or database, or finished its work first. Time
        in which it still sent data does not count.""",
        "find out what that program does between recv() returning 0 and close(); close first if the work "
        "does not need the socket",
    ),
    _notice(
        FindingCode.HALF_CLOSE,
        "after one FIN, data still flowed the other way and was accepted",
        """The endpoint that closed called shutdown(SHUT_WR) to end its request, and still reads the answer.
        A closed socket would have refused the data with RST. TCP allows it (RFC 9293 3.6); some middleboxes
        cut such connections after a short time.""",
        "no change is needed; give the read a timeout",
    ),
    _notice(
        FindingCode.THREE_SEGMENT_CLOSE,
        "the ACK of the first FIN and the second FIN were one segment",
        """The second endpoint closed before its kernel had sent the ACK, which Linux delays by up to 40 ms:
        its program closed at once when it read end of file, or was about to close anyway. Normal; a close
        in four segments is no better (RFC 9293 3.6).""",
    ),
    _notice(
        FindingCode.FIN_WITH_DATA,
        "a FIN was sent together with data",
        """The program closed while its last data was still waiting to be sent: behind Nagle's algorithm, a
        full window, or MSG_MORE. Normal.""",
    ),
    _notice(
        FindingCode.KEEPALIVE,
        "keepalive probes were captured",
        """An endpoint with SO_KEEPALIVE probes, on an idle connection, whether its peer is still there: it
        sends a segment numbered one below the next, which must be answered (RFC 9293 3.8.4). Linux begins
        after net.ipv4.tcp_keepalive_time (2 h), repeats every tcp_keepalive_intvl (75 s) and gives up after
        tcp_keepalive_probes (9) with RST and ETIMEDOUT. Probes of a window of 0 look the same and are not
        counted.""",
        "if they are not answered, see half-open",
    ),
    _notice(
        FindingCode.CAPTURE_INCOMPLETE,
        "packets of the connection were not captured",
        """There are holes in the numbers, acknowledgements of packets that were not captured, only one
        direction, no beginning, or the capture itself reports packets lost. What was captured stays true.
        What rests on a packet *not* having been sent ("never acknowledged", "never closed") is then no more
        than assumed.""",
        """capture again from before the connection begins, on a host that sees both directions, with a snap
        length of 128 (-s 128), a larger buffer (-B 65536), to a file (-w), with a filter on the port and
        not on flags""",
    ),
    _notice(
        FindingCode.DUPLICATE_PACKETS,
        "the same packet came twice: captured twice, or delivered twice by the network",
        """The "any" device, bridges, bonds, VLANs and mirror ports show a packet at each place it passes: in
        another VLAN or direction, with other link addresses or another TTL. closeseq counts it once. A
        network may also duplicate a packet, and its receiver gets both: it comes from the same place again
        some milliseconds later, or the receiver answers it once more, with a D-SACK or from TIME_WAIT.
        Where neither shows, it may be one or the other. Duplicates are identical down to the IPv4
        identification and the timestamps and come within a moment; retransmissions are not.""",
        "capture on one interface; TCP drops what the network duplicates",
    ),
)

POPULATIONS = (
    _problem(
        PopulationCode.FORGOTTEN_BY_NAT,
        "segments come from an address that their receiver does not know: a NAT has forgotten them",
        """A NAT gives the segments of a connection other addresses, in both directions. When it has no entry
        for the connection any more, or takes a segment for invalid, it lets it pass as it is. Its receiver
        knows no connection with that address, and its kernel answers with RST. That RST ends the connection
        at the sender, whose program sees ECONNRESET, while the receiver goes on waiting.

        closeseq finds segments that were answered by nothing but RST, and whose numbers continue another
        connection of the same port: that proves to which one they belong. In Kubernetes, it is the address
        of a pod where the client knows that of the service.""",
        """look at the NAT: is its table full (on Linux nf_conntrack_count and nf_conntrack_max), does it
        forget sooner than the programs' keepalives come (nf_conntrack_tcp_timeout_established), was it
        restarted? net.netfilter.nf_conntrack_tcp_be_liberal=1 lets it translate segments that it takes for
        invalid; a rule that drops what is INVALID keeps them from passing as they are""",
    ),
    _problem(
        PopulationCode.PORT_PRESSURE,
        "a client holds so many ports in TIME_WAIT towards one server that they run out",
        """The endpoint that closes first keeps its port in TIME_WAIT, on Linux for 60 s. A client that opens
        a connection for every request and closes it first holds one port a request, of 28,232 that Linux has
        for connections to one address and port. When they are used up, connect() fails with EADDRNOTAVAIL.

        closeseq counts the TIME_WAITs at once, and from their rate when the ports will be used up, at 500 of
        them and more.""",
        """let the client keep connections and use them again; net.ipv4.tcp_tw_reuse=1 and a wider
        net.ipv4.ip_local_port_range at the client only put it off""",
    ),
    _problem(
        PopulationCode.TIMEOUTS_IN_WRONG_ORDER,
        "clients use connections again that have idled nearly as long as the server keeps them",
        """The server closes idle connections after a fixed time (see idle-timeout), and clients still send
        requests on connections that have idled for 80 % of it or more. Sooner or later a request crosses the
        server's FIN, is answered with RST, and its program sees ECONNRESET or EPIPE, "socket hang up", or a
        proxy's 502. This is the warning before that happens.""",
        """let each pool give up idle connections well before the next one does: client below proxy below
        server""",
    ),
    _notice(
        PopulationCode.IDLE_TIMEOUT,
        "an endpoint closes connections after the same time of idleness",
        """In at least five connections, and in a fifth of those that it closed after a second of silence or
        more, the silence before its FIN or RST was the same, to 2 % or 50 ms. That is a timeout of its
        program, or of a proxy that answers in its name. Products with this default are named; the number
        alone does not prove one.""",
        """compare it with the timeouts of clients and proxies: client below proxy below server""",
    ),
    _notice(
        PopulationCode.RESETS_BY_HABIT,
        "an endpoint ends its connections with RST, after all data was acknowledged",
        """At least five connections, and 95 % of those that the endpoint ended first, it ended with RST when
        everything that was captured of the other was acknowledged. Health checks, load generators and some
        proxies do so on purpose (SO_LINGER with a time of 0): it saves TIME_WAIT, and is quick. The kernel
        had all data, so that nothing was lost, unless the program had not read it yet.""",
        """none is needed for a health check. In a program of your own use shutdown() and close(): the peer's
        program may take the RST for an error""",
    ),
)
