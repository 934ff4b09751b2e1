"""Embeddings adjusted as the tag of their file says, `<lora:gekidol:1:emb=hana*0.5~0.2>`, for one generation.

The file's own embedding is not touched: what is adjusted is another `Embedding` of the web UI's, kept while the first
one is. The init text comes from the file's metadata, its rows from the token tables of the checkpoint that is loaded:
so a tag means the same on every checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import ref

from modules import shared

from lib_pivotal.embeddings.adjustment import EmbeddingAdjustment
from lib_pivotal.embeddings.name_matching import folded
from lib_pivotal.ports import TokenTables
from lib_pivotal.webui import catalog, loading
from lib_pivotal.webui.prompt_tags import Tag
from lib_pivotal.webui.resolution import resolver, say


def adjusted(embeddings: Mapping[str, Any], tag: Tag, path: str) -> dict[str, Any]:
    """`embeddings` of the file at `path`, those that the tag names adjusted; what cannot be is said, and stays."""
    for problem in tag.unread:
        say(f"{tag.name}: {problem}")
    found = dict(embeddings)
    by_name = {folded(name): name for name in reversed(list(embeddings))}
    texts = catalog.init_texts(catalog.catalog.look(path)) if tag.adjustments else {}
    for written, adjustment in tag.adjustments:
        name = by_name.get(folded(written))
        if name is None:
            say(f"{tag.name}: has no embedding {written!r} to adjust; there are {', '.join(embeddings)}")
            continue
        if adjustment.init_share and name not in texts:
            say(f"{tag.name}: the file keeps no init text of {name}, so its direction stays")
            adjustment = EmbeddingAdjustment(adjustment.norm)
        if not adjustment.changes_nothing:
            found[name] = _adjusted(embeddings[name], adjustment, texts.get(name, ""))
    return found


def token_tables() -> TokenTables:
    """The vocabulary of the checkpoint that is loaded now."""
    from lib_pivotal.webui.text import WebUITextEncoder  # here: to start, nothing is encoded

    return WebUITextEncoder(lambda: shared.sd_model)


def _adjusted(embedding: Any, adjustment: EmbeddingAdjustment, text: str) -> Any:
    """The same object again while embedding, adjustment and text encoder are the same."""
    made_from = adjustment, text, ref(shared.sd_model.cond_stage_model)
    known = resolver.adjusted.get(embedding)
    if known is None or known[0] != made_from:
        known = resolver.adjusted[embedding] = made_from, _made(embedding, adjustment, text)
    return known[1]


def _made(embedding: Any, adjustment: EmbeddingAdjustment, text: str) -> Any:
    from lib_pivotal.embeddings.initial import direction_rows  # here: as above
    from lib_pivotal.embeddings.slerp import adjusted_rows

    towers = tuple(embedding.vec.values()) if isinstance(embedding.vec, dict) else (embedding.vec,)
    rows = (direction_rows(text, tables=token_tables()) if adjustment.init_share else None) or ()
    # SDXL's refiner has the second encoder alone: the first one's vectors are not used, and keep their direction
    targets = [*(None,) * (len(towers) - len(rows)), *rows]
    changed = tuple(
        adjusted_rows(tower, target, norm=adjustment.norm, init_share=adjustment.init_share)
        for tower, target in zip(towers, targets, strict=True)
    )
    return loading.make_embeddings({embedding.name: changed}, embedding.filename)[embedding.name]
