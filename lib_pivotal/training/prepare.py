"""Before a run's first step: pictures found and pruned, held out where a score needs them, and embeddings begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lib_pivotal.config import EmbeddingConfig, Run, check_consistency
from lib_pivotal.data.captions import EmbeddingFinder
from lib_pivotal.data.dataset import Dataset, Picture
from lib_pivotal.data.init_texts import begin
from lib_pivotal.data.pruning import PrunedCaptions
from lib_pivotal.data.records import DatasetProblem
from lib_pivotal.data.sources.source import DatasetFile
from lib_pivotal.data.tags import TagShare, init_text, same_tag
from lib_pivotal.errors import ConfigError, DataError, Fault
from lib_pivotal.training.pruned_captions import hold_out, make_pruned_captions, sampling_rates
from lib_pivotal.training.scanning import scan_pictures


@dataclass(frozen=True)
class PreparedPictures:
    """Pictures to train on and to hold out, with captions as they will be trained; embeddings with their init text.

    `regularisation` are those of the second folder; `remarks` is what is to be known of it.
    """

    pictures: tuple[Picture, ...]
    held_out: tuple[Picture, ...]
    embeddings: tuple[EmbeddingConfig, ...]
    find: EmbeddingFinder
    """Finds these embeddings in captions."""
    pruned_tags: dict[str, tuple[str, ...]]
    dataset: Dataset
    regularisation: tuple[Picture, ...] = ()
    remarks: tuple[DatasetProblem, ...] = ()
    sampling_rates: Mapping[str, float] = field(default_factory=dict)
    """Draws an epoch by key, of held-out pictures too; empty: as repeats say."""
    embeddings_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The embeddings of each picture by key, of held-out ones too."""
    validation: tuple[Picture, ...] = ()
    """Pictures of a folder that is never trained, in place of `held_out`; their keys are those of that folder."""


def prepare_pictures(run: Run, *, files: Sequence[DatasetFile] = ()) -> PreparedPictures:
    """Scan the folder, prune the captions of embeddings that ask for it, and hold pictures out if a score needs them.

    `files` reads other trainers' dataset files; see `scanning.scan_pictures`.

    Raises:
        ConfigError: settings that cannot work together, no folder, or no picture mentions an embedding.
        DataError: nothing in the folder can be used.
    """
    if faults := check_consistency(run):
        raise ConfigError(faults)
    if not run.data.folder:
        raise ConfigError([Fault("data.folder", "", "is empty", "Give the folder that holds the pictures.")])
    dataset = scan_pictures(run.data, files=files)
    if not dataset.pictures:
        reasons = "; ".join(problem.message for problem in dataset.problems[:3])
        raise DataError(f"{run.data.folder}: no picture can be used. {reasons}")
    wording = make_pruned_captions(run, dataset)
    _check_embeddings_occur(run.embeddings, wording)
    embeddings, pictures = begun_embeddings(run, wording), wording.captions()
    pruned = {
        name: tuple(tag.tag for tag in embedding.tags if tag.fate != "kept")
        for name, embedding in wording.embeddings.items()
        if embedding.use.prune
    }
    rates = sampling_rates(run, pictures, [wording.embeddings_of[picture.key] for picture in pictures])
    trained, held_out = hold_out(run, pictures, find=wording.find)
    held_out = [replace(picture, caption=picture.cut.plain(picture.caption)) for picture in held_out]
    kept, told = prepare_regularisation(run, find=wording.find, files=files)
    validation, told_of_validation = prepare_validation(run, wording, files=files)
    return PreparedPictures(
        tuple(trained),
        tuple(held_out),
        embeddings,
        wording.find,
        pruned,
        dataset,
        sampling_rates={picture.key: rate for picture, rate in zip(pictures, rates, strict=True)},
        embeddings_of=wording.embeddings_of,
        regularisation=kept,
        remarks=(*told, *told_of_validation),
        validation=validation,
    )


def prepare_validation(
    run: Run, wording: PrunedCaptions, *, files: Sequence[DatasetFile] = ()
) -> tuple[tuple[Picture, ...], tuple[DatasetProblem, ...]]:
    """The pictures of the validation folder, pruned as the trained ones are, and what is to be known of them.

    Raises:
        DataError: nothing in the folder can be used.
    """
    folder = run.validation.folder.strip()
    if not folder or not run.holds_out:
        return (), ()
    dataset = scan_pictures(run.data, folder, files=files)
    if not dataset.pictures:
        reasons = "; ".join(problem.message for problem in dataset.problems[:3])
        raise DataError(f"{folder}: no picture to validate on can be used. {reasons}")
    pictures = [wording.of_caption(picture)[1] for picture in dataset.pictures]
    plain = tuple(replace(picture, caption=picture.cut.plain(picture.caption)) for picture in pictures)
    told = [problem for problem in dataset.problems if problem.level != "info"]
    nameless = tuple(p.key for p in plain if run.embeddings and not wording.find(p.caption))
    if nameless:
        message = f"{len(nameless)} validation picture(s) name no embedding of this run, and are not measured."
        told.append(DatasetProblem("warning", "validation_nameless", message, nameless))
    sizes = {(p.width_px, p.height_px, p.path.stat().st_size) for p in plain}
    alike = (p for p in wording.named if (p.width_px, p.height_px, p.path.stat().st_size) in sizes)
    trained = {picture.sha256 for picture in alike}
    if again := tuple(p.key for p in plain if p.sha256 in trained):
        message = f"{len(again)} validation picture(s) are trained, too, so their loss tells nothing. Take them out."
        told.append(DatasetProblem("warning", "validation_trained", message, again))
    return plain, tuple(told)


def prepare_regularisation(
    run: Run, *, find: EmbeddingFinder, files: Sequence[DatasetFile] = ()
) -> tuple[tuple[Picture, ...], tuple[DatasetProblem, ...]]:
    """The pictures of the second folder, and what is to be known of them; none where no folder is set. `find` finds the
    run's embeddings.

    Raises:
        DataError: nothing in the folder can be used.
    """
    settings = run.regularisation
    if not settings.folder or settings.weight == 0:
        return (), ()
    text = settings.class_text  # what a picture shows that says nothing of itself, as kohya's class tokens
    data = replace(run.data, missing_caption="empty") if text else run.data
    dataset = scan_pictures(data, settings.folder, files=files)
    if not dataset.pictures:
        reasons = "; ".join(problem.message for problem in dataset.problems[:3])
        raise DataError(f"{settings.folder}: no class picture can be used. {reasons}")
    pictures = tuple(one if one.caption or not text else replace(one, caption=text) for one in dataset.pictures)
    keys = tuple(picture.key for picture in pictures if find(picture.caption))
    silent = {"no_caption"} if text else set()
    told = [problem for problem in dataset.problems if problem.level != "info" and problem.code not in silent]
    if keys and settings.target == "picture":
        message = f"{len(keys)} class picture(s) name a trained embedding in their caption, and would train it, too."
        told.append(DatasetProblem("warning", "word_in_class", f"{message} Take it out.", keys))
    return pictures, tuple(told)


def begun_embeddings(run: Run, wording: PrunedCaptions) -> tuple[EmbeddingConfig, ...]:
    """The run's embeddings; one that absorbs tags and has no init text begins with them."""
    embeddings = []
    for embedding in run.embeddings:
        if embedding.prune and not embedding.init_text and not embedding.init_file:
            embedding = _begun(embedding, run, wording.embeddings[embedding.name].belonging)
        embeddings.append(embedding)
    return tuple(embeddings)


def _begun(embedding: EmbeddingConfig, run: Run, core: Sequence[TagShare]) -> EmbeddingConfig:
    """An embedding that begins with its core tags: cut to its vectors, or with vectors enough for whole tags."""
    common, data = run.embeddings_common, run.data
    std = common.initial_std or 0.1
    if not common.whole_tags:
        return replace(embedding, init_text=init_text(core, std=std, random_vectors=embedding.vectors))
    tags = [same_tag(item.tag) for item in core]
    text, vectors = begin(tags, most=data.most_vectors, random=data.random_vectors, std=std)
    return replace(embedding, init_text=text, vectors=max(embedding.vectors, vectors))


def _check_embeddings_occur(embeddings: Sequence[EmbeddingConfig], wording: PrunedCaptions) -> None:
    """An embedding that no caption mentions, and no template writes, would learn nothing, silently."""
    faults = [
        Fault(
            f"embeddings.{index}.name",
            embedding.name,
            "no caption mentions this embedding, so it would learn nothing",
            "Write it into the captions, say which pictures it applies to, or use a template with {word}.",
        )
        for index, embedding in enumerate(embeddings)
        if not wording.embeddings[embedding.name].keys
    ]
    if faults:
        raise ConfigError(faults)
