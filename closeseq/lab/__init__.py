"""The lab: make each way of closing happen with real sockets, and compare the inference with the kernel.

In the order in which a run goes:

    registry        what an experiment is, and what it is expected to show
    experiments/    the experiments: short programs, to be read
    run             several side by side, each in a process of its own
    child           that process: it enters its namespaces and carries the experiment out
    network         namespaces that leave nothing behind; loss, delay and settings in them
    bench           what an experiment works with: capture, sockets, programs, steps
    actions         what else experiments do: with sockets, and with packets made by hand
    programs/       servers and clients that run as programs; processes: how they are started
    path            two namespaces with a path between them
    box             two namespaces with a router between them that filters packets
    faults          what the path does to packets; relay: does it, between two TUN devices (tun)
    tap             the capture of one experiment
    kernel_answers  what the kernel reported, and the file that keeps it
    agreement       the inference compared with that
    story           all of it printed as it happens
"""
