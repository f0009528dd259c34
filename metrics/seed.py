"""Random draws that depend on what they are for, never on when, where or in which order they are made."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_for(seed: int, purpose: str, key: str) -> int:
    """A 64-bit seed for one draw, from the run's seed, the purpose of the draw and the item's key."""
    message = f"{seed}\0{purpose}\0{key}".encode()
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little")


def generator(seed: int, purpose: str, key: str) -> np.random.Generator:
    """A NumPy generator (PCG64) of its own for one (seed, purpose, key)."""
    return np.random.Generator(np.random.PCG64(seed_for(seed, purpose, key)))
