"""The capture point misses packets, or sees them twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.connections.conversation import End
from closeseq.lab.actions import echo, read_to_end
from closeseq.lab.kernel_answers import PORT
from closeseq.lab.network import mirror
from closeseq.lab.registry import experiment
from closeseq.packets.segments import FIN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from closeseq.lab.bench import Bench
    from closeseq.packets.segments import Segments


def all_but_the_clients_fin(segments: Segments) -> NDArray[np.bool_]:
    """Return a mask of what is kept."""
    kept: NDArray[np.bool_] = (segments.dst_port != PORT) | (segments.flags & FIN == 0)
    return kept


def what_the_client_sends(segments: Segments) -> NDArray[np.bool_]:
    """Return a mask of what is kept."""
    kept: NDArray[np.bool_] = segments.dst_port == PORT
    return kept


def client_closes_then_server(bench: Bench, hidden: str = "") -> None:
    """Echo, and close one after the other.

    Args:
        bench: of the experiment.
        hidden: why no packet shows the states then; empty if packets show them.
    """
    client, server = bench.connection()
    echo(client, server)
    client.close()
    bench.step("the client closes", hidden={End.CLIENT: hidden} if hidden else {})
    read_to_end(server)
    server.close()
    bench.step("the server closes", hidden=dict.fromkeys(End, hidden) if hidden else {})


@experiment("graceful", "client", "capture-incomplete", keep=all_but_the_clients_fin)
def fin_not_captured(bench: Bench) -> None:
    """The client's FIN is not in the capture; it arrives all the same.

    The server acknowledges one number more than the client is seen to have sent, and the client goes on
    one number past it: without a gap in the data that can only be a FIN.
    """
    client_closes_then_server(bench)


@experiment("closing", "client", "capture-incomplete", keep=what_the_client_sends)
def one_direction(bench: Bench) -> None:
    """Only what the client sends is captured; it closes first.

    Its last packet acknowledges one number more than those before: a FIN, as we know, but one byte would
    look alike.
    """
    client_closes_then_server(bench, hidden="what the server sent was not captured")


@experiment("graceful", "client", "duplicate-packets", device="any", needs="nft")
def seen_twice(bench: Bench) -> None:
    """Captured on all devices while loopback is mirrored to a second one: each packet is there twice."""
    mirror()
    client_closes_then_server(bench)
