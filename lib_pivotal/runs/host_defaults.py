"""What a run is planned for: the checkpoint's own size and tokenizer, and what the user chose for all runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lib_pivotal.config import DataConfig, Run
from lib_pivotal.prompts import PromptReading
from lib_pivotal.runs.backend import TrainerBackend
from lib_pivotal.runs.checkpoint_advice import PLAIN_PX, native_px


def _as_it_is(run: Run) -> Run:
    return run


def _as_they_are(data: DataConfig) -> DataConfig:
    return data


@dataclass(frozen=True)
class HostDefaults:
    """`native_px`: side of the square that the checkpoint draws best. `prompts`: how its host reads prompts, None where
    no tokenizer is there. `adjusted` puts choices for all runs over a run that a preset has made; `scanned_as` what is
    chosen of file names as captions into settings of pictures that say nothing of them."""

    native_px: int = PLAIN_PX
    prompts: PromptReading | None = None
    adjusted: Callable[[Run], Run] = _as_it_is
    scanned_as: Callable[[DataConfig], DataConfig] = _as_they_are


def host_defaults_of(backend: TrainerBackend) -> HostDefaults:
    """Those of the process that lends its checkpoint; nothing is loaded for it."""
    return HostDefaults(native_px(backend.model_info()), backend.prompts(), backend.adjusted, backend.scanned_as)
