"""What `live` and `follow` set up, in the order that privileges require, and take down again."""

from __future__ import annotations

import os
import pkgutil
import sys
from contextlib import ExitStack
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, TextIO

from closeseq.cli.live_output import UpdateWriter
from closeseq.cli.live_run import LiveRun, Stop, stopped_by_signals
from closeseq.cli.metrics_output import MetricsOutput, MetricsServer
from closeseq.cli.output import streamed
from closeseq.cli.terminal import Refusal, Status, complain
from closeseq.errors import (
    CaptureError,
    DeviceError,
    FilterError,
    KernelError,
    NotPermittedError,
    SaveError,
)
from closeseq.watch import Monitor
from closeseq.watch.kernel_view import with_own_ports
from closeseq.watch.session import PacketClock, Session, SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from closeseq.capture.live import LiveCapture
    from closeseq.capture.saver import Rotation
    from closeseq.cli.requests import LiveRequest, MonitorRequest
    from closeseq.linux.owner_service import OwnerService
    from closeseq.packets.frames import Files, Frames
    from closeseq.settings import Settings
    from closeseq.watch.kernel_resets import KernelResets
    from closeseq.watch.kernel_view import KernelView
    from closeseq.watch.session import Clock, PacketSource

    Save = Callable[[Frames, int], None]  # a batch, and its device


LOOPBACK = "lo"  # what `live` watches unless it is told; a service's clients may come by another way


class MetricsPlaces(NamedTuple):
    """Where metrics go."""

    server: MetricsServer | None  # that is scraped
    path: str | None  # of a file


NO_METRICS = MetricsPlaces(None, None)


def run_live(request: LiveRequest) -> Status:
    """Run `live`; return the exit status.

    Raises:
        Refusal: the file to write, the namespace, the user, the rotation or the metrics are not to be had.
    """
    rotation, settings = _rotation(request), request.monitor.reading.settings
    with stopped_by_signals() as stop, ExitStack() as at_end:
        try:
            service = _owner_service(request, at_end)
            server = _metrics_server(request, at_end)  # where it was started, not in --netns
            _enter_namespace(request)
            if service is not None:
                service.moved()
            source = at_end.enter_context(_opened(request))
        except NotPermittedError as error:
            return _not_permitted(error, request)
        except (FilterError, DeviceError) as error:
            return not_opened(error)
        kernel = _kernel_view(request, service, at_end)
        give_up_root(request.user, no_drop=request.no_drop)
        try:
            save = _saver(request, rotation, source, at_end)
        except SaveError as error:
            raise Refusal(str(error)) from error
        if request.monitor.reading.ephemeral_ports is None:
            settings = with_own_ports(settings)
        name = ",".join(device.name for device in source.devices)
        # The report does not go among the packets, where these go to standard output.
        stream = sys.stderr if request.write == "-" else sys.stdout
        metrics = MetricsPlaces(server, request.metrics_file)
        return _run(
            request.monitor,
            settings,
            name,
            source,
            SystemClock(),
            stop=stop,
            stream=stream,
            kernel=kernel,
            save=save,
            metrics=metrics,
            hint=" (-i any: all interfaces)" if name == LOOPBACK else "",
        )


def run_follow(path: str, request: MonitorRequest) -> Status:
    """Run `follow`; return the exit status.

    Args:
        path: of the growing file; "-" for standard input.
        request: what is asked.
    """
    from closeseq.capture.follow import open_growing

    try:
        source = open_growing(path)
    except CaptureError as error:
        complain(str(error))
        return Status.CAPTURE
    with stopped_by_signals() as stop, source:
        settings = request.reading.settings
        status = _run(
            request, settings, path, source, PacketClock(), stop=stop, stream=sys.stdout, files=source.files
        )
        return Status.CAPTURE if source.incomplete and status is not Status.BUG else status


def _run(
    request: MonitorRequest,
    settings: Settings,
    name: str,
    source: PacketSource,
    clock: Clock,
    *,
    stop: Stop,
    stream: TextIO,
    kernel: KernelView | None = None,
    save: Save | None = None,
    files: Files | None = None,
    metrics: MetricsPlaces = NO_METRICS,
    hint: str = "",
) -> Status:
    """Run until there is a reason to stop, and report to the stream."""
    monitor = Monitor(settings, capture=name, most=request.max_connections)
    if files is not None:
        monitor.reading.files = files
    session = Session(source, monitor, clock, save=save, count=request.reading.count)
    output = streamed(stream)
    style = output.style(ascii_only=request.ascii)
    writer = UpdateWriter(request.form, output, style, request.wanted, kernel, population=request.population)
    counted = None
    if metrics != NO_METRICS:
        counted = MetricsOutput(monitor, *metrics)
    if metrics.server is not None:
        complain(f"metrics at {metrics.server.url}")
    return LiveRun(request, session, writer, stop, kernel, metrics=counted).run(hint)


def _rotation(request: LiveRequest) -> Rotation | None:
    from closeseq.capture.saver import parse_rotation

    if not request.rotate:
        return None
    try:
        return parse_rotation(request.rotate)
    except ValueError as error:
        raise Refusal(str(error)) from error


def _opened(request: LiveRequest) -> LiveCapture:
    from closeseq.capture.live import open_live

    settings = request.monitor.reading.settings
    return open_live(
        request.interface,
        ports=settings.ports,
        hosts=settings.hosts,
        expression=request.expression,
        source=request.source,
    )


def not_opened(error: FilterError | DeviceError) -> Status:
    """Report why no capture could be opened; return the exit status.

    Args:
        error: what was raised.
    """
    complain(str(error))
    return Status.FILTER if isinstance(error, FilterError) else Status.CAPTURE


def _not_permitted(error: Exception, request: LiveRequest) -> Status:
    """Report what is not permitted, with the commands that would be."""
    from closeseq.cli.privileges import capability_command, needed_command

    text = f"{error}; this works: {needed_command(sys.argv[1:])}"
    if request.netns is None and request.pid is None:  # a capability to capture is enough
        text += f" (or, permanently and without root: {capability_command(sys.argv[1:])})"
    complain(text, whole=True)
    return Status.NOT_PERMITTED


def _enter_namespace(request: LiveRequest) -> None:
    """Enter the network namespace that is asked for, if one is."""
    if request.netns is None and request.pid is None:
        return
    from closeseq.linux.namespaces import NamespaceError, NamespaceNotPermittedError, enter_named, enter_of

    if request.netns is not None and request.pid is not None:
        raise Refusal("--netns and --pid name two namespaces; one process is in one")
    try:
        if request.netns is not None:
            enter_named(request.netns)
        elif request.pid is not None:
            enter_of(request.pid)
    except NamespaceNotPermittedError as error:
        raise NotPermittedError(str(error)) from error
    except NamespaceError as error:
        raise Refusal(str(error)) from error


def _metrics_server(request: LiveRequest, at_end: ExitStack) -> MetricsServer | None:
    """Return what serves the metrics, and does not answer yet; None if they are not wanted there."""
    return None if request.metrics is None else at_end.enter_context(MetricsServer(*request.metrics))


def _owner_service(request: LiveRequest, at_end: ExitStack) -> OwnerService | None:
    """Start the process that finds owners; it keeps the privileges that this one gives up."""
    if request.kernel is False or sys.platform != "linux":
        return None
    from closeseq.linux.owner_service import OwnerService

    try:
        return at_end.enter_context(OwnerService())
    except KernelError as error:
        if request.kernel:
            complain(str(error))
        return None


def _kernel_view(request: LiveRequest, service: OwnerService | None, at_end: ExitStack) -> KernelView | None:
    """Return the kernel's view of the connections; None where it is not wanted or not possible."""
    if request.kernel is False:
        return None
    from closeseq.linux.socket_table import SocketTable
    from closeseq.watch.kernel_view import KernelView, own_addresses

    try:
        table = at_end.enter_context(SocketTable())
    except KernelError as error:
        if request.kernel:
            raise Refusal(str(error)) from error
        return None
    settings = request.monitor.reading.settings
    resets = _kernel_resets(request, at_end)
    return KernelView(table, service, own_addresses(), settings.ports, resets, hosts=settings.hosts)


def _kernel_resets(request: LiveRequest, at_end: ExitStack) -> KernelResets | None:
    """Return what knows why the kernel sends a RST; None where it does not let us know."""
    from closeseq.linux.reset_trace import ResetTrace
    from closeseq.watch.kernel_resets import KernelResets

    try:
        return KernelResets(at_end.enter_context(ResetTrace()))
    except KernelError as error:
        if request.kernel:
            complain(f"the kernel's reasons for RSTs are not shown: {error}")
        return None


def give_up_root(user: str | None = None, *, no_drop: bool = False) -> None:
    """Become an ordinary user, before any packet is decoded and any file is written.

    Args:
        user: name or number of the user to become; None: who called sudo, and without sudo root stays root.
        no_drop: stay what we are.

    Raises:
        Refusal: there is no such user, or we cannot become that user.
    """
    from closeseq.cli.privileges import ROOT, PrivilegeError, drop

    if hasattr(os, "geteuid") and os.geteuid() == ROOT and not no_drop:
        load_everything()
    try:
        drop(user, no_drop=no_drop)
    except PrivilegeError as error:
        raise Refusal(str(error)) from error


# Modules of others that are imported late; all of closeseq's own are imported anyway.
LATE = ("importlib.metadata", "encodings.idna", "dpkt", "tabulate", "psutil", "unicodedata")
# Not needed live; the first imports pytest, which is there for developers only.
LEFT_OUT = ("closeseq.pytest_plugin", "closeseq.lab", "closeseq.__main__")


def load_everything() -> None:
    """Import closeseq's modules, and analyse one made-up connection: the next user may not read them."""
    import closeseq

    for name in LATE:
        import_module(name)
    for module in pkgutil.walk_packages(closeseq.__path__, "closeseq."):
        if not module.name.startswith(LEFT_OUT):
            import_module(module.name)
    connection = closeseq.from_script("C:S S:SA C:A ~ C:FA S:A S:FA C:A")
    closeseq.record(connection)
    closeseq.format_timeline(connection)
    closeseq.__version__  # noqa: B018 - looking it up imports what finds it


def _saver(
    request: LiveRequest, rotation: Rotation | None, source: LiveCapture, at_end: ExitStack
) -> Save | None:
    """Return what saves a batch, None without -w; at the end the file records how many packets were lost."""
    if request.write is None:
        return None
    from closeseq.capture.live.live_capture import SNAP_LENGTH
    from closeseq.capture.saver import Saver
    from closeseq.capture.writers import SavedDevice

    devices = [SavedDevice(device.name, device.link_type, snaplen=SNAP_LENGTH) for device in source.devices]
    saver = Saver(request.write, devices, rotation=rotation, force=request.force)

    def finish() -> None:
        try:
            saver.lost(0, source.dropped)
            saver.close()
        except SaveError as error:  # an earlier one was reported when it happened, and is not raised again
            complain(str(error))

    at_end.callback(finish)
    return saver.write
