"""Programs for the kernel's packet filter (classic BPF, linux/filter.h): assembled here, or by libpcap.

A program looks at one frame and returns how many bytes of it to keep; 0 drops it. It has an accumulator A
and an index register X, and jumps forward only. `assemble` makes one of lines with labels; libpcap compiles
filter expressions as in tcpdump (`compile_expression`).
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from closeseq.capture.live.devices import not_permitted
from closeseq.capture.live.libpcap import ERROR_SIZE, CompiledProgram, libpcap
from closeseq.errors import FilterError
from closeseq.packets.protocols import DLT_RAW, LINKTYPE_ETHERNET, LINKTYPE_RAW

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from closeseq.capture.live.devices import Device

# Instructions, linux/bpf_common.h.
LOAD_WORD, LOAD_HALF, LOAD_BYTE = 0x20, 0x28, 0x30  # A = the number at k of the frame
LOAD_WORD_X, LOAD_HALF_X, LOAD_BYTE_X = 0x40, 0x48, 0x50  # A = the number at X + k
SET_X, COPY_TO_X, COPY_FROM_X = 0x01, 0x07, 0x87
ADD_X, ADD, AND, SHIFT_LEFT = 0x0C, 0x04, 0x54, 0x64
JUMP, IF_EQUAL, IF_GREATER, IF_AT_LEAST, IF_BITS = 0x05, 0x15, 0x25, 0x35, 0x45
RETURN = 0x06

# Loads from here on ask the kernel about the frame, instead of the frame (linux/filter.h, SKF_AD_OFF).
ABOUT = 0xFFFFF000
PROTOCOL, PACKET_TYPE, INTERFACE, HARDWARE = ABOUT + 0, ABOUT + 4, ABOUT + 8, ABOUT + 28
OUTGOING = 4  # PACKET_OUTGOING

SO_ATTACH_FILTER, SO_LOCK_FILTER = 26, 44  # asm-generic/socket.h
FARTHEST = 255  # instructions that a conditional jump can skip

LARGEST = 262_144  # bytes; libpcap's own greatest snap length
LONGEST = 3000  # instructions: the kernel allows 4096, and those for ports and hosts come in addition
SHOWN = 100  # characters of an expression in an error
NO_NETMASK = 0xFFFFFFFF  # PCAP_NETMASK_UNKNOWN: `ip broadcast` is refused, which needs an interface's
HEADER = 20  # bytes of the header of Linux cooked capture, version 2
# Where libpcap looks into that header, and what to load from the kernel instead, which does not have it.
ASKED = {0: PROTOCOL, 4: INTERFACE, 8: HARDWARE, 10: PACKET_TYPE}
HEADER_LENGTH = 0xB1  # X = four times the low half of the byte at k
FROM_FRAME = {LOAD_WORD, LOAD_HALF, LOAD_BYTE, LOAD_WORD_X, LOAD_HALF_X, LOAD_BYTE_X, HEADER_LENGTH}


class Instruction(NamedTuple):
    """One instruction: `k` is its number, `then` and `else_` how many instructions a jump skips."""

    code: int  # what it does: one of the numbers above
    k: int = 0
    then: int = 0
    else_: int = 0


Program = tuple[Instruction, ...]
NOTHING: Program = (Instruction(RETURN, 0),)  # drops every frame


class FilterLine(NamedTuple):
    """An instruction that jumps to labels instead of distances; no label is the next instruction."""

    code: int  # what it does, as in `Instruction`
    k: int = 0
    then: str = ""  # label, where the condition holds
    else_: str = ""  # label, where it does not


def chain(first: Program, second: Program) -> Program:
    """Return the program that passes what both pass, with the snap length of the second.

    Args:
        first: what it returns for a frame that it passes does not matter, but that it is not 0.
        second: runs on the frames that the first one passes.
    """
    # A program that begins uses nothing of another's state but the frame.
    joined = [
        Instruction(JUMP, len(first) - at - 1) if step.code == RETURN and step.k else step
        for at, step in enumerate(first)
    ]
    return (*joined, *second)


def cut(program: Program, snap_length: int) -> Program:
    """Return the program with another snap length.

    Args:
        program: decides which frames pass, as before.
        snap_length: bytes to keep of each that passes, at least 1.
    """
    return tuple(step._replace(k=snap_length) if step.code == RETURN and step.k else step for step in program)


def attach(packets: socket.socket, program: Program) -> None:
    """Let the kernel run the program on all that comes to the socket from now on, in place of another.

    Args:
        packets: a packet socket (packet(7)).
        program: what to run; at most 4096 instructions.

    Raises:
        OSError: the kernel refuses.
    """
    code = b"".join(struct.pack("=HBBI", step.code, step.then, step.else_, step.k) for step in program)
    memory = ctypes.create_string_buffer(code, len(code))
    packets.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(memory))
    )


def lock(packets: socket.socket) -> None:
    """Lock a packet socket's program: nobody who gets the socket can change or remove it.

    Raises:
        OSError: the kernel refuses.
    """
    packets.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)


def assemble(source: Iterable[FilterLine | str]) -> Program:
    """Return the program for lines and, in front of lines, labels (text).

    A conditional jump reaches 255 instructions, a plain one any distance. Where the first is not enough,
    it goes to a plain one right behind it.

    Args:
        source: lines and labels in their order; jumps go to labels behind them only.
    """
    lines = list(source)
    far: set[tuple[int, int]] = set()  # (line, which of its two ways) that need a plain jump
    while True:
        places, at = {}, 0
        starts = []
        for number, line in enumerate(lines):
            starts.append(at)
            if isinstance(line, str):
                places[line] = at
            else:
                at += 1 + ((number, 0) in far) + ((number, 1) in far)
        found = {
            (number, way)
            for number, line in enumerate(lines)
            if isinstance(line, FilterLine) and line.code != JUMP
            for way, name in enumerate((line.then, line.else_))
            if name and places[name] - starts[number] - 1 > FARTHEST
        } - far
        if not found:
            return tuple(_placed(lines, starts, places, far))
        far |= found


def _placed(
    lines: list[FilterLine | str], starts: list[int], places: dict[str, int], far: set[tuple[int, int]]
) -> Iterator[Instruction]:
    """Yield the instructions, now that all labels have places."""
    for number, line in enumerate(lines):
        if isinstance(line, str):
            continue
        start = starts[number]
        if line.code == JUMP:
            yield Instruction(JUMP, places[line.then] - start - 1)
            continue
        plain = [name for way, name in enumerate((line.then, line.else_)) if (number, way) in far]
        ways = []
        for way, name in enumerate((line.then, line.else_)):
            if (number, way) in far:
                ways.append(plain.index(name))
            else:
                ways.append(places[name] - start - 1 if name else len(plain))
        yield Instruction(line.code, line.k, *ways)
        for extra, name in enumerate(plain, start=1):
            yield Instruction(JUMP, places[name] - start - extra - 1)


def compile_expression(expression: str, device: Device) -> Program:
    """Return libpcap's program for an expression, as the kernel can run it on a device's frames.

    libpcap looks up names of hosts, if there are any, and may wait for an answer.

    Args:
        expression: as tcpdump takes it (pcap-filter(7)).
        device: its link type decides where the program looks; it is opened only for `vlan` on Ethernet.

    Raises:
        FilterError: the expression is wrong, the kernel cannot run it, or libpcap is missing.
        NotPermittedError: the expression needs the open device, and the process may not capture.
    """
    pcap = libpcap()
    if "\0" in expression:  # where libpcap would take it to end
        raise _wrong(expression, "there is a zero byte in it")
    handle = _open(pcap, expression, device)
    compiled = CompiledProgram()
    try:
        if pcap.pcap_compile(handle, ctypes.byref(compiled), os.fsencode(expression), 1, NO_NETMASK):
            raise _wrong(expression, pcap.pcap_geterr(handle).decode(errors="replace"))
        steps = [compiled.steps[at] for at in range(compiled.length)]
        program = tuple(Instruction(step.code, step.k, step.jt, step.jf) for step in steps)
        pcap.pcap_freecode(ctypes.byref(compiled))
    finally:
        pcap.pcap_close(handle)
    if len(program) > LONGEST or any(step.code == JUMP and step.k > len(program) for step in program):
        raise _wrong(expression, "it needs a program that is too long for the kernel, or has a loop")
    return _uncooked(program, expression) if device.cooked else program


def _wrong(expression: str, reason: str) -> FilterError:
    shown = expression if len(expression) <= SHOWN else f"{expression[:SHOWN]}..."
    return FilterError(f"filter expression {shown!r}: {' '.join(reason.split())}")


def _open(pcap: Any, expression: str, device: Device) -> Any:
    """Return a handle to compile for the device."""
    # The kernel takes VLAN tags off. How to ask for them libpcap knows only of a device that it has open.
    if not re.search(r"\bvlan\b", expression) or device.link_type != LINKTYPE_ETHERNET:
        return pcap.pcap_open_dead(
            DLT_RAW[0] if device.link_type == LINKTYPE_RAW else device.link_type, LARGEST
        )
    reason = ctypes.create_string_buffer(ERROR_SIZE)
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
