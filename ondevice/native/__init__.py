"""Code in C, compiled for this very processor when it is first wanted, and kept."""

from ondevice.native._compiling import CSource, address_of, library

__all__ = ["CSource", "address_of", "library"]
