"""What an endpoint sent uncaptured: the quick question may say yes too often, and never no too often."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closeseq.connections.conversation import ENDS, Event
from closeseq.tcp.evidence import Evidence
from closeseq.tcp.sender import STRIDE, may_follow, unseen
from examples import examples
from segment_rows import CAPTURES, captured, conversations, soups

IDS = st.sampled_from([-1, 0, 1, 2, 3, 4, 7, 20, 40_000, 65_535])


def exactly(evidence, end, segment):
    """Return how many packets were surely sent uncaptured right before a segment; None if that is open."""
    count = unseen(evidence, end, segment, segment.step)
    return count.number if count is not None and count.exact else None


def assert_consistent(conversation):
    evidence = Evidence(conversation, conversation.last_ns)
    for end in ENDS:
        for segment in evidence.sent[end]:
            number = exactly(evidence, end, segment)
            for least, most in ((0, 0), (1, STRIDE), (1, 1)):
                if number is not None and least <= number <= most:
                    assert may_follow(evidence, end, segment, least, most)


@pytest.mark.parametrize("path", CAPTURES, ids=[path.stem for path in CAPTURES])
def test_what_was_counted_may_have_been_sent_in_all_captures(path):
    for conversation in conversations(captured(path)):
        assert_consistent(conversation)


@examples(200)
@given(soups(most=12), st.lists(IDS, min_size=12, max_size=12))
def test_what_was_counted_may_have_been_sent_whatever_the_numbers(rows, ids):
    rows = dataclasses.replace(rows, ip_id=np.resize(np.array(ids, np.int32), len(rows)))
    for conversation in conversations(rows):
        assert_consistent(conversation)


def test_of_ordinary_packets_it_says_no():
    asked = said = 0
    for path in CAPTURES:
        for conversation in conversations(captured(path)):
            evidence = Evidence(conversation, conversation.last_ns)
            for end in ENDS:
                for segment in evidence.sent[end]:
                    if isinstance(segment.event, Event) and segment.event.fin:
                        asked += 1
                        said += may_follow(evidence, end, segment, 1, STRIDE)
    assert asked > 100
    assert said < asked / 4
