"""Counters of a real capture: bursts of real closes on loopback, and what Prometheus would fetch."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from closeseq.cli import metrics_output
from closeseq.cli.main import run
from closeseq.cli.metrics_output import MetricsServer
from closeseq.cli.terminal import Refusal
from closeseq.watch.metrics import CONTENT_TYPE, dashboard
from live_namespace import PATIENCE, ended, needs_network
from live_namespace import net as net  # noqa: PLC0414 - a fixture

# argv: port, how many connections, who ends them: client or server closes, or client resets.
BURST = """
import socket, struct, sys
port, number, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with socket.create_server(("127.0.0.1", port), backlog=256) as listener:
    pairs = []
    for _ in range(number):
        client = socket.create_connection(("127.0.0.1", port))
        pairs.append((client, listener.accept()[0]))
    for client, server in pairs:
        client.sendall(b"hello")
        server.recv(100)
    for client, server in pairs:
        first, second = (server, client) if how == "server" else (client, server)
        if how == "reset":
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        first.close()
        if how != "reset":
            second.recv(100)
        second.close()
"""
FETCH = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=5).read().decode(), end='')"


def values(page):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def closes(page):
    """Return the closes that are not 0, by (port, verdict, initiator)."""
    found = {}
    for (name, pairs), value in values(page).items():
        if name == "closeseq_closes_total" and value:
            one = dict(pairs)
            found[one["port"], one["verdict"], one["initiator"]] = value
    return found


def until(look, wanted):
    """Return what `look` returns, as soon as it is what is wanted, or when it is too late."""
    deadline = time.monotonic() + PATIENCE
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.3)
    return found


def burst(net, port, number, how):
    net.run(sys.executable, "-c", BURST, port, number, how)


EXPECTED = {
    ("8080", "graceful", "client"): 150,
    ("8080", "graceful", "server"): 90,
    ("8080", "reset", "client"): 40,
    ("9090", "graceful", "client"): 30,
}


@needs_network
def test_bursts_of_real_closes_are_counted_and_the_records_are_as_ever(net, tmp_path):
    file = tmp_path / "closeseq.prom"
    asked = ["-p", "8080", "-p", "9090", "-f", "jsonl", "--metrics", ":0", "--metrics-file", file]
    with (tmp_path / "out").open("w") as out, net.live(*asked, stdout=out) as process:
        assert process.said.startswith("closeseq: metrics at http://127.0.0.1:")
        url = process.said.split()[-1]

        def page():
            return net.run(sys.executable, "-c", FETCH, url)

        assert closes(page()) == {}
        burst(net, 8080, 150, "client")
        burst(net, 8080, 90, "server")
        burst(net, 8080, 40, "reset")
        burst(net, 9090, 30, "client")
        burst(net, 7070, 10, "client")  # which nobody asked for
        assert until(lambda: closes(page()), EXPECTED) == EXPECTED
        found = values(page())
        assert found["closeseq_connections_total", ()] == 310
        assert found["closeseq_lost_packets_total", ()] == 0
        assert found["closeseq_open_connections", ()] == 0
        assert found["closeseq_close_duration_seconds_count", (("port", "8080"),)] == 240
        assert found["closeseq_close_duration_seconds_count", (("port", "9090"),)] == 30
        assert found["closeseq_sockets", (("endpoint", "client"), ("state", "TIME_WAIT"))] == 180
        assert found["closeseq_sockets", (("endpoint", "server"), ("state", "TIME_WAIT"))] == 90
        _, said = ended(process)
    assert "Traceback" not in said
    assert process.returncode == 0
    assert closes(file.read_text()) == EXPECTED
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []
    assert len((tmp_path / "out").read_text().splitlines()) == 310


@needs_network
def test_a_leak_is_in_the_gauge_and_the_finding_counts_once(net):
    with net.live("-p", "8080", "--stuck-after", "1", "-f", "summary", "--metrics", ":0") as process:
        url = process.said.split()[-1]

        def seen():
            found = values(net.run(sys.executable, "-c", FETCH, url))
            waiting = (("endpoint", "server"), ("state", "CLOSE_WAIT"))
            code = (("code", "stuck-close-wait"), ("port", "8080"))
            return found["closeseq_sockets", waiting], found["closeseq_findings_total", code]

        with net.talking(wait=30):
            assert until(seen, (1, 1)) == (1, 1)
            time.sleep(2)
            assert seen() == (1, 1)
        assert until(seen, (0, 1)) == (0, 1)  # the program is gone, and its socket
        out, _ = ended(process)
    assert "stuck-close-wait" in out


@needs_network
def test_the_page_is_where_closeseq_was_started_and_its_owner_is_who_called_sudo(net, tmp_path):
    """Not in the namespace that it captures in; and not root's any more."""
    tmp_path.chmod(0o777)
    caller = {"SUDO_UID": "65534", "SUDO_GID": "65534", "SUDO_USER": "nobody"}
    file = tmp_path / "closeseq.prom"
    command = [sys.executable, "-m", "closeseq", "live", "--pid", str(net.pid), "-p", "8080", "-f", "summary"]
    command += ["--metrics", "127.0.0.1:0", "--metrics-file", str(file)]
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            file = None
    if file is None:  # nobody may not go there
        command = command[:-2]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | caller
    ) as process:
        url = process.stderr.readline().split()[-1]
        process.stderr.readline()
        burst(net, 8080, 5, "client")

        def page():
            with urlopen(url, timeout=5) as answer:
                return closes(answer.read().decode())

        expected = {("8080", "graceful", "client"): 5}
        assert until(page, expected) == expected
        with Path(f"/proc/{process.pid}/status").open(encoding="ascii") as lines:
            users = [line.split()[1:] for line in lines if line.startswith("Uid:")]
        assert users == [["65534"] * 4]
        if file is not None:
            assert file.stat().st_uid == 65534
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0


@contextlib.contextmanager
def serving(page=b"a 1\n"):
    with MetricsServer("127.0.0.1", 0) as server:
        server.page = page
        server.start()
        yield server, int(server.url.split(":")[2].partition("/")[0])


def asked(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(data)
        found = b""
        while more := client.recv(65536):
            found += more
    return found


def test_it_serves_the_page_and_says_what_it_is():
    page = b"a 1\n" * 100_000
    with serving(page) as (server, port):
        with urlopen(server.url, timeout=5) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            assert answer.read() == page
        with urlopen(f"{server.url}?name=value", timeout=5) as answer:
            assert answer.status == 200
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
        assert connection.getresponse().read() == page
        connection.close()


@pytest.mark.parametrize("path", ["", "/", "/metrics/", "/metrics/../etc/passwd", "/Metrics", "//metrics"])
def test_there_is_nothing_else(path):
    with serving() as (_, port):
        assert asked(port, f"GET {path or '/favicon.ico'} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).startswith(
            b"HTTP/1.1 404 Not Found\r\n"
        )


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "get"])
def test_there_is_only_get(method):
    with serving() as (_, port):
        answer = asked(port, f"{method} /metrics HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"\r\nAllow: GET\r\n" in answer
    assert b"a 1" not in answer


@pytest.mark.parametrize(
    "data", [b"\r\n\r\n", b"GET /metrics\r\n\r\n", b"\0\xff\r\n\r\n", b"\x16\x03\x01\x02\0\r\n\r\n"]
)
def test_what_is_no_request_is_refused(data):
    with serving() as (_, port):
        assert asked(port, data).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_request_that_does_not_end_is_refused():
    with serving() as (_, port):
        answer = asked(port, b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 2000)
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_clients_that_say_nothing_hold_up_nobody_for_long(monkeypatch):
    monkeypatch.setattr(metrics_output, "PATIENCE", 0.5)
    with serving() as (server, port), contextlib.ExitStack() as at_end:
        for _ in range(30):
            client = at_end.enter_context(socket.socket())
            client.settimeout(5)
            client.setblocking(False)  # where the backlog is full
            with contextlib.suppress(BlockingIOError):
                client.connect(("127.0.0.1", port))
        began, threads = time.monotonic(), threading.active_count()
        with urlopen(server.url, timeout=20) as answer:
            assert answer.read() == b"a 1\n"
        assert time.monotonic() - began < 15
        assert threads <= 4 + 8
        deadline = time.monotonic() + 10  # and their descriptors are given back
        while _connected(port) and time.monotonic() < deadline:
            time.sleep(0.1)


def _connected(port):
    with Path("/proc/net/tcp").open(encoding="ascii") as lines:
        return sum(f":{port:04X} " in line and " 01 " in line for line in lines)


def test_after_the_end_nobody_listens():
    with serving() as (_, port):
        pass
    with pytest.raises(ConnectionRefusedError):
        asked(port, b"GET /metrics HTTP/1.1\r\n\r\n")


def test_an_address_that_is_in_use_costs_one_line():
    with (
        serving() as (_, port),
        pytest.raises(Refusal, match="cannot be listened on: Address already in use"),
    ):
        MetricsServer("127.0.0.1", port)


def test_it_listens_on_ipv6_too():
    try:
        server = MetricsServer("::1", 0)
    except Refusal as error:
        pytest.skip(str(error))
    with server:
        server.page = b"b 2\n"
        server.start()
        assert server.url.startswith("http://[::1]:")
        with urlopen(server.url, timeout=5) as answer:
            assert answer.read() == b"b 2\n"
        with pytest.raises(HTTPError, match="404"):
            urlopen(server.url.replace("metrics", "x"), timeout=5)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (":9469", ("127.0.0.1", 9469)),
        ("9469", ("127.0.0.1", 9469)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:9469", ("::1", 9469)),
    ],
)
def test_an_address_and_port(text, meant):
    from closeseq.cli.options import listening

    assert listening(text) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not end with a port"),
        ("localhost:9469", "names are never looked up"),
        (":65536", "does not end with a port"),
        (":x", "does not end with a port"),
        ("::1:9469", "write an IPv6 address in brackets"),
    ],
)
def test_what_is_no_address_costs_one_line(text, said, capsys):
    assert run(["live", "--metrics", text]) == 2
    assert said in capsys.readouterr().err


@needs_network
def test_a_file_that_cannot_be_written_is_refused_at_once(net):
    with net.live("--metrics-file", "/nowhere/closeseq.prom") as process:
        assert process.wait(PATIENCE) == 2
    assert process.said == ("closeseq: /nowhere/closeseq.prom cannot be written: No such file or directory\n")


@needs_network
def test_a_device_is_not_replaced_by_a_file(net, tmp_path):
    pipe = tmp_path / "pipe"  # as /dev/null would be, which a test must not risk
    os.mkfifo(pipe)
    with net.live("--metrics-file", str(pipe)) as process:
        assert process.wait(PATIENCE) == 2
    assert process.said == f"closeseq: {pipe} cannot be written: it is no regular file\n"
    assert pipe.is_fifo()


def test_the_board_is_printed_without_any_privilege(capsys):
    assert run(["live", "--grafana"]) == 0
    assert capsys.readouterr().out == dashboard()
