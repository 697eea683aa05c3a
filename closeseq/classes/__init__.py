"""Connections in classes: one replay stands for all connections of a class.

A replay runs on the numbers of one connection, and notes what it compares them with. The conditions that it
leaves behind hold for all connections for which the same replay is right; evaluated over columns, they find
these connections. The next replay is that of a connection that is still left. So nobody writes down what the
rules in `tcp` and `verdict` look at, and whatever they will look at is noted too. The result holds for all
connections of the class, texts included, with the numbers of each put in.

    numbers     numbers that note what they are compared with, and the tape they note it on
    forms       the expressions that were compared, each kept once; texts with holes
    shadows     what replay and verdict see meanwhile instead of `min`, `max` and the functions for texts
    evaluation  the numbers of many connections, and forms of them
    tree        the known replays of connections with the same steps, by the conditions that lead to each
    outcome     what members of a class have in common: the promise
    slots       where a member's numbers go in what one replay has left
    template    the timeline and judgement of a class, into which these are put
    drawing     the text that a report makes of a class, into which they are put
    classes     `Classes`, which finds them: begin reading here
    members     the classes of an analysis, each with its members
    parallel    the same by several processes
"""

from closeseq.classes.classes import Classes, Classified
from closeseq.classes.drawing import Drawer
from closeseq.classes.outcome import Outcome

__all__ = ["Classes", "Classified", "Drawer", "Outcome"]
