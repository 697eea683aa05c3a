"""What can keep a live capture from beginning, or from going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from closeseq.errors import CloseseqError

if TYPE_CHECKING:
    from closeseq.capture.live.devices import Device


class NotPermittedError(CloseseqError):
    """The system lets only privileged users open this."""


class DeviceError(CloseseqError):
    """A device cannot be captured on: there is none of that name, it is down, or it went away."""


class NoRingError(DeviceError):
    """The kernel has no ring of memory for captured packets."""


class FilterError(CloseseqError):
    """A filter expression cannot be used: it is wrong, or what compiles it is missing."""


def not_permitted(device: Device) -> NotPermittedError:
    """Return the error that says so of a device."""
    return NotPermittedError(f"capturing on {device.name} needs the right to read packets")
