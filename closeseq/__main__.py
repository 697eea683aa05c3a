"""The command `closeseq`, also as `python -m closeseq`."""

from __future__ import annotations

import sys

INTERRUPTED = 130  # as a shell reports SIGINT


def main() -> None:
    """Run the command line and exit; Ctrl-C while it is still being loaded is no bug."""
    try:
        from closeseq.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
