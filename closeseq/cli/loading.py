"""Load all that a watch will ever need, before root is given up.

What costs time to load is loaded where it is used, which may be too late: the user that we become need not be
able to read root's Python.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

# Of the standard library and others, what is loaded late; closeseq's own modules are all loaded anyway.
LATE = ("importlib.metadata", "encodings.idna", "dpkt", "tabulate", "psutil", "unicodedata")
LEFT_OUT = ("closeseq.lab", "closeseq.__main__")  # a watch has no use for them


def load_everything() -> None:
    """Load closeseq's modules, and run one connection, that was never captured, down the whole road."""
    import closeseq

    for name in LATE:
        import_module(name)
    for module in pkgutil.walk_packages(closeseq.__path__, "closeseq."):
        if not module.name.startswith(LEFT_OUT):
            import_module(module.name)
    connection = closeseq.from_script("C:S S:SA C:A ~ C:FA S:A S:FA C:A")
    closeseq.record(connection)
    closeseq.format_timeline(connection)
    closeseq.__version__  # noqa: B018 - looking it up loads what tells it
