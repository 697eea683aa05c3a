"""Small programs that talk TCP, each run by itself: `python -m closeseq.lab.programs.NAME PORT`.

    echo_server     sends back what it gets, and closes when its client has closed
    echo_client     sends what its user types, and prints what comes back
    leaky_server    sends back what it gets once, and never closes
    endless_server  writes for as long as it lives, and never reads
    sleeping_client connects and falls asleep
    writing_client  writes what its user types, and never reads
    common          what they share: arguments, name, ending

All are as plain as such programs are, mistakes included: what they get wrong is what the lab shows.
"""
