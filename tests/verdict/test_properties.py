"""What holds for every connection, however strange: it is judged, and its texts are well formed."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from closeseq.errors import ScriptError
from closeseq.script import conversations, segments
from closeseq.settings import SECOND, Limits, Timers
from closeseq.tcp.replay import replay
from closeseq.verdict import judge
from closeseq.verdict.ending import RULES as VERDICTS
from closeseq.verdict.judgement import RULES
from closeseq.verdict.model import Severity
from examples import examples
from verdict_examples import check_mirror, mirrored, packets

KINDS = ["S", "SA", "A", "A/0", "PA+1", "PA+100", "FA", "FPA+10", "R", "RA", "K", "FA*", "PA*", "S*", "SA*"]
MARKS = ["", "", "", "", "!", "?"]
words_of_segments = st.builds(
    lambda end, kind, mark: f"{end}:{kind}{mark}",
    st.sampled_from("CS"),
    st.sampled_from(KINDS),
    st.sampled_from(MARKS),
)
words = st.one_of(*[words_of_segments] * 3, st.sampled_from(["~", "+0.3s", "+2s", "+70s"]))
beginnings = st.sampled_from(
    ["", "C:S S:SA C:A", "C:S S:SA C:A ~ C:FA S:A", "C:S S:SA C:A S:FA C:A C:FA S:A"]
)


@st.composite
def told(draw):
    """Draw the connections of a script; what no segment can say is left out."""
    script, added = draw(beginnings), draw(st.lists(words, max_size=12))
    timestamps = draw(st.booleans())
    with contextlib.suppress(ScriptError):
        whole = " ".join([script, *added])
        segments(whole, timestamps=True)
        script, added = whole, []
    for word in added:
        with contextlib.suppress(ScriptError):
            segments(f"{script} {word}", timestamps=True)
            script = f"{script} {word}"
    return script, conversations(script, timestamps=timestamps) if script.strip() else []


@examples(200)
@given(told(), st.sampled_from([0, 3, 60, 200]), st.sampled_from([0, 2, 60]), st.sampled_from([0, 5]))
def test_every_connection_is_judged(told, wait, stuck_after, dropped):
    _, found = told
    now_ns = max((one.last_ns for one in found), default=0) + wait * SECOND
    for conversation in found:
        timeline = replay(conversation, Timers(), now_ns)
        judgement = judge(timeline, Limits(stuck_after_ns=stuck_after * SECOND), dropped=dropped)
        assert judgement.verdict.code in VERDICTS
        assert set(judgement.verdict.packets) <= packets(conversation)
        order = [
            (finding.severity is not Severity.PROBLEM, list(RULES).index(finding.code))
            for finding in judgement.findings
        ]
        assert order == sorted(order)
        for finding in judgement.findings:
            assert set(finding.packets) <= packets(conversation)
            assert finding.duration_ns is None or finding.duration_ns >= 0
            assert "None" not in finding.summary + finding.advice + judgement.verdict.summary
        check_mirror(timeline)
        assert mirrored(mirrored(timeline)) == timeline
