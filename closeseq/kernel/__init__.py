"""What Linux itself says about its sockets, beside what the packets tell.

    socket_table  all TCP sockets at one moment: state, queues, timer, owner's inode; begin reading here
    sock_diag     how the kernel is asked for them
    tracepoint    every transition of a socket, as it happens
    instance      how the kernel is made to record it, and nothing is left of that: guardian, pages, tracefs
    owners        which processes hold a socket
    owner_service the same without waiting, and without root's powers in the process that asks
    owner_server  the process that keeps two of those powers
    capabilities  how it is rid of the others
    namespaces    enter the network namespace of a container
    ports, errors what these have in common

Linux only. Nothing is loaded here: each module is imported where it is used.
"""
