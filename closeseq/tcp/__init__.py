"""What TCP does: the eleven states, what moves them, and what the packets prove (RFC 9293).

One line a module, in the order the data goes:

    states           the states and the transition table, as data; the same for both endpoints
    timeline         the result: transitions with packet, time, cause and certainty; a step for each event
    distance         did two segments cross?
    evidence         a conversation arranged for questions: what each endpoint sent before or after a step
    sender           which system an endpoint runs, and how much it sent that was not captured
    echoes           did one segment arrive, by what its receiver acknowledged and echoed later?
    delayed_fin      when a FIN was sent first that was captured later: lost, or held back, before the capture
    delivery         when the receiver of a SYN or FIN accepted it
    acknowledgement  when the sender of a SYN or FIN received an acknowledgement of it
    fins             when an endpoint closed, also where its FIN was not captured
    rst              did a RST arrive, and was it acceptable?
    arrivals         for each event, whether it arrived, and a note for the reader
    machine          follows the table for both endpoints, and runs their timers
    replay           puts the above together: a pure function from events to a timeline; begin reading here

A capture shows what was sent. What an endpoint *sends* is observed; what it *received* is proved by what it
sent later, or assumed where nothing contradicts it. An inference that could be wrong is never called
observed or proved; `scripts/verify_against_kernel` compares the states with the kernel's own record.

Words: *sender* and *receiver* belong to a segment, *client* and *server* to a connection. A *transmission* is
one of several captured segments that carry the same SYN or FIN; all but the first are *retransmissions*. An
acknowledgement *covers* a SYN or FIN if it is past its number. Two segments *cross* when neither sender had
received the other's.
"""
