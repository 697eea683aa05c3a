"""One capture, in the portions that tasks on other machines can do: each by itself, and twice if need be.

A connection is never put together from states. Those whose packets lie in one file are made there. Of those
that go on in another one, and of ports that are used again in another one, the packets' columns travel, and
one engine is fed with them, in their order.

tasks   what is done elsewhere: begin reading here
plan    which tasks there are, and what goes from one to the next
keys    which addresses and ports a file has, as numbers of 64 bits
peers   which end is the client, where only the whole capture can tell
tables  connections as bytes, and those of several shards as one
held    bytes that a task hands on: as they are, or in a file that all machines can read
"""
