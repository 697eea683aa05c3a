"""The states of a TCP endpoint (RFC 9293 3.3.2), spelled as kernels and people spell them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """The eleven states, and UNKNOWN for an end whose connection began before the capture did."""

    CLOSED = "CLOSED"
    LISTEN = "LISTEN"
    SYN_SENT = "SYN_SENT"
    SYN_RECEIVED = "SYN_RECEIVED"
    ESTABLISHED = "ESTABLISHED"
    FIN_WAIT_1 = "FIN_WAIT_1"
    FIN_WAIT_2 = "FIN_WAIT_2"
    CLOSE_WAIT = "CLOSE_WAIT"
    CLOSING = "CLOSING"
    LAST_ACK = "LAST_ACK"
    TIME_WAIT = "TIME_WAIT"
    UNKNOWN = "UNKNOWN"
