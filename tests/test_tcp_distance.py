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
    [(28, Knowledge.CANNOT), (29, Knowledge.MAY), (43, Knowledge.MAY), (173, Knowledge.MUST)],
)
def test_an_answer_three_times_sooner_than_any_other_is_none(waited, known):
    distance = Distance({End.CLIENT: 86 * MS, End.SERVER: None}, {End.CLIENT: 173 * MS, End.SERVER: 0})
    assert distance.knew(End.CLIENT, (1000 + waited) * MS, 1000 * MS) is known


@pytest.mark.parametrize(
    ("pause", "told"),
    [
        (20, [(State.CLOSED, Certainty.OBSERVED)]),
        (40, [(State.FIN_WAIT_2, Certainty.ASSUMED), (State.CLOSED, Certainty.OBSERVED)]),
    ],
)
def test_an_abort_out_of_fin_wait_1_is_observed_only_if_the_ack_of_its_fin_was_still_on_its_way(pause, told):
    # The client's only answer took 86 ms, 67 of which its ACK was held up on the way.
    script = f"C:S +86ms S:SA +85ms C:A S:PA+100 +100ms C:FA +86ms S:A +{pause - 1}ms C:RA"
    timeline = closeseq.from_script(script).timeline
    client = [(t.after, t.certainty) for t in timeline.transitions if t.endpoint is End.CLIENT]
    assert client[client.index((State.FIN_WAIT_1, Certainty.OBSERVED)) + 1 :] == told
