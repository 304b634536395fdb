"""Reproducible numbers for the self-checks."""

from numerics import random


def stream(seed):
    """An endless stream of reproducible 64-bit numbers."""
    position = 0
    while True:
        yield random(seed, position)
        position += 1
