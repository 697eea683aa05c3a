"""A box between client and server sends RSTs in the server's name; and the same look from the server itself.

Captured at the client. What gives the box away is that the server, which knows nothing of it, goes on.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from closeseq.connections.conversation import End
from closeseq.lab import actions
from closeseq.lab.actions import abort, echo
from closeseq.lab.box import SERVICE
from closeseq.lab.experiments.resets import crash
from closeseq.lab.kernel_answers import PORT
from closeseq.lab.registry import experiment
from closeseq.tcp.timeline import Certainty

if TYPE_CHECKING:
    import socket

    from closeseq.lab.bench import Bench
    from closeseq.packets.segments import Segments

FORGET_AFTER = 1  # seconds
LATER = 1.2  # seconds after which no RST can have overtaken what the server sends
EXCHANGES = 10  # so many frames of the server show by which way they come
IN_ITS_NAME = {End.SERVER: "the RST was not the server's: it knows nothing of it yet"}
MIDDLEBOX = struct.pack(">HHI", 0x33AA, 17, 0)  # draft-ietf-tcpm-rst-diagnostic-payload


def all_of_tcp(segments: Segments) -> np.ndarray:
    """Return a mask of what is kept: what is no TCP, such as ARP, is not."""
    return np.ones(len(segments), np.bool_)


@experiment("reset", "none", "data-after-close reset-cause", needs="nft", keep=all_of_tcp, box=True)
def firewall_forgets(bench: Bench) -> None:
    """A firewall forgets an idle connection, and rejects what the client then sends.

    It tracks connections, and after a second without a packet it knows this one no more (the default of
    Linux is five days, that of many others a few minutes). The server still has the connection: what it sends
    later gets through, and shows that the RST was not its own.
    """
    with bench.box.forgetting(FORGET_AFTER):
        client, server = bench.connection()
        echo(client, server)
        bench.step("the client has sent a line, and the server has sent it back")
        bench.step("both are silent, and the firewall forgets the connection", wait=3)
        client.sendall(b"still there?")
        bench.step(
            "the client sends a line, and the firewall answers in the server's name", hidden=IN_ITS_NAME
        )
        goes_on(bench, server)


@experiment("reset", "none", "data-after-close reset-cause", needs="nft", keep=all_of_tcp, box=True)
def box_rejects(bench: Bench) -> None:
    """A rule is added on the way that rejects the client's packets: RST in the server's name."""
    client, server = bench.connection()
    echo(client, server)
    bench.step("the client has sent a line, and the server has sent it back")
    with bench.box.rejecting(f"tcp dport {PORT}"):
        client.sendall(b"still there?")
        bench.step("the client sends a line, and the box answers in the server's name", hidden=IN_ITS_NAME)
    goes_on(bench, server)


@experiment("reset", "none", "reset-cause", keep=all_of_tcp, box=True)
def box_injects(bench: Bench) -> None:
    """A box sends the client a RST in a frame of its own, and says that it is a middlebox.

    Its number is right, and its TTL is that of the server's packets. The frame has another MAC address.
    """
    client, server = bench.connection()
    for _ in range(EXCHANGES):
        echo(client, server)
    bench.step("the client has sent ten lines, and the server has sent them back")
    model = actions.last_segment(bench, lambda tcp: tcp.sport == PORT and len(tcp.payload) > 0)
    echo(client, server)
    bench.box.inject(actions.reset_like(model, ahead=2 * len(model["TCP"].payload), says=MIDDLEBOX))
    bench.step("one more line, and the box sends a RST")
    proved(bench)


@experiment("reset", "server", "reset-cause", keep=all_of_tcp, box=True)
def server_resets_through_box(bench: Bench) -> None:
    """The same box, but the server itself closes with SO_LINGER 0: nothing speaks for the box."""
    client, server = bench.connection()
    for _ in range(EXCHANGES):
        echo(client, server)
    bench.step("the client has sent ten lines, and the server has sent them back")
    abort(server)
    bench.step("the server closes with SO_LINGER 0")
    finding = bench.finding("reset-cause")
    bench.check("the box is not blamed", finding and "box" not in finding.summary)


@experiment("reset", "server", "reset-cause", keep=all_of_tcp, box=True)
def server_forgets_behind_box(bench: Bench) -> None:
    """The look of a box that rejects, but it is the server's kernel that has no such connection any more."""
    client, server = bench.connection()
    echo(client, server)
    bench.step("the client has sent a line, and the server has sent it back")
    with bench.at(End.SERVER):
        crash(server)
    client.sendall(b"still there?")
    bench.step("the server reboots, and the client sends a line")
    finding = bench.finding("reset-cause")
    bench.check("the box is not blamed", finding and "box" not in finding.summary)


NAT_ANSWERS = {End.SERVER: "its kernel got a RST for another address; captured with the NAT's, there is none"}


def through_nat(bench: Bench) -> tuple[socket.socket, socket.socket]:
    """Connect through a NAT, which gives the server another address, and echo."""
    with bench.listen() as listener:
        client = bench.connect(SERVICE)
        server = bench.accept(listener)
    bench.known_as(End.SERVER, SERVICE)
    echo(client, server)
    bench.step("the client has sent a line to 10.8.3.1, and the server has sent it back")
    return client, server


@experiment(
    "open reset",
    "none server",
    "reset-cause capture-incomplete",
    needs="nft",
    keep=all_of_tcp,
    box=True,
    population="forgotten-by-nat",
)
def nat_forgets(bench: Bench) -> None:
    """A NAT forgets an idle connection, and what the server then sends comes from another address.

    It knows a connection for a second of silence, and lets pass what it does not know, as Linux does. The
    client is connected with 10.8.3.1, which the NAT gives to the server 10.8.2.2. Its kernel knows no
    connection with 10.8.2.2, and answers with RST; the server's program gets ECONNRESET.
    """
    with bench.box.translating(FORGET_AFTER):
        client, server = through_nat(bench)
        bench.step("both are silent, and the NAT forgets the connection", wait=3)
        server.sendall(b"a line of the server's own")
        bench.step("the server sends a line", hidden=NAT_ANSWERS)
        del client


@experiment("open", "none", needs="nft", keep=all_of_tcp, box=True)
def nat_remembers(bench: Bench) -> None:
    """The opposite: the NAT knows the connection, and the server's line comes from the address it should."""
    with bench.box.translating():
        client, server = through_nat(bench)
        server.sendall(b"a line of the server's own")
        bench.step("the server sends a line")
        del client


def goes_on(bench: Bench, server: socket.socket) -> None:
    """Let the server send something later, which the client's kernel answers with RST.

    Args:
        bench: of the experiment.
        server: the server's socket.
    """
    bench.step("a while later", wait=LATER, hidden=IN_ITS_NAME)
    server.sendall(b"a line of the server's own")
    bench.step("the server, which knows nothing of it, sends a line")
    proved(bench)


def proved(bench: Bench) -> None:
    """State that the RST is known not to be the server's."""
    finding = bench.finding("reset-cause")
    bench.check("the RST is proved not to be the server's", finding and finding.certainty is Certainty.PROVED)
