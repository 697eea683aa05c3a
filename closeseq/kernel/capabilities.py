"""Give up root, but for a few of its powers (capabilities(7)).

Python has no such calls, and the libraries that have them need a compiler, or libcap's headers, to be
installed; the three system calls are these.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT, NOBODY = 0, 65534

_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT = 8, 38, 24, 47  # linux/prctl.h
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_VERSION_3 = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: 64 bits in two words
_MOST = 63  # numbers that fit these words; the kernel has 41 so far


class Capability(IntEnum):
    """A power of root's, by its number in linux/capability.h."""

    DAC_READ_SEARCH = 2  # read any file and folder
    SYS_PTRACE = 19  # look into any process


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Word(ctypes.Structure):
    """32 capabilities, each one bit in each of the sets."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def keep_only(*capabilities: Capability) -> None:
    """Keep of our powers only these, for good; root also becomes nobody.

    What this process starts, or becomes by exec, has none. Call it before any thread is started: powers
    are a thread's own. In a user namespace with no other user, root stays root, without its powers.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for number in range(_MOST + 1):
        with suppress(OSError):  # no such number, or we may not, and so cannot get it back either
            _call(libc.prctl, _PR_CAPBSET_DROP, number, 0, 0, 0)
    with suppress(OSError):  # before Linux 4.3 there are none
        _call(libc.prctl, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if os.geteuid() == ROOT:
        _call(libc.prctl, _PR_SET_KEEPCAPS, 1, 0, 0, 0)
        with suppress(OSError):  # this namespace has no such user
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        _call(libc.prctl, _PR_SET_KEEPCAPS, 0, 0, 0, 0)
    header, words = _Header(_VERSION_3, 0), (_Word * 2)()
    _call(libc.capget, ctypes.byref(header), words)
    for at, word in enumerate(words):
        wanted = sum(1 << one % 32 for one in capabilities if one // 32 == at)
        word.permitted &= wanted
        word.effective, word.inheritable = word.permitted, 0
    _call(libc.capset, ctypes.byref(header), words)


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
