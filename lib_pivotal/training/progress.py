"""How far a run is: what its loop moves, and what is written with every state."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from lib_pivotal.training.first_phase import FirstPhase
from lib_pivotal.training.validation import ValidationProgress


@dataclass
class Progress:
    """How far a run is; the loop moves it."""

    step: int = 0
    images_seen: Counter[str] = field(default_factory=Counter)
    splits: int = 1
    """In so many parts micro-batches are split for lack of memory."""
    first_phase: FirstPhase = field(default_factory=FirstPhase)
    shares: dict[str, float] = field(default_factory=dict)
    """Separation as last measured: the share of each embedding in what was learnt."""
    validation: ValidationProgress = field(default_factory=ValidationProgress)
