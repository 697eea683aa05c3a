"""Devices that are not there, go down or go away, and captures that are not allowed."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from closeseq.capture.live import DeviceError, NotPermittedError, open_live
from closeseq.capture.live.bpf import NOTHING, SO_LOCK_FILTER, attach
from closeseq.capture.live.devices import Device, find_devices
from closeseq.errors import CloseseqError
from closeseq.segments import decode
from closeseq.segments.links import LINKS
from frame_bytes import ethernet, ipv4, tcp
from live_network import (
    finish,
    ip,
    make_pair,
    needs_network,
    opened,
    own_network,
    received,
    send_frames,
    talk,
    wait_until_running,
)

FRAME = ethernet(ipv4(tcp(payload=b"x")))
SO_DETACH_FILTER = 27  # asm-generic/socket.h
SOURCES = ("ring", "scapy")
pytestmark = needs_network


@pytest.fixture(autouse=True)
def _network():
    with own_network():
        yield


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def read_to_the_end(capture):
    """Return how many frames come before the capture ends with an error, and the error's text."""
    count, until = 0, time.monotonic() + 10
    while time.monotonic() < until:
        try:
            batch = capture.read(0.5)
        except DeviceError as error:
            return count, str(error)
        count += len(batch.frames) if batch else 0
    pytest.fail("it does not end")


def test_the_devices_are_found_with_the_form_of_their_frames():
    make_pair()
    ip("tuntap add tun0 mode tun")
    lo, veth, tun = find_devices(["lo", "veth0", "tun0"])
    assert (lo.name, lo.index, lo.link_type, lo.loopback) == ("lo", 1, 1, True)
    assert (veth.link_type, veth.loopback, veth.cooked) == (1, False, False)
    assert tun.link_type == 101
    assert find_devices(["veth0", "any"]) == (Device("any", 0, 276, loopback=False),)
    assert {device.link_type for device in (lo, tun, *find_devices(["any"]))} <= set(LINKS)


@pytest.mark.parametrize("name", ["eth7", "", "a-name-that-is-much-too-long", "lo ", "ä", "a/b", "a\nb"])
def test_a_device_that_is_not_there_is_answered_with_those_that_are(name):
    make_pair()
    with pytest.raises(DeviceError) as error:
        open_live(["lo", name])
    assert str(error.value) == (
        f"there is no interface {name!r}; there are lo, veth0, veth1, and any for all of them"
    )


@pytest.mark.parametrize("name", ["a\0b", "\udcff"])
def test_a_name_that_no_device_can_have_is_one_that_is_not_there(name):
    with pytest.raises(DeviceError, match="there is no interface"):
        open_live([name])


def test_no_device_at_all_is_refused():
    with pytest.raises(DeviceError, match="no interface is named"):
        open_live([])


@pytest.mark.parametrize("source", SOURCES)
def test_a_device_that_is_down_is_refused(source):
    make_pair()
    ip("link set veth0 down")
    with pytest.raises(DeviceError, match=r"^veth0 is down; `ip link set veth0 up` brings it up$"):
        open_live(["veth0"], source=source)


@pytest.mark.parametrize("source", SOURCES)
def test_what_was_captured_is_delivered_before_the_device_is_missed(source):
    make_pair()
    with open_live(["veth1"], source=source) as capture:
        send_frames([FRAME] * 50)
        ip("link del veth1")
        count, text = read_to_the_end(capture)
        assert (count, text) == (50, "veth1 is gone; what was captured before is complete")
        assert capture.dropped == 0
        assert capture.read(0.1) is None


@pytest.mark.parametrize("source", SOURCES)
def test_a_device_that_goes_away_ends_a_waiting_read_soon(source):
    make_pair()
    with open_live(["veth1"], source=source) as capture:
        assert capture.read(0.01) is None
        ip("link del veth1")
        begin = time.monotonic()
        with pytest.raises(DeviceError, match="veth1 is gone"):
            capture.read(60)
        assert time.monotonic() - begin < 5


def test_when_one_device_goes_away_the_others_go_on():
    make_pair()
    with open_live(["veth1", "lo"]) as capture:
        send_frames([FRAME] * 7)
        ip("link del veth1")
        counts = {0: 0, 1: 0}
        talk()
        while batch := capture.read(0.5):
            counts[batch.device] += len(batch.frames)
        assert counts == {0: 7, 1: received("lo")}
        assert capture.notices == ["veth1 is gone"]
        talk()
        batch = capture.read(5)
        assert capture.devices[batch.device].name == "lo"
        assert opened(decode(batch.frames)) == 1


def test_a_device_that_was_down_for_a_moment_goes_on():
    make_pair()
    with open_live(["veth1"]) as capture:
        ip("link set veth1 down")
        ip("link set veth1 up")
        wait_until_running("veth0", "veth1")
        assert capture.read(0.5) is None
        assert capture.notices == ["veth1 was down for a moment"]
        send_frames([FRAME] * 3)
        assert len(capture.read(5).frames) == 3


@pytest.mark.parametrize("source", SOURCES)
def test_a_device_that_goes_down_is_waited_for(source):
    make_pair()
    down = "veth1 went down; the capture goes on when it is up again"
    with open_live(["veth1"], source=source) as capture:
        for turn in (1, 2):
            send_frames([FRAME] * 5)
            ip("link set veth1 down")
            assert len(capture.read(5).frames) == 5
            assert capture.read(1.2) is None
            assert capture.notices == [down, "veth1 is up again"] * (turn - 1) + [down]
            ip("link set veth1 up")
            assert capture.read(1.2) is None
            assert capture.notices == [down, "veth1 is up again"] * turn
        wait_until_running("veth0", "veth1")
        send_frames([FRAME] * 3)
        assert len(capture.read(5).frames) == 3
        ip("link set veth1 down")
        assert capture.read(0.5) is None
        ip("link del veth1")
        assert read_to_the_end(capture) == (0, "veth1 is gone; what was captured before is complete")


def test_a_capture_that_is_stopped_does_not_wait_for_a_device_that_is_down():
    make_pair()
    with open_live(["veth1"]) as capture:
        send_frames([FRAME] * 5)
        ip("link set veth1 down")
        assert capture.read(1) is not None
        assert capture.read(1) is None
        begin = time.monotonic()
        assert finish(capture) == []
        assert time.monotonic() - begin < 5


@pytest.mark.parametrize(("name", "source"), [("veth1", "ring"), ("any", "ring"), ("veth1", "scapy")])
def test_nobody_changes_the_filter_of_an_open_capture(name, source):
    make_pair()
    with open_live([name], source=source) as capture:
        (opened_source,) = capture._sources
        packets = socket.socket(fileno=os.dup(opened_source.fileno()))
        with packets:
            with pytest.raises(PermissionError):
                attach(packets, NOTHING)
            with pytest.raises(PermissionError):
                packets.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
            with pytest.raises(PermissionError):
                packets.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 0)
        send_frames([FRAME] * 3)
        assert len(finish(capture)) == (6 if name == "any" else 3)


def test_a_device_that_is_renamed_goes_on():
    make_pair()
    with open_live(["veth1"]) as capture:
        ip("link set veth1 name other")
        send_frames([FRAME])
        assert len(capture.read(5).frames) == 1
        ip("link set other down")
        assert capture.read(0.5) is None
        assert capture.notices == ["veth1 went down; the capture goes on when it is up again"]


def test_on_any_devices_come_and_go():
    with open_live(["any"]) as capture:
        make_pair()
        send_frames([FRAME] * 3)
        ip("link del veth0")
        talk()
        assert len(finish(capture)) == 2 * 3 + received("lo")


def test_a_capture_opened_in_one_namespace_stays_there():
    with own_network():
        make_pair()
        capture = open_live(["lo", "veth1"])
        talk()
        there = received("lo")
        with own_network():
            talk(3)
        ip("link del veth1")
    with capture:
        assert len(capture.read(5).frames) == there
        assert capture.read(0.5) is None
        assert capture.notices == ["veth1 is gone"]


@pytest.mark.parametrize(("name", "source"), [("lo", "ring"), ("any", "ring"), ("lo", "scapy")])
def test_who_may_not_capture_is_told_so(name, source):
    open_live(["lo"], source=source).close()  # load what only root can read
    told, tell = os.pipe()
    child = os.fork()
    if not child:  # a process of its own, since privileges do not come back
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            open_live([name], source=source)
            os.write(tell, b"it was allowed")
        except BaseException as error:  # noqa: BLE001  # whatever it is, the parent judges it
            os.write(tell, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told) as answer:
        assert answer.read() == f"NotPermittedError: capturing on {name} needs the right to read packets"
    os.waitpid(child, 0)


def test_a_capture_goes_on_when_the_rights_are_dropped():
    socket.getaddrinfo("localhost", 80)  # load what only root can read
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            with open_live(["any"]) as capture:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                talk()
                count, dropped = len(finish(capture)), capture.dropped
                os.write(tell, f"{count} {dropped} {received('lo')}".encode())
        except BaseException as error:  # noqa: BLE001  # whatever it is, the parent judges it
            os.write(tell, repr(error).encode())
        finally:
            os._exit(0)
    os.close(tell)
    with os.fdopen(told) as answer:
        count, dropped, there = map(int, answer.read().split())
    assert (count, dropped) == (there, 0)
    assert there >= 7
    os.waitpid(child, 0)


def test_all_these_are_errors_for_people():
    assert issubclass(DeviceError, CloseseqError)
    assert issubclass(NotPermittedError, CloseseqError)


def test_nothing_is_left_open_after_a_failed_opening():
    make_pair()
    ip("link set veth0 down")
    before = descriptors()
    for source in SOURCES:
        with pytest.raises(DeviceError):
            open_live(["lo", "veth1", "veth0"], source=source)
    assert descriptors() == before
    with open_live(["lo", "veth1"]):
        assert descriptors() > before
    assert descriptors() == before
    assert socket.if_nameindex()
