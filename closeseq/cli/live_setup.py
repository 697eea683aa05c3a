"""What `live` and `follow` set up, in the order that privileges ask for, and take down again."""

from __future__ import annotations

import os
import pkgutil
import sys
from contextlib import ExitStack
from importlib import import_module
from typing import TYPE_CHECKING, Any

from closeseq.cli.live_output import Teller
from closeseq.cli.live_run import Stop, Until, Watching, stopped_by_signals
from closeseq.cli.output import Output, streamed
from closeseq.cli.terminal import Refusal, Status, StatusLine, complain
from closeseq.errors import CaptureError, DeviceError, FilterError, NotPermittedError, SaveError
from closeseq.report.selection import Wanted
from closeseq.settings import settings_of
from closeseq.watch import Monitor
from closeseq.watch.session import PacketClock, Session, SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from closeseq.capture.live import LiveCapture
    from closeseq.linux.owner_service import OwnerService
    from closeseq.packets.frames import Files
    from closeseq.settings import Settings
    from closeseq.watch.kernel_view import Witness
    from closeseq.watch.session import Clock, PacketSource


# Of the standard library and others, what is loaded late; closeseq's own modules are all loaded anyway.
LATE = ("importlib.metadata", "encodings.idna", "dpkt", "tabulate", "psutil", "unicodedata")


LEFT_OUT = ("closeseq.lab", "closeseq.__main__")  # a watch has no use for them


def load_everything() -> None:
    """Load closeseq's modules, and run one connection, that was never captured, down the whole road."""
    import closeseq

    for name in LATE:
        import_module(name)
    for module in pkgutil.walk_packages(closeseq.__path__, "closeseq."):
        if not module.name.startswith(LEFT_OUT):
            import_module(module.name)
    connection = closeseq.from_script("C:S S:SA C:A ~ C:FA S:A S:FA C:A")
    closeseq.record(connection)
    closeseq.format_timeline(connection)
    closeseq.__version__  # noqa: B018 - looking it up loads what tells it


Options = dict[str, Any]


def capture(expression: tuple[str, ...], given: Options) -> Status:
    """Run `live`."""
    settings = _settings(given)
    rotation = _rotation(given)
    with stopped_by_signals() as stop, ExitStack() as at_end:
        try:
            service = _owner_service(given, at_end)
            _enter_namespace(given)
            if service is not None:
                service.moved()
            source = at_end.enter_context(_opened(expression, given, settings))
        except NotPermittedError as error:
            return _not_permitted(error, given)
        except FilterError as error:
            complain(str(error))
            return Status.FILTER
        except DeviceError as error:
            complain(str(error))
            return Status.CAPTURE
        witness = _witness(given, settings, service, at_end)
        _give_up_root(given)
        try:
            save = _saver(given, rotation, source, at_end)
        except SaveError as error:
            raise Refusal(str(error)) from error
        name = ",".join(device.name for device in source.devices)
        clock = SystemClock()
        return _watch(name, source, clock, stop, given, settings=settings, witness=witness, save=save)


def following(path: str, given: Options) -> Status:
    """Run `follow`."""
    from closeseq.capture.follow import open_growing

    try:
        source = open_growing(path)
    except CaptureError as error:
        complain(str(error))
        return Status.CAPTURE
    with stopped_by_signals() as stop, source:
        settings = _settings(given)
        status = _watch(path, source, PacketClock(), stop, given, settings=settings, files=source.files)
        return Status.CAPTURE if source.incomplete and status is not Status.BUG else status


def _watch(
    name: str,
    source: PacketSource,
    clock: Clock,
    stop: Stop,
    given: Options,
    *,
    settings: Settings,
    witness: Witness | None = None,
    save: Callable[[Any, int], None] | None = None,
    files: Files | None = None,
) -> Status:
    """Watch a source until it is enough."""
    watch = Monitor(settings, capture=name, most=given["max_connections"])
    if files is not None:
        watch.reading.files = files
    session = Session(source, watch, clock, save=save, count=given["count"])
    output = _output(given)
    style = output.style(ascii_only=given["ascii_only"])
    wanted = Wanted(frozenset().union(*given["verdict"]), frozenset().union(*given["finding"]))
    teller = Teller(given["form"], output, style, wanted, witness)
    status = StatusLine()
    watching = Watching(
        session,
        teller,
        status,
        stop,
        Until(given["duration"], given["until_close"]),
        every=given["every"] or None,
        asked=" or ".join(
            [f"port {port}" for port in given["port"]] + [f"host {one}" for one in given["host"]]
        ),
        witness=witness,
        fail_on=frozenset().union(*given["fail_on"]),
    )
    return watching.run()


def _settings(given: Options) -> Settings:
    return settings_of(
        port=given["port"],
        host=given["host"],
        stuck_after=given["stuck_after"],
        os=given["os"],
        time_wait=given["time_wait"],
        fin_timeout=given["fin_timeout"],
    )


def _output(given: Options) -> Output:
    """Return where the report goes: not among the packets where these go to standard output."""
    return streamed(sys.stderr if given.get("write") == "-" else sys.stdout)


def _rotation(given: Options) -> Any:
    from closeseq.capture.saver import parse_rotation

    if not given["rotate"]:
        return None
    if given["write"] in {None, "-"}:
        raise Refusal("--rotate needs -w with the name of a file")
    try:
        return parse_rotation(given["rotate"])
    except ValueError as error:
        raise Refusal(str(error)) from error


def _opened(expression: tuple[str, ...], given: Options, settings: Settings) -> LiveCapture:
    from closeseq.capture.live import open_live

    return open_live(
        given["interface"],
        ports=settings.ports,
        hosts=settings.hosts,
        expression=" ".join(expression) or None,
        source=given["source"],
    )


def _not_permitted(error: Exception, given: Options) -> Status:
    from closeseq.cli.privileges import capability_command, needed_command

    text = f"{error}; this works: {needed_command(sys.argv[1:])}"
    if given["netns"] is None and given["pid"] is None:  # a capability to capture is enough
        text += f" (or, for good, without root: {capability_command(sys.argv[1:])})"
    complain(text, whole=True)
    return Status.NOT_PERMITTED


def _enter_namespace(given: Options) -> None:
    """Go to the network namespace that is asked for."""
    if given["netns"] is None and given["pid"] is None:
        return
    from closeseq.linux.namespaces import NamespaceError, NamespaceNotPermittedError, enter_named, enter_of

    if given["netns"] is not None and given["pid"] is not None:
        raise Refusal("--netns and --pid name two namespaces; one process is in one")
    try:
        if given["netns"] is not None:
            enter_named(given["netns"])
        else:
            enter_of(given["pid"])
    except NamespaceNotPermittedError as error:
        raise NotPermittedError(str(error)) from error
    except NamespaceError as error:
        raise Refusal(str(error)) from error


def _owner_service(given: Options, at_end: ExitStack) -> OwnerService | None:
    """Start what looks for owners; it is to keep the privileges that we are about to give up."""
    if given["kernel"] is False or sys.platform != "linux":
        return None
    from closeseq.errors import KernelError
    from closeseq.linux.owner_service import OwnerService

    try:
        return at_end.enter_context(OwnerService())
    except KernelError as error:
        if given["kernel"]:
            complain(str(error))
        return None


def _witness(
    given: Options,
    settings: Settings,
    service: OwnerService | None,
    at_end: ExitStack,
) -> Witness | None:
    """Return the kernel's word on the connections, where it can be had."""
    if given["kernel"] is False:
        return None
    from closeseq.errors import KernelError
    from closeseq.linux.socket_table import SocketTable
    from closeseq.watch.kernel_view import Witness, own_addresses

    try:
        table = at_end.enter_context(SocketTable())
    except KernelError as error:
        if given["kernel"]:
            raise Refusal(str(error)) from error
        return None
    return Witness(table, service, own_addresses(), settings.ports)


def _give_up_root(given: Options) -> None:
    """Become an ordinary user, before any packet is looked at and any file is written."""
    from closeseq.cli.privileges import ROOT, PrivilegeError, drop

    if hasattr(os, "geteuid") and os.geteuid() == ROOT and not given["no_drop"]:
        load_everything()
    try:
        drop(given["user"], no_drop=given["no_drop"])
    except PrivilegeError as error:
        raise Refusal(str(error)) from error


def _saver(
    given: Options, rotation: Any, source: LiveCapture, at_end: ExitStack
) -> Callable[[Any, int], None] | None:
    """Return what saves batches; at the end it notes how the capture ended."""
    if given["write"] is None:
        return None
    from closeseq.capture.live.live_capture import SNAP_LENGTH
    from closeseq.capture.saver import Saver
    from closeseq.capture.writers import SavedDevice

    devices = [SavedDevice(device.name, device.link_type, snaplen=SNAP_LENGTH) for device in source.devices]
    saver = Saver(given["write"], devices, rotation=rotation, force=given["force"])

    def finish() -> None:
        try:
            saver.lost(0, source.dropped)
            saver.close()
        except SaveError as error:  # an earlier one has been told when it happened, and is not raised again
            complain(str(error))

    at_end.callback(finish)
    return saver.write
