"""Reports: text and tables for people, records for programs. Nothing is computed here that is not shown.

text           text, numbers and times, safe for a terminal
selection      which connections of an analysis are asked for
problems       the problems of a capture by cause, the worst first
summary        what was read, which program to fix, how the connections closed
why            which program got an error, at which packet
table          one line a connection
table_fields   the columns of the tables for data frames, and what they mean
diagram        the state diagram of RFC 9293, drawn from the transition table
timeline_text  the close, packet by packet, with both endpoints' states
endpoints      each endpoint at the end: what it waits for, which timer runs, what was found
pictures       one connection as a picture
socket_states  the socket table as netstat would have shown it at a moment
page           one page of HTML, to attach to a ticket
live_text      what `live` prints: a block a connection, a table of states, a summary at the end
records        one object a connection, for programs: json, jsonl, csv
rows           the fields of these objects
json_text      these as JSON, also for a whole class of connections
aka            Zeek's and Wireshark's terms for the same connection
containment    a fault while one connection is drawn affects only that connection
"""
