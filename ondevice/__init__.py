"""ondevice: local language models sized to the RAM at hand, with a private memory."""

__version__ = "0.1.0"
