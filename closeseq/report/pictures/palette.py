"""The colours of the states, as the classic drawings have them: active open and close green, passive blue."""

from __future__ import annotations

from typing import NamedTuple

from closeseq.tcp.states import State


class Paint(NamedTuple):
    """The colours of one state: its area, and text and edges beside it."""

    fill: str  # of its area, as in CSS
    ink: str  # of text and edges


# By colour scheme. An endpoint without a socket, and one of which nothing is known, has no colour.
LIGHT: dict[State, Paint] = {
    State.CLOSED: Paint("#ffffff", "#6b7280"),
    State.LISTEN: Paint("#ffffff", "#6b7280"),
    State.SYN_SENT: Paint("#c7ead1", "#1a6b3c"),
    State.SYN_RECEIVED: Paint("#cfe2fa", "#1d559e"),
    State.ESTABLISHED: Paint("#c9cdd4", "#3f4752"),
    State.FIN_WAIT_1: Paint("#2f9e58", "#1a6b3c"),
    State.FIN_WAIT_2: Paint("#5fbd80", "#1a6b3c"),
    State.CLOSING: Paint("#46ae6c", "#1a6b3c"),
    State.TIME_WAIT: Paint("#9ad9b0", "#1a6b3c"),
    State.CLOSE_WAIT: Paint("#3b82d6", "#1d559e"),
    State.LAST_ACK: Paint("#8bb8ee", "#1d559e"),
    State.UNKNOWN: Paint("#ffffff", "#8a6d1d"),
}
DARK: dict[State, Paint] = {
    State.CLOSED: Paint("#14171c", "#9aa3b0"),
    State.LISTEN: Paint("#14171c", "#9aa3b0"),
    State.SYN_SENT: Paint("#1d4a30", "#86d9a3"),
    State.SYN_RECEIVED: Paint("#1d3c63", "#94c2f7"),
    State.ESTABLISHED: Paint("#4a525e", "#c3cad4"),
    State.FIN_WAIT_1: Paint("#37b067", "#86d9a3"),
    State.FIN_WAIT_2: Paint("#2a8a50", "#86d9a3"),
    State.CLOSING: Paint("#319d5b", "#86d9a3"),
    State.TIME_WAIT: Paint("#226b40", "#86d9a3"),
    State.CLOSE_WAIT: Paint("#3f8ae0", "#94c2f7"),
    State.LAST_ACK: Paint("#2a5f9e", "#94c2f7"),
    State.UNKNOWN: Paint("#14171c", "#d9b85c"),
}
assert set(LIGHT) == set(DARK) == set(State)

PROBLEM = {"light": "#c4261d", "dark": "#ff8078"}  # a RST, a loss, what is to be fixed

ACTIVE = frozenset({State.SYN_SENT, State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSING, State.TIME_WAIT})
PASSIVE = frozenset({State.SYN_RECEIVED, State.CLOSE_WAIT, State.LAST_ACK})
INK = {"active": "#1a6b3c", "passive": "#1d559e", "reset": PROBLEM["light"], "other": "#3f4752"}  # of lines


def kind_of(before: State, after: State) -> str:
    """Return which kind of open or close a transition belongs to: active, passive, or other.

    Args:
        before: the state that is left.
        after: the state that is entered.
    """
    if before in ACTIVE or after in ACTIVE:
        return "active"
    return "passive" if before in PASSIVE or after in PASSIVE else "other"
