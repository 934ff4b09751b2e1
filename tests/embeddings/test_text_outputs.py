"""Outputs of prompts by place, against the text models themselves."""

import pytest
import torch

from lib_pivotal.embeddings.text_outputs import PLACES, count, encode, literal
from tests.embeddings.by_hand import outputs, text_encoder


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_places_are_start_tokens_rows_end(family):
    encoder, models = text_encoder(family)
    rows = tuple(torch.randn(3, width) for width in encoder.widths)
    found = encode(encoder, ["red aoi cat", "dog"], {"aoi": rows})
    wanted, pooled, length = outputs(family, models, ["red", None, "cat"], rows)
    assert length == 1 + count(encoder, "red") + 3 + count(encoder, "cat")
    assert [tuple(tower.shape) for tower in found.towers] == [(2, PLACES, width) for width in encoder.widths]
    for tower, by_hand in zip(found.towers, wanted, strict=True):
        torch.testing.assert_close(tower[0], by_hand, rtol=1e-4, atol=1e-5)
    assert (found.pooled is None) == (pooled is None) == (family != "sdxl")
    if pooled is not None:
        torch.testing.assert_close(found.pooled[0], pooled, rtol=1e-4, atol=1e-5)


def test_literal_texts_count_as_they_are_encoded():
    encoder, _ = text_encoder("sd1")
    assert encoder.layout(literal("saber (fate)"), {}).token_count == count(encoder, "saber (fate)")
