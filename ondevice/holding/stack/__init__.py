"""Models whose size is a dial: residual stacks, of which any prefix is a working model.

Here is what needs no native code; a stack in use is in ``stack``, the making of one in ``pack``.
"""

from ondevice.holding.stack._file import Block, Matrix, StackFile

__all__ = ["Block", "Matrix", "StackFile"]
