"""Packets dropped in one direction of one connection, before or after the capture point.

The tap on loopback sees a packet when it comes in, before netfilter's input hook and after its
output hook. So what is dropped at `input` was captured but never received, and what is dropped at
`output` was neither captured nor received, though its sender acts as having sent it.
"""

import ctypes

RULES = """
table inet closeseq {
    set input  { type inet_service . inet_service; }
    set output { type inet_service . inet_service; }
    chain input  { type filter hook input  priority 0; tcp sport . tcp dport @input  drop; }
    chain output { type filter hook output priority 0; tcp sport . tcp dport @output drop; }
}
"""


class Losses:
    """The directions that lose all their packets now: (hook, sender's port, receiver's port).

    It talks to libnftables within this process: a run changes these sets hundreds of times, and one
    `nft` process each would take longer than the pauses between the steps of a program.
    """

    def __init__(self) -> None:
        self._active: set[tuple[str, int, int]] = set()
        self._nft = ctypes.CDLL("libnftables.so.1")
        self._nft.nft_ctx_new.restype = ctypes.c_void_p
        self._nft.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(self._nft.nft_ctx_new(0))
        self._nft.nft_ctx_buffer_error(self._context)
        self._run(RULES)

    def drop(self, hook: str, sender_port: int, receiver_port: int) -> None:
        """Drop what goes from the one port to the other from now on. Twice is as good as once."""
        if (hook, sender_port, receiver_port) not in self._active:
            self._run(f"add element inet closeseq {hook} {{ {sender_port} . {receiver_port} }}")
            self._active.add((hook, sender_port, receiver_port))

    def heal(self, hook: str, sender_port: int, receiver_port: int) -> None:
        """Let what goes from the one port to the other through again."""
        if (hook, sender_port, receiver_port) in self._active:
            self._run(f"delete element inet closeseq {hook} {{ {sender_port} . {receiver_port} }}")
            self._active.remove((hook, sender_port, receiver_port))

    def close(self) -> None:
        """Give libnftables' memory and netlink socket back; the rules go with the namespace."""
        self._nft.nft_ctx_free(self._context)

    def _run(self, command: str) -> None:
        if self._nft.nft_run_cmd_from_buffer(self._context, command.encode()) != 0:
            message = self._nft.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
            raise RuntimeError(f"nft: {message}")
