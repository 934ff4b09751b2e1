"""Files that foreign code wrote: LyCORIS's own pack scripts (tests/golden/make_foreign.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lib_pivotal.bundle.quick_header import glance
from lib_pivotal.bundle.reader import read_bundle
from tests.golden.make_foreign import EMBEDDINGS, vectors

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FILES = ("lycoris_pack", "lycoris_batch")


@pytest.mark.parametrize("file", FILES)
def test_every_embedding_is_read(file: str) -> None:
    bundle = read_bundle(GOLDEN / f"{file}.safetensors")
    assert set(bundle.embeddings) == set(EMBEDDINGS)
    for name, seed in EMBEDDINGS.items():
        (towers,) = bundle.embeddings[name]
        assert torch.equal(towers, vectors(seed))
    assert bundle.errors == ()
    assert {embedding.name for embedding in glance(GOLDEN / f"{file}.safetensors").embeddings} == set(EMBEDDINGS)
