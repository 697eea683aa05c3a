"""Whether the sender of a segment knew of another one, by the time between them."""

import pytest

import closeseq
from closeseq.connections.conversation import End
from closeseq.settings import Timers
from closeseq.tcp.distance import Distance, Knowledge
from closeseq.tcp.replay import replay
from closeseq.tcp.states import State
from closeseq.tcp.timeline import Certainty
from segment_rows import recorded

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


def test_what_else_an_endpoint_sends_before_it_aborts_does_not_tell_that_the_ack_had_come():
    # The client acknowledges data 40 ms after the ACK of its FIN passed, and aborts 5 ms later: both sooner
    # than it ever answered.
    script = "C:S +86ms S:SA +85ms C:A S:PA+100 +100ms C:FA +86ms S:A +39ms C:A +4ms C:RA"
    timeline = closeseq.from_script(script).timeline
    client = [t.after for t in timeline.transitions if t.endpoint is End.CLIENT]
    assert client[-2:] == [State.FIN_WAIT_1, State.CLOSED]


def test_an_answer_that_was_sent_again_is_no_bound_for_what_an_endpoint_can_have_known():
    # Of the server's SYN+ACK the first copy was lost before the capture point. (Out of a recording beside
    # the kernel: the server aborted 51 ms after the handshake, out of ESTABLISHED.)
    told = recorded("""
             0.00 C S  0 0 0 1000/0    127
          1005.12 S SA 0 1 0 1000/1000   0
          1005.32 C S  0 0 0 2006/0    128
          1005.44 S SA 0 1 0 1000/1000   0
          1005.64 C A  1 1 0 2006/1000 129
          1005.96 C A  1 1 0 2006/1000 130
          1057.20 S RA 1 1 0 1051/2006 420
    """)
    assert told.path(End.SERVER).response_ns is None
    server = [t.after for t in replay(told, Timers(), told.last_ns).transitions if t.endpoint is End.SERVER]
    assert server == [State.SYN_RECEIVED, State.ESTABLISHED, State.CLOSED]
