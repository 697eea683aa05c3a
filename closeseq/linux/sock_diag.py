"""Questions to the kernel's socket tables and its answers, as bytes: sock_diag(7) over netlink(7).

pyroute2's `DiagSocket` is not used: it runs an event loop and so cannot live within a program that runs one
(asyncio), it overlooks refusals, and it takes 60 to 80 us a socket to decode and 100 us a question to encode,
of which a live capture asks two a connection.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from closeseq.errors import KernelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NETLINK_SOCK_DIAG = 4  # linux/netlink.h
NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST, ACKNOWLEDGE, DUMP = 0x1, 0x4, 0x300  # NLM_F_
BY_FAMILY, DESTROY = 20, 21  # linux/sock_diag.h
BYTECODE = 1  # linux/inet_diag.h, INET_DIAG_REQ_BYTECODE
ALL_STATES = 0xFFFFFFFF
# linux/inet_diag.h, INET_DIAG_BC_: S is the local port, D the remote.
JUMP, S_GE, S_LE, D_GE, D_LE = 1, 2, 3, 4, 5

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
# inet_diag_req_v2: family, protocol, extensions, states; ports and addresses, interface, cookie.
QUESTION = struct.Struct("=BBBx I 2s2s 16s16s I Q")
ATTRIBUTE = struct.Struct("=HH")  # length, type
ERROR = struct.Struct("=i")
OPERATION = struct.Struct("=BBH")  # inet_diag_bc_op: code, where to go on if yes, and if no, in bytes

MOST_BYTES = 65536  # of one answer; the kernel gives at most 32 KiB at once
TIMEOUT = 5  # seconds; the kernel answers within the call, so this never comes
ANY = bytes(16)
NO_COOKIE = (1 << 64) - 1


class SockDiag:
    """A netlink socket that asks about TCP sockets in the network namespace it was opened in.

    Raises:
        KernelError: this system has no such table.
    """

    def __init__(self) -> None:
        if not hasattr(socket, "AF_NETLINK"):
            raise KernelError("the table of sockets can be read on Linux only")
        try:
            self._netlink = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG
            )
        except OSError as error:
            raise KernelError(
                f"this kernel does not show its table of sockets (sock_diag): {error.strerror}"
            ) from None
        self._netlink.settimeout(TIMEOUT)
        self._sequence = 0
        self._unfinished = False  # an answer of several parts was not read to its end

    def close(self) -> None:
        """Close the netlink socket; again does no harm."""
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def dump(self, family: int, states: int, ports: Iterable[tuple[int, int]] = ()) -> Iterator[memoryview]:
        """Give an inet_diag_msg, with its attributes, for each TCP socket of a family.

        Args:
            family: AF_INET or AF_INET6.
            states: one bit a state, by the kernel's numbers.
            ports: ranges (first, last) of which one end must have one; none: all sockets.
        """
        question = QUESTION.pack(family, socket.IPPROTO_TCP, 0, states, ANY[:2], ANY[:2], ANY, ANY, 0, 0)
        if program := only_ports(ports):
            question += ATTRIBUTE.pack(ATTRIBUTE.size + len(program), BYTECODE) + program
        self._ask(question, BY_FAMILY, DUMP)
        self._unfinished = True
        for kind, body in self._answers():
            if kind == NLMSG_DONE:
                self._unfinished = False
                _check(body)
                return
            if kind == NLMSG_ERROR:
                self._unfinished = False
                _check(body)
            yield body

    def one(self, local: bytes, remote: bytes, ports: tuple[int, int], interface: int) -> memoryview | None:
        """Return the inet_diag_msg of the one socket with these ends; None if there is none.

        It may also be the listener on the local port.

        Args:
            local: an address as packed bytes, 4 or 16 of them.
            remote: likewise, of the same length.
            ports: local and remote.
            interface: the number of the one that the socket is bound to; 0 if to none.

        Raises:
            KernelError: the kernel refuses, does not answer, or has no such table.
        """
        self._ask(_identified(local, remote, ports, interface), BY_FAMILY)
        kind, body = next(self._answers())
        if kind == NLMSG_ERROR:
            _check(body, errno.ENOENT)
            return None
        return body

    def destroy(
        self, local: bytes, remote: bytes, ports: tuple[int, int], interface: int, cookie: int
    ) -> bool:
        """Have the kernel end the socket; False if it is not there.

        Args:
            local: as in `one`.
            remote: as in `one`.
            ports: local and remote.
            interface: as in `one`.
            cookie: the kernel's own number of the socket, so that no later one with the same ends is hit;
                NO_COOKIE for whichever it is.

        Raises:
            KernelError: not permitted (CAP_NET_ADMIN), or the kernel cannot (CONFIG_INET_DIAG_DESTROY).
        """
        self._ask(_identified(local, remote, ports, interface, cookie), DESTROY, ACKNOWLEDGE)
        _, body = next(self._answers())
        (code,) = ERROR.unpack_from(body)
        _check(body, errno.ENOENT)
        return bool(code == 0)

    def _ask(self, question: bytes, kind: int, flags: int = 0) -> None:
        if self._unfinished:
            self._finish()
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        length = HEADER.size + len(question)
        try:
            self._netlink.send(HEADER.pack(length, kind, REQUEST | flags, self._sequence, 0) + question)
        except OSError as error:
            raise KernelError(f"the kernel's table of sockets: {error.strerror or error}") from None

    def _finish(self) -> None:
        """Take what is left of an answer that nobody wanted to its end: the kernel refuses questions before.

        Each part is made while the one before it is taken, so when there is none, it was the last.
        """
        self._netlink.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                self._netlink.recv(MOST_BYTES)
        self._netlink.settimeout(TIMEOUT)
        self._unfinished = False

    def _answers(self) -> Iterator[tuple[int, memoryview]]:
        """Give type and body of each message that answers the last question."""
        while True:
            try:
                part = memoryview(self._netlink.recv(MOST_BYTES))
            except OSError as error:  # also a time-out
                raise KernelError(f"the kernel's table of sockets: {error.strerror or error}") from None
            at = 0
            while at + HEADER.size <= len(part):
                length, kind, _, sequence, _ = HEADER.unpack_from(part, at)
                if sequence == self._sequence:
                    yield kind, part[at + HEADER.size : at + length]
                at += max(length + 3 & ~3, HEADER.size)


def only_ports(ranges: Iterable[tuple[int, int]]) -> bytes:
    """Return the kernel's filter program for "one end has a port in one of these ranges".

    In inet_diag_bc_run(), a jump exactly to the program's end accepts and one beyond it refuses. Each range
    is five words: at least the first? at most the last? then jump to the end; otherwise go on behind.
    """
    tests = [
        (least, most, first, last) for first, last in ranges for least, most in ((S_GE, S_LE), (D_GE, D_LE))
    ]
    word = OPERATION.size
    program = b""
    for left, (least, most, first, last) in zip(range(len(tests), 0, -1), tests, strict=True):
        beyond = word if left == 1 else 0  # the last range that fails refuses
        program += OPERATION.pack(least, 2 * word, 5 * word + beyond) + OPERATION.pack(0, 0, first)
        program += OPERATION.pack(most, 2 * word, 3 * word + beyond) + OPERATION.pack(0, 0, last)
        program += OPERATION.pack(JUMP, word, 5 * word * (left - 1) + word)
    return program


def _identified(
    local: bytes, remote: bytes, ports: tuple[int, int], interface: int, cookie: int = NO_COOKIE
) -> bytes:
    """Return a question about the one socket with these addresses and ports."""
    family = socket.AF_INET if len(local) == 4 else socket.AF_INET6  # noqa: PLR2004  # bytes
    sport, dport = (port.to_bytes(2, "big") for port in ports)
    addresses = (local.ljust(16, b"\0"), remote.ljust(16, b"\0"))
    return QUESTION.pack(
        family, socket.IPPROTO_TCP, 0, ALL_STATES, sport, dport, *addresses, interface, cookie
    )


def _check(body: memoryview, *harmless: int) -> None:
    """Raise what an answer of type NLMSG_ERROR or NLMSG_DONE says, if it says an error."""
    code = -ERROR.unpack_from(body)[0] if len(body) >= ERROR.size else 0
    if code in (0, *harmless):
        return
    if code in (errno.EPERM, errno.EACCES):
        raise KernelError("the kernel lets only root (CAP_NET_ADMIN) end another program's socket")
    if code == errno.ENOENT:
        raise KernelError("this kernel has no table of TCP sockets (its module tcp_diag is missing)")
    raise KernelError(f"the kernel's table of sockets: {os.strerror(code)}")
