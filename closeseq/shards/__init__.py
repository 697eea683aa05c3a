"""One capture in portions that tasks on other machines can do: each by itself, and twice if need be.

A connection is never put together from states. If all its packets lie in one file, it is made there. If not,
or if its ports are used again in another file, the columns of its packets travel, and one engine is fed with
them in order.

    tasks   what is done elsewhere; begin reading here
    plan    which tasks there are, and what passes from one to the next
    keys    which addresses and ports a file has, and which endpoint is the client
    tables  connections as bytes, and those of several shards as one
"""
