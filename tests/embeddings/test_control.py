"""Norm controls: the figures of methods.md, and words that must be left alone."""

import pytest
import torch

from lib_pivotal.embeddings.control import (
    CONTROLS,
    ClipTiDecay,
    NoControl,
    PreserveNorm,
    StdRetraction,
    make_control,
)
from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from lib_pivotal.errors import EmbeddingNameError
from lib_pivotal.ports import VocabularyStats


def embeddings_of_norm(norm, *, vectors=3, width=16, names=("aoi",)):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(vectors, width, generator=generator)
    return TrainedEmbeddings({name: (rows / rows.norm(dim=1, keepdim=True) * norm,) for name in names})


def norms(embeddings, name="aoi", tower=0):
    return embeddings.parameters_of(name)[tower].detach().norm(dim=1)


@pytest.mark.parametrize(("lr", "steps"), [(5e-4, 77), (1e-4, 390)])
def test_clip_ti_decay_figures(lr, steps):
    """methods.md 2.0: norm .9 -> .41 in 77 steps at 5e-4, 390 steps at 1e-4."""
    embeddings, control = embeddings_of_norm(0.9), ClipTiDecay([0.4])
    for _ in range(steps - 1):
        control(embeddings, ["aoi"], {"aoi": lr})
    assert norms(embeddings).min() > 0.41
    control(embeddings, ["aoi"], {"word aoi": lr})
    assert 0.409 < norms(embeddings).max() <= 0.4101


def test_clip_ti_decay_at_high_rates_sets_the_norm_and_keeps_the_direction():
    embeddings = embeddings_of_norm(0.9)
    before = embeddings.parameters_of("aoi")[0].detach().clone()
    ClipTiDecay([0.4])(embeddings, ["aoi"], {"aoi": 0.5})
    after = embeddings.parameters_of("aoi")[0].detach()
    torch.testing.assert_close(norms(embeddings), torch.full((3,), 0.4))
    assert torch.cosine_similarity(before, after).min() == pytest.approx(1.0)


def test_std_retraction_figure():
    """methods.md 2.0: a fifth of the spread is 0.99 of it after 49 steps."""
    embeddings, target = embeddings_of_norm(1.0), 0.0139
    with torch.no_grad():
        values = embeddings.parameters_of("aoi")[0]
        values.mul_(0.2 * target / values.std())
    control = StdRetraction([target])
    for _ in range(49):
        control(embeddings, ["aoi"], {})
    ratio = float(embeddings.parameters_of("aoi")[0].detach().std()) / target
    assert ratio == pytest.approx(0.2 ** (0.9**49), abs=1e-4)
    assert 0.99 <= ratio < 0.991


def test_preserve_norm():
    embeddings = embeddings_of_norm(0.9)
    PreserveNorm([0.25])(embeddings, ["aoi"], {})
    torch.testing.assert_close(norms(embeddings), torch.full((3,), 0.25))


@pytest.mark.parametrize("name", CONTROLS)
def test_frozen_and_unmoved_embeddings_are_left_alone(name):
    embeddings = embeddings_of_norm(0.9, names=("aoi", "frozen", "unmoved"))
    embeddings.freeze(["frozen"])
    before = {n: t.detach().clone() for n, (t,) in embeddings.as_mapping().items()}
    control = make_control(name, [VocabularyStats(0.4, 0.014)])
    control(embeddings, ["aoi", "frozen"], {"aoi": 1e-3, "frozen": 1e-3})
    assert torch.equal(before["frozen"], embeddings.parameters_of("frozen")[0])
    assert torch.equal(before["unmoved"], embeddings.parameters_of("unmoved")[0])
    assert torch.equal(before["aoi"], embeddings.parameters_of("aoi")[0]) == (name == "none")
    assert embeddings.parameters_of("aoi")[0].requires_grad and embeddings.parameters_of("aoi")[0].is_leaf


@pytest.mark.parametrize("name", CONTROLS)
def test_zero_vectors_stay_finite(name):
    embeddings = TrainedEmbeddings({"aoi": (torch.zeros(2, 8),)})
    make_control(name, [VocabularyStats(0.4, 0.014)])(embeddings, ["aoi"], {"aoi": 1e-3})
    assert torch.equal(embeddings.parameters_of("aoi")[0], torch.zeros(2, 8))


def test_one_vector_of_one_row_has_a_spread():
    embeddings = embeddings_of_norm(0.9, vectors=1)
    StdRetraction([0.014])(embeddings, ["aoi"], {})
    assert torch.isfinite(embeddings.parameters_of("aoi")[0]).all()


def test_each_tower_has_its_own_target():
    embeddings = TrainedEmbeddings({"aoi": (torch.ones(2, 8), torch.ones(2, 12))})
    make_control("preserve_norm", [VocabularyStats(0.4, 0.1), VocabularyStats(1.5, 0.2)])(embeddings, ["aoi"], {})
    assert norms(embeddings, tower=0).mean() == pytest.approx(0.4) and norms(
        embeddings, tower=1
    ).mean() == pytest.approx(1.5)
    with pytest.raises(EmbeddingNameError, match="tower 1"):
        PreserveNorm([0.4])(embeddings, ["aoi"], {})


def test_errors():
    with pytest.raises(EmbeddingNameError, match="use one of none, clip_ti_decay, std, preserve_norm"):
        make_control("clip", [])
    with pytest.raises(EmbeddingNameError, match="no learning rate"):
        ClipTiDecay([0.4])(embeddings_of_norm(0.9), ["aoi"], {"ren": 1.0})
    assert isinstance(make_control("none", []), NoControl)
