"""The state of one socket at one moment, by sock_diag: what `ss` prints, for one socket."""

import errno
import socket
import struct

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
NLMSG_ERROR = 2
NO_COOKIE = 0xFFFFFFFF

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
REQUEST = struct.Struct("=BBBxI")  # family, protocol, extensions, states
SOCKET_ID = struct.Struct("!HH16s16s")  # local port, remote port, local address, remote address
TAIL = struct.Struct("=III")  # interface, cookie
ERROR = struct.Struct("=i")

# As numbered in the kernel's tcp_states.h.
STATES = (
    None,
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECEIVED",
    "FIN_WAIT_1",
    "FIN_WAIT_2",
    "TIME_WAIT",
    "CLOSED",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "SYN_RECEIVED",
)


class SocketTable:
    """A netlink socket to ask the kernel with. It shows TIME_WAIT and ownerless FIN_WAIT_2 too."""

    def __init__(self) -> None:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        self._netlink.settimeout(5)

    def state(self, host: str, local: int, remote: int) -> str:
        """Return the state of the socket on `host` with these two ports, its peer on the same host.

        A socket that is not there is CLOSED. When the connection is gone the kernel may answer with
        the listener on that port, which is not this connection: CLOSED too.
        """
        self._netlink.send(_request(host, local, remote))
        answer = self._netlink.recv(8192)
        kind = HEADER.unpack_from(answer)[1]
        if kind == NLMSG_ERROR:
            code = -ERROR.unpack_from(answer, HEADER.size)[0]
            if code == errno.ENOENT:
                return "CLOSED"
            raise OSError(code, f"sock_diag: {errno.errorcode.get(code, code)}")
        state = STATES[answer[HEADER.size + 1]]
        return "CLOSED" if state in (None, "LISTEN") else state

    def close(self) -> None:
        """Close the netlink socket."""
        self._netlink.close()


def _request(host: str, local: int, remote: int) -> bytes:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = socket.inet_pton(family, host).ljust(16, b"\0")
    body = REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
    body += SOCKET_ID.pack(local, remote, address, address) + TAIL.pack(0, NO_COOKIE, NO_COOKIE)
    return HEADER.pack(HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0) + body
