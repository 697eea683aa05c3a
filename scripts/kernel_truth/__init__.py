"""What the Linux kernel reports about real TCP connections, recorded beside their packets.

In the order the data goes:

    programs  what two applications and the network do to one connection, at random
    loss      packets dropped in one direction of one connection, before or after the capture point
    networks  loopback with the lab's tap on it, or a path with its own capture point
    record    all of the above together: a capture, and a line of truth per connection
    compare   the truth against what closeseq infers from the packets alone

The network, the path, the tap and the trace of every state transition (the tracepoint
sock:inet_sock_set_state) are the lab's; the table of sockets is from closeseq.linux.
"""
