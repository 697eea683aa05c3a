"""How a connection closed, and what deserves attention: every code, its rule and its words."""
