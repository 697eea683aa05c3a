"""closeseq inside Wireshark: comments on packets, a plugin that reads them, and a capture interface.

comments      what is said of each packet that matters
annotate      a capture again as pcapng, with comments on its packets
folders       where Wireshark keeps what belongs to its user
lines         closeseq's lines in the files of colours and buttons
installation  puts plugin, colours, buttons and extcap program there, and takes them out again
extcap        what Wireshark asks a capture interface (extcap(4)), and the answers
held          a live capture whose packets wait a moment for their comments

`closeseq.lua`, beside these, is the plugin: it turns comments into fields.
"""
