"""The experiments: short programs that make each way of closing happen, in the order to be read.

closes     both programs close, and every packet arrives
waiting    one closes or dies, and the other one does not notice
ports      old connections that keep a port, and how to get it nevertheless
losses     packets get lost, or a path dies
time_wait  what TIME_WAIT is for, and what can happen to it
resets     a RST ends it, or does not
opening    the open is slow, is not taken, or is blocked by an older connection
idle       nothing is sent for a while, and then one end closes, or the path has forgotten them
many       what many connections show together
boxes      a box between client and server sends RSTs in the server's name
vantage    the capture point misses packets, or sees them twice
far_apart  client and server are far apart, and the capture point lies between them
"""

from __future__ import annotations

# In the order to be read; each registers what it defines.
from closeseq.lab.experiments import closes, waiting, ports, losses, time_wait, resets  # isort: skip # noqa: F401
from closeseq.lab.experiments import opening, idle, many, boxes, vantage, far_apart  # isort: skip # noqa: F401
from closeseq.lab.registry import EXPERIMENTS, Experiment

__all__ = ["experiments"]


def experiments() -> dict[str, Experiment]:
    """Return all experiments by name, in the order in which they are best read."""
    return EXPERIMENTS
