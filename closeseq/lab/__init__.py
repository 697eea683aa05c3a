"""The lab: every way of closing, made to happen with real sockets, and the inference held against the kernel.

In the order in which a run goes:

    registry     the experiments by name, each with what it is expected to show
    experiments  the experiments themselves: short programs, to be read
    run          several side by side, each in a process of its own
    child        that process, on its way into its namespaces
    namespace    a network and processes of our own, which leave nothing behind
    conduct      one experiment from beginning to end
    bench        its workplace: capture, sockets, programs, steps
    programs     servers and clients that are run as processes, processes starts them
    applications, crafted, network
                 what else an experiment does: with sockets, with packets made by hand, with loopback
    path         two namespaces with a path between them; faults says what it does to packets, relay does it,
                 between two TUN devices (tun)
    tap, trace   its packets, through our own ring or from the path; the kernel's transitions
    answers      what the kernel said, and the file that keeps it
    agreement    the inference held against that
    story        all of it told as it goes
    outcome      what can come of it
"""
