"""The experiments: short programs that make each way of closing happen, in the order to be read.

closes     both programs close, and every packet arrives
waiting    one closes or dies, and the other one does not notice
ports      old connections that keep a port, and how to get it nevertheless
losses     packets get lost, or a path dies
time_wait  what TIME_WAIT is for, and what can happen to it
resets     a RST ends it, or does not
vantage    the capture point misses packets, or sees them twice
path       client and server are far apart, and the capture point lies between them
"""

from closeseq.lab.experiments import closes, waiting, ports, losses, time_wait, resets, vantage, path  # isort: skip

__all__ = ["closes", "losses", "path", "ports", "resets", "time_wait", "vantage", "waiting"]
