"""Live sources: packets from a network device, as `Frames`.

    live_capture  open devices, set filters, read batches; begin reading here
    devices       which network devices there are, and their link types
    ring          Linux: packets through memory shared with the kernel (TPACKET_V3)
    scapy_socket  elsewhere, and on request: scapy's socket
    filter        the kernel's filter program for TCP, ports and hosts
    bpf           the filter's machine language; any other expression, compiled by libpcap
    libpcap       its functions for that

Only the filter programs look inside a frame, and they run in the kernel.
"""

from closeseq.capture.live.devices import Device
from closeseq.capture.live.live_capture import LiveBatch, LiveCapture, open_live
from closeseq.errors import DeviceError, FilterError, NotPermittedError

__all__ = [
    "Device",
    "DeviceError",
    "FilterError",
    "LiveBatch",
    "LiveCapture",
    "NotPermittedError",
    "open_live",
]
