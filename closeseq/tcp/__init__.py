"""What TCP does: the eleven states, what moves them, and what the packets prove (RFC 9293).

One line a module, in the order the data goes:

    states     the states and the transition table, as data; the same for both ends
    timers     how long 2MSL and an orphan's FIN_WAIT_2 last, by operating system
    timeline   the result: transitions with packet, time, cause and certainty; a step for each event
    evidence   a conversation arranged for questions: what each end said before or after a step
    system     which operating system an end runs, for rules that hold on one
    echoes     did one segment arrive, by what its receiver acknowledged and echoed later?
    unseen     how much an end sent that was not captured, by the numbers of its packets
    timeouts   when an end sent its FIN first, where that was lost before it was captured
    waiting    when an end closed whose FIN had to wait before it was captured
    delivery   was a SYN or FIN received, and did its sender learn of it?
    fins       when an end closed, also where its FIN was not captured, or waited before it was sent
    resets     did a RST arrive, and was it acceptable?
    arrivals   for each event, whether it arrived, and what a reader should know of it
    machine    follows the table for both ends, and runs their timers
    replay     puts the above together: a pure function from events to a timeline

A capture shows what was sent. What an end *sends* is observed; what it *received* is proved by what it
sent later, or assumed where nothing contradicts it. An inference that could be wrong is never called
observed or proved, and `scripts/verify_against_kernel` holds that against the kernel's own record.

Words: *sender* and *receiver* belong to a segment, *client* and *server* to a connection. A *copy* is one
of several captured transmissions of the same SYN or FIN. An acknowledgement *covers* a SYN or FIN if it
is past its number. Two segments *cross* when neither sender had received the other's.
"""
