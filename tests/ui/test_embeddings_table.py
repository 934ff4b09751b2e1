"""The table of words: what goes in comes out."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

from lib_pivotal.config import EmbeddingConfig, Run, check_run, run_to_dict
from lib_pivotal.runs.proposal import EmbeddingRow
from lib_pivotal.ui.embeddings_table import embeddings_table

BUSY = EmbeddingConfig(
    continued_lr_factor=0.5,
    name="aoi",
    init_text="1girl, *[0.1,2]",
    init_file="start.pt",
    vectors=6,
    lr_factor=0.5,
    weight_decay=0.1,
    freeze_at=0.5,
    freeze_step=70,
    freeze_norm=0.55,
    prune=True,
    flip=False,
    prune_tags=("blue hair", "<odd> & tag"),
    keep_tags=("hat",),
    applies_to=("concept:aoi",),
    class_text="1girl",
    form_of="aoi-b",
    sampling_weight=2.5,
)


class Inputs(HTMLParser):
    """Gathers the table's inputs as javascript/pivotal.js does."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding: dict[str, object] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag != "input" or "data-key" not in found:
            return
        key, value = str(found["data-key"]), found.get("value") or ""
        if found["type"] == "checkbox":
            self.embedding[key] = "checked" in found
        elif "data-list" in found:
            self.embedding[key] = [part.strip() for part in value.split(",") if part.strip()]
        else:
            self.embedding[key] = (float(value) if "." in value else int(value)) if found["type"] == "number" else value


def test_the_busy_embedding_has_no_default() -> None:
    plain = EmbeddingConfig()
    assert [f.name for f in dataclasses.fields(BUSY) if getattr(BUSY, f.name) == getattr(plain, f.name)] == []


def test_no_setting_of_an_embedding_is_lost_by_the_table() -> None:
    inputs = Inputs()
    inputs.feed(embeddings_table([EmbeddingRow(BUSY, 3, 0.5)], {}))
    run, faults = check_run({"words": [inputs.embedding, {"name": "aoi-b"}]})
    assert not faults
    assert run_to_dict(run)["embeddings"][0] == run_to_dict(Run(embeddings=(BUSY,)))["embeddings"][0]
