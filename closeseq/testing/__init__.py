"""What the pytest plugin's fixture `closes` gives to a test: assertions about how its connections closed.

In the order the data goes:

    packet_watch  the packets of a test, captured while it runs, or those of a capture file
    assertions    what a test asserts of the connections, and the message if it does not hold

`closeseq.pytest_plugin` is the plugin itself. It loads this package when the fixture is first used.
"""

from closeseq.testing.assertions import CloseWatch, PortCloses

__all__ = ["CloseWatch", "PortCloses"]
