"""The terminal app on top of ondevice."""
