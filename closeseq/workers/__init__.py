"""Other processes that do a part of the work. Nothing here knows what the work is about.

processors  how many processors this process may use
pool        forked copies of this process: each does some of the tasks, or makes the next items ahead
"""
