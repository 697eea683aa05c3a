"""The words of Zeek and Wireshark, held against what those tools say of the same packets."""

from __future__ import annotations

import pytest

from closeseq.report.aka import wireshark_completeness, zeek_conn_state, zeek_history
from report_examples import event, talk, traffic

ENDS = {"C": "client", "S": "server"}


def conversation(script):
    """Make a conversation of words such as `C:S`; `~` is data both ways, `C:R@7` has that number."""
    steps = []
    for number, word in enumerate(script.split(), start=1):
        if word == "~":
            steps.append(traffic(10 * number, number / 10, 5, 2))
            continue
        end, _, rest = word.partition(":")
        letters, _, seq = rest.partition("@")
        letters, _, length = letters.partition("+")
        made = event(10 * number, number / 10, ENDS[end], letters, length=int(length or 0), seq=int(seq or 0))
        steps.append(made)
    return talk(steps)


SAID = {
    # what happened: script, conn_state, history, completeness
    "closed by both": ("C:S S:SA C:A ~ C:FA S:A S:FA C:A", "SF", "ShADdFaf", 31),
    "closed in three segments": ("C:S S:SA C:A C:FA S:FA C:A", "SF", "ShAFf", 23),
    "unanswered": ("C:S C:S", "S0", "S", 1),
    "unanswered, by a stranger's new number": ("C:S C:S@5", "S0", "SS", 1),
    "refused": ("C:S S:RA", "REJ", "Sr", 37),
    "open": ("C:S S:SA C:A ~", "S1", "ShADd", 15),
    "only the client closed": ("C:S S:SA C:A C:FA S:A", "S2", "ShAFa", 23),
    "only the server closed": ("C:S S:SA C:A S:FA C:A", "S3", "ShAf", 23),
    "reset by the client": ("C:S S:SA C:A ~ C:RA", "RSTO", "ShADdR", 47),
    "reset by the server": ("C:S S:SA C:A C:PA+5 S:R", "RSTR", "ShADr", 47),
    "given up before an answer": ("C:S C:R", "RSTOS0", "SR", 33),
    "given up after an ACK of nothing": ("C:S C:A C:R", "OTH", "SAR", 37),
    "half a handshake, then FIN": ("C:S C:FA", "SH", "SF", 21),
    "the answering half, then FIN": ("S:SA S:FA", "SHR", "hf", 20),
    "the answering half, then RST": ("S:SA S:R", "RSTRH", "hr", 32),
    "in the middle": ("~", "OTH", "Dd", 8),
    "RST out of nowhere": ("S:R", "RSTRH", "r", 0),
    "FIN, then RST, then the other's FIN": ("C:S S:SA C:A C:FA C:R S:FA", "SF", "ShAFRf", 55),
    "RST after both FINs": ("C:S S:SA C:A C:FA S:FA C:A S:R", "SF", "ShAFfr", 55),
    "RST again with another number": ("C:S S:SA C:A C:R@1 C:R@9 C:R@9", "RSTO", "ShARR", 39),
    "SYN not captured, handshake answered": ("S:SA C:A ~", "S1", "hADd", 12),
    "SYN and FIN at once": ("C:SF S:RA", "RSTR", "Qr", 37),
    "FIN and RST at once": ("C:S S:SA C:A C:FRA", "RSTO", "ShAI", 55),
    "an ACK before the SYN+ACK": ("C:S S:A S:SA C:A", "S1", "SahA", 7),
    "data in the SYN": ("C:S+10 S:SA C:A", "S1", "ShA", 15),
}


@pytest.mark.parametrize("what", SAID)
def test_zeek_and_wireshark_are_quoted(what):
    script, state, history, completeness = SAID[what]
    told = conversation(script)
    assert (zeek_conn_state(told), zeek_history(told), wireshark_completeness(told)) == (
        state,
        history,
        completeness,
    )
