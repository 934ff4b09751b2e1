"""N faults drawn from a seed, one after the other; any of them can be repeated by its number alone."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.faults.kinds import KINDS, Kind
from tests.faults.material import VARIANTS, Expected, Material
from tests.faults.trial import Result, try_one, undisturbed


class Campaign:
    """Trials on the standalone host; the checkpoint is made once, and each variant run once undisturbed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed = seed
        self._material = Material(folder)
        self._expected: dict[str, Expected] = {}
        self.kinds: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind.available())

    def trial(self, number: int) -> Result:
        """The trial of this number: kinds take turns, everything else is drawn."""
        rng = random.Random(f"faults {self._seed} {number}")
        kind, variant = self.kinds[number % len(self.kinds)], rng.choice(VARIANTS)
        if variant not in self._expected:
            self._expected[variant] = undisturbed(self._material, variant)
        expected = self._expected[variant]
        settings = kind.draw(rng, expected.moments)
        return try_one(self._material, expected, kind, Result(number, kind.name, variant, settings))


def run_campaign(numbers: Sequence[int], *, seed: int, told: Callable[[Result], None], folder: Path | None = None) -> list[Result]:
    """Try these numbers; each result is told at once."""
    results = []
    with tempfile.TemporaryDirectory(prefix="faults-", dir=folder) as place:
        campaign = Campaign(seed, Path(place))
        for number in numbers:
            results.append(campaign.trial(number))
            told(results[-1])
    return results


def write_line(path: Path, result: Result) -> None:
    """Append a result."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result.as_dict()) + "\n")
