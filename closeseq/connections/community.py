"""The Community ID of a connection, by which the logs of Zeek, Suricata and closeseq can be joined."""

from __future__ import annotations

import socket
from binascii import b2a_base64
from functools import lru_cache
from hashlib import sha1
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from closeseq.connections.conversation import Address


def community_id(client: Address, server: Address) -> str:
    """Return the Community ID (version 1, seed 0) of a connection's addresses and ports.

    That is the SHA-1 of both endpoints, the smaller one first (github.com/corelight/community-id-spec), so
    that it is the same with `client` and `server` exchanged.
    """
    low, high = sorted((_packed(end.address), end.port) for end in (client, server))
    ports = low[1].to_bytes(2, "big") + high[1].to_bytes(2, "big")
    hashed = sha1(_SEED + low[0] + high[0] + _TCP + ports, usedforsecurity=False)
    return f"1:{b2a_base64(hashed.digest(), newline=False).decode()}"


_SEED, _TCP = bytes(2), bytes([socket.IPPROTO_TCP, 0])  # a byte of padding after the protocol


@lru_cache(maxsize=1 << 14)
def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
