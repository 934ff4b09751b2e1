"""From a folder to a run without a choice made: what the page's Scan does, and the command line and API with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lib_pivotal.config import Run
from lib_pivotal.data.records import Dataset
from lib_pivotal.runs.presets import apply_preset, fitting_preset
from lib_pivotal.runs.proposal import WordRow, legal_name, propose
from lib_pivotal.training.scanning import with_settings


@dataclass(frozen=True)
class Fitted:
    """A run fitted to a folder, the preset that it follows, what is to be known, and its words as proposed."""

    run: Run
    preset: str
    remarks: tuple[str, ...]
    rows: tuple[WordRow, ...]


def fitted_run(dataset: Dataset, run: Run | None = None) -> Fitted:
    """Words, training size, balance, name, and the preset that fits them, with its steps.

    Of `run` the name, the rules for tags and captions, and the folder of latents stay.
    """
    run = run or Run()
    run = with_settings(run, dataset.settings)
    proposed = propose(dataset, run)
    folder = run.data.folder or str(dataset.folder)  # what was given may be a file that names folders
    data = replace(run.data, folder=folder, resolution_px=proposed.resolution_px, balance=proposed.balance)
    name = run.name or legal_name(dataset.folder.resolve().name)
    run = replace(run, name=name, words=tuple(row.word for row in proposed.rows), data=data)
    key = fitting_preset(proposed.rows)
    run = with_settings(apply_preset(key, run, proposed.rows), dataset.settings)  # over what presets say of tags
    return Fitted(run, key, proposed.remarks, proposed.rows)
