"""Code in C, compiled for this very processor when it is first wanted, and kept."""

from ondevice.native._compiling import Source, address_of, library

__all__ = ["Source", "address_of", "library"]
