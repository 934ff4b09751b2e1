"""Losses on the embeddings alone: whose, how much, by hand."""

from contextlib import contextmanager

import pytest
import torch

from lib_pivotal.embeddings.terms import EmbeddingTerms, StartDistance, sample_shares
from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from lib_pivotal.ports import TrainingBatch


def batch(*names, weights=None):
    count = len(names)
    weights = torch.ones(count) if weights is None else torch.tensor(weights)
    return TrainingBatch(torch.zeros(count, 4, 1, 1), [""] * count, None, weights, [""] * count, list(names))


def test_start_distance_is_cross_inits():
    """Its pairwise distance, averaged over vectors, as the paper's own code writes it (but for torch's eps)."""
    starts = {"aoi": (torch.randn(3, 8), torch.randn(3, 12))}
    now = {"aoi": tuple(tower + torch.randn(tower.shape) for tower in starts["aoi"])}
    (found,) = StartDistance(starts)(now, ["aoi"], seeds=(0, 0))
    pairs = zip(now["aoi"], starts["aoi"], strict=True)
    by_pairs = [torch.nn.functional.pairwise_distance(a, b, p=2).mean() for a, b in pairs]
    torch.testing.assert_close(found, torch.stack(by_pairs).mean(), rtol=1e-4, atol=1e-5)


def test_at_the_start_the_distance_pulls_nowhere():
    embeddings = TrainedEmbeddings({"aoi": (torch.randn(2, 4),)})
    StartDistance(embeddings.starts)(embeddings.as_mapping(), ["aoi"], seeds=(0, 0)).sum().backward()
    assert torch.equal(embeddings.parameters_of("aoi")[0].grad, torch.zeros(2, 4))


def test_shares_are_those_of_the_samples_that_name_an_embedding():
    batches = [batch(("aoi",), ("aoi", "hana")), batch((), ("hana",), weights=[1.0, 0.5])]
    assert sample_shares(batches, 4) == {"aoi": 0.5, "hana": 0.375}
    assert sample_shares([batch(())], 4) == {}


def test_losses_are_weights_times_shares_times_terms():
    asked = []

    def term(embeddings, names, *, seeds):
        asked.append((list(names), seeds))
        return torch.stack([embeddings[name][0].sum() for name in names])

    vectors = {"aoi": (torch.full((1, 2), 1.0, requires_grad=True),), "hana": (torch.full((1, 2), 2.0),)}
    terms = EmbeddingTerms({"a": (0.1, term), "b": (2.0, term)})
    found = terms.losses(vectors, {"aoi": 0.5, "hana": 0.25}, seeds=(7, 8))
    assert terms.names == ("a", "b") and asked == [(["aoi", "hana"], (7, 8))] * 2
    assert [float(found[name]) for name in "ab"] == pytest.approx([0.1 * (0.5 * 2 + 0.25 * 4), 2 * 2.0])
    assert terms.losses(vectors, {}, seeds=(0, 0)) == {} and EmbeddingTerms().names == ()


def test_frozen_is_what_was_given():
    inside = []

    @contextmanager
    def frozen():
        inside.append(True)
        yield
        inside.pop()

    with EmbeddingTerms({}, frozen=frozen).frozen():
        assert inside
    assert not inside
