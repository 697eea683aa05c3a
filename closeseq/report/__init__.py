"""What a person or a program reads: text, tables, records. Nothing is computed here that is not shown.

text       words, numbers and times as people read them, safe for a terminal
selection  which connections of an analysis are asked for
summary    what was read, what to mend, how the connections closed
table      one line a connection
timeline   the close, packet by packet, with both ends' states
census     the socket table as netstat would have shown it at a moment
records    one object a connection, for programs: json, jsonl, csv
contained  a fault in closeseq while it draws one connection costs that connection alone
aka        the words of Zeek and Wireshark for the same connection
"""
