"""One capture analysed by tasks on other machines: each runs by itself, and may run twice.

A connection is never put together from states. If all its packets lie in one file, a task makes it there. If
not, or if its ports are used again in another file, the columns of its packets travel to a task that is fed
with them in order.

    tasks   the functions that run elsewhere; begin reading here
    plan    which tasks there are, and what passes from one to the next
    keys    which addresses and ports a file has, and which endpoint is the client
    tables  connections as bytes, and those of several shards as one
"""
