"""The command `closeseq` with its subcommands, and its exit statuses."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn, TextIO

import click

from closeseq.cli.analyze import analyze, timeline
from closeseq.cli.diff import diff
from closeseq.cli.explain import explain
from closeseq.cli.extcap import extcap
from closeseq.cli.lab import lab
from closeseq.cli.live import follow, live
from closeseq.cli.report import report
from closeseq.cli.states import states
from closeseq.cli.terminal import Status, complain, help_settings, use_help_formatter
from closeseq.cli.wireshark import wireshark
from closeseq.errors import WorkerError, lacking

EPILOG = """\b
Examples:
  closeseq analyze web.pcap              which program does not close its sockets?
  closeseq analyze web.pcap -p 8080 --finding stuck-close-wait -f timeline
  closeseq timeline web.pcap --connection 12
  closeseq states web.pcap --at 12.5     netstat, 12.5 s into the capture
  closeseq report web.pcap -o report.html   one page to attach to a ticket
  closeseq analyze *.pcapng -f jsonl -o records.jsonl
  closeseq analyze ci.pcap --fail-on stuck-close-wait,data-after-close
  closeseq diff before.pcap after.pcap   what got worse?
  sudo closeseq live -p 8080             closes as they happen, and who owns the stuck sockets
  closeseq lab run leaky-server          make one happen, and compare with the kernel's states
  closeseq explain CLOSE_WAIT

Exit status: 0 done; 1 done, and something named with --fail-on was found, or worse;
2 wrong usage; 3 a capture could not be read or made, or not to its end (what was
read is still reported); 4 the filter expression is wrong; 5 not permitted (the message
has a command that is); 70 a fault in closeseq (other connections are still reported);
71 a worker process was killed; 130 interrupted.
"""


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import closeseq

        click.echo(f"closeseq {closeseq.__version__}")
        ctx.exit()


@click.group(epilog=EPILOG, context_settings=help_settings())
@click.option(
    *("--version", "-V"),
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Show how TCP connections closed, who closed them, and which program to fix if one did not close.

    closeseq infers this from packets alone, with the certainty and the evidence.
    """


for command in (analyze, timeline, states, report, diff, live, follow, lab, explain, wireshark, extcap):
    cli.add_command(command)
use_help_formatter(cli)


# Objects until the garbage collector looks for circles, of which hardly any are made: with Python's 700 it
# takes a tenth of the time.
COLLECT_SELDOM = (10_000, 10, 10)


FILES_OPEN = "too many files are open; a higher limit helps, such as `ulimit -n 1024`"
SHORT_OF = {  # what the system has no more of, and what helps
    errno.EMFILE: FILES_OPEN,
    errno.ENFILE: FILES_OPEN,
    errno.ENOMEM: "memory ran out; fewer connections (-p PORT, --host ADDRESS) or -j 1 need less",
}


def main() -> None:
    """Run the command line and exit."""
    _replace_closed_streams()
    _clean_up_when_terminated()
    gc.set_threshold(*COLLECT_SELDOM)
    status = run(sys.argv[1:])
    try:
        sys.stderr.flush()
    except OSError:  # caught here: the interpreter would exit with a status of its own
        _discard(sys.stderr)
    gc.freeze()  # the interpreter looks at all objects once more before it ends
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit status."""
    try:
        return _run(arguments)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        return Status.USAGE
    except BrokenPipeError:
        _discard(sys.stdout)  # the reader has closed the pipe, as `| head` does
        return Status.DONE
    except (click.Abort, KeyboardInterrupt):
        complain("interrupted")
        return Status.INTERRUPTED
    except WorkerError as error:
        complain(str(error))
        return Status.WORKER
    except OSError as error:  # of the output; errors of captures are CaptureErrors
        complain(SHORT_OF.get(error.errno or 0) or f"{error.filename or 'output'}: {error.strerror}")
        _discard(sys.stdout)
        return Status.USAGE
    except MemoryError:
        complain(SHORT_OF[errno.ENOMEM])
        return Status.BUG
    except Exception as error:  # noqa: BLE001 - a bug, with everything needed to fix it
        if (said := lacking(error)) is None:
            traceback.print_exc()
        else:
            complain(said)
        return Status.BUG


def _run(arguments: list[str]) -> int:
    if "_CLOSESEQ_COMPLETE" in os.environ:  # the shell asks for completions
        cli.main(arguments, prog_name="closeseq")
    try:
        with cli.make_context("closeseq", arguments) as ctx:
            cli.invoke(ctx)
        return Status.DONE
    finally:
        # so that a closed pipe is noticed here and not while the interpreter shuts down
        sys.stdout.flush()


def _replace_closed_streams() -> None:
    """Replace standard streams that are closed (`>&-`) by /dev/null."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - stays open


def _clean_up_when_terminated() -> None:
    """Make SIGTERM and SIGHUP (a closed terminal; nohup ignores it) remove half-written files."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _leave)


def _leave(number: int, _frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # the second time at once
    raise SystemExit(128 + number)  # as a shell reports it


def _discard(stream: TextIO) -> None:
    """Discard what is still buffered for a closed pipe or a full disk."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
