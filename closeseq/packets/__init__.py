"""What the stages pass on: frames, segments, and arithmetic on numbers that wrap.

frames     what was captured, before anyone looks inside; the files it came from
segments   TCP headers as columns, one row a segment; flags; sequence arithmetic
reset_reasons  what a RST says of its reason
protocols  link types, EtherTypes, IP protocols, tunnel ports
gather     headers out of a buffer and into it, many at a time
value      cheap immutable objects, of which a run makes millions
"""
