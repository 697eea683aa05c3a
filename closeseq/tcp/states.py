"""The state machine of a TCP endpoint (RFC 9293 3.3.2 and 3.10), as data.

An endpoint moves because it *sends* something or because it *receives* something. Both are put as
`Signal`s, which have their conditions already in them ("an ACK that covers my FIN"), so that the table
needs none. It is the same for both ends of a connection: nothing in it knows who is the client.

    CLOSED --sends SYN--> SYN_SENT --receives SYN+ACK--> ESTABLISHED
    LISTEN --receives SYN--> SYN_RECEIVED --receives ACK of SYN--> ESTABLISHED

    the end that closes first:  ESTABLISHED -> FIN_WAIT_1 -> FIN_WAIT_2 -> TIME_WAIT -> CLOSED
    the end that closes second: ESTABLISHED -> CLOSE_WAIT -> LAST_ACK -> CLOSED
    both at once:               ESTABLISHED -> FIN_WAIT_1 -> CLOSING -> TIME_WAIT -> CLOSED

Of the pairs (state, signal) that the table leaves out, those that may come and change nothing are listed,
each with its reason. Any other is an error of closeseq's own. `closeseq explain diagram` draws the table.
"""

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


class Signal(StrEnum):
    """What can move an endpoint. The value is the cause that a reader of the timeline sees."""

    SENDS_SYN = "sent SYN"
    SENDS_FIN = "sent FIN"
    SENDS_RST = "sent RST"
    RECEIVES_SYN = "received SYN"
    RECEIVES_SYN_ACK = "received SYN+ACK"
    RECEIVES_ACK_OF_SYN = "received ACK of its SYN"
    RECEIVES_ACK_OF_FIN = "received ACK of its FIN"
    RECEIVES_FIN = "received FIN"
    RECEIVES_RST = "received RST"
    IS_ALIVE = "sent a segment of an open connection"  # only an end in UNKNOWN learns from it
    CLOCK_RAN_OUT = "timer ran out"
    IS_SUCCEEDED = "a new connection took over its addresses and ports"


_S, _E = State, Signal

# A RST ends every state, whoever sends it; the rows below add what else may happen.
_RESET = {_E.SENDS_RST: _S.CLOSED, _E.RECEIVES_RST: _S.CLOSED}

TRANSITIONS: dict[State, dict[Signal, State]] = {
    _S.CLOSED: {_E.SENDS_SYN: _S.SYN_SENT},
    # RFC 9293 3.10.7.2: a RST that reaches a listening socket does nothing to it.
    _S.LISTEN: {_E.RECEIVES_SYN: _S.SYN_RECEIVED, _E.SENDS_SYN: _S.SYN_SENT, _E.SENDS_RST: _S.CLOSED},
    # RFC 9293 3.10.7.3: a SYN without ACK is the other half of a simultaneous open.
    _S.SYN_SENT: {
        **_RESET,
        _E.RECEIVES_SYN_ACK: _S.ESTABLISHED,
        _E.RECEIVES_SYN: _S.SYN_RECEIVED,
    },
    _S.SYN_RECEIVED: {
        **_RESET,
        _E.RECEIVES_ACK_OF_SYN: _S.ESTABLISHED,
        _E.RECEIVES_FIN: _S.CLOSE_WAIT,
        _E.SENDS_FIN: _S.FIN_WAIT_1,
    },
    _S.ESTABLISHED: {**_RESET, _E.SENDS_FIN: _S.FIN_WAIT_1, _E.RECEIVES_FIN: _S.CLOSE_WAIT},
    _S.FIN_WAIT_1: {**_RESET, _E.RECEIVES_ACK_OF_FIN: _S.FIN_WAIT_2, _E.RECEIVES_FIN: _S.CLOSING},
    _S.FIN_WAIT_2: {**_RESET, _E.RECEIVES_FIN: _S.TIME_WAIT, _E.CLOCK_RAN_OUT: _S.CLOSED},
    _S.CLOSE_WAIT: {**_RESET, _E.SENDS_FIN: _S.LAST_ACK},
    _S.CLOSING: {**_RESET, _E.RECEIVES_ACK_OF_FIN: _S.TIME_WAIT},
    _S.LAST_ACK: {**_RESET, _E.RECEIVES_ACK_OF_FIN: _S.CLOSED},
    # RFC 9293 3.10.7.4: a repeated FIN is acknowledged and 2MSL starts again; the state stays.
    _S.TIME_WAIT: {
        **_RESET,
        _E.RECEIVES_FIN: _S.TIME_WAIT,
        _E.CLOCK_RAN_OUT: _S.CLOSED,
        _E.IS_SUCCEEDED: _S.CLOSED,
    },
    _S.UNKNOWN: {
        **_RESET,
        _E.SENDS_SYN: _S.SYN_SENT,
        _E.RECEIVES_SYN: _S.SYN_RECEIVED,
        _E.IS_ALIVE: _S.ESTABLISHED,
        _E.SENDS_FIN: _S.FIN_WAIT_1,
    },
}
assert set(TRANSITIONS) == set(State)

# What an endpoint sends when it takes a signal (RFC 9293 3.10.7).
ANSWERS = {_E.RECEIVES_SYN: "SYN+ACK", _E.RECEIVES_SYN_ACK: "ACK", _E.RECEIVES_FIN: "ACK"}

_HAS_SENT_FIN = (_S.FIN_WAIT_1, _S.FIN_WAIT_2, _S.CLOSING, _S.LAST_ACK, _S.TIME_WAIT)
_AFTER_SYN = (_S.ESTABLISHED, _S.CLOSE_WAIT, *_HAS_SENT_FIN)

# Which signals change nothing in which states, and why. "The capture" is the reason where TCP itself cannot
# bring them together: what would lie between was not captured, or passed the capture point later.
_IGNORED: tuple[tuple[tuple[State, ...], tuple[Signal, ...], str], ...] = (
    (
        (_S.CLOSED,),
        (_E.SENDS_RST,),
        "RFC 9293 3.10.7.1: an end without a connection answers with RST, and stays without one",
    ),
    (
        (_S.CLOSED,),
        (
            _E.RECEIVES_SYN,
            _E.RECEIVES_SYN_ACK,
            _E.RECEIVES_ACK_OF_SYN,
            _E.RECEIVES_ACK_OF_FIN,
            _E.RECEIVES_FIN,
            _E.RECEIVES_RST,
        ),
        "RFC 9293 3.10.7.1: all that comes is discarded, or answered with RST",
    ),
    (
        (_S.CLOSED,),
        (_E.SENDS_FIN,),
        "the capture: a FIN that passed, or comes again, after the RST that ended its connection",
    ),
    (
        (_S.LISTEN,),
        (_E.RECEIVES_RST,),
        "RFC 9293 3.10.7.2, first: a RST is ignored",
    ),
    (
        (_S.LISTEN,),
        (_E.RECEIVES_SYN_ACK, _E.RECEIVES_ACK_OF_SYN, _E.RECEIVES_ACK_OF_FIN),
        "RFC 9293 3.10.7.2, second: an ACK is answered with RST",
    ),
    (
        (_S.LISTEN, _S.SYN_SENT),
        (_E.SENDS_FIN,),
        "the capture: the other end's SYN, or its SYN+ACK, was not captured",
    ),
    (
        (_S.SYN_SENT,),
        (_E.RECEIVES_ACK_OF_SYN,),
        "RFC 9293 3.10.7.3, fifth: an ACK without SYN is not enough; with SYN it is a signal of its own",
    ),
    (
        (_S.LISTEN, _S.SYN_SENT),
        (_E.RECEIVES_FIN,),
        "RFC 9293 3.10.7.4, eighth: a FIN is dropped, for its number cannot be checked",
    ),
    (
        (_S.SYN_SENT, _S.SYN_RECEIVED, _S.ESTABLISHED, _S.CLOSE_WAIT),
        (_E.RECEIVES_ACK_OF_FIN,),
        "the capture: its FIN passed later than the ACK of it, or was not captured",
    ),
    (
        _AFTER_SYN,
        (_E.RECEIVES_ACK_OF_SYN,),
        "RFC 9293 3.10.7.4, fifth: the ACK of the SYN counts in SYN_RECEIVED alone",
    ),
    (
        _HAS_SENT_FIN,
        (_E.SENDS_FIN,),
        "RFC 9293 3.8.1: it sends its FIN again, or for the first time where it had closed before",
    ),
    (
        (_S.FIN_WAIT_2, _S.TIME_WAIT),
        (_E.RECEIVES_ACK_OF_FIN,),
        "RFC 9293 3.10.7.4, fifth: its FIN has been acknowledged",
    ),
    (
        (_S.CLOSE_WAIT, _S.CLOSING, _S.LAST_ACK),
        (_E.RECEIVES_FIN,),
        "RFC 9293 3.10.7.4, eighth: the FIN comes again; the state stays",
    ),
    (
        tuple(state for state in State if state is not _S.UNKNOWN),
        (_E.IS_ALIVE,),
        "only an end in UNKNOWN learns from it",
    ),
    (
        tuple(state for state in State if state is not _S.TIME_WAIT),
        (_E.IS_SUCCEEDED,),
        "RFC 9293 3.10.7.4, fourth: a SYN ends TIME_WAIT alone; what else was left behind is told as it was",
    ),
    (
        tuple(state for state in State if _E.CLOCK_RAN_OUT not in TRANSITIONS[state]),
        (_E.CLOCK_RAN_OUT,),
        "the clock was that of another state in which the end may have been",
    ),
    (
        (_S.UNKNOWN,),
        (_E.RECEIVES_FIN, _E.RECEIVES_ACK_OF_FIN),
        "the capture: the end may have been in any state, so its next one is not known either",
    ),
)
IGNORED: dict[State, dict[Signal, str]] = {
    state: {signal: why for states, signals, why in _IGNORED if state in states for signal in signals}
    for state in State
}

# An end in one of these has no socket of its own: in LISTEN it is still the listener's.
NO_SOCKET = frozenset({_S.CLOSED, _S.LISTEN})
# An end in one of these has sent its FIN.
CLOSED_ITS_SIDE = frozenset(
    {_S.FIN_WAIT_1, _S.FIN_WAIT_2, _S.CLOSING, _S.LAST_ACK, _S.TIME_WAIT},
)


def follow(state: State, signal: Signal) -> State:
    """Return the state after a signal; the same state where it changes nothing.

    Args:
        state: of an endpoint, before.
        signal: what it sends or receives.

    Raises:
        AssertionError: the two cannot meet; closeseq then says nothing of the connection (verdict/fault.py).
    """
    after = TRANSITIONS[state].get(signal)
    if after is None:
        assert signal in IGNORED[state], f"{signal.name} cannot come in {state}"
        return state
    return after
