"""The report on a capture that a cluster's workers make: each writes a part, and one summary is of all.

What is the same for all connections is counted by shard, and the counts are added here. What grows with
their number (a row for each, addresses, shapes) never comes here: it is divided by server, address and shape,
so that each part has all of some of them. A task a part sees what its connections show together, and hands on
no more than the summary can show.

    orders   the tasks: one for each shard, one for each part; begin reading here
    kinds    counts by kind that can be added, and the most frequent of many kinds
    totals   counts of few kinds: verdicts, findings, notices
    spread   what grows with the connections, and how it is divided
    digest   what the summary can show of it
    whole    the summary
"""
