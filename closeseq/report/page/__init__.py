"""One page of HTML about a capture, to attach to a ticket. Begin reading at document.

line           one connection as the page counts it: the least that is needed of each
overview       all connections in one pass: counts, problems by cause, rows of the table
answer         the sentence at the top: who is to blame, how often, since when
occupancy      how many sockets are in which state, moment by moment
examples       the connections that are shown whole: which, each with its ladder and its record
charts         bars and stacked areas, as numbers for SVG
trends         the same over time, as charts and captions
document       the page itself, and its content security policy

page.html is the page, page.css its style, page.js makes the rows of the table and opens connections.
"""
