"""Settings of embeddings, tags and balance into parts, as `assemble` does it; needs no torch, since pages plan with
it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lib_pivotal.config import DataConfig, EmbeddingConfig, Run
from lib_pivotal.config_checks import number_lines
from lib_pivotal.data.balance import even_rates, tree_rates, with_embedding_weights
from lib_pivotal.data.captions import EmbeddingFinder, legal_name
from lib_pivotal.data.pruning import EmbeddingRules, PrunedCaptions, TagRules, applies
from lib_pivotal.data.records import Dataset, Picture
from lib_pivotal.training.scanning import PictureParts

EMBEDDING_PLACEHOLDERS = ("{word}", "{name}", "[name]")
HELD_OUT_ABOVE = 4
"""An embedding gives pictures to measure by where it has more than these."""


def tag_rules(data: DataConfig) -> TagRules:
    """The run's rule for core tags and pruning."""
    return TagRules(
        mode=data.prune_mode,  # type: ignore[arg-type]
        rule=data.core_rule,  # type: ignore[arg-type]
        threshold=data.core_threshold or None,
        feature_threshold=data.core_feature_threshold,
        drop_difficulty=data.drop_difficulty or None,
    )


def embedding_use(embedding: EmbeddingConfig) -> EmbeddingRules:
    """An embedding as captions meet it."""
    return EmbeddingRules(
        embedding.name,
        init_text=embedding.init_text,
        prune=embedding.prune,
        prune_tags=embedding.prune_tags,
        keep_tags=embedding.keep_tags,
        applies_to=embedding.applies_to,
        form_of=embedding.form_of,
    )


def make_pruned_captions(run: Run, dataset: Dataset) -> PrunedCaptions:
    """The captions of a dataset with the run's embeddings, cut as the run says."""
    parts = PictureParts(run.data)
    return PrunedCaptions(
        parts.cut(dataset.pictures),
        [embedding_use(embedding) for embedding in run.embeddings],
        tag_rules(run.data),
        extra=_written(parts, run.embeddings, dataset),
    )


def embedding_of_concepts(embeddings: Sequence[EmbeddingConfig], dataset: Dataset) -> dict[str, str]:
    """Which embedding `{word}` is in a concept's templates: one that applies to it, one of its name, or the only
    one."""
    names = {embedding.name.lower(): embedding.name for embedding in embeddings}
    only = embeddings[0].name if len(embeddings) == 1 else None
    found: dict[str, str] = {}
    for concept, keys in dataset.concepts.items():
        given = (w.name for w in embeddings if keys and w.applies_to and applies(w.applies_to, dataset[keys[0]]))
        by_name = names.get(concept.lower()) or names.get(legal_name(concept))
        embedding = next(given, None) or by_name or only
        if embedding is not None:
            found[concept] = embedding
    return found


def sampling_rates(run: Run, pictures: Sequence[Picture], embeddings: Sequence[Sequence[str]]) -> list[float]:
    """Draws an epoch of each picture by the run's balance and its embeddings' weights; `embeddings` names each
    picture's."""
    data = run.data
    if data.balance == "tree":
        rates = tree_rates([picture.key for picture in pictures], number_lines(data.balance_weights))
    else:
        rates = [float(picture.repeats) for picture in pictures]
        if data.balance == "embeddings":
            rates = even_rates(rates, embeddings)
    weights = {
        embedding.name: embedding.sampling_weight for embedding in run.embeddings if embedding.sampling_weight != 1.0
    }
    return with_embedding_weights(rates, embeddings, weights) if weights else rates


def samples_by_repeats(run: Run) -> bool:
    """Whether repeats alone decide how often a picture comes."""
    return run.data.balance == "repeats" and all(embedding.sampling_weight == 1.0 for embedding in run.embeddings)


def hold_out(run: Run, pictures: Sequence[Picture], *, find: EmbeddingFinder) -> tuple[list[Picture], list[Picture]]:
    """A share of each embedding's pictures, evenly spread and limited, where something is measured by them
    (`Run.holds_out`); none where they come from a folder of their own. Without embeddings all pictures are one
    group. `find` finds the run's embeddings."""
    settings = run.validation
    if not run.holds_out or not settings.share or settings.folder.strip():
        return list(pictures), []
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        if (name := held_out_group(find(picture.caption), run.embeddings)) is not None:
            groups.setdefault(name, []).append(picture)
    held = {
        picture.key
        for mine in groups.values()
        if len(mine) > HELD_OUT_ABOVE
        for picture in mine[:: math.ceil(1 / settings.share)][: settings.most]
    }
    return [p for p in pictures if p.key not in held], [p for p in pictures if p.key in held]


def held_out_group(named: Sequence[str], embeddings: Sequence[object]) -> str | None:
    """The embedding by which a picture is measured that names these: the first; "" in a run without embeddings, None
    where none of the run's is named."""
    return named[0] if named else None if embeddings else ""


def _written(
    parts: PictureParts, embeddings: Sequence[EmbeddingConfig], dataset: Dataset
) -> Callable[[Picture], tuple[str, ...]]:
    """The embeddings that prefix, suffix and templates write into a picture's caption."""
    find = EmbeddingFinder([embedding.name for embedding in embeddings])
    literal = {id(data): _literal(data, find) for data in parts.all}
    placed = {
        id(data) for data in parts.all if any(m in text for text in data.templates for m in EMBEDDING_PLACEHOLDERS)
    }
    by_concept = embedding_of_concepts(embeddings, dataset) if placed else {}

    def written(picture: Picture) -> tuple[str, ...]:
        case = id(parts.settings_of(picture))
        named = by_concept.get(picture.concept) if case in placed else None
        return (*literal[case], named) if named else literal[case]

    return written


def _literal(data: DataConfig, find: EmbeddingFinder) -> tuple[str, ...]:
    return tuple(name for text in (data.prefix, data.suffix, *data.templates) for name in find(text))
