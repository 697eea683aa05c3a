"""When had an endpoint closed whose FIN was lost before the capture? Linux's timeouts and delayed ACKs show.

Each conversation is out of a recording with the kernel's own account beside it.
"""

from __future__ import annotations

import pytest

from closeseq.connections.conversation import End
from closeseq.settings import Timers
from closeseq.tcp.replay import replay
from closeseq.tcp.states import State
from segment_rows import MILLISECOND, START_NS, recorded


def closing(text: str, end: End) -> list[tuple[State, int]]:
    """Return the states of an endpoint after ESTABLISHED, and when it entered each, in ms."""
    told = recorded(text)
    timeline = replay(told, Timers(), told.last_ns)
    moves = [t for t in timeline.transitions if t.endpoint is end]
    since = [t.after for t in moves].index(State.ESTABLISHED) + 1
    return [(t.after, (t.time_ns - START_NS) // MILLISECOND) for t in moves[since:]]


def states(text: str, end: End) -> list[State]:
    return [state for state, _ in closing(text, end)]


AT_ONCE = """
      0.00 C S     0   0    0 1000/0    811
      0.09 S SA    0   1    0 1000/1000   0
      0.90 C A     1   1    0 1004/1000 812
    111.40 S FA    1   1    0 1112/1004 603
    312.44 S FA    1   1    0 1313/1004 604
    313.28 C A     2   2    0 1316/1313 815 twice 1-2
    324.69 C FA    1   2    0 1328/1313 816
    324.75 S A     2   2    0 1325/1328   0
"""


def test_an_ack_of_its_own_beside_a_fin_sent_as_soon_was_one_out_of_closing():
    # Two went unseen, FIN and ACK. The FIN was sent 11 ms after the peer's came in, at the latest: a program
    # that closes so soon acknowledges with it.
    assert states(AT_ONCE, End.CLIENT)[:2] == [State.FIN_WAIT_1, State.CLOSING]


def test_one_that_was_sent_later_leaves_time_for_a_delayed_ack():
    later = AT_ONCE.replace("324.69 C FA    1   2    0 1328", "374.69 C FA    1   2    0 1378")
    assert states(later.replace("324.75", "374.75"), End.CLIENT)[:2] == [State.CLOSE_WAIT, State.LAST_ACK]


def test_an_endpoint_that_had_taken_data_before_delays_its_ack_by_40_ms():
    told = """
          0.00 C S     0   0    0 1000/0    581
          0.21 S SA    0   1    0 1000/1000   0
          7.98 C A     1   1    0 1005/1000 582
         59.45 S PA    1   1  200 1059/1005 643
         63.77 C A     1 201    0 1064/1059 583
       1898.48 S FA  201   1    0 2898/1064 644
       2112.18 S FA  201   1    0 3112/1064 645
       2116.57 C A     2 202    0 3117/3112 587 twice 201-202
       2546.30 C FA    1 202    0 3547/3112 588
       2548.22 S A   202   2    0 3547/3547   0
    """
    # Three went unseen, the FIN twice: it was sent first a time-out before the ACK that is past its number.
    assert states(told, End.CLIENT)[:2] == [State.FIN_WAIT_1, State.CLOSING]


def test_the_longer_a_fin_was_repeated_the_later_its_timers_may_have_ended():
    told = """
          0.00 C S     0    0    0 1000/0    508
          0.72 S SA    0    1    0 1000/1000   0
          2.24 C A     1    1    0 1001/1000 509
         54.37 S PA    1    1 1400 1053/1001 437
         55.06 C A     1 1401    0 1055/1053 510
        703.91 C FA    1 1401    0 1704/1053 511
        914.61 C FA    1 1401    0 1915/1053 512
       1126.63 C FA    1 1401    0 2127/1053 513
       1550.61 C FA    1 1401    0 2551/1053 514
       1550.62 S FA 1401    2    0 2550/2127 444
       1551.29 C A     2 1402    0 2551/2550 515
       1551.30 S A  1402    2    0 2550/2551 445 twice 1-2
    """
    # It was not the client's last FIN, 10 us before and too far away, that pushed this one out.
    assert states(told, End.SERVER)[:2] == [State.FIN_WAIT_1, State.CLOSING]


def test_a_long_silence_tells_that_time_outs_had_doubled_before():
    # The server's packets have no number before: only that the ACK and its FIN follow each other is known.
    told = """
          0.00 C S     0   0    0 1000/0    917
         25.32 S SA    0   1    0 1000/1000   0
         62.85 C A     1   1    0 1063/1000 918
       1420.49 C FA    1   1    0 2421/1000 919
       1726.84 C FA    1   1    0 2725/1000 920
       2012.15 C FA    1   1    0 3013/1000 921
       2037.62 S A     2   2    0 3012/3013 854 twice 1-2
       2652.20 S FA    1   2    0 3627/3013 855
       2677.74 C A     2   2    0 3678/3627 922
    """
    assert states(told, End.SERVER)[:2] == [State.FIN_WAIT_1, State.CLOSING]


def test_an_endpoint_whose_syn_was_answered_late_waits_long_for_its_first_repetition():
    told = """
          0.00 C S     0    0    0 1000/0    872
       1027.84 C S     0    0    0 2029/0    873
       1042.48 S SA    0    1    0 1000/1000   0
       1043.30 C A     1    1    0 2044/1000 874
       1057.89 S SA    0    1    0 1015/1000   0
       1058.68 C A     1    1    0 2059/1000 875
       1123.90 S PA    1    1    5 1081/2059 587
       1124.60 C A     1    6    0 2125/1081 876
       1200.03 C PA    1    6 1400 2201/1081 877
       1232.93 S A     6 1401    0 1190/2201 588
       1327.72 S FA    6 1401    0 1284/2201 589
       1375.95 C A  1401    7    0 2377/1284 878
       3523.92 C FA 1401    7    0 4525/1284 880
       3554.01 S A     7 1402    0 3511/4525   0
    """
    closed = dict(closing(told, End.CLIENT))[State.LAST_ACK]
    assert closed == pytest.approx(1456, abs=100)  # as the kernel says; its time-out was 2 s


def test_a_fin_that_its_own_ack_overtook_was_not_lost():
    told = """
          0.00 C S     0   0    0 1000/0    788
          0.10 S SA    0   1    0 1000/1000   0
          0.62 C A     1   1    0 1000/1000 788
         51.59 C FA    1   1    0 1051/1000 789
         51.67 S A     2   2    0 1052/1051 241
         53.14 S FA    1   1    0 1051/1000 240
         53.66 C A     2   2    0 1053/1051   0
    """
    assert closing(told, End.SERVER)[0] == (State.FIN_WAIT_1, 51)


ANSWERED_WITH_FIN = """
      0.00 C S     0   0    0 1000/0    626
      0.40 S SA    0   1    0 1000/1000   0
      0.46 C A     1   1    0 1001/1000 629
    170.53 C PA    1   1  200 1170/1000 630
    170.99 S A     1 201    0 1170/1170 240
    416.80 C FA  201   1    0 1416/1170 631
    622.93 C FA  201   1    0 1623/1170 632
    623.39 S A     2 202    0 1623/1623 242 twice 201-202
    660.17 S FA    1 202    0 1659/1623 243
    660.25 C A   202   2    0 1660/1659 633
"""


def test_where_one_packet_went_uncaptured_the_fin_was_the_answer_to_the_peers():
    assert closing(ANSWERED_WITH_FIN, End.SERVER)[:2] == [(State.CLOSE_WAIT, 416), (State.LAST_ACK, 416)]


def test_a_fin_with_data_that_both_had_been_lost_was_sent_a_time_out_before():
    told = """
          0.00 C S     0   0    0 1000/0    642
          0.15 S SA    0   1    0 1000/1000   0
          2.90 C A     1   1    0 1003/1000 643
         53.90 S PA    1   1    5 1054/1003 161
         56.62 C A     1   6    0 1056/1054 644
        454.80 C PA    1   6    1 1455/1054 645
        455.33 S A     6   2    0 1455/1455 162
       1230.68 C FPA   2   6    5 2231/1455 649
       1273.37 S A     6   8    0 2274/2231 163
    """
    assert closing(told, End.CLIENT)[0][1] == pytest.approx(1009, abs=30)  # as the kernel says


def test_a_single_segment_of_data_calls_for_one_answer():
    # Four went unseen: the server's FIN twice, and two ACKs, of data and of the client's FIN.
    told = """
          0.00 C S     0   0    0 1000/0    154
         95.00 S SA    0   1    0 1000/1000   0
         96.00 C A     1   1    0 1096/1000 155
        289.94 S A     1   1    0 1196/1096 329
        592.79 C PA    1   1    5 1593/1196 156
        878.21 C FA    6   1    0 1878/1196 157
       1087.07 S FA    1   7    0 1993/1878 334
       1089.31 C A     7   2    0 2089/1993 158
    """
    assert states(told, End.SERVER)[:2] == [State.FIN_WAIT_1, State.CLOSING]


def test_two_ends_closed_in_the_order_of_their_times():
    # Of both the first FIN was lost, between the same two packets; the server's was repeated earlier.
    told = """
          0.00 C S     0   0    0 1000/0    551
          3.21 S SA    0   1    0 1000/1000   0
          6.40 C A     1   1    0 1007/1000 552
         60.58 S PA    1   1    5 1057/1007 208
         63.77 C A     1   6    0 1064/1057 553
        402.54 C PA    1   6    5 1403/1057 554
        405.73 S A     6   6    0 1402/1403 209
        522.58 C PA    6   6 1400 1523/1402 555
        525.75 S A     6 1406   0 1522/1523 210
        815.20 S FA    6 1406   0 1812/1523 212
       1015.22 C FA 1406   6    0 2016/1522 557
       1018.44 S A     7 1407   0 2015/2016 213
       1031.20 S FA    6 1407   0 2028/2016 214
       1034.39 C A  1407   7    0 2035/2028 558
    """
    assert closing(told, End.SERVER)[0] == (State.FIN_WAIT_1, 605)
    assert closing(told, End.CLIENT)[0] == (State.FIN_WAIT_1, 805)


def test_an_endpoint_whose_first_ack_of_its_syn_was_lost_counts_from_its_first_syn_as_well():
    # The ACK that arrived echoes the first SYN+ACK, a second before: so the first time-out was 2.4 s,
    # and its FIN, captured only then, was sent after the client's.
    told = """
          0.00 C S     0   0    0 1000/0    621
         63.00 S SA    0   1    0 1000/1000   0
        101.84 C A     1   1    0 1102/1000 622
       1053.96 S SA    0   1    0 2015/1000   0
       1093.15 C A     1   1    0 2094/1000 623
       1275.58 C FA    1   1    0 2276/1000 624
       1598.04 C FA    1   1    0 2599/1000 625
       1637.33 S A     2   2    0 2598/2599 042 twice 1-2
       3774.23 S FA    1   2    0 4735/2599 043
       3813.74 C A     2   2    0 4814/4735   0
    """
    assert states(told, End.SERVER)[:2] == [State.CLOSE_WAIT, State.LAST_ACK]
