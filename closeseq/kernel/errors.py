"""What can go wrong in asking the kernel."""

from __future__ import annotations

from closeseq.errors import CloseseqError


class KernelError(CloseseqError):
    """The kernel cannot be asked, or refuses; the text is one line that says what is missing."""
