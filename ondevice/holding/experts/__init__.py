"""Experts of a mixture that are read when a router picks them: of a window and of a stack."""
