"""The command `closeseq`: one file a command. Only here is click known, and only here a clock read."""
