"""`closeseq live` on the real kernel: packets, privileges, signals, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

import closeseq
from closeseq.cli.live_output import BLOCKS
from forked import PIPE, Forked, run_forked
from live_namespace import PATIENCE, ROOT, ended, needs_network
from live_namespace import net as net  # noqa: PLC0414 - a fixture
from machine import needs
from record_schema import assert_valid
from terminal import drain

pytestmark = needs_network
NOBODY = 65534


def records(text):
    return [json.loads(line) for line in text.splitlines()]


def same_again(told, saved):
    """Return the records of the capture that was saved, each for the moment of which it was told."""
    analysis = closeseq.analyze(str(saved), port=8080)
    again = []
    for one in told:
        (found,) = (connection for connection in analysis if connection.id == one["id"])
        whole, _, fraction = one["live"]["as_of"].rstrip("Z").partition(".")
        as_of_ns = int(datetime.fromisoformat(whole + "+00:00").timestamp()) * 10**9 + int(fraction)
        connection = closeseq.Connection(found.conversation, found.settings, as_of_ns, capture=one["capture"])
        again.append(closeseq.record(connection) | {"live": one["live"]})
    return again


# What is told


def test_a_close_is_shown_with_its_timeline_and_summed_up_at_the_end(net):
    with net.live("-p", "8080") as process:
        net.talk()
        time.sleep(0.8)
        out, err = ended(process)
    assert process.returncode == 0
    assert err == ""
    assert re.search(r"^\d\d:\d\d:\d\d\.\d\d\d  closed$", out, re.MULTILINE)
    assert "graceful: client closed first" in out
    assert "FIN_WAIT_1" in out
    assert "lo: " in out
    assert "1 TCP connection" in out
    assert "no packet was lost" in out


def test_a_stuck_end_is_told_while_it_is_stuck_with_the_program_that_holds_it(net):
    with (
        net.live("-p", "8080", "--stuck-after", "1", "-f", "jsonl", "--until-close", "1") as process,
        net.talking(wait=2.5) as program,
    ):
        out, _ = process.communicate(timeout=PATIENCE)
        stuck, closed = records(out)
    assert (stuck["live"]["event"], closed["live"]["event"]) == ("stuck", "closed")
    assert [f["endpoint"] for f in stuck["findings"] if f["code"] == "stuck-close-wait"] == ["server"]
    server, client = (stuck["live"]["kernel"][end] for end in ("server", "client"))
    assert (server["state"], server["agrees"], server["owned"]) == ("CLOSE_WAIT", True, True)
    assert [owner["pid"] for owner in server["owners"]] == [program.pid]
    assert (client["state"], client["owned"], client["timer"]) == ("FIN_WAIT_2", False, "time-wait")
    assert "when the capture ended" not in stuck["summary"]


def test_the_owner_is_remembered_from_before_the_close(net):
    with net.live("-p", "8080", "-f", "jsonl", "--until-close", "1") as process:
        with net.talking(wait=2.5) as program:
            pid = program.pid
            program.wait()
        out, _ = process.communicate(timeout=PATIENCE)
    (closed,) = records(out)
    server = closed["live"]["kernel"]["server"]
    assert (server["state"], server["owned"]) == ("CLOSED", False)
    assert [owner["pid"] for owner in server["owners"]] == [pid]


# A program that never accepts, with room for one connection: the first waits in the queue, the second's SYNs
# are dropped.
NEVER_ACCEPTS = """
import socket, time
listener = socket.create_server(("127.0.0.1", 8080), backlog=0)
with socket.create_connection(("127.0.0.1", 8080)) as first:
    first.sendall(b"hello")
second = socket.socket()
second.setblocking(False)
second.connect_ex(("127.0.0.1", 8080))
time.sleep(60)
"""


LEAKED = """
import socket, sys, time
with socket.create_server(("127.0.0.1", 8080)) as listener:
    clients = [socket.create_connection(("127.0.0.1", 8080)) for _ in range(3)]
    servers = [listener.accept()[0] for _ in clients[1:]]
    for client in clients:
        client.close()
    print("leaked", flush=True)
    sys.stdin.read()
"""


@needs_network
def test_sockets_that_leaked_before_it_began_are_told_with_the_program_that_holds_them(net):
    command = net.inside(sys.executable, "-c", LEAKED)
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as leaking:
        assert leaking.stdout.readline() == "leaked\n"
        with net.live("-p", "8080", "--duration", "1") as live:
            _, err = live.communicate(timeout=PATIENCE)
        with net.live("-p", "8080", "--host", "127.0.0.9", "--duration", "0") as others:
            _, err_of_others = others.communicate(timeout=PATIENCE)
        leaking.stdin.close()
    assert "CLOSE_WAIT" not in err_of_others
    held, queued = err.splitlines()
    holder = rf"held by \S+ \(pid {leaking.pid}, user \w+\)"
    assert re.match(rf"closeseq: 2 sockets at 127.0.0.1:8080, {holder}, are in CLOSE_WAIT already: ", held)
    assert held.endswith("their peers have closed, and the program has not")
    assert "1 socket at 127.0.0.1:8080, which no program has accepted, is in CLOSE_WAIT already" in queued
    assert queued.endswith("its peer has closed, and the program has not")


@needs_network
def test_who_watches_only_loopback_is_told_how_to_watch_all(net):
    with net.live("-p", "8080", "--duration", "0") as process:
        assert process.said == "closeseq: watching lo, port 8080 (-i any: all interfaces); Ctrl-C ends it\n"
    with net.live("-i", "any", "-p", "8080", "--duration", "0") as process:
        assert process.said == "closeseq: watching any, port 8080; Ctrl-C ends it\n"


def test_what_is_not_accepted_is_proved_by_the_listeners_queue(net):
    program = net.inside(sys.executable, "-c", NEVER_ACCEPTS)
    with (
        net.live("-p", "8080", "--stuck-after", "1", "-f", "jsonl") as process,
        subprocess.Popen(program) as talking,
    ):
        time.sleep(2.5)
        out, _ = ended(process)
        talking.kill()
    found = {}
    for one in records(out):
        assert_valid(one)
        found.setdefault(one["verdict"], one)
    queue = {"waiting": 1, "backlog": 0, "full": True}
    first, second = found["closing"], found["unanswered"]
    assert "never-accepted" in {one["code"] for one in first["findings"]}
    server = first["live"]["kernel"]["server"]
    assert (server["state"], server["owned"], server["receive_queue"]) == ("CLOSE_WAIT", False, 6)
    assert server["accept_queue"] == queue
    assert second["live"]["kernel"]["server"]["accept_queue"] == queue


def test_the_text_says_how_full_the_accept_queue_is(net):
    program = net.inside(sys.executable, "-c", NEVER_ACCEPTS)
    with (
        net.live("-p", "8080", "--stuck-after", "1", "--ascii") as process,
        subprocess.Popen(program) as talking,
    ):
        time.sleep(2)
        out, _ = ended(process)
        talking.kill()
    text = re.sub(r"\n {14}", " ", out)
    assert (
        "server: CLOSE_WAIT, 5 bytes and end of file not read, not accepted yet: in the listener's acc"
        in text
    )
    assert (
        "kernel  server's listener: 1 connection not accepted yet, backlog 0: its accept queue is full, so "
        "this kernel takes no more connections"
    ) in text


def test_only_the_port_asked_for_is_told(net):
    with net.live("-p", "8080", "-f", "jsonl") as process:
        net.talk(port=8081)
        net.talk(port=8080)
        time.sleep(0.8)
        out, _ = ended(process)
    assert [one["server"]["port"] for one in records(out)] == [8080]


def test_an_expression_filters_as_tcpdump_would(net):
    with net.live("-f", "jsonl", "tcp", "port", "8081") as process:
        net.talk(port=8080)
        net.talk(port=8081)
        time.sleep(0.8)
        out, _ = ended(process)
    assert [one["server"]["port"] for one in records(out)] == [8081]


def test_the_table_of_states_comes_as_often_as_asked(net):
    with net.live("-p", "8080", "--every", "0.5", "-f", "summary") as process:
        net.talk(first="server")
        time.sleep(1.3)
        out, _ = ended(process)
    assert re.search(r"^TIME_WAIT +0 +1$", out, re.MULTILINE)
    assert len(re.findall(r"connections? seen", out)) >= 2


@pytest.mark.parametrize(
    ("option", "value"), [("--duration", "1.5"), ("--until-close", "1"), ("-c", "5")], ids=str
)
def test_it_ends_by_itself_when_it_is_enough(net, option, value):
    with net.live("-p", "8080", "-f", "summary", option, value) as process:
        net.talk()
        out, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "1 TCP connection" in out


def test_a_count_is_not_exceeded(net):
    with net.live("-p", "8080", "-f", "summary", "-c", "5") as process:
        net.talk()
        out, _ = process.communicate(timeout=PATIENCE)
    assert out.startswith("lo: 5 packets")


def test_fail_on_makes_the_exit_status(net):
    with net.live("-p", "8080", "--fail-on", "graceful", "--until-close", "1") as process:
        net.talk()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 1


# As many connections one after the other as there are ports; the client closes first. argv: how many.
USE_UP = """
import socket, sys, time
with socket.create_server(("127.0.0.1", 8080)) as listener:
    for _ in range(int(sys.argv[1])):
        client = socket.create_connection(("127.0.0.1", 8080))
        server, _ = listener.accept()
        client.close()
        server.recv(100)
        server.close()
"""


def few_ports(net):
    net.run("sh", "-c", "echo 20001 20098 > /proc/sys/net/ipv4/ip_local_port_range")
    net.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/tcp_tw_reuse")


def test_ports_that_run_out_are_news_against_the_range_of_this_machine(net):
    few_ports(net)
    with net.live("-p", "8080", "--fail-on", "port-pressure") as process:
        net.run(sys.executable, "-c", USE_UP, 60)
        time.sleep(2.5)
        out, err = ended(process)
    assert err == ""
    assert process.returncode == 1
    news, summary = re.findall(
        r"^Of many connections together\n +port-pressure: the client 127", out, re.MULTILINE
    )
    assert news == summary
    assert out.index(news) < out.index("lo: ")  # as soon as it shows, and at the end
    assert "it holds 60 of 98 ports in TIME_WAIT" in re.sub(r"\s+", " ", out)


def test_what_connections_show_together_is_a_line_of_its_own_if_asked(net):
    few_ports(net)
    with net.live("-p", "8080", "-f", "jsonl", "--population") as process:
        net.run(sys.executable, "-c", USE_UP, 98)
        time.sleep(2.5)
        out, _ = ended(process)
    together = [one for one in records(out) if one.get("kind") == "population"]
    (one,) = [finding for line in together for finding in line["findings"]]
    assert (one["code"], one["client"]) == ("port-pressure", "127.0.0.1")
    assert len([one for one in records(out) if "live" in one and one["live"]["event"] == "closed"]) == 98


def test_a_program_asks_what_connections_show_together(net):
    few_ports(net)
    program = f"""
import subprocess, sys, closeseq
with closeseq.live("lo", port=8080) as live:
    subprocess.run([sys.executable, "-c", {USE_UP!r}, "98"], check=True, timeout=20)
    for number, _ in zip(range(98), live):
        pass
    print(*(one.code for one in live.population))
"""
    assert net.run(sys.executable, "-c", program) == "port-pressure\n"


def test_what_was_saved_says_the_same_as_was_told(net, tmp_path):
    saved = tmp_path / "x.pcapng"
    with net.live("-p", "8080", "-w", saved, "-f", "jsonl") as process:
        net.talk()
        net.talk(first="server")
        time.sleep(0.8)
        out, _ = ended(process)
    told = records(out)
    assert [one["live"]["event"] for one in told] == ["closed", "closed"]
    assert told == same_again(told, saved)


def test_the_capture_that_was_saved_knows_when_it_ended(net, tmp_path):
    saved = tmp_path / "x.pcapng"
    with net.live("-p", "8080", "-w", saved, "-f", "summary", "--duration", "1") as process:
        net.talk()
        process.communicate(timeout=PATIENCE)
    reading = closeseq.analyze(str(saved)).reading
    assert reading.end_ns == reading.ended_ns
    assert reading.end_ns - reading.last_ns > 0.4e9
    assert "TIME_WAIT" in run_forked(["states", saved], text=True).stdout


def test_packets_can_go_to_a_pipe(net):
    with net.live("-p", "8080", "-w", "-", "--until-close", "1", text=False) as process:
        net.talk()
        out, err = process.communicate(timeout=PATIENCE)
    assert out[:4] == b"\x0a\x0d\x0d\x0a"
    assert b"graceful" in err
    assert b"watching lo, port 8080" in process.said


# Many at once


# Not on port 8080: the lab's traces, made at the same time by other tests, know connections by their ports.
MANY = """
import socket, sys, threading
number = int(sys.argv[1])
with socket.create_server(("127.0.0.1", 18080), backlog=1024) as listener:
    def serve():
        for _ in range(number):
            server, _ = listener.accept()
            with server:
                server.recv(100)
    threading.Thread(target=serve).start()
    for _ in range(number):
        with socket.create_connection(("127.0.0.1", 18080)) as client:
            client.sendall(b"hello")
"""


def test_of_many_closes_that_are_alike_few_are_drawn_and_the_stuck_one_is_not_buried(net):
    with (
        net.live("-p", "18080", "-p", "8081", "--stuck-after", "1") as process,
        net.talking(wait=60, port=8081),
    ):
        for _ in range(6):
            net.run(sys.executable, "-c", MANY, 400)
        time.sleep(1)
        out, _ = ended(process)
    drawn = re.findall(r"^\d\d:\d\d:\d\d\.\d\d\d  (closed|stuck)$", out, re.MULTILINE)
    lasted, unit = re.search(r"packets in ([\d.]+) (ms|s)", out).groups()
    began = float(lasted) / (1000 if unit == "ms" else 1)
    assert drawn.count("stuck") == 1
    # A busy machine closes some of them in ways of their own; for all of these together there is this room.
    assert drawn.count("closed") <= sum(BLOCKS.values()) * (began // 10 + 2)
    assert re.search(r"^ +and [\d,]+ more connections closed the same way: graceful", out, re.MULTILINE)
    assert "2,401 TCP connections" in out


def test_every_record_of_a_burst_is_written_and_what_is_stuck_first(net):
    options = ("-p", "18080", "-p", "8081", "--stuck-after", "1", "-f", "jsonl", "--until-close", "3000")
    with net.live(*options) as process, net.talking(wait=60, port=8081):
        time.sleep(0.5)
        net.run(sys.executable, "-c", MANY, 3000)
        out, err = process.communicate(timeout=2 * PATIENCE)
    told = records(out)
    events = [one["live"]["event"] for one in told]
    assert err == ""
    assert events.count("closed") == 3000
    assert len({one["id"] for one in told if one["live"]["event"] == "closed"}) == 3000
    written = next(at for at, event in enumerate(events) if event == "stuck")
    waited = [one["live"]["as_of"] for one in told]
    assert waited == sorted(waited)
    stuck = told[written]
    found = datetime.fromisoformat(stuck["live"]["as_of"][:26] + "+00:00")
    began = datetime.fromisoformat(stuck["start"][:26] + "+00:00")
    assert (found - began).total_seconds() < 4  # not behind those that wait


def test_the_table_of_states_does_not_stand_among_records(net):
    with net.live("-p", "8080", "--every", "0.3", "-f", "jsonl", "--until-close", "1") as process:
        time.sleep(0.8)
        net.talk()
        out, err = process.communicate(timeout=PATIENCE)
    assert len(records(out)) == 1
    assert re.search(r"connections? seen", err)


# Where


def test_a_namespace_is_entered_by_a_process_in_it(net):
    arguments = ["live", "--pid", str(net.pid), "-p", "8080", "-f", "jsonl", "--until-close", "1"]
    with Forked(arguments, stdout=subprocess.PIPE, text=True) as process:
        net.wait_for_capture(process)
        time.sleep(0.3)
        net.talk()
        out, _ = process.communicate(timeout=PATIENCE)
    (told,) = records(out)
    assert told["live"]["kernel"]["client"]["state"] == "TIME_WAIT"


def test_the_namespace_that_was_asked_for_is_not_told_again(net):
    arguments = ["live", "--pid", str(net.pid), "-p", "8080", "--stuck-after", "1", "--duration", "3"]
    with Forked(arguments, stdout=subprocess.PIPE, text=True) as process:
        net.wait_for_capture(process)
        with net.talking(wait=5) as program:
            out, _ = process.communicate(timeout=PATIENCE)
    assert re.search(rf"held by python\S* \(pid {program.pid}, user \w+\)", out)
    assert "network namespace" not in out


def test_another_namespace_needs_network_too():
    command = [sys.executable, "-c", UNPRIVILEGED, "live", "--pid", "1", "-p", "8080"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, check=False)
    assert done.returncode == 5
    assert len(done.stderr.splitlines()) == 1


def test_two_directions_over_a_veth_pair_are_one_connection(net):
    net.run("ip", "link", "add", "left", "type", "veth", "peer", "name", "right")
    for device in ("left", "right"):
        net.run("ip", "link", "set", device, "up")
    with net.live("-i", "any", "-f", "jsonl", "--until-close", "1") as process:
        net.talk()
        out, _ = process.communicate(timeout=PATIENCE)
    (told,) = records(out)
    assert told["verdict"] == "graceful"
    assert told["packets"] <= 12  # each once, though loopback's pass twice


def test_an_interface_that_goes_away_is_one_line_and_the_rest_is_told(net):
    net.run("ip", "link", "add", "left", "type", "veth", "peer", "name", "right")
    for device in ("left", "right"):
        net.run("ip", "link", "set", device, "up")
    with net.live("-i", "left") as process:
        net.run("ip", "link", "del", "left")
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    assert len(err.splitlines()) == 1
    assert "left" in err
    assert out.startswith("left: ")


def test_an_interface_that_goes_down_and_comes_up_again_is_told_while_the_capture_goes_on(net):
    net.run("ip", "link", "add", "left", "type", "veth", "peer", "name", "right")
    for device in ("left", "right"):
        net.run("ip", "link", "set", device, "up")
    with net.live("-i", "left", "-i", "lo", "-p", "8080", "-f", "jsonl", "--until-close", "1") as process:
        net.run("ip", "link", "set", "left", "down")
        down = process.stderr.readline()
        net.run("ip", "link", "set", "left", "up")
        up = process.stderr.readline()
        net.run("ip", "link", "del", "left")
        gone = process.stderr.readline()
        net.talk()
        out, err = process.communicate(timeout=PATIENCE)
    assert down == "closeseq: left went down; the capture goes on when it is up again\n"
    assert up == "closeseq: left is up again\n"
    assert gone == "closeseq: left is gone\n"
    assert (process.returncode, err) == (0, "")
    assert [one["verdict"] for one in records(out)] == ["graceful"]


def test_an_unknown_interface_is_one_line_that_names_those_there_are(net):
    with net.live("-i", "eth7") as process:
        _, more = process.communicate(timeout=PATIENCE)
    assert (process.returncode, more) == (3, "")
    assert "lo" in process.said


def test_a_wrong_expression_has_its_own_status(net):
    with net.live("tcp prot 80") as process:
        _, more = process.communicate(timeout=PATIENCE)
    assert (process.returncode, more) == (4, "")
    assert "tcp prot 80" in process.said


# Privileges


UNPRIVILEGED = """
import os, sys
from closeseq.cli.live_setup import load_everything
from closeseq.cli.main import run
load_everything()  # root's Python may be out of nobody's reach
os.setgroups([]), os.setgid(65534), os.setuid(65534)
sys.exit(run(sys.argv[1:]))
"""


def test_without_privileges_the_command_that_works_is_told():
    command = [sys.executable, "-c", UNPRIVILEGED, "live", "-p", "8080"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, check=False)
    assert done.returncode == 5
    assert len(done.stderr.splitlines()) == 1
    assert re.search(r"sudo /\S+", done.stderr)


def test_root_is_given_up_for_who_called_sudo_and_files_are_theirs(net, tmp_path):
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:3]:
        folder.chmod(0o755)
    saved = tmp_path / "x.pcapng"
    environment = os.environ | {"SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY), "SUDO_USER": "nobody"}
    with net.live("-p", "8080", "-w", saved, "-f", "jsonl", env=environment, wrapper=()) as process:
        net.talk()
        time.sleep(0.8)
        status = Path(f"/proc/{process.pid}/status").read_text()
        out, err = ended(process)
    assert err == ""
    assert re.search(rf"^Uid:\s{NOBODY}\s{NOBODY}\s{NOBODY}\s{NOBODY}$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s0+$", status, re.MULTILINE)
    assert saved.stat().st_uid == NOBODY
    assert len(records(out)) == 1


def test_another_users_program_is_named_though_root_was_given_up(net):
    environment = os.environ | {"SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY), "SUDO_USER": "nobody"}
    options = ("-p", "8080", "--stuck-after", "1", "-f", "jsonl", "--until-close", "1")
    with net.live(*options, env=environment, wrapper=()) as process, net.talking(wait=2) as program:
        out, _ = process.communicate(timeout=PATIENCE)
    stuck = records(out)[0]
    assert [owner["pid"] for owner in stuck["live"]["kernel"]["server"]["owners"]] == [program.pid]


# Ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_the_summary(net, number):
    with net.live("-p", "8080") as process:
        net.talk()
        out, err = ended(process, number)
    assert (process.returncode, err) == (0, "")
    assert "1 TCP connection" in out
    assert "graceful" in out


def test_a_signal_at_any_moment_leaves_no_traceback(net):
    for delay in (0.0, 0.05, 0.15, 0.25, 0.35, 0.5):
        command = net.inside(sys.executable, "-m", "closeseq", "live", "-p", "8080")
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        ) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            said = "".join(process.communicate(timeout=PATIENCE))
        # Until `__main__` runs, Python itself is starting, and nothing of ours can catch a signal.
        assert "Traceback" not in said or "__main__.py" not in said


def test_a_second_interrupt_ends_it_at_once(net, tmp_path):
    """Its output is held up by a pipe that nobody reads."""
    with net.live("-p", "8080", "-f", "jsonl") as process:
        for _ in range(12):
            net.talk()
        time.sleep(0.5)
        os.set_blocking(process.stdout.fileno(), True)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in err
    # On a busy machine the second one may come while Python itself ends, and is then what ends it.
    assert process.returncode in {0, 130, -signal.SIGINT}


def test_a_closed_pipe_ends_it_quietly_and_what_was_captured_is_saved(net, tmp_path):
    saved = tmp_path / "x.pcapng"
    with net.live("-p", "8080", "-w", saved) as process:
        process.stdout.close()
        net.talk()
        process.stdout = None
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert err == ""
    assert closeseq.analyze(str(saved)).reading.packets >= 9


def test_a_full_disk_is_one_line_and_the_watch_goes_on(net, tmp_path):
    mount = f'mount -t tmpfs -o size=4k none {tmp_path} && exec "$@"'
    saved = tmp_path / "x.pcapng"
    inside = ["unshare", "--mount", "sh", "-c", mount, "-", sys.executable, "-m", "closeseq"]
    command = net.inside(*inside, "live", "-p", "8080", "-w", saved, "-f", "jsonl", "--no-drop")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert "watching lo" in process.stderr.readline()
        for _ in range(6):
            net.talk()
        time.sleep(0.8)
        out, err = ended(process)
    assert process.returncode == 3
    assert len(err.splitlines()) == 1
    assert "continuing without saving" in err
    assert len(records(out)) == 6


def test_a_file_that_is_there_is_not_overwritten(net, tmp_path):
    saved = tmp_path / "x.pcapng"
    saved.write_text("mine")
    with net.live("-w", saved) as process:
        _, more = process.communicate(timeout=PATIENCE)
    assert (process.returncode, more) == (2, "")
    assert "--force" in process.said
    assert saved.read_text() == "mine"


def test_the_status_line_never_stands_within_the_report(net):
    terminal, theirs = pty.openpty()
    try:
        with net.live("-p", "8080", stdout=theirs, stderr=theirs) as process:
            net.wait_for_capture(process)
            time.sleep(1.2)
            net.talk()
            time.sleep(0.8)
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
        os.close(theirs)
        shown = drain(terminal)
    finally:
        os.close(terminal)
    assert " packets, 0 lost" in shown
    for row in screen(shown):
        assert not re.search(r"0 lost.*\S.*closed|closed.*0 lost", row)
    assert any("graceful: client closed first" in row for row in screen(shown))
    assert not any("0 lost" in row for row in screen(shown))  # it is gone when all is over


def screen(shown):
    """Return the rows of a terminal that shows this, as far as carriage returns go."""
    rows = []
    for line in re.sub(r"\x1b\[[\d;]*m", "", shown).split("\n"):
        row = ""
        for piece in line.rstrip("\r").split("\r"):
            row = piece + row[len(piece) :]
        rows.append(row.rstrip())
    return rows


# From a program


PROGRAM = """
import asyncio, json, subprocess, sys, closeseq
talk = lambda: subprocess.Popen([sys.executable, "-c", sys.argv[1], "client", "0", "8080"])
capture = closeseq.live(port=8080)
with talk() as process:
    for connection in capture:
        print(json.dumps([connection.kind, connection.verdict]))
        break
async def several():
    async with closeseq.live(port=8080, duration=30) as capture:
        talk().wait()
        async for connection in capture:
            print(json.dumps([connection.kind, connection.verdict]))
            capture.stop()
asyncio.run(several())
with closeseq.live(port=8080, duration=0.3) as capture:
    print(json.dumps([len(list(capture)), capture.dropped]))
"""


def test_a_program_iterates_over_closes_and_leaves_when_it_likes(net):
    from live_namespace import TALK

    out = net.run(sys.executable, "-W", "error", "-c", PROGRAM, TALK)
    assert [json.loads(line) for line in out.splitlines()] == [
        ["closed", "graceful"],
        ["closed", "graceful"],
        [0, 0],
    ]


# A file that grows


@needs("tcpdump")
def test_a_file_that_tcpdump_is_writing_is_followed(net, tmp_path):
    growing = tmp_path / "x.pcap"
    command = net.inside("tcpdump", "-i", "lo", "-U", "-Z", "root", "--immediate-mode", "-w", growing)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tcpdump:
        net.wait_for_capture(tcpdump)
        with net.live(growing, "-f", "jsonl", "--until-close", "1", command="follow") as process:
            net.talk()
            out, err = process.communicate(timeout=PATIENCE)
        tcpdump.terminate()
    (told,) = records(out)
    assert (told["verdict"], told["live"]["event"], told["live"]["kernel"]) == ("graceful", "closed", None)
    assert err == ""
    assert "watching" in process.said


def test_following_needs_no_privilege_and_ends_with_a_pipe():
    capture = (ROOT / "captures" / "client-closes.pcap").read_bytes()
    with Forked(["follow", "-", "-f", "jsonl"], stdin=PIPE, stdout=PIPE) as process:
        out, _ = process.communicate(capture, timeout=PATIENCE)
    assert process.returncode == 0
    (told,) = records(out.decode())
    assert told["verdict"] == "graceful"


def test_live_is_public():
    assert closeseq.live.__module__ == "closeseq.watch.live"
    assert asyncio.iscoroutinefunction(closeseq.Live.__anext__)
