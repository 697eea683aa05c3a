"""What all connections of a live capture show together: as soon as it shows, and once."""

from __future__ import annotations

import numpy as np
import pytest

from closeseq.settings import SECOND, EphemeralPorts, Settings
from closeseq.watch import Monitor
from closeseq.watch import monitor as watching
from closeseq.watch.census import MOST_REMEMBERED, Census
from populations import captured, together

OPEN = "C:S S:SA C:A C:PA+90 S:PA+500 C:A"
IDLE = f"{OPEN} +5s S:FA C:A C:FA S:A"
BUSY = f"{OPEN} C:FA S:A S:FA C:A"


def fed(monitor, rows, parts=10):
    """Feed rows in parts, and return what was news after each."""
    news = []
    for part in np.array_split(np.arange(len(rows)), parts):
        some = rows.take(part)
        monitor.feed(len(some), some)
        monitor.tick(int(some.time_ns.max()))
        news.append(monitor.news(now=True))
    return news


def test_it_is_news_as_soon_as_it_shows_and_once():
    monitor = Monitor()
    news = fed(monitor, together([IDLE] * 40, every_ns=SECOND))
    told = [(at, one.code) for at, found in enumerate(news) for one in found]
    assert [code for _, code in told] == ["idle-timeout"]
    assert told[0][0] < 9  # not only at the end
    (now,) = monitor.population
    assert (now.members, now.of) == (40, 40)  # as it stands at the end


def test_another_timeout_of_the_same_server_is_news_too():
    scripts = [IDLE] * 10 + [IDLE.replace("+5s", "+30s")] * 10
    news = [one for found in fed(Monitor(), together(scripts, every_ns=SECOND)) for one in found]
    assert sorted(round(one.value_ns / SECOND) for one in news) == [5, 30]


def test_it_shows_what_the_whole_capture_shows_though_connections_were_dropped(monkeypatch):
    monkeypatch.setattr(watching, "SMALL", 20)
    scripts = [IDLE, *[BUSY] * 15] * 40
    monitor = Monitor(most=40)
    fed(monitor, together(scripts, every_ns=SECOND), parts=60)
    assert len(monitor) < 200
    assert monitor.population == captured(scripts, every_ns=SECOND).population


def test_what_has_shown_stays_though_it_is_over():
    settings = Settings(ephemeral_ports=EphemeralPorts(100))
    monitor = Monitor(settings)
    rows = together([BUSY] * 100, every_ns=SECOND // 1000)
    news = [one for found in fed(monitor, rows) for one in found]
    assert [one.code for one in news] == ["port-pressure"]
    assert "they have run out" in monitor.population[0].summary


def test_it_looks_now_and_then():
    monitor = Monitor()
    rows = together([IDLE] * 20)
    monitor.feed(len(rows), rows)
    assert len(monitor.news()) == 1
    assert not monitor._census.due()
    rows = together([IDLE.replace("+5s", "+30s")] * 20, client_ports=range(9000, 10_000))
    monitor.feed(len(rows), rows)
    assert monitor.news() == []
    assert len(monitor.news(now=True)) == 1


def test_what_is_remembered_is_bounded():
    census, closes = Census(Settings()), captured([BUSY] * 500).closes
    for _ in range(MOST_REMEMBERED // 500 + 10):
        census.remember(closes, np.ones(500, np.bool_))
    assert census._remembered == pytest.approx(MOST_REMEMBERED, abs=500)
    assert sum(len(one) for one in census._past) == census._remembered
