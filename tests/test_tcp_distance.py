"""Whether the sender of a segment knew of another one, by the time between them."""

import pytest

import closeseq
from closeseq.connections.conversation import End
from closeseq.tcp.distance import Distance, Knowledge
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty

MS = 10**6


@pytest.mark.parametrize(
    ("waited", "known"),
    [
        *((28, Knowledge.CANNOT), (29, Knowledge.UNLIKELY), (85, Knowledge.UNLIKELY)),
        *((86, Knowledge.MAY), (172, Knowledge.MAY), (173, Knowledge.MUST)),
    ],
)
def test_an_answer_sooner_than_any_other_is_unlikely_and_three_times_sooner_is_none(waited, known):
    distance = Distance({End.CLIENT: 86 * MS, End.SERVER: None}, {End.CLIENT: 173 * MS, End.SERVER: 0})
    assert distance.knew(End.CLIENT, (1000 + waited) * MS, 1000 * MS) is known


@pytest.mark.parametrize(
    ("pause", "told"),
    [
        (20, [(State.CLOSED, Certainty.OBSERVED)]),
        (40, [(State.CLOSED, Certainty.ASSUMED)]),
        (90, [(State.FIN_WAIT_2, Certainty.ASSUMED), (State.CLOSED, Certainty.OBSERVED)]),
    ],
)
def test_an_abort_before_the_ack_of_a_fin_can_have_come_is_one_out_of_fin_wait_1(pause, told):
    # The client's only answer took 86 ms, 67 of which its ACK was held up on the way.
    script = f"C:S +86ms S:SA +85ms C:A S:PA+100 +100ms C:FA +86ms S:A +{pause - 1}ms C:RA"
    timeline = closeseq.from_script(script).timeline
    client = [(t.after, t.certainty) for t in timeline.transitions if t.endpoint is End.CLIENT]
    assert client[client.index((State.FIN_WAIT_1, Certainty.OBSERVED)) + 1 :] == told
