"""The result card of a run's file, filled from what lies in the run's folder: prompts that were drawn, a parts grid."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from lib_pivotal.bundle.card import CardEdit, DrawnPrompt, read_card, write_card
from lib_pivotal.bundle.card_files import write_preview, write_user_metadata
from lib_pivotal.config import Run, read_run
from lib_pivotal.errors import ConfigError, PivotalError
from lib_pivotal.evaluation.parts_grid import draw_grid
from lib_pivotal.ports import SampleRequest
from lib_pivotal.runs.samples import StepSamples, run_samples
from lib_pivotal.training.events import FileSaved, Listener, Notice, RunEnded

PROMPTS = 8
"""So many of the drawn prompts are kept."""
COLUMNS = 4
"""So many columns of a parts grid are shown in the preview: more would be too small to see."""
CELL_PX = 192

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CardSamples:
    """What a card takes from samples: prompts, and the picture of some of them."""

    prompts: tuple[DrawnPrompt, ...]
    picture: Image.Image | None
    source: StepSamples


def last_samples(folder: Path) -> CardSamples | None:
    """Of a run's last step with samples; None where it made none, or their files are gone."""
    found = run_samples(folder)
    if not found:
        return None
    samples = found[-1]
    return CardSamples(_prompts(folder, samples), _preview(samples), samples)


def write_files(file: Path, edit: CardEdit, samples: CardSamples | None) -> list[Path]:
    """The card into the file, then what the web UI shows beside it; answers what was written.

    Raises:
        BundleError: a file cannot be read or written.
    """
    if samples is not None:
        edit = replace(edit, prompts=samples.prompts, picture=samples.picture)
    written = [write_card(file, edit)]
    if edit.picture is not None and (preview := write_preview(file, edit.picture)) is not None:
        written.append(preview)
    if (beside := write_user_metadata(file, read_card(file))) is not None:
        written.append(beside)
    return written


def card_at_end(run: Run, ended: RunEnded, log_folder: Path, listen: Listener) -> None:
    """At the end of a run that asks for it (`saving.card`): the card of its file. What cannot be written is told."""
    if not run.saving.card or ended.bundle is None:
        return
    try:
        written = write_files(ended.bundle, CardEdit(licence=run.saving.licence or None), last_samples(log_folder))
    except (PivotalError, OSError) as error:
        logger.warning("the card of %s could not be written: %s", ended.bundle.name, error)
        listen(Notice("warning", ended.step, f"the result card could not be written: {error}. The file is whole"))
        return
    listen(FileSaved(ended.step, "bundle", written[0]))


def _prompts(folder: Path, samples: StepSamples) -> tuple[DrawnPrompt, ...]:
    """Columns as they were asked for: `evaluation.parts_grid.embedding_requests` numbers the seeds by prompt."""
    template, each = SampleRequest(""), _prompts_an_embedding(folder)
    size = next((_size(path) for paths in samples.cells.values() for path in paths), 0)
    return tuple(
        DrawnPrompt(
            prompt=column,
            negative_prompt=template.negative_prompt,
            seed=number % each,
            steps=template.steps,
            cfg=template.cfg_scale,
            size_px=size,
        )
        for number, column in enumerate(samples.columns[:PROMPTS])
    )


def _prompts_an_embedding(folder: Path) -> int:
    record = next(iter(sorted(folder.glob("*.run.json"))), None)
    try:
        return max(len(read_run(record).saving.sample_prompts), 1) if record else 1
    except ConfigError:
        return 1


def _preview(samples: StepSamples) -> Image.Image | None:
    rows: dict[str, list[Image.Image]] = {}
    try:
        for row, paths in samples.cells.items():
            rows[row] = [_opened(path) for path in paths[:COLUMNS]]
        if rows:
            return draw_grid(rows, samples.columns[:COLUMNS], cell_px=CELL_PX)
        return _opened(samples.grid) if samples.grid else None
    except (OSError, ValueError, PivotalError):  # moved or damaged since
        return None


def pictures_of(samples: StepSamples) -> Mapping[str, Path]:
    """Each prompt's picture with all parts on, by prompt; only those that are there."""
    full = samples.cells.get("whole", ())
    return {column: path for column, path in zip(samples.columns, full, strict=False) if path.is_file()}


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _size(path: Path) -> int:
    try:
        with Image.open(path) as picture:
            return int(picture.width)
    except (OSError, ValueError):
        return 0
