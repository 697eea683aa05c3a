"""`closeseq wireshark`: closeseq in the user's own Wireshark, or out of it again."""

from __future__ import annotations

import sys

import click

EPILOG = """\b
Examples:
  closeseq wireshark --install
  closeseq wireshark --install --profile TCP
  closeseq wireshark --uninstall
  closeseq analyze web.pcap -f pcapng -o web-states.pcapng && wireshark web-states.pcapng
"""


@click.command(epilog=EPILOG, short_help="Put closeseq's states and findings into Wireshark.")
@click.option("--install", "what", flag_value="install", help="Put it in; what is there already stays.")
@click.option("--uninstall", "what", flag_value="uninstall", help="Take it out again, and nothing else.")
@click.option(
    "--profile",
    metavar="NAME",
    help="With --install: put colours and buttons into this profile of Wireshark.",
)
@click.option(
    "--force", is_flag=True, help="Also overwrite or remove a plugin that was changed since it was installed."
)
@click.pass_context
def wireshark(ctx: click.Context, /, what: str | None, profile: str | None, *, force: bool) -> None:
    """Put closeseq's states and findings into your Wireshark, or take them out again.

    A plugin turns the comments of `closeseq analyze -f pcapng` into fields: closeseq.client.state,
    closeseq.server.state, closeseq.finding and others. Colours and filter buttons use them. An interface
    named closeseq captures live, with these comments. All of it goes into your own folders.
    """
    from closeseq.cli.output import streamed
    from closeseq.cli.privileges import interpreter_command
    from closeseq.cli.terminal import Refusal
    from closeseq.wireshark.folders import find_folders
    from closeseq.wireshark.installation import InstallError, install, uninstall

    if what is None:
        raise click.UsageError("Say --install or --uninstall.", ctx)
    if profile is not None and what != "install":
        raise Refusal("--profile is for --install; --uninstall looks into all profiles")
    folders = find_folders()
    if what == "install":
        lines = install(folders, interpreter_command(), profile=profile, force=force)
    else:
        lines = uninstall(folders, force=force)
    output, done = streamed(sys.stdout), 0
    try:
        for done, line in enumerate(lines, start=1):  # noqa: B007 - counts them
            output.write([f"{line}\n"])
    except InstallError as error:
        raise Refusal(str(error)) from error
    if what == "install":
        output.write(["Start Wireshark again to see it\n"])
    elif not done:
        output.write(["nothing of closeseq is there\n"])
