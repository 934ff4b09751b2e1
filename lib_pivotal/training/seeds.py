"""Randomness that depends on where one is, not on what came before.

Every draw has a generator seeded from (purpose, seed, step, sample): a resumed run, a run split over processes, and a
run whose micro-batches were halved all see the same noise for the same sample.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(purpose: str, *numbers: int) -> int:
    """A 63-bit seed from a purpose and numbers; the same on every machine and Python."""
    text = ":".join([purpose, *(str(number) for number in numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def derived_generator(purpose: str, *numbers: int) -> torch.Generator:
    """A CPU generator seeded by `derive_seed`, so that draws do not depend on the device."""
    return torch.Generator().manual_seed(derive_seed(purpose, *numbers))
