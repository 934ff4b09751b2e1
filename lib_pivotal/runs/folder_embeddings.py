"""Embeddings that folders suggest: a concept's own, a style by image type, and forms or outfits of a character."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from glob import escape
from pathlib import PurePosixPath

from lib_pivotal.config import EmbeddingConfig
from lib_pivotal.data.captions import EmbeddingFinder, legal_name
from lib_pivotal.data.records import Dataset
from lib_pivotal.data.sources.kgrid_files import KgridFiles
from lib_pivotal.embedding_names import check_embedding_name

GENERAL = frozenset(
    "training train images image pictures picture data dataset others other misc various general default plain raw "
    "reg regularization regularisation class background backgrounds character characters unknown none".split()
)
"""Names of folders that are nobody's."""
LEAST_OF_FORM = 3
"""A form with fewer pictures is no embedding of its own."""
SHORTEST_NAME = 3


def embeddings_of_folders(
    dataset: Dataset, named: Sequence[EmbeddingConfig], *, files: KgridFiles, limit: int
) -> tuple[list[EmbeddingConfig], list[str]]:
    """The embeddings that captions name, with those that only folders and kgrid's files know; and remarks."""
    embeddings = {embedding.name: embedding for embedding in named}
    remarks = list(files.faults)
    concepts = _nameless_concepts(dataset, named)
    if files.initial:  # kgrid has said which embeddings there are
        embeddings = {name: embedding for name, embedding in embeddings.items() if name in files.initial}
        concepts = {name: concept for name, concept in concepts.items() if name in files.initial}
    given = {name: EmbeddingConfig(name=name, applies_to=(f"concept:{escape(c)}",)) for name, c in concepts.items()}
    if given and not embeddings:
        remarks.append(
            "No caption names an embedding: folder names are proposed, and put in front of their pictures' "
            "captions. Rename them as you like."
        )
    embeddings |= {name: embedding for name, embedding in given.items() if name not in embeddings}
    for name, image_type in _types(dataset, files).items():
        embeddings.setdefault(name, EmbeddingConfig(name=name, applies_to=(f"type:{image_type}",)))
    embeddings = _with_forms(dataset, embeddings)
    found = list(embeddings.values())
    if len(found) > limit:
        remarks.append(f"{len(found)} embeddings could be made from this folder; the first {limit} are proposed.")
    return found[:limit], remarks


def _nameless_concepts(dataset: Dataset, named: Sequence[EmbeddingConfig]) -> dict[str, str]:
    """Name -> concept, for concepts of which no caption names an embedding."""
    find = EmbeddingFinder([embedding.name for embedding in named])
    found: dict[str, str] = {}
    for concept, keys in dataset.concepts.items():
        if (named and _is_general(concept)) or any(find(dataset[key].caption) for key in keys):
            continue
        found.setdefault(legal_name(concept), concept)
    return found


def _types(dataset: Dataset, files: KgridFiles) -> dict[str, str]:
    """Embeddings of image types: all where there are several kinds, else only those that kgrid's files name."""
    types = sorted({picture.image_type for picture in dataset.pictures if picture.image_type})
    names = {legal_name(kind): kind for kind in types if not check_embedding_name(legal_name(kind))}
    if files.initial:
        return {name: kind for name, kind in names.items() if name in files.initial}
    return {name: kind for name, kind in names.items() if len(types) > 1 and not _is_general(kind)}


def _with_forms(dataset: Dataset, embeddings: dict[str, EmbeddingConfig]) -> dict[str, EmbeddingConfig]:
    """With an embedding for each form or outfit: `Aoi Winter` beside `Aoi`, or sub-folders of a concept's folder."""
    forms: dict[str, dict[str, str]] = defaultdict(dict)
    parents: dict[str, set[str]] = defaultdict(set)
    by_first: dict[str, list[str]] = defaultdict(list)
    for concept in dataset.concepts:
        by_first[concept.split(" ")[0]].append(concept)
    for first, concepts in by_first.items():
        if len(concepts) < 2 or len(first) < SHORTEST_NAME or _is_general(first):
            continue
        parents[legal_name(first)].update(f"concept:{escape(concept)}" for concept in concepts)
        for concept in concepts:
            if concept != first:
                forms[legal_name(first)][legal_name(concept)] = f"concept:{escape(concept)}"
    for concept, keys in dataset.concepts.items():
        for folder in _sub_folders(concept, keys):
            name = legal_name(f"{concept}-{PurePosixPath(folder).name}")
            forms[legal_name(concept)][name] = f"{escape(folder)}/*"
    for parent, found in forms.items():
        if parents[parent]:
            old = embeddings.get(parent, EmbeddingConfig(name=parent))
            embeddings[parent] = replace(old, applies_to=tuple(sorted(parents[parent])))
        if parent not in embeddings:
            continue
        for name, pattern in found.items():
            if name != parent and not check_embedding_name(name):
                embeddings[name] = EmbeddingConfig(name=name, applies_to=(pattern,), form_of=parent)
    return embeddings


def _sub_folders(concept: str, keys: Sequence[str]) -> list[str]:
    """Folders right below a concept's own, if there are several with names that mean something."""
    counts: dict[str, int] = defaultdict(int)
    for key in keys:
        parts = PurePosixPath(key).parent.parts
        if concept in parts and parts.index(concept) + 1 < len(parts):
            counts["/".join(parts[: parts.index(concept) + 2])] += 1
    found = [
        folder
        for folder, count in counts.items()
        if count >= LEAST_OF_FORM
        and sum(letter.isalpha() for letter in PurePosixPath(folder).name) >= SHORTEST_NAME
        and not _is_general(PurePosixPath(folder).name)
    ]
    return sorted(found) if len(found) > 1 else []


def _is_general(name: str) -> bool:
    return legal_name(name).split("-")[-1].split("_")[-1] in GENERAL
