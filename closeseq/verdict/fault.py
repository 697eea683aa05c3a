"""What is said of a connection that closeseq itself failed to judge."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from closeseq.tcp.states import State
from closeseq.tcp.timeline import Step, Timeline
from closeseq.verdict.findings import Initiator, Role, Verdict

if TYPE_CHECKING:
    from closeseq.connections.conversation import Conversation

CODE = "not-judged"


def not_judged(conversation: Conversation, error: Exception) -> Verdict:
    """Return the verdict that there is none, with the place in closeseq where it failed."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return Verdict(
        CODE,
        Initiator.NONE,
        Role.NONE,
        Role.NONE,
        f"closeseq failed to judge this connection: {type(error).__name__}{where}",
        tuple(step.packet for step in conversation.steps[-1:]),
    )


def not_replayed(conversation: Conversation, now_ns: int) -> Timeline:
    """Return a timeline with every packet and without any state."""
    unknown = State.UNKNOWN
    steps = tuple(Step(what, conversation.first_ns, unknown, unknown) for what in conversation.steps)
    return Timeline(conversation, steps, (), now_ns, {}, replayed=False)
