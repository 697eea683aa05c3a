"""Errors go from one process to another as they are."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

import closeseq
from closeseq.errors import CaptureError, CloseseqError, SaveError, ScriptError, UnknownWordError, WorkerError

ERRORS = {
    "a capture": CaptureError("is damaged", path="x.pcap", packet=3, byte=77, remedy="copy it again"),
    "a capture, and nothing more": CaptureError("no such file", path="x.pcap"),
    "saving": SaveError("cannot be written", path="y.pcapng", packets=12, errno=28),
    "a script": ScriptError("C:X is no segment"),
    "a word": UnknownWordError("nothing is called that"),
    "a worker": WorkerError(-9),
    "a device": closeseq.DeviceError("there is no interface eth7"),
    "a filter": closeseq.FilterError("it is wrong"),
    "permission": closeseq.NotPermittedError("only root may"),
}


def told(error: CloseseqError) -> tuple:
    return type(error), str(error), error.args, vars(error)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_is_the_same_when_it_was_pickled(error, protocol):
    assert told(pickle.loads(pickle.dumps(error, protocol))) == told(error)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_an_error_can_be_copied(error):
    assert told(copy.copy(error)) == told(error)
    assert told(copy.deepcopy(error)) == told(error)


def test_an_error_comes_out_of_another_process(tmp_path):
    missing = str(tmp_path / "missing.pcap")
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(CaptureError) as caught,
    ):
        pool.submit(closeseq.analyze, missing).result()
    assert (caught.value.path, caught.value.problem) == (missing, "no such file")
