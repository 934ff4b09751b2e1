"""All that the lint has to say of a dataset with a run: of files, embeddings, captions, pictures and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lib_pivotal.config import Run
from lib_pivotal.data.buckets import Placement
from lib_pivotal.data.lint import UNNAMED_MARK, Length, embedding_warnings, mark_told, overruns, too_small, unnamed_mark
from lib_pivotal.data.lint_warnings import Fix, LintWarning, of_problem
from lib_pivotal.data.pruning import PrunedCaptions
from lib_pivotal.data.records import Dataset, DatasetProblem, Picture
from lib_pivotal.runs import proposal
from lib_pivotal.runs.under_sampled import starvation
from lib_pivotal.training import assemble
from lib_pivotal.training.scanning import PictureParts

ENOUGH_AGAINST = {"duplicate": ("skip", "skip_near"), "near_double": ("skip_near",)}
"""Values of `data.duplicates` that leave all but one of such pictures out."""


def lint_warnings(
    run: Run,
    dataset: Dataset,
    wording: PrunedCaptions,
    *,
    trained: Sequence[Picture],
    placed: Mapping[str, Placement],
    lengths: Mapping[str, Length],
) -> list[LintWarning]:
    """Every warning; `placed` and `lengths` by key, `trained` without pictures that are held out."""
    vectors = {embedding.name: embedding.vectors for embedding in run.embeddings}
    found = [_of_file(run, problem) for problem in dataset.problems]
    found += _of_marks(dataset)
    found += wording.once("warnings", None, lambda: embedding_warnings(wording))
    drawn = {picture.key for picture in trained}
    held_out = {picture.key for picture in wording.named} - drawn
    found += starvation(run, wording.named, wording.embeddings_of, held_out=held_out)
    found += too_small(
        [(dataset[key], placement) for key, placement in placed.items()],
        fitting_px=proposal.fitting_resolution(dataset, largest_px=run.data.resolution_px),
        target_px=run.data.resolution_px,
    )
    found += overruns(
        list(lengths.values()),
        wording.embeddings_of,
        vectors,
        max_tokens=run.data.max_tokens,
        shuffled=run.data.shuffle_tags,
    )
    return found + _of_training(run, dataset)


def _of_file(run: Run, problem: DatasetProblem) -> LintWarning:
    """What the scan says; of pictures that are there twice only one need be drawn, from the next scan on."""
    warning = of_problem(problem)
    if problem.code not in ENOUGH_AGAINST:
        return warning
    enough = ENOUGH_AGAINST[problem.code]
    if run.data.duplicates in enough:
        return replace(warning, severity="info")
    fix = Fix("set", "Keep one", {"path": "data.duplicates", "value": enough[0]})
    return replace(warning, fixes=(fix,))


def _of_marks(dataset: Dataset) -> list[LintWarning]:
    """What looks like a mark between kept and free tags, which only the user can know."""
    mark = unnamed_mark(dataset.pictures)
    if not mark:
        return []
    fix = Fix("set", f"Take {mark} for that mark", {"path": "data.keep_separator", "value": mark})
    return [LintWarning(UNNAMED_MARK, "info", f"{mark_told(mark)}.", (), (), (fix,))]


def _of_training(run: Run, dataset: Dataset) -> list[LintWarning]:
    """How pictures are cut and mirrored; mirroring can be turned off for an embedding."""
    found = []
    parts, buckets = PictureParts(run.data), assemble.make_buckets(run.data)
    for problem in assemble.dataset_remarks(dataset.pictures, run.embeddings, parts, buckets):
        warning = of_problem(problem)
        embedding = problem.message.partition(":")[0]
        if problem.code == "mirrored" and embedding in [one.name for one in run.embeddings]:
            fix = Fix("no_mirror", f"Never mirror {embedding}", {"embedding": embedding})
            warning = LintWarning(warning.kind, warning.severity, warning.text, warning.keys, (embedding,), (fix,))
        found.append(warning)
    return found
