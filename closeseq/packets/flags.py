"""The control bits of a TCP header (RFC 9293 3.1) that matter here, and their letters."""

from __future__ import annotations

from functools import cache

FIN = 0x01
SYN = 0x02
RST = 0x04
PSH = 0x08
ACK = 0x10

LETTERS = ((SYN, "S"), (FIN, "F"), (RST, "R"), (ACK, "A"), (PSH, "P"))


@cache
def letters(flags: int) -> str:
    """Return the set bits as letters out of SFRAP, in that order: `letters(SYN | ACK) == "SA"`."""
    return "".join(letter for bit, letter in LETTERS if flags & bit)


def from_letters(text: str) -> int:
    """Return the bits for letters out of SFRAP, in any order. Raises KeyError for any other letter."""
    bits = {letter: bit for bit, letter in LETTERS}
    flags = 0
    for letter in text:
        flags |= bits[letter]
    return flags
