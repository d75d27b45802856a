"""The GGUF file format: header, metadata, tensors and types, read with no trust in the file."""

from ondevice.gguf._file import GGUFFile, part_names, read
from ondevice.gguf._front import ArrayOnDisk, Part, TensorInfo, Value, block_of, read_summary

__all__ = [
    "ArrayOnDisk",
    "GGUFFile",
    "Part",
    "TensorInfo",
    "Value",
    "block_of",
    "part_names",
    "read",
    "read_summary",
]
