"""The command `closeseq`, also as `python -m closeseq`."""

from __future__ import annotations

import sys

from closeseq.errors import lacking

INTERRUPTED = 130  # as a shell reports SIGINT
BUG = 70  # as in `closeseq.cli.terminal`, which may be what cannot be loaded


def main() -> None:
    """Run the command line and exit; Ctrl-C while it is still being loaded is no bug."""
    try:
        from closeseq.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        if (said := lacking(error)) is None:
            raise
        sys.stderr.write(f"closeseq: {said}\n")
        sys.exit(BUG)
    run()


if __name__ == "__main__":
    main()
