"""N faults drawn from a seed, one after the other; any of them can be repeated by its number alone."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.faults.kinds import KINDS
from tests.faults.material import VARIANTS, Expected, Material
from tests.faults.trial import Result, try_one, undisturbed

BACKENDS = ("standalone", "web UI")


class Campaign:
    """Trials on the standalone host; the checkpoint is made once, and each variant run once undisturbed."""

    kinds = KINDS

    def __init__(self, seed: int, folder: Path) -> None:
        self._seed = seed
        self._material = Material(folder)
        self._expected: dict[str, Expected] = {}

    def trial(self, number: int) -> Result | None:
        """The trial of this number: kinds take turns, all else is drawn. None where this system has no such fault."""
        rng = random.Random(f"faults {self._seed} {number}")
        kind, variant = KINDS[number % len(KINDS)], rng.choice(VARIANTS)
        if not kind.available():
            return None
        if variant not in self._expected:
            self._expected[variant] = undisturbed(self._material, variant)
        expected = self._expected[variant]
        settings = kind.draw(rng, expected.moments)
        return try_one(self._material, expected, kind, Result(number, kind.name, variant, settings))

    def close(self) -> None:
        """Nothing is left running."""


def find_backend(asked: str) -> str:
    """Of `BACKENDS`, the one asked for; for "auto" a web UI where there is one.

    Raises:
        SystemExit: there is no web UI, and one was asked for.
    """
    from tests.live.conftest import find_installation

    found = find_installation()
    if asked == "webui" and isinstance(found, str):
        raise SystemExit(found)
    return "standalone" if asked == "standalone" or isinstance(found, str) else "web UI"


def kinds_like(text: str, number: int, *, backend: str) -> bool:
    """Whether the kind of the trial of this number has `text` in its name."""
    kinds = _campaign_class(backend).kinds
    return text.lower() in kinds[number % len(kinds)].name.lower()


def _campaign_class(backend: str) -> Any:
    if backend == "standalone":
        return Campaign
    from tests.faults.webui.trial import WebUICampaign

    return WebUICampaign


def run_campaign(
    numbers: Sequence[int], *, seed: int, told: Callable[[Result], None], keep: bool = False, backend: str
) -> list[Result]:
    """Try these numbers; each result is told at once. With `keep`, the folders of bad trials stay."""
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    campaign, results = _campaign_class(backend)(seed, place), list[Result]()
    try:
        for number in numbers:
            result = campaign.trial(number)
            if result is not None:
                results.append(result)
                told(result)
    finally:
        campaign.close()
        if keep and any(result.why for result in results):
            print(f"kept: {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)
    return results


def write_line(path: Path, result: Result) -> None:
    """Append a result."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result.as_dict()) + "\n")
