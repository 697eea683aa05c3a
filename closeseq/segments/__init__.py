"""Segments: the TCP headers of a batch of frames, as columns. It knows nothing about connections.

    decode         from frames to columns: find the TCP header, check it, read it, all frames at once
    links          the table of link types, and where the network layer of each frame begins
    layouts        the formats of IP and TCP headers as numpy dtypes
    tcp_options    timestamps, SACK and D-SACK from the TCP options
    reset_payload  what a RST carries beside its header
    encapsulation  the frames that are walked one by one: tunnels, extension headers, MPLS, PPPoE
    wireless       802.11, alone or behind radiotap and PPI
    layers         what the steps of that walk return
    fragments      segments that came in several IP fragments, reassembled

Every frame gives a row (an 802.11 aggregate may give several), or is counted in `Segments.skipped` under one
of these reasons:

    link type N not known       no entry in `links.LINKS`
    link header cut short       the snap length ends before the network layer
    not IP                      ARP, spanning tree, 802.11 frames without data, ...
    802.11 encrypted            a data frame with its "protected" flag set
    802.11 fragment             a piece of a frame, and not the first
    IP header cut short         the snap length ends within the (outer) IP header
    malformed IP header         version or header length is wrong, or the lengths contradict each other
    IP fragment                 a piece of a segment, and not the one that completes it
    not TCP                     UDP, ICMP (also when it quotes a TCP header), encrypted payload, ...
    encapsulation cut short     the snap length ends within a tunnel's or an extension header
    encapsulation too deep      more than 32 headers on top of each other
    TCP header cut short        the snap length ends within the fixed 20 bytes
    malformed TCP header        the data offset is below 5 words, or there is no room for the header

`Segments.notes` counts rows with a remark:

    segmentation offload: IP length 0         the payload length was taken from the length on the wire
    IP length exceeds the length on the wire  the IP length was used
    put together from IP fragments            the row has number and time of the piece that completed it
"""

from closeseq.segments.decode import Decoder, decode

__all__ = ["Decoder", "decode"]
