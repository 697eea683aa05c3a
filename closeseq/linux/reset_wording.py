"""The kernel's reasons for a RST (enum sk_rst_reason in include/net/rstreason.h), each with what was done."""

from __future__ import annotations

from closeseq.packets.reset_reasons import MPTCP_REASONS

_MPTCP = ("EUNSPEC", "EMPTCP", "ERESOURCE", "EPROHIBIT", "EWQ2BIG", "EBADPERF", "EMIDDLEBOX")  # RFC 8684 3.6

WORDS = {
    # In answer to a segment.
    "NOT_SPECIFIED": "the kernel names no reason",
    "NO_SOCKET": "a segment came for which there is no socket: nobody listens, or the connection is gone",
    "TCP_INVALID_ACK_SEQUENCE": "an acknowledgment came that does not fit what was sent",
    "TCP_RFC7323_PAWS": "a segment came whose timestamp does not fit (RFC 7323)",
    "TCP_TOO_OLD_ACK": "an acknowledgment came that is older than any window",
    "TCP_ACK_UNSENT_DATA": "an acknowledgment came for data that was never sent",
    "TCP_FLAGS": "a segment came whose flags do not fit the state, such as an ACK in LISTEN",
    "TCP_OLD_ACK": "an acknowledgment came that is out of date",
    "TCP_ABORT_ON_DATA": "data came after the program had closed the socket",
    "TCP_TIMEWAIT_SOCKET": "data came after the program had closed the socket, and of that little was left "
    "(FIN_WAIT_2 without an owner, or TIME_WAIT)",
    "INVALID_SYN": "a segment came during the handshake that does not fit it, or the accept queue was full "
    "(tcp_abort_on_overflow)",
    # Without one.
    "TCP_ABORT_ON_CLOSE": "the program closed the socket with data unread",
    "TCP_ABORT_ON_LINGER": "the program closed the socket in FIN_WAIT_2 with a negative TCP_LINGER2",
    "TCP_ABORT_ON_MEMORY": "TCP has no memory left, or too many sockets without an owner",
    "TCP_STATE": "the open connection was aborted: by the program (SO_LINGER with 0 s), by a listener that "
    "closed before accept(), by ss --kill, or when FIN_WAIT_2 ran out",
    "TCP_KEEPALIVE_TIMEOUT": "the peer did not answer keepalives",
    "TCP_DISCONNECT_WITH_DATA": "the program aborted the socket with data unsent",
    "ERROR": "the kernel met an error that it does not expect",
} | {
    f"MPTCP_RST_{name}": f"MPTCP gave up this subflow: {meaning}"
    for name, meaning in zip(_MPTCP, MPTCP_REASONS, strict=True)
}


def in_words(reason: str) -> str:
    """Return a reason with its meaning; one that is newer than this table, as the kernel names it."""
    return f"{reason}: {WORDS[reason]}" if reason in WORDS else reason
