"""Other people's words: errors as programs and libraries print them, and codes in other tools' logs.

Each entry has the source of its meaning beside it. What closeseq can look for is in `codes`, `shapes` and
`command`; where a proxy's code is about one of its two connections only, the meaning says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from closeseq.verdict.model import ErrorCode, FindingCode, VerdictCode

if TYPE_CHECKING:
    from closeseq.verdict.model import Code

_F, _V = FindingCode, VerdictCode


@dataclass(frozen=True, slots=True)
class ForeignEntry:
    """A word of another program, and what it looks like in a capture."""

    words: tuple[str, ...]  # the way to write it first, then other texts that mean the same
    tool: str  # whose word it is
    meaning: str  # one line, no full stop
    explanation: str  # one paragraph; may be empty
    codes: tuple[Code, ...]  # verdicts and findings of connections that bring it about
    shapes: tuple[str, ...]  # of such connections, examples
    options: str  # of `closeseq analyze FILE`, that look for it
    source: str  # of the meaning
    error: ErrorCode | None = None  # where it is an error of a system call

    @property
    def word(self) -> str:
        """The way to write it."""
        return self.words[0]

    @property
    def command(self) -> str:
        """The command that looks for it in a capture."""
        return f"closeseq analyze FILE {self.options}"


def _entry(
    words: str,
    tool: str,
    meaning: str,
    explanation: str = "",
    *,
    codes: tuple[Code, ...],
    shapes: tuple[str, ...] = (),
    options: str,
    source: str,
    error: ErrorCode | None = None,
) -> ForeignEntry:
    """Return an entry; `words` are parted by `|`."""
    several = tuple(word.strip() for word in words.split("|"))
    return ForeignEntry(
        several, tool, meaning, " ".join(explanation.split()), codes, shapes, options, source, error
    )


OPEN = "C:S S:SA C:A"
RESET_BY_SERVER = f"{OPEN} ~ S:RA"
RESET_BY_CLIENT = f"{OPEN} ~ C:RA"
WRITTEN_AFTER_FIN = f"{OPEN} ~ S:FA C:A ~ S:R"  # by the client
REFUSED = "C:S S:RA"
UNANSWERED = "C:S C:S C:S"
CLOSED_BY_SERVER = f"{OPEN} ~ S:FA C:A C:FA S:A"
CLOSED_BY_CLIENT = f"{OPEN} ~ C:FA S:A S:FA C:A"

ERRNO = "error of a system call"
_ERRORS = (
    _entry(
        "ECONNRESET | connection reset by peer | connection reset | WSAECONNRESET | 10054",
        ERRNO,
        "the kernel received a RST for this connection, and the next recv() or send() reports it",
        """The RST came while this endpoint was in ESTABLISHED, or had closed its own side only. It is
        the peer, or a box between, that gave up: it closed with data unread, crashed, restarted,
        forgot an idle connection, or aborted on purpose (SO_LINGER 0). The finding reset-cause
        weighs these for each RST.""",
        codes=(_V.RESET, _F.RESET_CAUSE),
        shapes=(RESET_BY_SERVER, RESET_BY_CLIENT),
        options="--why ECONNRESET",
        source="recv(2), tcp(7); tcp_reset() in Linux net/ipv4/tcp_input.c",
        error=ErrorCode.ECONNRESET,
    ),
    _entry(
        "EPIPE | broken pipe | SIGPIPE",
        ERRNO,
        "the program sent on a connection whose other end is closed; the data is lost",
        """The peer's FIN had come (recv() had 0 to tell), this program wrote all the same, and the
        peer answered with RST: the first write seems to work, the next one fails. A pool that does
        not look for the FIN before it reuses a connection gives it, and a peer that stops reading
        early.""",
        codes=(
            _F.DATA_AFTER_CLOSE,
            _F.KEEPALIVE_RACE,
        ),
        shapes=(WRITTEN_AFTER_FIN,),
        options="--why EPIPE",
        source="send(2), signal(7); tcp_reset() in Linux net/ipv4/tcp_input.c: CLOSE_WAIT gives EPIPE",
        error=ErrorCode.EPIPE,
    ),
    _entry(
        "ECONNREFUSED | connection refused | WSAECONNREFUSED | 10061",
        ERRNO,
        "the SYN was answered with RST: nobody listens on that port",
        """The host is there, or a firewall answers in its name (REJECT). Look whether the server runs,
        on which address it listens (127.0.0.1 is not 0.0.0.0), and on which port: ss -ltn.""",
        codes=(_V.REFUSED,),
        shapes=(REFUSED,),
        options="--why ECONNREFUSED",
        source="connect(2); tcp_reset() in Linux net/ipv4/tcp_input.c: SYN_SENT gives ECONNREFUSED",
        error=ErrorCode.ECONNREFUSED,
    ),
    _entry(
        "ETIMEDOUT | connection timed out | operation timed out | WSAETIMEDOUT | 10060",
        ERRNO,
        "what the kernel sent again and again was never answered",
        """In connect(): the SYN (on Linux after 6 retransmissions, 127 s). Later: data or keepalive
        probes to a peer that is gone (on Linux 15 retransmissions, some 15 minutes; see half-open).
        Where a program has a timeout of its own, it often prints the same words, and no packet
        shows it but its close.""",
        codes=(_V.UNANSWERED, _F.HALF_OPEN),
        shapes=(UNANSWERED,),
        options="--why ETIMEDOUT",
        source="connect(2), tcp(7): tcp_syn_retries, tcp_retries2",
        error=ErrorCode.ETIMEDOUT,
    ),
    _entry(
        "EADDRINUSE | address already in use | WSAEADDRINUSE | 10048",
        ERRNO,
        "bind() to a port that another socket still has, often one in TIME_WAIT",
        """A server that closed first leaves its port in TIME_WAIT for 60 s, and a new one without
        SO_REUSEADDR cannot bind it. If a program still listens there, no capture shows it: ss
        -ltnp.""",
        codes=(_F.BIND_BLOCKED,),
        shapes=(CLOSED_BY_SERVER,),
        options="--why EADDRINUSE",
        source="bind(2), socket(7): SO_REUSEADDR",
        error=ErrorCode.EADDRINUSE,
    ),
    _entry(
        "EADDRNOTAVAIL | cannot assign requested address | WSAEADDRNOTAVAIL | 10049",
        ERRNO,
        "connect() found no free local port, or bind() an address that is not this host's",
        """Of connect(): all ephemeral ports (28,232 by default) towards one server are taken, most of
        them in TIME_WAIT, because the client opens a connection for each request and closes first.
        Let it reuse connections.""",
        codes=(_V.GRACEFUL,),
        shapes=(CLOSED_BY_CLIENT,),
        options="--verdict graceful",
        source="connect(2), ip(7): ip_local_port_range",
    ),
)

_LIBRARIES = (
    _entry(
        "socket hang up",
        "Node.js",
        "the connection ended before the response was complete; the code is ECONNRESET",
        """Node.js says so for a FIN as well as for a RST. With keep-alive, most often the server
        closed an idle connection at the moment at which the client sent its next request on it:
        keep the client's idle timeout below the server's.""",
        codes=(_V.RESET, _F.DATA_AFTER_CLOSE, _F.KEEPALIVE_RACE),
        shapes=(RESET_BY_SERVER, WRITTEN_AFTER_FIN),
        options="--why ECONNRESET,EPIPE",
        source="Node.js lib/_http_client.js: socketOnEnd(), socketCloseListener()",
    ),
    _entry(
        "unexpected eof while reading | SSL_R_UNEXPECTED_EOF_WHILE_READING",
        "OpenSSL 3",
        "the peer's FIN came without a TLS close_notify before it",
        """The TCP close may be quite normal; the peer (or a box between) closed without ending TLS. A
        FIN before the response is complete is truncation; after it, it is bad manners.""",
        codes=(_V.GRACEFUL,),
        shapes=(CLOSED_BY_SERVER, CLOSED_BY_CLIENT),
        options="--verdict graceful,closing",
        source="OpenSSL SSL_get_error(3), BUGS; SSL_CTX_set_options(3): SSL_OP_IGNORE_UNEXPECTED_EOF",
    ),
    _entry(
        "EOF occurred in violation of protocol | SSLEOFError | SSLZeroReturnError",
        "Python ssl",
        "the connection ended without a TLS close_notify: by FIN in the handshake or in the middle of data",
        "As OpenSSL's `unexpected eof while reading`.",
        codes=(_V.GRACEFUL, _V.RESET),
        shapes=(CLOSED_BY_SERVER, RESET_BY_SERVER),
        options="--verdict graceful,closing,reset",
        source="Python documentation of ssl.SSLEOFError",
    ),
    _entry(
        "Remote end closed connection without response | RemoteDisconnected | BadStatusLine",
        "Python http.client",
        "the server's FIN came where the response was expected",
        """On a reused connection, the server had closed it as idle; on a new one, the server's program
        failed before it answered.""",
        codes=(_V.GRACEFUL, _F.DATA_AFTER_CLOSE, _F.KEEPALIVE_RACE),
        shapes=(CLOSED_BY_SERVER, WRITTEN_AFTER_FIN),
        options="--verdict graceful,closing,reset",
        source="Python documentation of http.client.RemoteDisconnected",
    ),
    _entry(
        "server closed idle connection",
        "Go net/http",
        "the server's FIN came on a pooled connection as the client was about to use it",
        "Keep the client's IdleConnTimeout below the idle timeout of the server.",
        codes=(_V.GRACEFUL, _F.DATA_AFTER_CLOSE, _F.KEEPALIVE_RACE),
        shapes=(CLOSED_BY_SERVER, WRITTEN_AFTER_FIN),
        options="--verdict graceful,closing,reset",
        source="Go net/http/transport.go: errServerClosedIdle",
    ),
    _entry(
        "failed to respond | NoHttpResponseException",
        "Apache HttpClient",
        "the server closed the connection without a response, often one that had idled in the pool",
        "Set validateAfterInactivity, or a time to live below the server's idle timeout.",
        codes=(_V.GRACEFUL, _F.DATA_AFTER_CLOSE, _F.KEEPALIVE_RACE),
        shapes=(CLOSED_BY_SERVER, WRITTEN_AFTER_FIN),
        options="--verdict graceful,closing,reset",
        source="Apache HttpComponents documentation of NoHttpResponseException",
    ),
    _entry(
        "Empty reply from server | CURLE_GOT_NOTHING",
        "curl",
        "the server closed without sending a byte",
        codes=(_V.GRACEFUL,),
        shapes=(CLOSED_BY_SERVER,),
        options="--verdict graceful,closing,reset",
        source="libcurl-errors(3): CURLE_GOT_NOTHING (52)",
    ),
)

_NGINX = (
    _entry(
        "upstream prematurely closed connection",
        "nginx",
        "the upstream's FIN came before its response was complete; the client gets 502",
        """It is about nginx's connection to the upstream, where nginx is the client. The upstream
        closed an idle keep-alive connection just as nginx used it, or its program died or timed
        out.""",
        codes=(_V.GRACEFUL, _F.DATA_AFTER_CLOSE, _F.KEEPALIVE_RACE),
        shapes=(CLOSED_BY_SERVER, WRITTEN_AFTER_FIN),
        options="--verdict graceful,closing,reset",
        source="nginx src/http/ngx_http_upstream.c: ngx_http_upstream_process_header()",
    ),
    _entry(
        "502 | 502 bad gateway | bad gateway",
        "HTTP status of a proxy",
        "the proxy got no valid response from its upstream: refused, reset, or closed too soon",
        """Look at the proxy's connections to its upstream, not at those of its clients. At long
        intervals, and on connections that had idled: the upstream's idle timeout is below the
        proxy's.""",
        codes=(_V.REFUSED, _V.RESET, _F.DATA_AFTER_CLOSE, _F.KEEPALIVE_RACE),
        shapes=(REFUSED, RESET_BY_SERVER, WRITTEN_AFTER_FIN),
        options="--why ECONNRESET,EPIPE,ECONNREFUSED",
        source="RFC 9110 15.6.3",
    ),
    _entry(
        "504 | 504 gateway timeout | gateway timeout | upstream timed out",
        "HTTP status of a proxy",
        "the upstream did not answer within the proxy's timeout",
        "The SYN had no answer, or the request arrived and the upstream's program did not answer it.",
        codes=(_V.UNANSWERED, _F.HALF_OPEN),
        shapes=(UNANSWERED,),
        options="--why ETIMEDOUT",
        source="RFC 9110 15.6.5; nginx documentation of proxy_connect_timeout, proxy_read_timeout",
    ),
    _entry(
        "499",
        "nginx",
        "the client closed its connection before nginx had sent the response",
        "The client's own timeout is shorter than the answer took. nginx is the server here.",
        codes=(_V.GRACEFUL, _V.RESET),
        shapes=(CLOSED_BY_CLIENT, RESET_BY_CLIENT),
        options="--verdict graceful,closing,reset",
        source="nginx src/http/ngx_http_request.h: NGX_HTTP_CLIENT_CLOSED_REQUEST",
    ),
)

ZEEK_SOURCE = "docs.zeek.org, scripts/base/protocols/conn/main.zeek: conn_state"


def _zeek(state: str, meaning: str, shape: str, *codes: Code) -> ForeignEntry:
    return _entry(
        state,
        "Zeek conn_state",
        meaning,
        codes=codes,
        shapes=(shape,),
        options=f"-f jsonl | jq 'select(.aka.zeek_conn_state == \"{state}\")'",
        source=ZEEK_SOURCE,
    )


_ZEEK = (
    _zeek("S0", "a SYN, and no reply", UNANSWERED, _V.UNANSWERED),
    _zeek("S1", "established, and not ended", OPEN, _V.OPEN),
    _zeek("SF", "established, and closed by both endpoints", CLOSED_BY_CLIENT, _V.GRACEFUL, _V.SIMULTANEOUS),
    _zeek("REJ", "the SYN was answered with RST", REFUSED, _V.REFUSED),
    _zeek(
        "S2",
        "established, and only the originator has closed",
        f"{OPEN} ~ C:FA S:A",
        *(_V.CLOSING, _F.STUCK_CLOSE_WAIT, _F.STUCK_FIN_WAIT_2),
    ),
    _zeek(
        "S3",
        "established, and only the responder has closed",
        f"{OPEN} ~ S:FA C:A",
        *(_V.CLOSING, _F.STUCK_CLOSE_WAIT, _F.STUCK_FIN_WAIT_2),
    ),
    _zeek("RSTO", "established, and the originator sent a RST", RESET_BY_CLIENT, _V.RESET, _F.RESET_CAUSE),
    _zeek("RSTR", "the responder sent a RST", RESET_BY_SERVER, _V.RESET, _F.RESET_CAUSE),
    _zeek(
        "RSTOS0", "the originator sent a SYN, then a RST, and no SYN+ACK was seen", "C:S C:R", _V.ABORTED_OPEN
    ),
    _zeek(
        "RSTRH", "the responder sent SYN+ACK, then a RST, and no SYN was seen", "S:SA S:RA", _F.RESET_CAUSE
    ),
    _zeek("SH", "the originator sent a SYN, then a FIN, and no SYN+ACK was seen", "C:S C:FA", _V.CLOSING),
    _zeek("SHR", "the responder sent SYN+ACK, then a FIN, and no SYN was seen", "S:SA S:FA", _V.CLOSING),
    _zeek("OTH", "no SYN was seen, only what came in the middle", "~", _F.CAPTURE_INCOMPLETE, _V.OPEN),
)

HAPROXY_SOURCE = "HAProxy configuration manual 8.5, session state at disconnection"


def _haproxy(
    state: str, meaning: str, explanation: str, options: str, shapes: tuple[str, ...], *codes: Code
) -> ForeignEntry:
    return _entry(
        state,
        "HAProxy termination state",
        meaning,
        explanation,
        codes=codes,
        shapes=shapes,
        options=options,
        source=HAPROXY_SOURCE,
    )


_TO_SERVER = "HAProxy is the client of this connection."
_TO_CLIENT = "HAProxy is the server of this connection."
_HAPROXY = (
    _haproxy(
        "CD",
        "the client ended the connection while data was being transferred",
        f"Its FIN or RST came first: it stopped the transfer or crashed. {_TO_CLIENT}",
        "--verdict reset,graceful,closing",
        (RESET_BY_CLIENT, CLOSED_BY_CLIENT),
        *(_V.RESET, _V.GRACEFUL),
    ),
    _haproxy(
        "SD",
        "the connection to the server ended with an error while data was being transferred",
        f"Most often the server's RST: its program crashed, or closed with data unread. {_TO_SERVER}",
        "--why ECONNRESET,EPIPE",
        (RESET_BY_SERVER,),
        *(_V.RESET, _F.RESET_CAUSE),
    ),
    _haproxy(
        "cD",
        "the client neither sent nor acknowledged data for `timeout client`",
        f"The client left without closing, or its network did; then HAProxy closes. {_TO_CLIENT}",
        "--finding half-open,stuck-fin-wait-2,stuck-fin-wait-1",
        (f"{OPEN} ~ S:FA C:A",),
        *(_F.HALF_OPEN, _F.STUCK_FIN_WAIT_2),
    ),
    _haproxy(
        "sD",
        "the server neither sent nor acknowledged data for `timeout server`",
        f"The server's program hangs, or a firewall dropped the idle connection. {_TO_SERVER}",
        "--finding half-open,stuck-fin-wait-2,stuck-fin-wait-1",
        (f"{OPEN} ~ C:FA S:A",),
        *(_F.HALF_OPEN, _F.STUCK_FIN_WAIT_2),
    ),
    _haproxy(
        "SC",
        "the server refused the connection, or reset it",
        _TO_SERVER,
        "--why ECONNREFUSED",
        (REFUSED,),
        _V.REFUSED,
    ),
    _haproxy(
        "sC",
        "the connection to the server was not open within `timeout connect`",
        f"No answer to the SYN: the server's host is down, or a firewall drops it. {_TO_SERVER}",
        "--verdict unanswered",
        (UNANSWERED,),
        _V.UNANSWERED,
    ),
    _haproxy(
        "CC",
        "the client left before the connection to the server was open",
        f"The server accepts too slowly, or the client is impatient. {_TO_CLIENT}",
        "--verdict reset,graceful,closing",
        (CLOSED_BY_CLIENT, RESET_BY_CLIENT),
        *(_V.GRACEFUL, _V.RESET),
    ),
    _haproxy(
        "SH",
        "the server closed before it had sent complete response headers",
        f"It crashed on the request, or closed an idle connection as it was reused. {_TO_SERVER}",
        "--verdict graceful,closing,reset",
        (CLOSED_BY_SERVER, RESET_BY_SERVER),
        *(_V.GRACEFUL, _V.RESET, _F.DATA_AFTER_CLOSE, _F.KEEPALIVE_RACE),
    ),
    _haproxy(
        "sH",
        "the server sent no complete response headers within `timeout server`",
        f"Its program takes too long, or hangs. {_TO_SERVER}",
        "--verdict graceful,closing,reset",
        (CLOSED_BY_CLIENT,),
        *(_V.GRACEFUL, _V.CLOSING),
    ),
    _haproxy(
        "CH",
        "the client left while HAProxy waited for the server's response",
        f"The server is slower than the client's own timeout. {_TO_CLIENT}",
        "--verdict graceful,closing,reset",
        (CLOSED_BY_CLIENT, RESET_BY_CLIENT),
        *(_V.GRACEFUL, _V.RESET),
    ),
    _haproxy(
        "CR",
        "the client left before it had sent a complete request",
        f"A cancelled request, a health check, or a port scan. {_TO_CLIENT}",
        "--verdict graceful,closing,reset",
        (CLOSED_BY_CLIENT, RESET_BY_CLIENT),
        *(_V.GRACEFUL, _V.RESET),
    ),
    _haproxy(
        "cR",
        "the client sent no complete request within `timeout http-request` or `timeout client`",
        f"An idle or slow client; HAProxy closes first. {_TO_CLIENT}",
        "--verdict graceful,closing,reset",
        (CLOSED_BY_SERVER,),
        *(_V.GRACEFUL, _V.CLOSING),
    ),
)

ENVOY_SOURCE = "www.envoyproxy.io, access logging, %RESPONSE_FLAGS%"


def _envoy(
    flag: str, meaning: str, explanation: str, options: str, shapes: tuple[str, ...], *codes: Code
) -> ForeignEntry:
    return _entry(
        flag,
        "Envoy response flag",
        meaning,
        explanation,
        codes=codes,
        shapes=shapes,
        options=options,
        source=ENVOY_SOURCE,
    )


_TO_UPSTREAM = "Envoy is the client of this connection."
_ENVOY = (
    _envoy(
        "UC | UpstreamConnectionTermination",
        "the upstream ended its connection during the request (503)",
        f"Often a keep-alive connection that the upstream closed as it was reused: keep Envoy's idle_timeout "
        f"below the upstream's. {_TO_UPSTREAM}",
        "--verdict graceful,closing,reset",
        (CLOSED_BY_SERVER, RESET_BY_SERVER, WRITTEN_AFTER_FIN),
        *(_V.RESET, _V.GRACEFUL, _F.DATA_AFTER_CLOSE, _F.KEEPALIVE_RACE),
    ),
    _envoy(
        "UF | UpstreamConnectionFailure",
        "the connection to the upstream could not be opened (503)",
        f"Refused, not answered, or the TLS handshake failed. {_TO_UPSTREAM}",
        "--verdict refused,unanswered,reset",
        (REFUSED, UNANSWERED),
        *(_V.REFUSED, _V.UNANSWERED),
    ),
    _envoy(
        "URX | UpstreamRetryLimitExceeded",
        "the upstream failed at every retry, or at every attempt to connect",
        f"The flags beside it, and the connections, show why each failed. {_TO_UPSTREAM}",
        "--verdict refused,unanswered,reset",
        (REFUSED, UNANSWERED, RESET_BY_SERVER),
        *(_V.REFUSED, _V.UNANSWERED, _V.RESET),
    ),
    _envoy(
        "UR | UpstreamRemoteReset",
        "the upstream reset the stream (503)",
        f"In HTTP/2 that is a frame (RST_STREAM), no TCP RST; the connection may go on. {_TO_UPSTREAM}",
        "--verdict reset,open,graceful",
        (RESET_BY_SERVER,),
        _V.RESET,
    ),
    _envoy(
        "UT | UpstreamRequestTimeout",
        "the upstream did not answer in time (504)",
        f"The request arrived, and its program did not answer, or the peer is gone. {_TO_UPSTREAM}",
        "--finding half-open",
        (),
        _F.HALF_OPEN,
    ),
    _envoy(
        "DC | DownstreamConnectionTermination",
        "the client ended its connection before the response was complete",
        "The client's own timeout is shorter than the answer took. Envoy is the server of this connection.",
        "--verdict graceful,closing,reset",
        (CLOSED_BY_CLIENT, RESET_BY_CLIENT),
        *(_V.GRACEFUL, _V.RESET),
    ),
)

PALO_ALTO_SOURCE = "docs.paloaltonetworks.com, PAN-OS traffic log fields, session end reason"


def _palo_alto(
    reason: str, meaning: str, explanation: str, options: str, shapes: tuple[str, ...], *codes: Code
) -> ForeignEntry:
    return _entry(
        reason,
        "Palo Alto session end reason",
        meaning,
        explanation,
        codes=codes,
        shapes=shapes,
        options=options,
        source=PALO_ALTO_SOURCE,
    )


_PALO_ALTO = (
    _palo_alto(
        "tcp-rst-from-client",
        "the client sent a RST",
        """Often after a complete response, from a client that closes with data unread; that loses
        nothing. A capture shows what came before the RST.""",
        "--verdict reset",
        (RESET_BY_CLIENT,),
        *(_V.RESET, _F.RESET_CAUSE),
    ),
    _palo_alto(
        "tcp-rst-from-server",
        "the server sent a RST",
        "Or nobody listens on the port: then the verdict is refused.",
        "--verdict reset,refused",
        (RESET_BY_SERVER, REFUSED),
        *(_V.RESET, _V.REFUSED, _F.RESET_CAUSE),
    ),
    _palo_alto(
        "aged-out",
        "the firewall saw no packet for its session timeout, and forgot the connection",
        """Neither endpoint is told: what they send later is dropped or reset. Look for connections
        that stay open or half open; send keepalives more often than the timeout.""",
        "--verdict open,unanswered",
        (OPEN, UNANSWERED),
        *(_V.OPEN, _V.UNANSWERED, _F.HALF_OPEN),
    ),
    _palo_alto(
        "tcp-fin",
        "one endpoint or both closed with FIN",
        "That is how a connection should end; closeseq shows whether both did.",
        "--verdict graceful,simultaneous,closing",
        (CLOSED_BY_CLIENT, CLOSED_BY_SERVER),
        *(_V.GRACEFUL, _V.SIMULTANEOUS, _V.CLOSING),
    ),
    _palo_alto(
        "tcp-reuse",
        "a new SYN reused the addresses and ports, and the firewall closed the session before",
        "",
        "--finding time-wait-reused",
        (),
        *(_F.TIME_WAIT_REUSED, _V.REPLACED),
    ),
)

FOREIGN = (*_ERRORS, *_LIBRARIES, *_NGINX, *_ZEEK, *_HAPROXY, *_ENVOY, *_PALO_ALTO)
