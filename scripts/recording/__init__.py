"""Records the captures of `captures/`: real sockets, real packets, real kernel.

    registry     the experiments by name, each with what its capture needs
    bench        the workplace of one experiment: capture, lost packets, socket table
    applications what clients and servers do with their sockets
    crafted      segments that no socket would send, made with scapy
    closes       experiments on an intact path: every order in which two programs can close
    losses       experiments on which packets get lost, or the capture point misses them
    rejections   experiments that end in RST, and those that only look like it
    variants     the same capture in other file formats

Every experiment runs in a network and process namespace of its own (see `record_captures`), so that
several can run at once, kernel settings stay inside, and nothing is left behind.
"""
