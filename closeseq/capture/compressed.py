"""gzip (RFC 1952), unpacked as it is read, in bounded memory."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAGIC = b"\x1f\x8b"
PIECE = 64 * 1024  # compressed bytes read at a time
# zlib copies what lies behind the end of a member. A file may have a member in every 20 bytes, so of a new
# member it gets few bytes, and twice as many each time.
FIRST_BITE = 64
WITH_GZIP_HEADER = 16 + zlib.MAX_WBITS


class Gunzip:
    """The plain bytes of a gzip stream, up to where it is damaged.

    `gzip.GzipFile` would do but for two things: it gives up what it had unpacked when it meets damage,
    and it calls padding behind the end damage.

    Args:
        read: gives at most so many compressed bytes, none at the end.
        head: what has been read from there already.
    """

    def __init__(self, read: Callable[[int], bytes], head: bytes) -> None:
        self._read = read
        self._packed = head
        self._at = 0  # the first byte of these that was not handed to zlib
        self._bite = FIRST_BITE
        self._member = _member()
        self._begun = False  # whether the member has been handed anything
        self._fault: zlib.error | None = None

    def read(self, most: int) -> bytes:
        """Return at most `most` plain bytes, none at the end.

        Raises:
            EOFError: the compressed data end too early.
            zlib.error: they are damaged.
            OSError: they cannot be read.
        """
        while self._fault is None:
            if self._member.eof and not self._next_member():
                return b""
            plain = self._unpack(most)
            if plain:
                return plain
            if self._at == len(self._packed) and not self._member.eof and not self._more():
                raise EOFError
        raise self._fault

    def _unpack(self, most: int) -> bytes:
        # For what zlib throws away when it meets damage; a member that is new need not be copied.
        before = self._member.copy() if self._begun else None
        packed = self._packed[self._at : self._at + self._bite]
        try:
            plain = self._member.decompress(packed, most)
        except zlib.error as error:
            self._fault = error
            return _to_the_last_good_byte(before or _member(), packed)
        self._begun = True
        self._at += len(packed) - len(self._member.unused_data) - len(self._member.unconsumed_tail)
        self._bite = min(2 * self._bite, PIECE)
        return plain

    def _next_member(self) -> bool:
        """Go on to the next member, if one follows; RFC 1952, 2.2: members simply follow one another."""
        while len(self._packed) - self._at < len(MAGIC) and self._more():
            pass
        # As gzip does: zeros pad to a block of a tape, and other trailing rubbish is none of ours.
        if not self._packed.startswith(MAGIC, self._at):
            return False
        self._member = _member()
        self._begun = False
        self._bite = FIRST_BITE
        return True

    def _more(self) -> bool:
        """Read on; return whether anything came."""
        more = self._read(PIECE)
        self._packed, self._at = self._packed[self._at :] + more, 0
        return bool(more)


def _member() -> zlib._Decompress:
    return zlib.decompressobj(WITH_GZIP_HEADER)


def _to_the_last_good_byte(member: zlib._Decompress, packed: bytes) -> bytes:
    """Unpack up to the damage: each byte in by itself, and each byte out, as one in may give many out.

    One byte may be missing at the end: zlib finds some damage in the call that gives the byte before it.
    """
    plain = bytearray()
    try:
        for at in range(len(packed)):
            one = packed[at : at + 1]
            while out := member.decompress(one, 1):
                plain += out
                one = member.unconsumed_tail
    except zlib.error:
        pass
    return bytes(plain)
