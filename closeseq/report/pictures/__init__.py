"""Pictures of one connection. Begin reading at ladder: what every drawing of the packets is made from.

ladder         both lifelines, rung by rung: arrows, states, remarks, findings
palette        the colours of the states: active open and close green, passive blue
ladder_style   the CSS of the ladder, light and dark
svg            the ladder as SVG
"""
