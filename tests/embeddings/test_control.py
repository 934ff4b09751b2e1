"""Norm controls: the figures of methods.md, and words that must be left alone."""

import pytest
import torch

from lib_pivotal.embeddings.control import (
    CONTROLS,
    ClipTiDecay,
    DirectionStep,
    NoControl,
    PreserveNorm,
    StdRetraction,
    make_control,
    make_step,
)
from lib_pivotal.embeddings.norm_targets import NormTargets
from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from lib_pivotal.errors import EmbeddingNameError


def targets(*norms, std=0.014, own=False):
    return NormTargets(norms, (std,) * len(norms), own=own)


def embeddings_of_norm(norm, *, vectors=3, width=16, names=("aoi",)):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(vectors, width, generator=generator)
    return TrainedEmbeddings({name: (rows / rows.norm(dim=1, keepdim=True) * norm,) for name in names})


def norms(embeddings, name="aoi", tower=0):
    return embeddings.parameters_of(name)[tower].detach().norm(dim=1)


@pytest.mark.parametrize(("lr", "steps"), [(5e-4, 77), (1e-4, 390)])
def test_clip_ti_decay_figures(lr, steps):
    """methods.md 2.0: norm .9 -> .41 in 77 steps at 5e-4, 390 steps at 1e-4."""
    embeddings, control = embeddings_of_norm(0.9), ClipTiDecay(targets(0.4))
    for _ in range(steps - 1):
        control(embeddings, ["aoi"], {"aoi": lr})
    assert norms(embeddings).min() > 0.41
    control(embeddings, ["aoi"], {"word aoi": lr})
    assert 0.409 < norms(embeddings).max() <= 0.4101


def test_clip_ti_decay_at_high_rates_sets_the_norm_and_keeps_the_direction():
    embeddings = embeddings_of_norm(0.9)
    before = embeddings.parameters_of("aoi")[0].detach().clone()
    ClipTiDecay(targets(0.4))(embeddings, ["aoi"], {"aoi": 0.5})
    after = embeddings.parameters_of("aoi")[0].detach()
    torch.testing.assert_close(norms(embeddings), torch.full((3,), 0.4))
    assert torch.cosine_similarity(before, after).min() == pytest.approx(1.0)


def test_std_retraction_figure():
    """methods.md 2.0: a fifth of the spread is 0.99 of it after 49 steps."""
    embeddings, target = embeddings_of_norm(1.0), 0.0139
    with torch.no_grad():
        values = embeddings.parameters_of("aoi")[0]
        values.mul_(0.2 * target / values.std())
    control = StdRetraction(targets(0.4, std=target))
    for _ in range(49):
        control(embeddings, ["aoi"], {})
    ratio = float(embeddings.parameters_of("aoi")[0].detach().std()) / target
    assert ratio == pytest.approx(0.2 ** (0.9**49), abs=1e-4)
    assert 0.99 <= ratio < 0.991


def test_preserve_norm():
    embeddings = embeddings_of_norm(0.9)
    PreserveNorm(targets(0.25))(embeddings, ["aoi"], {})
    torch.testing.assert_close(norms(embeddings), torch.full((3,), 0.25))


@pytest.mark.parametrize("name", CONTROLS)
def test_frozen_and_unmoved_embeddings_are_left_alone(name):
    embeddings = embeddings_of_norm(0.9, names=("aoi", "frozen", "unmoved"))
    embeddings.freeze(["frozen"])
    before = {n: t.detach().clone() for n, (t,) in embeddings.as_mapping().items()}
    control = make_control(name, targets(0.4))
    control(embeddings, ["aoi", "frozen"], {"aoi": 1e-3, "frozen": 1e-3})
    assert torch.equal(before["frozen"], embeddings.parameters_of("frozen")[0])
    assert torch.equal(before["unmoved"], embeddings.parameters_of("unmoved")[0])
    assert torch.equal(before["aoi"], embeddings.parameters_of("aoi")[0]) == (name == "none")
    assert embeddings.parameters_of("aoi")[0].requires_grad and embeddings.parameters_of("aoi")[0].is_leaf


@pytest.mark.parametrize("name", CONTROLS)
def test_zero_vectors_stay_finite(name):
    embeddings = TrainedEmbeddings({"aoi": (torch.zeros(2, 8),)})
    make_control(name, targets(0.4))(embeddings, ["aoi"], {"aoi": 1e-3})
    assert torch.equal(embeddings.parameters_of("aoi")[0], torch.zeros(2, 8))


def test_one_vector_of_one_row_has_a_spread():
    embeddings = embeddings_of_norm(0.9, vectors=1)
    StdRetraction(targets(0.4))(embeddings, ["aoi"], {})
    assert torch.isfinite(embeddings.parameters_of("aoi")[0]).all()


def test_each_tower_has_its_own_target():
    embeddings = TrainedEmbeddings({"aoi": (torch.ones(2, 8), torch.ones(2, 12))})
    make_control("preserve_norm", targets(0.4, 1.5))(embeddings, ["aoi"], {})
    assert norms(embeddings, tower=0).mean() == pytest.approx(0.4) and norms(
        embeddings, tower=1
    ).mean() == pytest.approx(1.5)
    with pytest.raises(EmbeddingNameError, match="tower 1"):
        PreserveNorm(targets(0.4))(embeddings, ["aoi"], {})


def test_errors():
    with pytest.raises(EmbeddingNameError, match="use one of none, clip_ti_decay, std, preserve_norm, direction"):
        make_control("clip", targets())
    with pytest.raises(EmbeddingNameError, match="no learning rate"):
        ClipTiDecay(targets(0.4))(embeddings_of_norm(0.9), ["aoi"], {"ren": 1.0})
    assert isinstance(make_control("none", targets()), NoControl)


# ---- each vector's own norm at the start ----


def moved_apart(embeddings):
    """The vectors after some training: other norms, other directions."""
    with torch.no_grad():
        for name in embeddings.names():
            for leaf in embeddings.parameters_of(name):
                leaf.mul_(torch.linspace(0.5, 3, len(leaf))[:, None]).add_(0.1)


def test_dco_gives_each_vector_back_its_first_norm():
    rows = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.6, 0.8]])
    embeddings = TrainedEmbeddings({"aoi": (rows,)})
    moved_apart(embeddings)
    direction = torch.nn.functional.normalize(embeddings.parameters_of("aoi")[0].detach(), dim=1)
    PreserveNorm(targets(0.25, own=True))(embeddings, ["aoi"], {})
    torch.testing.assert_close(embeddings.parameters_of("aoi")[0].detach(), direction * torch.tensor([[5.0], [1.0]]))


def test_a_pull_to_ones_own_norm_and_spread():
    embeddings = embeddings_of_norm(0.9)
    spread = float(embeddings.parameters_of("aoi")[0].detach().std())
    moved_apart(embeddings)
    before = norms(embeddings)
    ClipTiDecay(targets(0.4, own=True))(embeddings, ["aoi"], {"aoi": 5e-3})
    torch.testing.assert_close(norms(embeddings), before + 0.5 * (0.9 - before))
    StdRetraction(targets(0.4, own=True), exponent=1.0)(embeddings, ["aoi"], {})
    assert float(embeddings.parameters_of("aoi")[0].detach().std()) == pytest.approx(spread, rel=1e-5)


def test_a_vector_that_starts_at_zero_gets_the_common_norm():
    embeddings = TrainedEmbeddings({"aoi": (torch.tensor([[0.0, 0.0], [0.0, 3.0]]),)})
    with torch.no_grad():
        embeddings.parameters_of("aoi")[0].add_(1.0)
    PreserveNorm(targets(0.25, own=True))(embeddings, ["aoi"], {})
    torch.testing.assert_close(norms(embeddings), torch.tensor([0.25, 3.0]))


# ---- directions only ----


def with_gradient(embeddings, gradient, name="aoi", tower=0):
    embeddings.parameters_of(name)[tower].grad = gradient.clone()
    return embeddings


def test_a_direction_step_by_hand():
    """e = (2, 0), target norm 2, gradient (5, 3): tangent (0, 1), whatever its size; a step of 0.75 is a turn of
    atan 0.75, to 2 (4, -3) / 5."""
    embeddings = with_gradient(TrainedEmbeddings({"aoi": (torch.tensor([[2.0, 0.0]]),)}), torch.tensor([[5.0, 3.0]]))
    DirectionStep(targets(2.0), kappa=0.0)(embeddings, ["aoi"], {"word aoi": 0.75})
    torch.testing.assert_close(embeddings.parameters_of("aoi")[0].detach(), torch.tensor([[1.6, -1.2]]))
    assert embeddings.parameters_of("aoi")[0].grad is None


def test_the_prior_draws_towards_the_start_as_its_gradient_says():
    """The step goes down L + prior on the sphere: compared with the gradient that autograd gives of
    L(m·v/|v|) - kappa·mu'v/|v|, which is tangential by itself."""
    generator = torch.Generator().manual_seed(3)
    start, now, slope = (torch.randn(4, 6, generator=generator) for _ in range(3))
    embeddings, norm, kappa, rate = TrainedEmbeddings({"aoi": (start,)}), 0.4, 0.5, 0.02
    with torch.no_grad():
        embeddings.parameters_of("aoi")[0].copy_(norm * torch.nn.functional.normalize(now, dim=1))
    v = torch.nn.functional.normalize(now, dim=1).requires_grad_()
    unit, mu = v / v.norm(dim=1, keepdim=True), torch.nn.functional.normalize(start, dim=1)
    (norm * (slope * unit).sum() - kappa * (mu * unit).sum()).backward()
    stepped = v.detach() - rate * torch.nn.functional.normalize(v.grad, dim=1)
    DirectionStep(targets(norm), kappa=kappa)(with_gradient(embeddings, slope), ["aoi"], {"aoi": rate})
    expected = norm * torch.nn.functional.normalize(stepped, dim=1)
    torch.testing.assert_close(embeddings.parameters_of("aoi")[0].detach(), expected)


def test_every_vector_turns_by_the_same_angle_and_keeps_its_norm():
    embeddings = TrainedEmbeddings({"aoi": (torch.randn(5, 8), torch.randn(5, 12))})
    before = [leaf.detach().clone() for leaf in embeddings.parameters_of("aoi")]
    for tower, size in enumerate((1e-6, 1e3)):
        with_gradient(embeddings, size * torch.randn(before[tower].shape), tower=tower)
    DirectionStep(targets(0.4, 0.4, own=True), kappa=0.0)(embeddings, ["aoi"], {"aoi": 0.02})
    for old, leaf in zip(before, embeddings.parameters_of("aoi"), strict=True):
        turned = torch.cosine_similarity(old.double(), leaf.detach().double(), dim=1).acos()
        torch.testing.assert_close(turned, torch.full_like(turned, 0.02).atan(), rtol=1e-3, atol=0)
        torch.testing.assert_close(leaf.detach().norm(dim=1), old.norm(dim=1))


def test_directions_of_frozen_unmoved_and_zero_vectors():
    embeddings = embeddings_of_norm(0.9, names=("frozen", "unmoved", "aoi"))
    step = make_step("direction", targets(0.4), kappa=1e-4)
    embeddings.freeze(["frozen"])
    before = {n: t.detach().clone() for n, (t,) in embeddings.as_mapping().items()}
    step(with_gradient(embeddings, torch.ones(3, 16), name="unmoved"), ["frozen", "aoi"], {"aoi": 0.1, "frozen": 0.1})
    for name, values in before.items():
        assert torch.equal(values, embeddings.parameters_of(name)[0])
    zero = with_gradient(TrainedEmbeddings({"aoi": (torch.zeros(2, 8),)}), torch.tensor([[1.0] * 8, [0.0] * 8]))
    step(zero, ["aoi"], {"aoi": 0.1})
    torch.testing.assert_close(norms(zero), torch.tensor([0.4, 0.0]))


def test_only_the_direction_control_takes_the_optimisers_place():
    assert [name for name in CONTROLS if make_step(name, targets(0.4), kappa=0.0)] == []
    assert isinstance(make_control("direction", targets(0.4)), NoControl)
