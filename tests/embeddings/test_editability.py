"""The two rules against their formulas, computed on the text models themselves."""

import pytest
import torch

from lib_pivotal.embeddings.editability import CONTEXTS, EDITABILITY, Editability
from lib_pivotal.errors import EmbeddingNameError
from tests.embeddings.by_hand import outputs, text_encoder

FAMILIES = ["sd1", "sd2", "sdxl"]
SEEDS = (3, 5)


def distance(first, second):
    return 1 - (first * second).sum(-1) / (first.norm(dim=-1) * second.norm(dim=-1))


def rows_of(encoder, vectors, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple((0.3 * torch.randn(vectors, width, generator=generator)).requires_grad_() for width in encoder.widths)


def make(rule, encoder, vectors=2, contexts=("a {word}, red hat",), **classes):
    return Editability(
        rule,
        encoder,
        classes=classes or {"aoi": "cat ears"},
        vectors=dict.fromkeys(classes or ["aoi"], vectors),
        contexts=contexts,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_class_diffusion_is_the_cosine_distance_of_the_ends(family):
    encoder, models = text_encoder(family)
    rows = rows_of(encoder, 2)
    with_name, pooled, end = outputs(family, models, [None, "cat ears"], rows)
    alone, other_pooled, other_end = outputs(family, models, ["cat ears"])
    parts = [distance(a[end], b[other_end]) for a, b in zip(with_name, alone, strict=True)]
    parts += [] if pooled is None else [distance(pooled, other_pooled)]
    (found,) = make("class_diffusion", encoder)({"aoi": rows}, ["aoi"], seeds=SEEDS)
    wanted = torch.stack(parts).mean()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    check_gradients(found, wanted, rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_core_compares_the_other_tokens_and_the_end(family):
    encoder, models = text_encoder(family)
    rows = rows_of(encoder, 3)
    with_name, _, end = outputs(family, models, ["a", None, ", red hat"], rows)
    with_class, _, other_end = outputs(family, models, ["a", "cat ears", ", red hat"])
    behind = 3  # comma, red, hat
    parts = [
        distance(a[end - behind : end + 1], b[other_end - behind : other_end + 1]).mean()
        for a, b in zip(with_name, with_class, strict=True)
    ]
    (found,) = make("core", encoder, vectors=3)({"aoi": rows}, ["aoi"], seeds=SEEDS)
    wanted = torch.stack(parts).mean()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    check_gradients(found, wanted, rows)


def check_gradients(found, wanted, rows):
    ours, theirs = (torch.autograd.grad(loss, rows, retain_graph=True) for loss in (found, wanted))
    for mine, other in zip(ours, theirs, strict=True):
        assert other.norm() > 0
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-6)


def test_the_gradient_is_that_of_finite_differences():
    encoder, _ = text_encoder("sd1")
    (rows,) = rows_of(encoder, 2)
    term = make("core", encoder)
    (slope,) = torch.autograd.grad(term({"aoi": (rows,)}, ["aoi"], seeds=SEEDS).sum(), rows)
    direction = torch.randn(rows.shape, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        up, down = (term({"aoi": (rows + h * direction,)}, ["aoi"], seeds=SEEDS).item() for h in (1e-2, -1e-2))
    assert (up - down) / 2e-2 == pytest.approx(float((slope * direction).sum()), rel=0.05)


@pytest.mark.parametrize("rule", ["class_diffusion", "core"])
def test_the_class_itself_is_at_no_distance_of_core_and_descent_brings_any_embedding_nearer(rule):
    encoder, _ = text_encoder("sd1")
    term = make(rule, encoder, aoi="cat ears")
    if rule == "core":
        own = tuple(encoder.embed_text("cat ears"))
        assert float(term({"aoi": own}, ["aoi"], seeds=SEEDS)) == pytest.approx(0, abs=1e-6)
    rows = rows_of(encoder, 2)
    optimizer, seen = torch.optim.Adam(rows, lr=0.02), []
    for _ in range(30):
        optimizer.zero_grad()
        loss = term({"aoi": rows}, ["aoi"], seeds=SEEDS).sum()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.6 * seen[0]


def test_many_embeddings_are_each_as_alone_and_only_those_asked_for_get_a_gradient():
    encoder, _ = text_encoder("sd1")
    vectors = {name: rows_of(encoder, 2, seed) for seed, name in enumerate(("aoi", "hana", "ren"))}
    term = make("core", encoder, aoi="cat", hana="red dog", ren="cat")
    together = term(vectors, ["aoi", "hana"], seeds=SEEDS)
    alone = [term(vectors, [name], seeds=SEEDS) for name in ("aoi", "hana")]
    torch.testing.assert_close(together, torch.cat(alone))
    together.sum().backward()
    assert vectors["aoi"][0].grad.norm() > 0 and vectors["hana"][0].grad.norm() > 0 and vectors["ren"][0].grad is None


def test_contexts_change_with_step_and_seed_and_with_nothing_else():
    encoder, _ = text_encoder("sd1")
    rows = {"aoi": rows_of(encoder, 2)}
    first, second = (make("core", encoder, contexts=()) for _ in range(2))
    seen = [float(first(rows, ["aoi"], seeds=(0, step))) for step in range(20)]
    assert 3 < len(set(seen)) <= len(CONTEXTS)
    assert [float(second(rows, ["aoi"], seeds=(0, step))) for step in reversed(range(20))] == seen[::-1]


def test_refusals():
    encoder, _ = text_encoder("sd1")
    with pytest.raises(EmbeddingNameError, match="no rule; use one of none, class_diffusion, core"):
        make("none", encoder)
    for rule in [name for name in EDITABILITY if name != "none"]:
        with pytest.raises(EmbeddingNameError, match="no class, or does not fit"):
            make(rule, encoder, aoi="")
        with pytest.raises(EmbeddingNameError, match="no class, or does not fit"):
            make(rule, encoder, vectors=75, aoi="cat ears")
