"""The rules of the findings, one module a topic. Each rule is a generator: a `Case` in, findings out.

stuck         an endpoint waits in CLOSE_WAIT, FIN_WAIT_2 or another state of the close
vanished      an endpoint whose peer no longer answers: half-open
loss          a FIN or the last ACK was lost
time_wait     what happens to an endpoint in TIME_WAIT
data          data after a FIN: accepted, refused, or none for a long time
reset_causes  why an endpoint sent RST, most likely first; reset_facts: what happened before it
notices       good to know: challenge ACKs, keepalives, what the capture missed
"""
