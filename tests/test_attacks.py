"""The work that a capture costs grows in proportion to it, whatever the capture is made for.

The captures are those of scripts/attack, much smaller. What is compared is not time but the lines of Python
executed and the functions of C called, which are the same in each run.
"""

import contextlib
import io
import sys

import pytest

from attack_script import attack
from closeseq.cli.main import run

KINDS = attack.KINDS
# Times the work for twice the size; where connections are drawn at random, some cost more than others.
MOST = dict.fromkeys(KINDS, 2.1) | {"unlike": 2.3}
NOISE = 2000  # lines; what is done but once comes to 30,000
# Where closeseq is linear in numpy alone, hardly anything is to be counted, and more costs nothing.
SIZES = dict.fromkeys(KINDS, 300) | {
    "gzip-members": 1000,
    "resets": 60,
    "unlike": 120,
    # So many that all three sizes have more of a class than are followed at once (classes/evaluation.py).
    "time-backwards": 1000,
    "time-still": 1000,
    "syn-flood": 200,
    "syn-again": 100,
}
# A record of its own takes a thousand lines: of these, fewer show as well what grows with the square.
RECORDS = SIZES | {
    "sections": 150,
    "interfaces": 150,
    "time-backwards": 2000,  # what closes alike is judged and drawn together
    "time-still": 2000,
    "resets-with-text": 600,
    "syn-flood": 100,
    "syn-again": 60,
}


def analyse(path, form):
    with contextlib.redirect_stdout(io.StringIO()):
        # What workers do is not counted.
        assert run(["analyze", "-f", form, "--jobs", "1", str(path)]) == 0


def work(path, form):
    """Analyse a capture, and return how many lines of Python and functions of C that took."""
    done = 0

    def count_lines(_frame, _event, _of):
        nonlocal done
        done += 1
        return count_lines

    def count_calls(_frame, event, _of):
        nonlocal done
        done += event == "c_call"

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(count_lines)
    sys.setprofile(count_calls)
    try:
        analyse(path, form)
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    return done


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["summary", "jsonl"])
def test_twice_as_much_costs_twice_as_much(tmp_path, kind, form):
    size = (RECORDS if form == "jsonl" else SIZES)[kind]
    figures, path = [], tmp_path / "capture"
    path.write_bytes(KINDS[kind].make(size))
    analyse(path, form)  # which loads modules
    for count in (size, 2 * size, 4 * size):
        path.write_bytes(KINDS[kind].make(count))
        figures.append(work(path, form))
    one, two, four = figures
    # What is done once only may fall into `one`, which makes it more than `two`.
    assert four - two <= MOST[kind] * max(two - one, 0) + NOISE, figures
