"""Models whose size is a dial: residual stacks, of which any prefix is a working model."""

from ondevice.stack._file import Block, Matrix, StackFile, is_stack
from ondevice.stack._pack import PackProgress, pack
from ondevice.stack._stack import Stack

__all__ = ["Block", "Matrix", "PackProgress", "Stack", "StackFile", "is_stack", "pack"]
