"""Other processes that do a part of the work. Nothing here knows what the work is about.

processors  how many processors this process may use
forked      copies of this process, which share all that it has read, and each do some of the tasks
ahead       another copy, which makes what comes next, while what came before is worked on
"""
