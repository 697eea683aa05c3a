"""Which compression a file has, by its first bytes, and what unpacks it.

    gzip    `Gunzip` below (RFC 1952), which gives every byte before damage
    bzip2   the standard library, where Python was built with it
    xz      likewise
    zstd    the standard library from Python 3.14 on, before that the package `zstandard`

All are unpacked piece by piece, in bounded memory. A file may have several streams, one behind the other.
"""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

MAGIC = b"\x1f\x8b"
PIECE = 64 * 1024  # bytes, compressed or not, that are handled at a time
# zlib copies what lies behind the end of a member. A file may have a member in every 20 bytes, so of a new
# member it gets few bytes, and twice as many each time.
FIRST_BITE = 64
WITH_GZIP_HEADER = 16 + zlib.MAX_WBITS

LONGEST_MAGIC = 6  # bytes
XZ_MEMORY = 256 * 1024 * 1024  # bytes that a stream may ask for to be unpacked; `xz -9` takes a quarter of it
# A zstd block of four bytes may give 128 KiB, and `zstandard` gives all of what it was handed at once.
ZSTD_BITE = 1024


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
        """Return at most `most` plain bytes (from 1), none at the end.

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


class Damaged(Exception):  # noqa: N818 - it is reported as a Trouble
    """Compressed data are damaged; the text is the decompressor's reason."""


class Unpacker(Protocol):
    """The plain bytes of compressed data, up to where they are damaged."""

    def read(self, most: int) -> bytes:
        """Return at most `most` plain bytes (from 1), none at the end.

        Raises:
            EOFError: the compressed data end too early.
            Damaged: they are damaged.
            OSError: they cannot be read.
        """


class Decompressor(Protocol):
    """One compressed stream, with the interface of `bz2.BZ2Decompressor`."""

    @property
    def eof(self) -> bool:
        """Whether its end has been reached, and all of it was returned."""

    @property
    def unused_data(self) -> bytes:
        """The bytes behind its end."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing can be returned without more compressed bytes."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Take in compressed bytes, and return plain ones.

        Args:
            data: what follows the bytes that were given before; may be empty.
            max_length: the most plain bytes to return now; below 0 all there are.
        """


class Unpack:
    """The plain bytes of streams that follow one another; see `Unpacker`.

    Args:
        new: makes what unpacks the next stream.
        magics: what a stream may begin with.
        faults: what it raises when data are damaged.
        read: gives at most so many compressed bytes, none at the end.
        head: what has been read from there already.
    """

    def __init__(
        self,
        new: Callable[[], Decompressor],
        magics: tuple[bytes, ...],
        faults: tuple[type[Exception], ...],
        read: Callable[[int], bytes],
        head: bytes,
    ) -> None:
        self._new = new
        self._magics = magics
        self._faults = faults
        self._read = read
        self._packed = head
        self._at = 0  # the first byte of these that was not handed on
        self._bite = FIRST_BITE
        self._stream = new()

    def read(self, most: int) -> bytes:
        """Read on, at most `most` bytes, and at most PIECE; raises as `Unpacker.read`."""
        while True:
            if self._stream.eof and not self._next_stream():
                return b""
            if self._stream.needs_input and self._at == len(self._packed) and not self._more():
                raise EOFError
            plain = self._unpack(min(most, PIECE))
            if plain:
                return plain

    def _unpack(self, most: int) -> bytes:
        piece = b""
        if self._stream.needs_input:
            piece = self._packed[self._at : self._at + self._bite]
            self._at += len(piece)
            self._bite = min(2 * self._bite, PIECE)
        try:
            plain = self._stream.decompress(piece, most)
        except self._faults as fault:
            raise Damaged(str(fault).strip().rstrip(".").lower() or "no reason given") from None
        if self._stream.eof:
            self._at -= len(self._stream.unused_data)
        return plain

    def _next_stream(self) -> bool:
        """Go on to the next stream, if one follows; zeros pad, and other trailing rubbish is none of ours."""
        while True:
            rest = self._packed[self._at :].lstrip(b"\0")
            self._packed, self._at = rest, 0
            if len(rest) >= LONGEST_MAGIC or not self._more():
                break
        if not self._packed.startswith(self._magics):
            return False
        self._stream = self._new()
        self._bite = FIRST_BITE
        return True

    def _more(self) -> bool:
        """Read on; return whether anything came."""
        more = self._read(PIECE)
        self._packed, self._at = self._packed[self._at :] + more, 0
        return bool(more)


class Gzip:
    """gzip as an `Unpacker`.

    Args:
        read: gives at most so many compressed bytes, none at the end.
        head: what has been read from there already.
    """

    def __init__(self, read: Callable[[int], bytes], head: bytes) -> None:
        self._gunzip = Gunzip(read, head)

    def read(self, most: int) -> bytes:
        """Read on, at most `most` bytes; raises as `Unpacker.read`."""
        try:
            return self._gunzip.read(most)
        except zlib.error as error:
            raise Damaged(_reason(error)) from None


class ZstandardStream:
    """One zstd frame, unpacked by the package `zstandard`; see `Decompressor`.

    `zstandard` does not limit its output, so it gets few bytes at a time.

    Args:
        zstandard: the package.
    """

    def __init__(self, zstandard: Any) -> None:
        self.eof = False
        self.unused_data = b""
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._packed = b""
        self._plain = b""
        self._given = 0  # bytes of the plain ones that have been given

    @property
    def needs_input(self) -> bool:
        """Whether all of the input has been unpacked and returned."""
        return not self._packed and self._given == len(self._plain) and not self.eof

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Unpack; `data` and `max_length` are as in `Decompressor.decompress`."""
        self._packed += data
        while self._given == len(self._plain) and self._packed and not self._frame.eof:
            piece, self._packed = self._packed[:ZSTD_BITE], self._packed[ZSTD_BITE:]
            self._plain, self._given = self._frame.decompress(piece), 0
        end = len(self._plain) if max_length < 0 else self._given + max_length
        plain = self._plain[self._given : end]
        self._given += len(plain)
        if self._frame.eof and self._given == len(self._plain):
            self.eof = True
            self.unused_data, self._packed = self._frame.unused_data + self._packed, b""
        return plain


class Compression(NamedTuple):
    """A way in which a file may be compressed."""

    name: str
    magics: tuple[bytes, ...]  # of which one is what the file begins with
    tool: str  # that unpacks it on the command line
    open: Callable[[Callable[[int], bytes], bytes], Unpacker]
    """Makes what unpacks it, given what reads on and what was read. Raises ImportError."""
    install: str = ""  # what to install where nothing here unpacks it


def _bzip2(read: Callable[[int], bytes], head: bytes) -> Unpacker:
    bz2 = import_module("bz2")
    return Unpack(bz2.BZ2Decompressor, BZIP2.magics, (OSError,), read, head)


def _xz(read: Callable[[int], bytes], head: bytes) -> Unpacker:
    lzma = import_module("lzma")

    def new() -> Any:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    return Unpack(new, XZ.magics, (lzma.LZMAError,), read, head)


def _zstd(read: Callable[[int], bytes], head: bytes) -> Unpacker:
    try:
        zstd = import_module("compression.zstd")  # Python 3.14
    except ImportError:
        zstandard = import_module("zstandard")
        fault = zstandard.ZstdError
        return Unpack(lambda: ZstandardStream(zstandard), ZSTD.magics, (fault,), read, head)
    return Unpack(zstd.ZstdDecompressor, ZSTD.magics, (zstd.ZstdError,), read, head)


GZIP = Compression("gzip", (MAGIC,), "zcat", Gzip)
BZIP2 = Compression("bzip2", (b"BZh",), "bzcat", _bzip2, "a Python that was built with bzip2")
XZ = Compression("xz", (b"\xfd7zXZ\x00",), "xzcat", _xz, "a Python that was built with lzma")
ZSTD = Compression(
    "zstd",
    # A frame, or one that is to be skipped, as `pzstd` writes (RFC 8878, 3.1).
    (b"\x28\xb5\x2f\xfd", *(bytes([number]) + b"\x2a\x4d\x18" for number in range(0x50, 0x60))),
    "zstdcat",
    _zstd,
    "the package zstandard (pip install 'closeseq[zstd]')",
)
COMPRESSIONS = (GZIP, BZIP2, XZ, ZSTD)


def compression_of(head: bytes) -> Compression | None:
    """Return how a file is compressed that begins with these bytes: `LONGEST_MAGIC` of them, or all."""
    return next((one for one in COMPRESSIONS if head.startswith(one.magics)), None)


def _reason(error: zlib.error) -> str:
    """Return the last clause of a text like "Error -3 while decompressing data: incorrect data check"."""
    return str(error).rsplit(": ", maxsplit=1)[-1]
