"""`closeseq extcap`: what Wireshark runs to capture with closeseq (extcap(4))."""

from __future__ import annotations

from typing import Any

import click

from closeseq.cli.options import seconds
from closeseq.wireshark.extcap import HOLD, INTERFACE, SNAP_LENGTH, STUCK_AFTER, default_device

EPILOG = """\b
Examples, as Wireshark runs it:
  closeseq extcap --extcap-interfaces
  closeseq extcap --extcap-interface closeseq --extcap-config
  closeseq extcap --extcap-interface closeseq --capture --fifo FIFO --device eth0 --port 8080

\b
And with tshark, after `closeseq wireshark --install`:
  tshark -i closeseq -o extcap.closeseq.port:8080 -T fields -e frame.comment
"""


@click.command(
    epilog=EPILOG,
    short_help="Capture for Wireshark, which runs this itself.",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},  # of later versions
)
@click.option("--extcap-interfaces", "interfaces", is_flag=True, help="Print the interfaces there are.")
@click.option(
    "--extcap-version", metavar="VERSION", expose_value=False, help="Wireshark's version; not used."
)
@click.option("--extcap-interface", "interface", metavar="NAME", help=f"The interface: {INTERFACE}.")
@click.option("--extcap-dlts", "dlts", is_flag=True, help="Print the interface's link types.")
@click.option("--extcap-config", "config", is_flag=True, help="Print what can be set for the interface.")
@click.option(
    "--extcap-capture-filter",
    "expression",
    metavar="EXPRESSION",
    help="A capture filter in tcpdump's syntax; without --capture, print what is wrong with it.",
)
@click.option("--capture", is_flag=True, help="Capture.")
@click.option("--fifo", metavar="PATH", type=click.Path(), help="Write the packets, as pcapng, to this pipe.")
@click.option(
    "--device",
    default=default_device(),
    show_default=True,
    metavar="NAME",
    help="Where to capture; any: all.",
)
@click.option("--port", default="", metavar="PORT,...", help="Only connections with one of these ports.")
@click.option(
    "--host", default="", metavar="ADDRESS,...", help="Only connections with one of these addresses."
)
@click.option(
    "--hold",
    type=seconds,
    default=HOLD,
    show_default=True,
    metavar="SECONDS",
    help="Hold packets back for so long, so that more is known of them.",
)
@click.option(
    "--stuck-after",
    type=seconds,
    default=STUCK_AFTER,
    show_default=True,
    metavar="SECONDS",
    help="A wait of this length counts as stuck.",
)
@click.option(
    "--snaplen",
    type=click.IntRange(64, SNAP_LENGTH),
    default=SNAP_LENGTH,
    show_default=True,
    metavar="BYTES",
    help="Keep so many bytes of each packet.",
)
@click.pass_context
def extcap(ctx: click.Context, /, **given: Any) -> None:
    """Capture for Wireshark, with closeseq's states as comments on the packets.

    Wireshark runs this from its extcap folder, where `closeseq wireshark --install` puts it. A packet is
    shown when it has been held back for --hold, with what is known of it by then. Capturing needs root or
    CAP_NET_RAW, which Wireshark's own helper has and this has not: a refusal says how to give it.
    """
    from closeseq.cli.extcap_run import answer

    ctx.exit(answer(given))
