"""What Wireshark asks a capture interface before it captures, and the answers (extcap(4)).

Wireshark runs a program in its extcap folder: for its interfaces, for the link types of one, for the settings
that a user may choose, and to capture. The answers are sentences of words and `{name=value}`.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERFACE = "closeseq"
SNAP_LENGTH = 262_144  # bytes: whole packets, for Wireshark shows what is in them
HOLD, STUCK_AFTER = 1.0, 60.0  # seconds

SPECIAL = str.maketrans("{}\n\r", "()  ")  # would end a value


def interfaces(version: str) -> Iterator[str]:
    """Yield the answer to --extcap-interfaces.

    Args:
        version: of closeseq.
    """
    yield _sentence("extcap", version=version, display="closeseq")
    yield _sentence("interface", value=INTERFACE, display="TCP states as comments (closeseq)")


def link_types() -> Iterator[str]:
    """Yield the answer to --extcap-dlts. What is captured says itself which link types it has."""
    yield _sentence("dlt", number=1, name="EN10MB", display="Ethernet, or as the chosen interface has it")


def settings() -> Iterator[str]:
    """Yield the answer to --extcap-config: what can be set, and the network interfaces to choose from."""
    names = [name for _, name in socket.if_nameindex()]
    yield _sentence(
        "arg",
        number=0,
        call="--device",
        display="Network interface",
        type="selector",
        default=default_device(),
        tooltip="where to capture; any: all of them",
    )
    yield _sentence(
        "arg",
        number=1,
        call="--port",
        display="TCP port",
        type="string",
        tooltip="only connections with this port; several with commas between them; empty: all",
        validation="^([0-9]+(,[0-9]+)*)?$",
    )
    yield _sentence(
        "arg",
        number=2,
        call="--host",
        display="IP address",
        type="string",
        tooltip="only connections with this address; several with commas between them; empty: all",
    )
    yield _sentence(
        "arg",
        number=3,
        call="--hold",
        display="Hold packets back (s)",
        type="double",
        range="0,60",
        default=HOLD,
        tooltip="a comment is on its packet when that is shown; later packets make it surer",
    )
    yield _sentence(
        "arg",
        number=4,
        call="--stuck-after",
        display="Stuck after (s)",
        type="double",
        default=STUCK_AFTER,
        tooltip="a wait of this length counts as stuck",
    )
    yield _sentence(
        "arg",
        number=5,
        call="--snaplen",
        display="Bytes of each packet",
        type="integer",
        range=f"64,{SNAP_LENGTH}",
        default=SNAP_LENGTH,
        tooltip="128 are enough for closeseq",
    )
    for name in [*names, "any"]:
        chosen = "true" if name == default_device() else "false"
        yield _sentence("value", arg=0, value=name, display=name, default=chosen)


def default_device() -> str:
    """Return where to capture unless the user chooses: loopback, as `closeseq live` does."""
    return "lo"


def _sentence(word: str, **values: str | float) -> str:
    """Return a sentence; no value can end early."""
    return f"{word} " + "".join(
        f"{{{name}={str(value).translate(SPECIAL)}}}" for name, value in values.items()
    )
