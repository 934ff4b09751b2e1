"""Where things lie in a web UI's data folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.faults.material import Folders

MADE = ("pictures", "class", "cache_latents", "home", "beside", "models/Lora", "pivotal_runs")
"""Folders that a trial fills."""


@dataclass
class WebUIFolders(Folders):
    """`root` is the web UI's `--data-dir`; a run's folder is known once it was started."""

    run: Path | None = None

    def __post_init__(self) -> None:
        self.disk_bytes = 24 * 2**20
        for name in (
            "pictures",
            "class",
            "cache_latents",
            "temporary",
            "home",
            "beside",
            "models/Lora",
            "pivotal_runs",
        ):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    @property
    def loras(self) -> Path:
        return self.root / "models" / "Lora"

    @property
    def runs(self) -> Path:
        """All runs' folders."""
        return self.root / "pivotal_runs"

    @property
    def log(self) -> Path:
        return self.runs if self.run is None else self.run

    @property
    def cache(self) -> Path:
        return self.root / "cache_latents"

    @property
    def disks(self) -> tuple[Path, ...]:
        return self.runs, self.loras, self.cache
