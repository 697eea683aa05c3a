"""One run of `extcap`: an answer to what Wireshark asks, or a capture for it.

Wireshark asks several times whenever it starts, so what only a capture needs is loaded only for that.
"""

from __future__ import annotations

import select
import sys
from contextlib import ExitStack
from io import FileIO
from typing import TYPE_CHECKING, Any

from closeseq.cli.options import host
from closeseq.cli.output import streamed
from closeseq.cli.terminal import Refusal, Status, complain
from closeseq.errors import DeviceError, FilterError, NotPermittedError
from closeseq.wireshark.extcap import INTERFACE, interfaces, link_types, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from closeseq.cli.live_run import Stop
    from closeseq.settings import Settings
    from closeseq.wireshark.held import HeldCapture

HIGHEST_PORT = 65_535


def answer(given: dict[str, Any]) -> Status:
    """Answer, or capture; return the exit status.

    Args:
        given: click's parameters of `extcap`, by name.

    Raises:
        Refusal: nothing is asked, it is about another interface, or the pipe cannot be written.
    """
    if given["interfaces"]:
        import closeseq

        return _print(interfaces(closeseq.__version__))
    if given["interface"] != INTERFACE:
        raise Refusal(f"the interface is {INTERFACE}, not {given['interface']}; Wireshark runs this command")
    if given["dlts"]:
        return _print(link_types())
    if given["config"]:
        return _print(settings())
    if given["capture"]:
        if not given["fifo"]:
            raise Refusal("--capture needs --fifo with the pipe to write to")
        return _capture(given)
    if given["expression"] is not None:
        return _check(given["expression"], given["device"])
    raise Refusal("nothing was asked; Wireshark runs this command")


def _print(lines: Iterable[str]) -> Status:
    streamed(sys.stdout).write(f"{line}\n" for line in lines)
    return Status.DONE


def _check(expression: str, device: str) -> Status:
    """Print what is wrong with a capture filter: Wireshark takes any output for that."""
    from closeseq.capture.live.bpf import compile_expression
    from closeseq.capture.live.devices import find_devices

    try:
        for one in find_devices([device]):
            compile_expression(expression, one)
    except (FilterError, DeviceError, NotPermittedError) as error:
        _print([str(error)])
    return Status.DONE


def _settings(given: dict[str, Any]) -> Settings:
    from closeseq.settings import settings_of

    try:
        ports = [int(port) for port in given["port"].replace(",", " ").split()]
    except ValueError:
        ports = [-1]
    if not all(0 <= port <= HIGHEST_PORT for port in ports):
        raise Refusal(f"--port {given['port']}: ports are numbers up to {HIGHEST_PORT}, with commas between")
    hosts = [host(one) for one in given["host"].replace(",", " ").split()]
    return settings_of(port=ports, host=hosts, stuck_after=given["stuck_after"])


def _capture(given: dict[str, Any]) -> Status:
    from closeseq.capture.live import open_live
    from closeseq.cli.live_run import stopped_by_signals
    from closeseq.cli.live_setup import give_up_root, not_opened
    from closeseq.cli.privileges import capability_command
    from closeseq.watch import Monitor
    from closeseq.watch.session import SystemClock
    from closeseq.wireshark.held import HeldCapture

    chosen = _settings(given)
    with stopped_by_signals() as stop, ExitStack() as at_end:
        try:
            source = at_end.enter_context(
                open_live(
                    [given["device"]],
                    ports=chosen.ports,
                    hosts=chosen.hosts,
                    expression=given["expression"],
                    snap_length=given["snaplen"],
                )
            )
        except NotPermittedError as error:
            permit = capability_command(["wireshark", "--install"])
            complain(f"{error}; this permits it to Wireshark, without root: {permit}", whole=True)
            return Status.NOT_PERMITTED
        except (FilterError, DeviceError) as error:
            return not_opened(error)
        try:
            # Waits until Wireshark opens the other end. Before root is given up, whose pipe it may be.
            pipe = at_end.enter_context(FileIO(given["fifo"], "wb"))
        except OSError as error:
            raise Refusal(f"{given['fifo']} cannot be written: {error.strerror}") from error
        give_up_root()
        monitor, clock = Monitor(chosen, capture=given["device"]), SystemClock()
        held = HeldCapture(source, monitor, clock, pipe, hold=given["hold"], snap_length=given["snaplen"])
        return _held(held, _over(stop, pipe))


def _held(held: HeldCapture, over: Callable[[], bool]) -> Status:
    status = Status.DONE
    try:
        held.run(over)
    except BrokenPipeError:  # Wireshark has stopped the capture
        pass
    except DeviceError as error:
        complain(str(error))
        status = Status.CAPTURE
    if held.hurried:
        from closeseq.units import count

        without = count(held.hurried, "packet")
        complain(f"{without} got no comment: more connections than there was time for; --port chooses some")
    return status


def _over(stop: Stop, pipe: FileIO) -> Callable[[], bool]:
    """Return what tells whether to stop: by a signal, or since nobody reads the pipe any more."""
    poll = select.poll()
    poll.register(pipe, 0)  # errors are always reported

    def over() -> bool:
        return stop.asked or bool(poll.poll(0))

    return over
