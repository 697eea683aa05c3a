"""Pictures of one connection. Begin reading at ladder: what every drawing of the packets is made from.

ladder         both lifelines, rung by rung: arrows, states, remarks, findings
way            both endpoints' ways through the state diagram
palette        the colours of the states: active open and close green, passive blue
style_sheets   the CSS of the SVG pictures, light and dark
svg            the ladder as SVG
mermaid        the ladder as a Mermaid sequence diagram
plantuml       the ladder as a PlantUML sequence diagram
msc            the ladder as a message sequence chart for mscgen
state_svg      the state diagram, with or without a way, as SVG
dot            the same for Graphviz
picture_forms  these by name, and how a file holds them
"""
