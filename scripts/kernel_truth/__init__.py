"""What the Linux kernel says about real TCP connections, recorded beside their packets.

In the order the data goes:

    programs  what two applications and the network do to one connection, at random
    loss      packets dropped in one direction of one connection, before or after the capture point
    tap       tcpdump on the loopback interface
    networks  loopback with these two, or a path with its own capture point
    record    all of the above together: a capture, and a line of truth per connection
    compare   the truth against what closeseq infers from the packets alone

The network of our own comes from closeseq.lab.network, the path from closeseq.lab.path; every state
transition, as the tracepoint sock:inet_sock_set_state reports it, and the table of sockets from
closeseq.linux.
"""
