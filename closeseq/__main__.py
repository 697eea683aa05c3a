"""`python -m closeseq` is the command `closeseq`."""

from closeseq.cli.main import main

if __name__ == "__main__":
    main()
