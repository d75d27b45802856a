"""Models whose size is a dial: residual stacks, of which any prefix is a working model."""

from ondevice.holding.stack._file import Block, Matrix, StackFile, is_stack
from ondevice.holding.stack.pack import PackProgress, pack
from ondevice.holding.stack.stack import Stack

__all__ = ["Block", "Matrix", "PackProgress", "Stack", "StackFile", "is_stack", "pack"]
