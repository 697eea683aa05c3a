"""`analyze --timings`: the same report, and where the time went."""

import io
import time

import pytest

from closeseq.cli.main import run
from closeseq.cli.timings import DOORS, STAGES, Stopwatch, timings
from closeseq.segments.decode import Decoder

CAPTURE = "captures/client-closes.pcap"


@pytest.mark.parametrize("form", ["summary", "jsonl"])
def test_the_report_is_the_same_and_each_stage_has_its_line(form, capsys):
    assert run(["analyze", CAPTURE, "-f", form]) == 0
    plain = capsys.readouterr()
    assert run(["analyze", CAPTURE, "-f", form, "--timings"]) == 0
    timed = capsys.readouterr()
    assert timed.out == plain.out
    lines = timed.err.removeprefix(plain.err).splitlines()
    assert [line[:26].rstrip() for line in lines] == list(STAGES)
    seconds = {line[:26].rstrip(): float(line[26:].removesuffix(" s")) for line in lines}
    assert all(number >= 0 for number in seconds.values())
    # what happens in any run takes some time
    assert seconds["starting"] > 0


def test_every_stage_is_gone_through(monkeypatch, capsys):
    called = []
    change = Stopwatch.change
    monkeypatch.setattr(Stopwatch, "change", lambda self, stage: called.append(stage) or change(self, stage))
    run(["analyze", CAPTURE, "--timings"])
    run(["analyze", "captures/client-closes.pcap", "-f", "jsonl", "--timings"])
    run(["analyze", "captures/leaky-server.pcap", "--jobs", "2", "--timings"])
    capsys.readouterr()
    assert set(STAGES) - {"starting"} <= set(called)


def test_an_inner_stage_does_not_count_for_the_outer():
    stopwatch = Stopwatch()
    inner = stopwatch.timed("inner", lambda: time.sleep(0.02))
    stopwatch.timed("outer", inner)()
    assert stopwatch.seconds["inner"] >= 0.02 > stopwatch.seconds["outer"]


def test_what_was_replaced_is_put_back_also_after_an_error():
    before = Decoder.decode
    with pytest.raises(ZeroDivisionError), timings(wanted=True, stream=io.StringIO()):
        assert 0 / (Decoder.decode is before)
    assert Decoder.decode is before
    assert len({(module, name) for _, module, name in DOORS}) == len(DOORS)
