"""What is different between the connections of two captures, and what of it is worse.

In the order the data goes:

    tally      one side counted: verdicts, findings, who closed first, how long the closes took
    chance     how likely a difference is by chance alone
    changes    the differences, each with what is to be made of it; begin reading here
    diff_text  the same for people, and as JSON
"""

from closeseq.diff.changes import Change, ChangeKind, Comparison, compare
from closeseq.diff.tally import Side, tally_of

__all__ = ["Change", "ChangeKind", "Comparison", "Side", "compare", "tally_of"]
