"""The pytest plugin, in test suites of its own, with real servers that close and others that leak."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import closeseq
import closeseq.testing  # here, since a suite that runs in this process forgets what it has imported
from closeseq import pytest_plugin
from closeseq.testing import assertions, packet_watch
from machine import needs
from places import CAPTURES, ROOT

pytest_plugins = ["pytester"]

assert pytest_plugin
assert assertions
assert packet_watch

README = (ROOT / "README.md").read_text()
needs_packets = needs("packets of loopback")

# A server on loopback that closes when its client does, unless it is told to leak or to reset.
SERVER = """
import socket, struct, threading, pytest

@pytest.fixture
def server():
    listener, kept = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            kept.append(connection)
            threading.Thread(target=answer, args=[connection], daemon=True).start()

    def answer(connection):
        while told := connection.recv(100):
            connection.sendall(told)
            if told == b"leak":
                return
            if told == b"reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                break
        connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for connection in kept:
        connection.close()

@pytest.fixture
def tell(server):
    def tell(word):
        with socket.create_connection(("127.0.0.1", server)) as client:
            client.sendall(word)
            client.recv(100)
            if word == b"reset":
                with pytest.raises(ConnectionResetError):
                    client.recv(100)
    return tell
"""


@pytest.fixture
def suite(pytester):
    """Return a function that runs a test module with the plugin, and pytest's arguments."""
    pytester.makeconftest(SERVER)

    def run(code, *arguments, inside=True):
        pytester.makepyfile(test_shop=code)
        # Where the package is installed the plugin is there already, under its other name.
        options = [
            "-p",
            "no:closeseq",
            "-p",
            "no:cacheprovider",
            "-W",
            "error",
            "--strict-markers",
            *arguments,
        ]
        if inside:
            return pytester.runpytest_inprocess(*options, plugins=[pytest_plugin])
        return pytester.runpytest_subprocess("-p", "closeseq.pytest_plugin", *options)

    return run


LEAK = """
def test_leak(closes, server, tell):
    tell(b"hello")
    tell(b"leak")
    closes.on(server).none_stuck(after=0.4)
"""


@needs_packets
def test_a_clean_server_passes_and_leaves_no_capture(suite, pytester):
    done = suite(
        """
def test_clean(closes, server, tell):
    tell(b"hello")
    tell(b"hello")
    closes.on(server).all_graceful(at_least=2).none_stuck(after=2).without("reset", "stuck-close-wait")
    assert {one.initiator for one in closes.on(server).connections()} == {"client"}
""",
        "--closes-dir=kept",
    )
    done.assert_outcomes(passed=1)
    assert not list((pytester.path / "kept").iterdir())


@needs_packets
def test_a_leaking_server_fails_with_its_timeline_and_advice(suite, pytester):
    done = suite(LEAK, "--closes-dir=kept")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            ">       closes.on(server).none_stuck(after=0.4)",  # the test's own line, not one of the plugin's
            "E * 1 of 2 connections at port * waited in vain for 400 ms or longer",
            "E *#*  127.0.0.1:* 127.0.0.1:* closing: client*",
            "E * FIN_WAIT_1 * FIN ACK * CLOSE_WAIT*",
            "E * ! stuck-close-wait (server): the server received the client's FIN *",
            "E * fix the program at the server 127.0.0.1:*",
            "E *capture: *test_shop.py-test_leak-*.pcapng",
        ]
    )
    # The other one closed. Where CI is set, pytest's summary has the whole message once more.
    assert len(re.findall(r"^E +#\d+  127.0.0.1", done.stdout.str(), re.MULTILINE)) == 1
    (kept,) = (pytester.path / "kept").iterdir()
    # Other programs have connections on loopback too.
    port = int(re.search(r"connections at port (\d+)", done.stdout.str())[1])
    analysis = closeseq.analyze(str(kept), stuck_after=0.4, port=port)
    assert [one.has("stuck-close-wait") for one in analysis] == [False, True]


@needs_packets
def test_a_server_that_leaks_did_not_close_gracefully(suite):
    done = suite(LEAK.replace("none_stuck(after=0.4)", "all_graceful(within=0.2)"))
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["E *1 of 2 connections at port * did not close gracefully (waited *s)"])


@needs_packets
def test_a_late_close_is_waited_for_and_no_longer_than_needed(suite):
    suite("""
import threading, time, socket
def test_late(closes, server):
    client = socket.create_connection(("127.0.0.1", server))
    threading.Timer(0.5, client.close).start()
    began = time.monotonic()
    closes.on(server).all_graceful(within=60).none_stuck(after=60)
    assert 0.4 < time.monotonic() - began < 30
""").assert_outcomes(passed=1)


RESET = """
import pytest
MARK
def test_reset(closes, server, tell):
    tell(b"reset")
    closes.on(server).all_graceful(within=60)
"""


@needs_packets
def test_a_reset_is_no_graceful_close_and_is_not_waited_for(suite):
    done = suite(RESET.replace("MARK", ""))
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["E *1 of 1 connection at port * did not close gracefully", "E * RST *"])
    assert done.duration < 30


@needs_packets
def test_what_is_known_is_allowed(suite):
    known = '@pytest.mark.closes_allow("{}", reason="ticket 12")'
    suite(RESET.replace("MARK", known.format("reset"))).assert_outcomes(passed=1)
    suite(RESET.replace("MARK", known.format("reset-cause"))).assert_outcomes(passed=1)
    suite(RESET.replace("MARK", known.format("stuck-close-wait"))).assert_outcomes(failed=1)
    done = suite(RESET.replace("MARK", known.format("resett")))
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["closes: 'resett' is no state, verdict or finding; did you mean *"])
    done = suite(RESET.replace("MARK", known.format("TIME_WAIT")))
    done.stdout.fnmatch_lines(["closes: 'TIME_WAIT' is a state, not a verdict or a finding"])


@needs_packets
def test_an_allowed_finding_excuses_no_other(suite):
    code = f"import pytest\n@pytest.mark.closes_allow('half-close', 'data-after-close')\n{LEAK.strip()}"
    suite(code).assert_outcomes(failed=1)
    code = code.replace("'data-after-close'", "'stuck-close-wait', 'stuck-fin-wait-2'")
    suite(code).assert_outcomes(passed=1)


@needs_packets
def test_without_a_connection_nothing_holds(suite):
    done = suite("""
def test_nothing(closes, server):
    closes.on(server).none_stuck(after=0, at_least=0).without("reset", at_least=0)
    closes.on(server).all_graceful(within=0.1)
""")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["E *no connection at port * seen, at least 1 expected"])


@needs_packets
def test_a_connection_of_an_earlier_test_is_left_out_unless_asked_for(suite):
    suite("""
import socket, time, pytest
@pytest.fixture
def before(server):
    with socket.create_connection(("127.0.0.1", server)) as client:
        client.sendall(b"leak")
        client.recv(100)
        yield client

def test_one(before, closes, server, tell):
    tell(b"hello")
    before.close()
    closes.on(server).all_graceful(at_least=1).none_stuck(after=0.2)
    with pytest.raises(AssertionError, match="2 connections"):
        closes.on(server, earlier=True).none_stuck(after=0.2)
    with pytest.raises(AssertionError, match="1 connection not looked at: opened before"):
        closes.on(server).all_graceful(within=0, at_least=2)
""").assert_outcomes(passed=1)


@needs_packets
def test_connections_of_other_ports_and_hosts_do_not_matter(suite):
    suite("""
import socket
def test_other(closes, server, tell):
    tell(b"leak")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", other)), listener.accept()[0] as accepted:
            pass
        closes.on(other).all_graceful()
        closes.on(other, server, host="127.0.0.2").none_stuck(after=0.1, at_least=0)
""").assert_outcomes(passed=1)


@needs_packets
def test_an_event_loop_is_not_held_up(suite):
    done = suite("""
import asyncio

async def echo(reader, writer):
    try:
        while told := await reader.read(100):
            writer.write(told)
        await asyncio.sleep(0.1)
    finally:
        writer.close()

async def talk(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    await reader.read(100)
    writer.close()
    await writer.wait_closed()

async def settled(closes):
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await talk(port)
        (await closes.on(port).settled(30)).all_graceful()

async def hasty(closes):
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await talk(port)
        closes.on(port).all_graceful(within=30)

def test_settled(closes):
    asyncio.run(settled(closes))

def test_hasty(closes):
    asyncio.run(hasty(closes))
""")
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(["E *an event loop runs in this thread, so nothing was waited for: first `*"])
    assert done.duration < 25


@needs_packets
@pytest.mark.parametrize("workers", [0, 2])
def test_the_capture_is_kept_beside_the_junit_file_which_names_it(suite, pytester, workers):
    code = LEAK + "\ndef test_other(closes):\n    assert closes.capture == 1\n"
    done = suite(code, "--junitxml=out/junit.xml", f"-n{workers}", inside=not workers)
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(["*- closeseq -*", "capture: */out/test_shop.py-test_leak-*.pcapng"])
    kept = sorted(path for path in (pytester.path / "out").iterdir() if path.suffix == ".pcapng")
    properties = ET.parse(pytester.path / "out/junit.xml").getroot().iter("property")
    named = [one.get("value") for one in properties if one.get("name") == "closes_capture"]
    assert sorted(named) == [*map(str, kept)]
    assert len(kept) == 2


@needs_packets
def test_the_captures_of_all_tests_are_kept_if_asked_for(suite, pytester):
    code = """
def test_clean(closes, server, tell):
    tell(b"hello")
    closes.on(server).all_graceful()
    print(f"port {server}.")
"""
    for _ in range(2):  # the second replaces what the first has left
        done = suite(code, "--closes-dir=kept", "--closes-keep=all", "-s")
        done.assert_outcomes(passed=1)
        (kept,) = (pytester.path / "kept").iterdir()
        port = int(re.search(r"port (\d+)\.", done.stdout.str())[1])
        assert [one.verdict for one in closeseq.analyze(str(kept), port=port)] == ["graceful"]


def test_a_saved_capture_needs_no_rights(suite):
    done = suite(
        f"""
from pathlib import Path
import pytest
def test_clean(closes):
    closes.read("{CAPTURES}/server-closes.pcap").on(8080).all_graceful().none_stuck(after=2)

def test_leak(closes):
    closes.read(Path("{CAPTURES}/leaky-server.pcap")).on(8080).none_stuck(after=2)

def test_no_port(closes):
    with pytest.raises(TypeError):
        closes.read("{CAPTURES}/leaky-server.pcap").on()
""",
        "-o",
        "closes_interface=lo",
    )
    done.assert_outcomes(passed=2, failed=1)
    done.stdout.fnmatch_lines(
        [
            "E *5 of 5 connections at port 8080 waited in vain for 2 s or longer",
            f"E *2 more: closeseq timeline {CAPTURES}/leaky-server.pcap -p 8080",
        ]
    )


def test_no_interface_of_that_name_is_an_error_in_one_line(suite):
    done = suite("def test_x(closes):\n    pass\n", "-o", "closes_interface=no-such-one")
    if done.parseoutcomes().get("errors"):
        done.stdout.fnmatch_lines(["closes: *no-such-one*"])
        assert "Traceback" not in done.stdout.str()
    else:  # without rights nothing is opened, whatever its name
        done.assert_outcomes(passed=1)


WITHOUT = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--"]


@needs("setpriv", root=True)
@pytest.mark.parametrize("required", [False, True])
def test_without_rights_it_skips_and_says_what_to_do(pytester, required):
    code = f"""
def test_live(closes):
    print("reached")
    closes.on(1).all_graceful()

def test_saved(closes):
    closes.read("{CAPTURES}/server-closes.pcap").on(8080).all_graceful()
"""
    path = pytester.makepyfile(test_shop=code)
    options = ["-rs", "-p", "no:closeseq", "-p", "closeseq.pytest_plugin", "-p", "no:cacheprovider"]
    command = [*WITHOUT, sys.executable, "-m", "pytest", *options, path.name]
    done = subprocess.run(
        [*command, *(["--closes-required"] if required else [])],
        cwd=pytester.path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "500"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == required, done.stdout
    summary = done.stdout.splitlines()[-1]
    assert "1 passed" in summary
    assert f"1 {'failed' if required else 'skipped'}" in summary
    assert "run the tests as root, or on a loopback of their own: unshare " in done.stdout


@needs_packets
@pytest.mark.parametrize("word", ["hello", "leak"])
def test_the_example_of_the_readme_passes_and_fails_as_it_says(suite, word, monkeypatch):
    ((code, shown),) = re.findall(r"```python pytest\n(.*?)```.*?```\n(.*?)```", README, re.DOTALL)
    made = f"""
import socket
from types import SimpleNamespace
import pytest

@pytest.fixture
def server(server):
    return SimpleNamespace(port=server)

def fetch(port):
    for word in (b"hello", b"{word}"):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(word)
            client.recv(100)

"""
    if word == "leak":
        # The ACK of the client's FIN is delayed by 40 ms. A look in the 40 ms in which the server has waited
        # for two seconds, and the client has not, would show the client without a finding.
        monkeypatch.setattr(assertions, "LOOK_AGAIN", 2.3)
        code = "\n".join(line for line in code.splitlines() if "all_graceful" not in line)
    done = suite(made + code)
    done.assert_outcomes(passed=word == "hello", failed=word == "leak")
    if word == "leak":
        for line in (
            line for line in shown.splitlines() if line.startswith("E   ") and "capture:" not in line
        ):
            assert telling(line) in telling(done.stdout.str()), line


def telling(text):
    """Return a text without numbers, and without the lines into which it was broken."""
    lines = [line.removeprefix("E  ") for line in text.splitlines()]
    return re.sub(r"[\d.,]+", "0", " ".join(" ".join(lines).split()))


def test_a_suite_that_does_not_use_it_loads_nothing_of_closeseq(pytester):
    pytester.makepyfile(
        test_shop="""
import sys
def test_nothing():
    loaded = {name for name in sys.modules if name.split(".")[0] == "closeseq"}
    assert loaded <= {"closeseq", "closeseq.pytest_plugin"}
    assert "numpy" not in sys.modules
"""
    )
    options = ["-p", "no:closeseq", "-p", "closeseq.pytest_plugin", "-p", "no:hypothesispytest"]
    done = pytester.runpytest_subprocess(*options)
    done.assert_outcomes(passed=1)


def test_pytest_finds_the_plugin_where_closeseq_is_installed():
    declared = (ROOT / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\ncloseseq = "closeseq.pytest_plugin"\n' in declared
    assert Path(pytest_plugin.__file__).stem == "pytest_plugin"
