"""A path with a box on it: a router with a packet filter, in a namespace between client and server.

    client (10.8.1.2) --- to-client [ box ] to-server --- (10.8.2.2) server

The client's namespace is the one that we are in. The box forwards what comes, and can do what firewalls do:
reject, forget connections, and send RSTs of its own. Nothing is left behind: the devices end with the
namespaces, and these with their last process and socket.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Self

from closeseq.connections.conversation import ENDS, End
from closeseq.lab import network
from closeseq.linux.namespaces import coming_back, enter_new, open_ours, return_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyroute2 import IPRoute
    from scapy.packet import Packet

DEVICE = "to-box"  # of client and server
PORTS = {End.CLIENT: "to-client", End.SERVER: "to-server"}  # of the box
NETWORKS = {End.CLIENT: "10.8.1", End.SERVER: "10.8.2"}
SERVICE = "10.8.3.1"  # the server's address for the client, where the box translates
PREFIX = 24
MAC = "02:00:00:0b:0b:0b"  # that the box writes into RSTs of its own
FILTER = "box"  # the name of a table


class BoxNetwork:
    """Client, box and server, from when they are made until they are closed.

    This process must be in a network namespace of its own, and be root there; no other threads may run while
    it is made.
    """

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        try:
            self._namespaces = {End.CLIENT: self._here()}
            with coming_back():
                enter_new()
                self._namespaces[End.SERVER] = self._here()
                enter_new()
                self._box = self._here()
                network.set_parameter("ip_forward", 1)
            for end in ENDS:
                self._connect(end)
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def host(self, end: End) -> str:
        """Return the address of an end."""
        return f"{NETWORKS[end]}.2"

    @contextlib.contextmanager
    def at(self, end: End) -> Iterator[None]:
        """Be in the namespace of an end within the block; a socket that is opened there stays there."""
        with self._within(self._namespaces[end]):
            yield

    @contextlib.contextmanager
    def rejecting(self, match: str) -> Iterator[None]:
        """Answer forwarded packets that an nftables expression matches with RST, while the block runs."""
        rule = f"type filter hook forward priority 0; {match} reject with tcp reset;"
        with self._within(self._box):
            network.nft(f"table inet {FILTER} {{\n chain forward {{ {rule} }}\n}}")
        try:
            yield
        finally:
            with self._within(self._box):
                network.nft(f"delete table inet {FILTER}")

    @contextlib.contextmanager
    def forgetting(self, seconds: int) -> Iterator[None]:
        """Track connections, forget each after some idle time, and reject what the client then sends.

        Args:
            seconds: without a packet, after which a connection is forgotten.
        """
        match = f'iifname "{PORTS[End.CLIENT]}" ct state invalid'
        with self.rejecting(match):
            with self._within(self._box):
                # Only a handshake makes a connection known, as in most firewalls.
                self._forget_after(seconds)
                network.set_parameter("../netfilter/nf_conntrack_tcp_loose", 0)
            yield

    @contextlib.contextmanager
    def translating(self, forget_after: int | None = None) -> Iterator[None]:
        """Give the server SERVICE as its address towards the client, as a NAT does, while the block runs.

        Args:
            forget_after: idle seconds after which it knows a connection no more; None: five days.
        """
        to_server = f"ip daddr {SERVICE} dnat to {self.host(End.SERVER)}"
        rule = f"type nat hook prerouting priority -100; {to_server};"
        with self._within(self._box):
            network.nft(f"table ip {FILTER} {{\n chain prerouting {{ {rule} }}\n}}")
            if forget_after is not None:
                self._forget_after(forget_after)
        try:
            yield
        finally:
            with self._within(self._box):
                network.nft(f"delete table ip {FILTER}")

    @staticmethod
    def _forget_after(seconds: int) -> None:
        for name in ("established", "unacknowledged"):
            network.set_parameter(f"../netfilter/nf_conntrack_tcp_timeout_{name}", seconds)

    def inject(self, reset: Packet) -> None:
        """Send the client an IP packet in a frame of the box's own."""
        from closeseq.capture.live.scapy_socket import quiet_scapy

        with quiet_scapy():
            from scapy.layers.l2 import Ether
        with self._within(self._box), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as line:
            line.bind((PORTS[End.CLIENT], 0))
            line.send(bytes(Ether(src=MAC, dst=self._mac) / reset))

    def _here(self) -> int:
        """Return a descriptor of the namespace that we are in, until the path is closed."""
        descriptor = open_ours()
        self._open.callback(os.close, descriptor)
        return descriptor

    @contextlib.contextmanager
    def _within(self, namespace: int) -> Iterator[None]:
        return_to(namespace)
        try:
            yield
        finally:
            return_to(self._namespaces[End.CLIENT])

    def _connect(self, end: End) -> None:
        """Put a cable between an end and the box."""
        from pyroute2 import IPRoute

        with self.at(end), IPRoute() as route:
            far_end = {"ifname": PORTS[end], "net_ns_fd": self._box}
            route.link("add", ifname=DEVICE, kind="veth", peer=far_end)
            self._configure(route, DEVICE, self.host(end))
            (link,) = route.get_links(ifname=DEVICE)
            if end is End.CLIENT:
                self._mac = str(link.get_attr("IFLA_ADDRESS"))
        with self._within(self._box), IPRoute() as route:
            self._configure(route, PORTS[end], f"{NETWORKS[end]}.1")
        with self.at(end), IPRoute() as route:
            route.route("add", dst="default", gateway=f"{NETWORKS[end]}.1")

    @staticmethod
    def _configure(route: IPRoute, name: str, address: str) -> None:
        (index,) = route.link_lookup(ifname=name)
        route.addr("add", index=index, address=address, prefixlen=PREFIX)
        route.link("set", index=index, state="up")
