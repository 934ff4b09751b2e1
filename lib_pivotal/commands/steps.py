"""Choose the step: rank the kept steps of a run, and put one into the LoRA folder."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_pivotal.commands.runs import Kept
from lib_pivotal.config import Run, read_run
from lib_pivotal.errors import ConfigError, HostError
from lib_pivotal.evaluation.picture_scorers import found_scorers, scorer_of
from lib_pivotal.evaluation.step_choice import RankedStep, common_figures, figure_kind, rank
from lib_pivotal.file_names import refuse_taken
from lib_pivotal.files import replacing
from lib_pivotal.importing.datasets import DATASET_FILES
from lib_pivotal.ports import Host
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.runs.samples import run_samples
from lib_pivotal.runs.step_records import scored, step_records


@dataclass(frozen=True)
class Ranking:
    """The steps of a run, best first, and the figures that decided."""

    folder: Path
    steps: tuple[RankedStep, ...]
    figures: tuple[str, ...]

    @property
    def said(self) -> str:
        """What decided, as a sentence."""
        if not self.figures:
            return "Nothing is known of these steps but their order: the last one is first."
        return f"By {', '.join(figure_kind(name).title for name in self.figures)}."

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "run": self.folder.name,
            "said": self.said,
            "steps": [
                {
                    "step": one.record.step,
                    "score": one.score,
                    "file": str(one.record.file),
                    "picture": None if one.record.picture is None else str(one.record.picture),
                    "figures": {figure_kind(name).title: value for name, value in one.record.figures.items()},
                }
                for one in self.steps
            ],
        }


def scorers() -> list[str]:
    """Names of the picture scorers that are installed."""
    return sorted(found_scorers())


def runs_with_steps(manager: RunManager) -> list[str]:
    """Ids of runs that have kept steps, the newest first."""
    folders = {path.parent for path in manager.backend.runs_folder().glob("*/*.events.jsonl")}
    kept = [folder for folder in folders if next(folder.glob("**/*-[0-9]*.safetensors"), None) is not None]
    return [folder.name for folder in sorted(kept, key=lambda path: path.stat().st_mtime, reverse=True)]


def rank_steps(folder: Path, *, by: Sequence[str] = ()) -> Ranking:
    """Rank the kept steps of a run's folder; `by` names picture scorers that look at its samples.

    Raises:
        HostError: no step was kept, or a scorer is not there or failed.
    """
    records = step_records(folder)
    if not records:
        raise HostError(f"{folder.name}: no step was kept. Samples keep their file with saving.keep_sampled")
    chosen = {name: scorer_of(name) for name in by}
    if chosen:
        records = scored(records, folder, chosen, embeddings=_embeddings(folder))
    return Ranking(folder, tuple(rank(records)), tuple(common_figures(records)))


def measure_run(manager: RunManager, run_id: str) -> Ranking:
    """Measure the kept steps of a run on the loaded checkpoint, keep the figures in its folder, and rank them.

    Raises:
        HostError: no such run or step, a run is going on, or the model cannot do it.
        ConfigError, DataError: the run's record or its pictures cannot be read any more.
    """
    if manager.running:
        raise HostError("a run is in progress: measure the steps when it has finished")
    manager.backend.check_ready()
    folder = run_folder(manager, run_id)
    run = _record_of(folder)
    with manager.backend.exclusive(run) as host:
        return measure(folder, host)


def measure(folder: Path, host: Host) -> Ranking:
    """Measure the kept steps of a run's folder on a host.

    Raises:
        HostError: no step was kept, or the figures cannot be written.
        ConfigError, DataError: as `measure_run`.
    """
    from lib_pivotal.runs.step_measuring import measure_steps  # here: to rank needs none of training

    records = step_records(folder)
    if records:
        measure_steps(_record_of(folder), records, host, folder, files=DATASET_FILES)
    return rank_steps(folder)


def _record_of(folder: Path) -> Run:
    record = next(iter(sorted(folder.glob("*.run.json"))), None)
    if record is None:
        raise HostError(f"{folder.name}: holds no run.json")
    return read_run(record)


def run_folder(manager: RunManager, run_id: str) -> Path:
    """The folder of a run by its id, which comes from outside; `current` is the one that goes on or was last.

    Raises:
        HostError: there is no such run.
    """
    view = manager.current
    if view is not None and run_id in ("current", view.run_id):
        return view.folder
    folder = next((path for path in manager.backend.runs_folder().iterdir() if path.name == run_id), None)
    if folder is None or not folder.is_dir():
        raise HostError(f"no run {run_id!r}")
    return folder


def use_step(manager: RunManager, run_id: str, *, step: int) -> Kept:
    """Copy a step of any run into the LoRA folder.

    Raises:
        HostError: no such run, or that step was not kept.
        FileNameError: there is another file of its name.
    """
    kept = use(run_folder(manager, run_id), manager.backend.lora_folder(), step=step)
    manager.backend.bundle_saved(kept.file)
    return kept


def use(folder: Path, target_folder: Path, *, step: int, overwrite: bool = False) -> Kept:
    """Copy a step of a run's folder into another folder, as NAME-STEP.safetensors.

    Raises:
        HostError: that step was not kept.
        FileNameError: there is another file of its name.
    """
    record = next((one for one in step_records(folder) if one.step == step), None)
    if record is None:
        raise HostError(f"step {step} has no file to keep: it was not saved, or it was cleared away")
    target = target_folder / record.file.name
    if target.is_file() and filecmp.cmp(record.file, target, shallow=False):
        return Kept(target)
    refuse_taken([target], overwrite=overwrite, remedy="Move it away, or give it another name.")
    target_folder.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        shutil.copyfile(record.file, temporary)
    return Kept(target)


def _embeddings(folder: Path) -> list[str]:
    """The run's embeddings; where its record is gone, what its samples' prompts begin with."""
    record = next(iter(sorted(folder.glob("*.run.json"))), None)
    if record is not None:
        try:
            return [embedding.name for embedding in read_run(record).embeddings]
        except ConfigError:
            pass
    return [column.partition(",")[0] for one in run_samples(folder)[-1:] for column in one.columns]
