"""What the Linux kernel says about real TCP connections, recorded beside their packets.

In the order the data goes:

    namespace     a network of our own to work in, gone when this process is gone
    loss          packets dropped in one direction of one connection, before or after the capture point
    tap           tcpdump on the loopback interface
    tracepoint    every state transition, as sock:inet_sock_set_state reports it
    socket_table  the state of one socket at one moment, by sock_diag (what `ss` prints)
    programs      what two applications and the network do to one connection, at random
    record        all of the above together: a capture, and a line of truth per connection
    compare       the truth against what closeseq infers from the packets alone
"""
