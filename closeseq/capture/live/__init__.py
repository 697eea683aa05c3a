"""Live sources: packets as they come, as `Frames`, in the order the data goes.

    opening      begin: devices, filters, sources
    devices      which network devices there are, and what their frames look like
    instructions     the machine language of the kernel's filter
    program      its program for TCP, ports and hosts
    expression   any other program, through libpcap
    ring, blocks     Linux: memory that the kernel fills, and how to read it
    sniffer      everywhere else, and on request: scapy's socket
    live         the capture as its user sees it
    problems     why a capture cannot begin, or go on

Only the filter programs look inside a frame, and they run in the kernel.
"""

from closeseq.capture.live.devices import Device
from closeseq.capture.live.live import Batch, LiveCapture
from closeseq.capture.live.opening import open_live
from closeseq.capture.live.problems import DeviceError, FilterError, NotPermittedError

__all__ = [
    "Batch",
    "Device",
    "DeviceError",
    "FilterError",
    "LiveCapture",
    "NotPermittedError",
    "open_live",
]
