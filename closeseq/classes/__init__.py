"""Connections in classes: one replay stands for all that go the same way.

A replay is made of the numbers of one connection, and notes what it compares them with. What it leaves
behind are the conditions under which it is the right one; over columns, they tell which other connections
go the same way. The next replay is that of one which does not. So nobody writes down what the rules in `tcp`
and `verdict` look at, and whatever they will look at is noted as well. What was found is then said of all
that go this way, texts included, with the numbers of each put in.

    classes   `Classes`: begin reading here
    parallel  the same by several processes
    outcome   what members of a class have in common: the promise
    numbers   numbers that note what they are compared with, and the tape they note it on
    shadows   what replay and verdict see meanwhile instead of `min`, `max` and the functions for texts
    forms     the expressions that were compared, each written down once; texts with holes
    tree      the known replays of connections with the same steps, by the conditions that lead to each
    template  the timeline and judgement of a class, into which a member's numbers are put
"""

from closeseq.classes.classes import Classes, Classified
from closeseq.classes.outcome import Outcome

__all__ = ["Classes", "Classified", "Outcome"]
