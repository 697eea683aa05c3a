"""A report in a file appears whole or not at all, and leaves nothing beside it."""

from __future__ import annotations

from closeseq.cli import output
from closeseq.cli.main import run


def test_no_file_is_left_where_a_signal_comes_right_after_it_was_made(tmp_path, monkeypatch):
    create, made = output._created, []

    def interrupted(path):
        create(path).close()
        made.extend(tmp_path.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "_created", interrupted)
    assert run(["analyze", "-o", str(tmp_path / "report"), "captures/leaky-server.pcap"]) == 130
    assert made != []
    assert list(tmp_path.iterdir()) == []
