"""From a folder to a run without a choice made: what the page's Scan does, and the command line and API with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lib_pivotal.config import EmbeddingConfig, Run
from lib_pivotal.data.records import Dataset
from lib_pivotal.runs.host_defaults import HostDefaults
from lib_pivotal.runs.presets import apply_preset, fitting_preset
from lib_pivotal.runs.proposal import describe_embeddings, legal_name, propose
from lib_pivotal.runs.rescan import merged_embeddings
from lib_pivotal.training.epochs import with_epoch_steps
from lib_pivotal.training.scanning import with_settings


@dataclass(frozen=True)
class Fitted:
    """A run fitted to a folder, the preset that it follows (empty: its settings are as they were), what is to be known,
    and the embeddings as proposed: by them the next fitting knows which were changed by hand."""

    run: Run
    preset: str
    remarks: tuple[str, ...]
    proposed: tuple[EmbeddingConfig, ...]


def fitted_run(
    dataset: Dataset,
    run: Run | None = None,
    *,
    before: Sequence[EmbeddingConfig] = (),
    embeddings_only: bool = False,
    circumstances: HostDefaults | None = None,
) -> Fitted:
    """Embeddings, training size, balance, name, and the preset that fits them, with its steps.

    Of `run` the name, the rules for tags and captions, and the folder of latents stay; and embeddings that differ from
    those `before`, which the last fitting proposed: they were changed by hand. With `embeddings_only` all other
    settings stay.
    """
    circumstances = circumstances or HostDefaults()
    run = run or Run()
    if not embeddings_only:
        run = with_settings(run, dataset.settings)
    proposal = propose(dataset, run, largest_px=circumstances.native_px, prompts=circumstances.prompts)
    proposed = tuple(row.embedding for row in proposal.rows)
    merged = merged_embeddings(run.embeddings, before, proposed)
    run = replace(run, embeddings=merged.embeddings)
    remarks = (*proposal.remarks, *merged.remarks)
    if embeddings_only:
        run = with_epoch_steps(run, dataset.pictures)
        return Fitted(run, "", remarks, proposed)
    folder = run.data.folder or str(dataset.folder)  # what was given may be a file that names folders
    data = replace(run.data, folder=folder, resolution_px=proposal.resolution_px, balance=proposal.balance)
    run = replace(run, name=run.name or legal_name(dataset.folder.resolve().name), data=data)
    rows = proposal.rows if merged.embeddings == proposed else describe_embeddings(dataset, run)
    key = fitting_preset(rows)
    asked = run

    def made(steps: int = 0) -> Run:
        chosen = circumstances.adjusted(apply_preset(key, asked, rows, steps=steps))
        chosen = replace(chosen, schedule=replace(chosen.schedule, epochs=asked.schedule.epochs))
        return with_epoch_steps(with_settings(chosen, dataset.settings), dataset.pictures)  # over what presets say

    run = made()
    if asked.schedule.epochs:  # a length that was asked for stays, and what hangs on it follows
        run = made(run.schedule.max_steps)
    by_hand = {embedding.name: embedding for embedding in merged.embeddings if embedding.name in merged.kept}
    run = replace(run, embeddings=tuple(by_hand.get(embedding.name, embedding) for embedding in run.embeddings))
    return Fitted(run, key, remarks, proposed)
