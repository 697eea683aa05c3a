"""What Linux itself reports about its sockets, beside what the packets show.

    socket_table   all TCP sockets at one moment: state, queues, timer, inode; start reading here
    sock_diag      how the kernel is asked for them: sock_diag(7) over netlink(7)
    tracepoint     every transition of a socket, as it happens
    reset_trace    every RST that the kernel sends, with its reason
    reset_wording  what each of these reasons means
    tracing        the tracefs instance that records such events, and its removal
    epoch          the clock of its records, as Unix time
    owners         which processes own a socket
    owner_service  the same without waiting, and without root's privileges in the process that asks
    owner_server   the process behind it, which keeps two capabilities
    sysctl         settings of the kernel: how many ephemeral ports there are
    namespaces     enter the network namespace of a container

Linux only. Nothing is loaded here: each module is imported where it is used.
"""
