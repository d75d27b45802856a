"""Bytes from the disk: read past the page cache, mapped, in a ring, and how fast."""
