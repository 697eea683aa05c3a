"""Filter expressions as tcpdump has them, compiled by libpcap, which scapy knows how to call."""

from __future__ import annotations

import ctypes
import os
import re
from typing import TYPE_CHECKING, Any

from closeseq.capture.live.devices import ETHERNET, RAW
from closeseq.capture.live.instructions import (
    ABOUT,
    HARDWARE,
    INTERFACE,
    JUMP,
    LOAD_BYTE,
    LOAD_BYTE_X,
    LOAD_HALF,
    LOAD_HALF_X,
    LOAD_WORD,
    LOAD_WORD_X,
    PACKET_TYPE,
    PROTOCOL,
    Instruction,
    Program,
)
from closeseq.capture.live.problems import FilterError, not_permitted

if TYPE_CHECKING:
    from closeseq.capture.live.devices import Device

MISSING = (
    "a filter expression needs libpcap, which is not installed here (on Debian and Ubuntu it is the package "
    "libpcap0.8); ports and hosts can be chosen without it"
)
RAW_IN_LIBPCAP = 12  # DLT_RAW on Linux; files have another number for it
LARGEST = 262_144  # bytes; libpcap's own greatest snap length
LONGEST = 3000  # instructions: the kernel allows 4096, and those for ports and hosts come in addition
SHOWN = 100  # characters of an expression in an error
NO_NETMASK = -1  # an expression `ip broadcast` is refused: it needs an interface's

HEADER = 20  # bytes of the header of Linux cooked capture, version 2
# Where libpcap looks into that header, and what the kernel, which does not have it, is asked instead.
ASKED = {0: PROTOCOL, 4: INTERFACE, 8: HARDWARE, 10: PACKET_TYPE}
HEADER_LENGTH = 0xB1  # X = four times the low half of the byte at k
FROM_FRAME = {LOAD_WORD, LOAD_HALF, LOAD_BYTE, LOAD_WORD_X, LOAD_HALF_X, LOAD_BYTE_X, HEADER_LENGTH}


def compile_expression(expression: str, device: Device) -> Program:
    """Return libpcap's program for an expression, as the kernel can run it on a device's frames.

    libpcap looks up names of hosts, if there are any, and may wait for an answer.

    Raises FilterError if the expression is wrong, if the kernel cannot run it, or if libpcap is missing.
    """
    pcap = _libpcap()
    if "\0" in expression:  # where libpcap would take it to end
        raise _wrong(expression, "there is a zero byte in it")
    handle = _open(pcap, expression, device)
    compiled = pcap.bpf_program()
    try:
        if pcap.pcap_compile(handle, ctypes.byref(compiled), os.fsencode(expression), 1, NO_NETMASK):
            raise _wrong(expression, pcap.pcap_geterr(handle).decode(errors="replace"))
        steps = [compiled.bf_insns[at] for at in range(compiled.bf_len)]
        program = tuple(Instruction(step.code, step.k & 0xFFFFFFFF, step.jt, step.jf) for step in steps)
        pcap.pcap_freecode(ctypes.byref(compiled))
    finally:
        pcap.pcap_close(handle)
    if len(program) > LONGEST or any(step.code == JUMP and step.k > len(program) for step in program):
        raise _wrong(expression, "it needs a program that is too long for the kernel, or has a loop")
    return _uncooked(program, expression) if device.cooked else program


def _wrong(expression: str, reason: str) -> FilterError:
    shown = expression if len(expression) <= SHOWN else f"{expression[:SHOWN]}..."
    return FilterError(f"filter expression {shown!r}: {' '.join(reason.split())}")


def _libpcap() -> Any:
    """Return scapy's bindings of libpcap: this module alone, which loads fast, says and writes nothing."""
    try:
        from scapy.libs import winpcapy  # so named for Windows, and used everywhere
    except OSError:
        raise FilterError(MISSING) from None
    return winpcapy


def _open(pcap: Any, expression: str, device: Device) -> Any:
    """Return a handle to compile for the device."""
    # The kernel takes VLAN tags off. How to ask for them libpcap knows only of a device that it has open.
    if not re.search(r"\bvlan\b", expression) or device.link_type != ETHERNET:
        return pcap.pcap_open_dead(RAW_IN_LIBPCAP if device.link_type == RAW else device.link_type, LARGEST)
    reason = ctypes.create_string_buffer(pcap.PCAP_ERRBUF_SIZE)
    handle = pcap.pcap_open_live(device.name.encode(), LARGEST, 0, 1, reason)
    if not handle:
        text = reason.value.decode(errors="replace")
        if "ermission" in text:
            raise not_permitted(device)
        raise _wrong(expression, text)
    return handle


def _uncooked(program: Program, expression: str) -> Program:
    """Return the program for the kernel, where a cooked frame begins with its network layer.

    libpcap compiles for the frame as it is written to a file, with a header in front.
    """
    fixed = []
    for step in program:
        k = step.k
        if step.code in FROM_FRAME and k < ABOUT:
            if k < HEADER and k not in ASKED:
                raise _wrong(expression, "there is no link header to look into")
            k = ASKED.get(k, k - HEADER)
        fixed.append(step._replace(k=k))
    return tuple(fixed)
