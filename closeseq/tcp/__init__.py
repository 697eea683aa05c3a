"""What TCP does: the eleven states, what moves them, and what the packets prove (RFC 9293)."""
