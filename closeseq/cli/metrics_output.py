"""Where the metrics go: a page that Prometheus fetches, and a file that node_exporter's collector reads.

The page is made now and then by the process that captures. Who asks for it gets the last one: no request can
hold up the capture, or read anything else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

from closeseq.cli.terminal import Refusal, complain
from closeseq.watch.metrics import CONTENT_TYPE, Metrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from closeseq.watch.monitor import Monitor
    from closeseq.watch.updates import Updates

RENEWED = 1.0  # seconds after which the page is made anew
FILE_RENEWED = 5.0  # and the file
MODE = 0o644  # of the file: the collector is another user
LONGEST = 4096  # bytes of a request
PATIENCE = 2.0  # seconds for a whole request
AT_ONCE = 4  # requests
WAITING = 16  # more that wait to be accepted
WAITING_WITHIN = 4  # and accepted ones that wait for one of the first
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
}


class MetricsServer:
    """Serves the page at `GET /metrics`, and nothing else. It listens at once, and answers after `start`.

    Args:
        host: the address to listen on.
        port: and the port; 0 for any that is free.

    Raises:
        Refusal: that address cannot be listened on.
    """

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.bind((host, port))
            self._socket.listen(WAITING)
        except (OSError, OverflowError) as error:
            self._socket.close()
            where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            raise Refusal(f"{where} cannot be listened on: {getattr(error, 'strerror', error)}") from error
        self.page = b""
        self._room = threading.Semaphore(AT_ONCE + WAITING_WITHIN)
        self._pool = ThreadPoolExecutor(AT_ONCE, "metrics")
        self._thread = threading.Thread(target=self._accept, name="metrics", daemon=True)

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}/metrics" if ":" in host else f"http://{host}:{port}/metrics"

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # ends `accept`
        self._socket.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _accept(self) -> None:
        while True:
            self._room.acquire()
            try:
                client, _ = self._socket.accept()
            except OSError:
                if self._socket.fileno() < 0 or not _listens(self._socket):
                    return
                self._room.release()
                time.sleep(0.1)  # no descriptor is left, or the client is gone already
                continue
            try:
                self._pool.submit(self._serve, client)
            except RuntimeError:  # it is being closed
                client.close()
                return

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, contextlib.suppress(OSError):
                until = time.monotonic() + PATIENCE
                status = _asked(client, until)
                body = self.page if status == 200 else f"{REASONS[status]}\n".encode()  # noqa: PLR2004
                kind = CONTENT_TYPE if status == 200 else "text/plain; charset=utf-8"  # noqa: PLR2004
                head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {kind}\r\n"
                head += f"Content-Length: {len(body)}\r\nConnection: close\r\n"
                head += "Allow: GET\r\n\r\n" if status == 405 else "\r\n"  # noqa: PLR2004
                client.settimeout(max(until - time.monotonic(), 0.1))
                client.sendall(head.encode() + body)
                client.shutdown(socket.SHUT_WR)
                while until > (now := time.monotonic()):  # or what it still sends would reset the connection
                    client.settimeout(until - now)
                    if not client.recv(LONGEST):
                        break
        finally:
            self._room.release()


def _listens(listener: socket.socket) -> bool:
    try:
        return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def _asked(client: socket.socket, until: float) -> int:
    """Read a request; return the status of its answer. Raises OSError if it does not come in time."""
    request = b""
    while b"\r\n\r\n" not in request and b"\n\n" not in request:
        if len(request) >= LONGEST:
            return 431
        client.settimeout(max(until - time.monotonic(), 0.001))
        more = client.recv(LONGEST - len(request))
        if not more:
            return 400
        request += more
    words = request.split(b"\n", 1)[0].split()
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):  # noqa: PLR2004 - method, path, version
        return 400
    if words[1].partition(b"?")[0] != b"/metrics":
        return 404
    return 200 if words[0] == b"GET" else 405


class MetricsOutput:
    """Counts updates, and renews page and file.

    Args:
        monitor: what is counted.
        server: of the page; None for none.
        path: of the file; None for none.

    Raises:
        Refusal: the file cannot be written.
    """

    def __init__(self, monitor: Monitor, server: MetricsServer | None, path: str | None) -> None:
        self._metrics = Metrics(monitor, monitor.settings.ports)
        self._server = server
        self._path = path
        self._failed = False  # the file could not be written the last time
        self._page_due = self._file_due = 0.0
        page = self._metrics.page(0)
        try:
            self._write(page)
        except OSError as error:
            raise Refusal(f"{path} cannot be written: {error.strerror}") from error
        if server is not None:
            server.page = page.encode()
            server.start()

    def take(self, updates: Iterable[Updates]) -> None:
        """Count updates; before the monitor is fed again."""
        self._metrics.take(updates)

    def renew(self, lost: int, *, now: bool = False) -> None:
        """Renew page and file, if it is time to.

        Args:
            lost: packets that the capture has lost so far.
            now: it is time.
        """
        moment = time.monotonic()
        page_due = self._server is not None and moment >= self._page_due
        file_due = self._path is not None and moment >= self._file_due
        if not (page_due or file_due or now):
            return
        page = self._metrics.page(lost)
        if self._server is not None:
            self._server.page, self._page_due = page.encode(), moment + RENEWED
        if file_due or now:
            self._file_due = moment + FILE_RENEWED
            self._renew_file(page)

    def _renew_file(self, page: str) -> None:
        try:
            self._write(page)
        except OSError as error:
            if not self._failed:
                complain(f"{self._path} cannot be written: {error.strerror}; trying again")
            self._failed = True
        else:
            self._failed = False

    def _write(self, page: str) -> None:
        """Write the file under another name, which the collector does not read, and rename it.

        Raises:
            OSError: it cannot be written, or is no regular file: renaming would put a file in the place of
                /dev/null.
        """
        if self._path is None:
            return
        target = Path(self._path)
        if target.exists() and not target.is_file():
            raise FileExistsError(errno.EEXIST, "it is no regular file")
        temporary = target.with_name(f".closeseq.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(page)
            temporary.chmod(MODE)  # whatever the umask is
            temporary.replace(target)
        finally:
            with contextlib.suppress(OSError):  # it was renamed, or there never was one
                temporary.unlink()
