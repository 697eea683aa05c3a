"""Which findings there are, and in which order they are reported: problems before notices.

A rule takes a case and yields the findings of its code, in most cases none. What a code means, and how
grave it is, stands in the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.verdict.data import data_after_close, half_close, slow_close
from closeseq.verdict.loss import fin_lost, final_ack_lost
from closeseq.verdict.notices import (
    capture_incomplete,
    challenge_ack,
    duplicate_packets,
    fin_with_data,
    keepalive,
    three_segment_close,
)
from closeseq.verdict.resets import reset_cause
from closeseq.verdict.stuck import (
    stuck_close_wait,
    stuck_closing,
    stuck_fin_wait_1,
    stuck_fin_wait_2,
    stuck_last_ack,
)
from closeseq.verdict.time_wait import (
    bind_blocked,
    time_wait_assassinated,
    time_wait_restarted,
    time_wait_reused,
)
from closeseq.verdict.vanished import half_open

if TYPE_CHECKING:
    from closeseq.verdict.found import Rule

RULES: dict[str, Rule] = {
    # an end waits in vain
    "stuck-close-wait": stuck_close_wait,
    "stuck-fin-wait-2": stuck_fin_wait_2,
    "stuck-fin-wait-1": stuck_fin_wait_1,
    "stuck-last-ack": stuck_last_ack,
    "stuck-closing": stuck_closing,
    "half-open": half_open,
    # something was lost
    "data-after-close": data_after_close,
    "final-ack-lost": final_ack_lost,
    "fin-lost": fin_lost,
    # TIME_WAIT
    "time-wait-assassinated": time_wait_assassinated,
    "time-wait-restarted": time_wait_restarted,
    "time-wait-reused": time_wait_reused,
    "bind-blocked": bind_blocked,
    # how the close went
    "reset-cause": reset_cause,
    "challenge-ack": challenge_ack,
    "slow-close": slow_close,
    "half-close": half_close,
    "three-segment-close": three_segment_close,
    "fin-with-data": fin_with_data,
    "keepalive": keepalive,
    # what the capture is worth
    "capture-incomplete": capture_incomplete,
    "duplicate-packets": duplicate_packets,
}
