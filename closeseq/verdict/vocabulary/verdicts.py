"""The verdicts, from no answer at all to not over yet."""

from __future__ import annotations

from closeseq.verdict.vocabulary.entry import Entry, entry


def _verdict(code: str, meaning: str, explanation: str, advice: str = "") -> Entry:
    return entry(code, "verdict", None, meaning=meaning, explanation=explanation, advice=advice)


VERDICTS = (
    _verdict(
        "unanswered",
        "SYN, no answer",
        """The client's SYN, and its repetitions, got no answer of any kind. The server's host is down, the
        address is wrong, or a firewall drops the SYN or the answer. A host that is up and does not listen
        would have answered with RST (refused). The program sees ETIMEDOUT, EHOSTUNREACH, or its own
        timeout.""",
        "capture at the server: if the SYN arrives there, look at its firewall, its routes back, and its "
        "listen queue (nstat -az TcpExtListenDrops)",
    ),
    _verdict(
        "refused",
        "SYN answered by RST: nobody listens, or a firewall rejects",
        """The host is there, the port is not open. The program sees ECONNREFUSED at once: connect() fails
        without a wait, as it would not if packets were lost or dropped (RFC 9293 3.10.7.1).

        A firewall that rejects with tcp-reset looks the same; a TTL unlike the host's own gives it away.""",
        "start the server, or correct the address or port; ss -ltn at the server shows what listens where "
        "(a server bound to 127.0.0.1 refuses on every other address)",
    ),
    _verdict(
        "aborted-open",
        "the handshake was reset or given up before both ends were ESTABLISHED",
        """A SYN was answered, but the connection never came up: the client answered the SYN+ACK with RST (a
        port scan, a forged sender, a connect() that was cancelled), the server reset it, or the last ACK
        never came (a SYN flood, loss).""",
        "single ones are harmless; many from one address are a scan, many from everywhere a flood "
        "(net.ipv4.tcp_syncookies=1)",
    ),
    _verdict(
        "reset",
        "a RST ended it",
        """One end sent RST, or one was sent in its name, and data that was under way is lost. The summary
        tells by whom and in which phase: before any FIN, after one, after both. The program at the other
        end sees ECONNRESET. A RST that comes when both FINs have been acknowledged ends nothing any more
        and does not change a graceful close (RFC 9293 3.5.3).""",
        "the finding reset-cause lists the likely causes",
    ),
    _verdict(
        "simultaneous",
        "both ends closed at the same time, and both FINs were acknowledged",
        """Each end sent its FIN before it had received the other's; an end went through CLOSING, and both
        end in TIME_WAIT (RFC 9293 3.6, case 3). Nothing is wrong.""",
    ),
    _verdict(
        "graceful",
        "both ends closed, one after the other, and both FINs were acknowledged",
        """The normal close: FIN, ACK, FIN, ACK, the middle two perhaps in one segment. All data arrived.
        The end that closed first is left in TIME_WAIT for 2MSL (RFC 9293 3.6).""",
    ),
    _verdict(
        "closing",
        "a close has begun and not ended; the states of both ends say how far it is",
        """At least one FIN was sent, and at least one end still waits. When the capture ends a moment later
        that means nothing. When it lasts, a finding stuck-... names the end that is to blame. (The state is
        written in capitals, CLOSING.)""",
        "look at the end in CLOSE_WAIT first: it is the one whose program has to act",
    ),
    _verdict(
        "open",
        "no FIN, no RST: the connection is still open",
        """Nobody has closed as far as was captured. An open connection may still have lost one of its ends:
        see half-open.""",
    ),
    _verdict(
        "replaced",
        "a new connection began on the same addresses and ports without this one having ended",
        """A SYN with another number came for the same pair, so at least the end that sent it no longer has
        the old connection: it crashed, was rebooted, gave up, or its end was not captured. The other end
        keeps the old one until the new SYN or a keepalive finds out (RFC 9293 3.5.1).""",
        "find out why the old one was left without FIN or RST: a crash, a killed virtual machine, a NAT "
        "that forgot it",
    ),
    _verdict(
        "not-judged",
        "closeseq itself failed at this connection; nothing is said of it",
        """A fault in closeseq, not in the connection. Its packets are listed; states that could not be told
        are UNKNOWN. All other connections are judged as ever, and the exit status is 70.""",
        "report it to the maintainers: what `closeseq --version` says, what is said of the connection here, "
        "which names the place where closeseq failed, and if you may share them its packets, as of "
        "`tcpdump -r CAPTURE -w fault.pcap host ADDRESS and port PORT`",
    ),
)
