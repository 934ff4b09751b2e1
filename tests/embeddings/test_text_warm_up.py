"""Steps on the text encoder alone: the loss by hand, and that names come to say what their tags say."""

import pytest
import torch

from lib_pivotal.embeddings.text_outputs import encode
from lib_pivotal.embeddings.text_warm_up import LEADS, distances, goals, warm_up
from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from tests.embeddings.by_hand import outputs, text_encoder


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("lead", ["", "a photo of "])
def test_the_distance_by_hand(family, lead):
    """Of the end tokens and of all padding behind both: here the tags are the longer text."""
    encoder, models = text_encoder(family)
    rows = tuple(0.3 * torch.randn(2, width) for width in encoder.widths)
    found = goals(encoder, {"aoi": "red hair, cat ears"}, {"aoi": 2}, lead)
    wanted = [encode(encoder, [goal.other], {}) for goal in found]
    (loss,) = distances(encoder, found, wanted, {"aoi": rows})
    parts = [lead.strip()] if lead else []
    here, pooled, end = outputs(family, models, [*parts, None], rows)
    there, other_pooled, other_end = outputs(family, models, [*parts, "red hair, cat ears"])
    assert other_end - end == 3
    by_hand = []
    for a, b in zip(here, there, strict=True):
        a, b = (torch.cat([x[e][None], x[other_end + 1 :]]) for x, e in ((a, end), (b, other_end)))
        by_hand.append(((a - b) ** 2).sum() / (b**2).sum())
    if pooled is not None:
        by_hand.append(((pooled - other_pooled) ** 2).sum() / (other_pooled**2).sum())
    torch.testing.assert_close(loss, torch.stack(by_hand).mean(), rtol=1e-3, atol=1e-5)


def loss_of(encoder, embeddings, texts):
    vectors = {name: towers[0].shape[0] for name, towers in embeddings.as_mapping().items()}
    found = goals(encoder, texts, vectors, LEADS[0])
    with torch.no_grad():
        return distances(encoder, found, [encode(encoder, [g.other], {}) for g in found], embeddings.as_mapping())


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_names_come_to_say_what_their_tags_say(family):
    encoder, _ = text_encoder(family)
    embeddings = TrainedEmbeddings(
        {name: tuple(0.02 * torch.randn(4, width) for width in encoder.widths) for name in ("aoi", "hana", "plain")}
    )
    texts = {"aoi": "red hair, cat ears", "hana": "blue hair, hat", "plain": ""}
    before, untouched = loss_of(encoder, embeddings, texts), embeddings.parameters_of("plain")[0].detach().clone()
    optimizer = torch.optim.Adam(embeddings.parameters(), lr=0.02)
    moved, factors = [], []

    def move(names, factor):
        moved.append(list(names))
        factors.append(factor)
        optimizer.step()

    warm_up(embeddings, texts, encoder=encoder, steps=60, move=move)
    after = loss_of(encoder, embeddings, texts)
    assert (after < 0.5 * before).all() and moved == [["aoi", "hana"]] * 60
    assert factors[0] == 1.0 and factors[-1] == pytest.approx(1 / 60) and factors == sorted(factors, reverse=True)
    assert torch.equal(embeddings.parameters_of("plain")[0], untouched)
    assert all(
        torch.equal(leaf, start)
        for name in texts
        for leaf, start in zip(embeddings.parameters_of(name), embeddings.starts[name], strict=True)
    )
    assert all(leaf.grad is None for leaf in embeddings.parameters())


def test_tags_beyond_a_chunk_are_left_out_and_too_long_an_embedding_as_well():
    encoder, _ = text_encoder("sd1")
    many = ", ".join(f"red hair {n}" for n in range(40))
    (goal,) = goals(encoder, {"aoi": many}, {"aoi": 4}, "")
    assert goal.other_end < 76 and goal.other.startswith("red hair 0, red hair 1")
    assert goals(encoder, {"aoi": "cat"}, {"aoi": 75}, "") == []
