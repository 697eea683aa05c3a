"""`closeseq live` and `closeseq follow`: closes as they happen."""

from __future__ import annotations

from typing import Any

import click

from closeseq.cli.options import CHOOSING, FAILING, FILE, OF_ALL, READING, listening, options, seconds

LIVE_EPILOG = """\b
Examples:
  sudo closeseq live -p 8080                    loopback, port 8080
  sudo closeseq live -i eth0 -p 443 --every 10  and a table of states every 10 s
  sudo closeseq live -i any 'tcp port 5432 and not host 10.0.0.7'
  sudo closeseq live -p 8080 -w closes.pcapng --rotate 100MB
  sudo closeseq live -p 8080 -f jsonl | jq 'select(.live.event == "stuck")'
  sudo closeseq live --netns blue -p 8080
  sudo closeseq live -i any -p 443 -f summary --metrics :9469    counters for Prometheus
"""
FOLLOW_EPILOG = """\b
Examples:
  closeseq follow capture.pcapng -p 8080
  tcpdump -i any -U -w - tcp | closeseq follow -
"""


def _print_board(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from closeseq.watch.metrics import dashboard

        click.echo(dashboard(), nl=False)
        ctx.exit()


FORMATS = ("timeline", "summary", "jsonl", "csv")

WATCHING = (
    click.option(
        "-f",
        "--format",
        "form",
        type=click.Choice(FORMATS),
        default="timeline",
        show_default=True,
        help="What to print for each connection that closes or is stuck; summary: only one at the end.",
    ),
    click.option(
        "--every",
        type=seconds,
        metavar="SECONDS",
        help="Print a table of sockets by state every so many seconds.",
    ),
    click.option("--duration", type=seconds, metavar="SECONDS", help="Stop after so many seconds."),
    click.option(
        "--until-close", type=click.IntRange(min=1), metavar="N", help="Stop after N connections have closed."
    ),
    click.option(
        "--max-connections",
        type=click.IntRange(min=1),
        default=1 << 17,
        show_default=True,
        metavar="N",
        help="Keep at most N connections; when full, the longest-idle ones are dropped, and counted.",
    ),
    *FAILING,
    *OF_ALL,
    click.option("--ascii", "ascii_only", is_flag=True, help="Draw without line-drawing characters."),
)

OF_THE_MACHINE = (
    click.option(
        "-i",
        "--interface",
        multiple=True,
        default=("lo",),
        show_default=True,
        metavar="NAME",
        help="Capture on this interface; any: on all. May be given more than once.",
    ),
    click.option("-w", "--write", metavar="FILE", help="Save the packets as pcapng; - is standard output."),
    click.option(
        "--rotate", metavar="SIZE|TIME", help="With -w: start a new file after this size or time: 100MB, 10m."
    ),
    click.option("--force", is_flag=True, help="With -w: overwrite the file."),
    click.option(
        "--kernel/--no-kernel",
        default=None,
        help="Also ask the kernel for each socket's state, queues and owner, and why it sent a RST. By "
        "default if possible.",
    ),
    click.option("--netns", metavar="NAME", help="Capture in this network namespace."),
    click.option(
        "--pid",
        type=click.IntRange(min=1),
        metavar="PID",
        help="Capture in this process's network namespace.",
    ),
    click.option(
        "--source",
        type=click.Choice(["auto", "ring", "scapy"]),
        default="auto",
        show_default=True,
        help="How to capture: with Linux's packet ring (PACKET_MMAP), or scapy's socket, which is slower.",
    ),
    click.option(
        "--metrics",
        type=listening,
        metavar="[ADDRESS]:PORT",
        help="Serve counters for Prometheus at this address, as /metrics; without ADDRESS only to this "
        "machine. Ports given with -p have counters of their own.",
    ),
    click.option(
        "--metrics-file",
        metavar="FILE.prom",
        help="Write the same to this file every 5 s, for node_exporter's textfile collector.",
    ),
    click.option(
        "--grafana",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_board,
        help="Print a Grafana board for these counters and exit.",
    ),
    click.option("--user", metavar="NAME", help="Become this user once the capture is open."),
    click.option("--no-drop", is_flag=True, help="Keep root's privileges."),
)


@click.command(epilog=LIVE_EPILOG, short_help="Show connections as they close or get stuck.")
@click.argument("expression", nargs=-1, metavar="[EXPRESSION...]")
@options(OF_THE_MACHINE, WATCHING, CHOOSING[:2], READING)
@click.pass_context
def live(ctx: click.Context, /, expression: tuple[str, ...], **given: Any) -> None:
    """Show connections as they close or get stuck, and which program owns a stuck socket.

    EXPRESSION is a capture filter in tcpdump's syntax. Ctrl-C ends with a summary, a second one at once. Once
    the capture is open, root's privileges are dropped for those of the user who called sudo.
    """
    from closeseq.cli.live_setup import run_live
    from closeseq.cli.requests import LiveRequest

    ctx.exit(run_live(LiveRequest.of(expression, given)))


@click.command(epilog=FOLLOW_EPILOG, short_help="Do as live for a capture file that still grows.")
@click.argument("path", metavar="CAPTURE", type=FILE)
@options(WATCHING, CHOOSING[:2], READING)
@click.pass_context
def follow(ctx: click.Context, /, path: str, **given: Any) -> None:
    """Do as `live` for a capture file that another program is still writing.

    CAPTURE is a pcap or pcapng file, or - for standard input. The time runs on from its newest packet. In a
    rotation (tcpdump -C or -G, dumpcap -b, live --rotate) the next file is followed after this one; #3:17 is
    then packet 17 of the third file.
    """
    from closeseq.cli.live_setup import run_follow
    from closeseq.cli.requests import MonitorRequest

    ctx.exit(run_follow(path, MonitorRequest.of(given)))
