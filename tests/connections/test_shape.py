from __future__ import annotations

import pytest

from closeseq.connections import shape
from closeseq.script import conversation

SHAPES = {
    "C:S S:SA C:A ~ C:FA S:A ~ S:FA C:A": "C:S S:SA C:A ~ C:FA S:A ~ S:FA C:A",
    "C:S S:SA C:A C:A+10 S:A C:A+10 S:A C:FA S:FA C:A": "C:S S:SA C:A ~ C:FA S:FA C:A",
    "C:S S:SA C:A C:FA|S:FA C:A|S:A": "C:S S:SA C:A C:FA S:FA C:A S:A",
    "C:S S:RA": "C:S S:RA",
    "C:S S:SA C:PA+5 C:PFA S:RA": "C:S S:SA C:A C:FA S:RA",
    "C:S S:SA C:A C:FA! +300ms C:FA* S:A S:FA C:A! +1s S:FA* C:A": (
        "C:S S:SA C:A C:FA C:FA S:A S:FA C:A S:FA C:A"
    ),
    "C:S S:SA C:A C:FA S:A S:A+10 C:A S:A+10 C:A S:FA C:A": "C:S S:SA C:A C:FA S:A ~ S:FA C:A",
    "C:S S:SA C:A C:FA S:A C:A C:A": "C:S S:SA C:A C:FA S:A ~",
    "C:A+1 S:A C:A+2": "~",
    "C:S (S:SA) C:A C:FA": "C:S ~ C:FA",
}


@pytest.mark.parametrize("script", SHAPES)
def test_the_shape_has_a_word_for_each_major_event(script):
    assert shape(conversation(script)) == SHAPES[script]
