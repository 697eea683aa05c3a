"""The few functions of libpcap that compile a filter expression, as in tcpdump, by ctypes."""

from __future__ import annotations

import ctypes
from ctypes.util import find_library
from functools import cache
from typing import Any

from closeseq.errors import FilterError

MISSING = (
    "a filter expression needs libpcap, which is not installed here (on Debian and Ubuntu it is the package "
    "libpcap0.8); ports and hosts can be chosen without it"
)
# By these names it is found at once; asking the system for it starts other programs.
NAMES = ("libpcap.so.1", "libpcap.so.0.8")
ERROR_SIZE = 256  # bytes of an error's text: PCAP_ERRBUF_SIZE


class CompiledStep(ctypes.Structure):
    """struct bpf_insn: one instruction of a filter program."""

    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    )


class CompiledProgram(ctypes.Structure):
    """struct bpf_program: `length` instructions from `steps` on, which pcap_freecode() frees."""

    _fields_ = (("length", ctypes.c_uint), ("steps", ctypes.POINTER(CompiledStep)))


@cache
def libpcap() -> Any:
    """Return the library, with the types of the functions that compile.

    Raises:
        FilterError: it is not installed.
    """
    library = _loaded()
    handle, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    program = ctypes.POINTER(CompiledProgram)
    for name, result, arguments in (
        ("pcap_open_dead", handle, (number, number)),
        ("pcap_open_live", handle, (text, number, number, number, text)),
        ("pcap_compile", number, (handle, program, text, number, ctypes.c_uint32)),
        ("pcap_geterr", text, (handle,)),
        ("pcap_freecode", None, (program,)),
        ("pcap_close", None, (handle,)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _loaded() -> ctypes.CDLL:
    for name in NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    found = find_library("pcap")
    if found is None:
        raise FilterError(MISSING)
    return ctypes.CDLL(found)
