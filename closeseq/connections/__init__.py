"""From rows of TCP headers to connections: who talks to whom, and the few segments that matter."""
