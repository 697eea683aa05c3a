"""The report on a capture that a cluster's workers make, each a part of it, and one summary for all.

parts    a shard's records, written where they are to be, and what they come to
totals   what shards come to, added up, as the summary says it
"""
