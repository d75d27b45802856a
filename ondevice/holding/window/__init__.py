"""A model of which a part is in RAM and the rest read from the disk for each pass."""
