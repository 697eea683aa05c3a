"""The four ways in which a capture may be compressed, and what compresses in them here."""

from __future__ import annotations

import bz2
import gzip
import lzma
from importlib import import_module

import pytest


def _zstd():
    for name in ("compression.zstd", "zstandard"):
        try:
            return import_module(name).compress
        except ImportError:
            continue
    return None


ZSTD = _zstd()
PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
if ZSTD is not None:
    PACK["zstd"] = ZSTD
EACH = [
    *("gzip", "bzip2", "xz"),
    pytest.param("zstd", marks=pytest.mark.skipif(ZSTD is None, reason="nothing here compresses with zstd")),
]
