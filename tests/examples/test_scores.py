"""The avatars' classifier: what it is taught, and that the stored one keeps its promises."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from examples.avatars import scores, scores_data, scores_train
from examples.avatars.characters import CHARACTERS, character_avatar, hard_negative
from examples.avatars.world import ATTRIBUTES, random_avatar, random_base, render

needs_weights = pytest.mark.skipif(not scores.WEIGHTS.exists(), reason="examples.avatars.scores train has not run")


def test_likeness_is_graded() -> None:
    rng = random.Random(0)
    avatar = character_avatar("brunovi", rng)
    assert scores_data.likeness(avatar, "brunovi") == 1
    assert scores_data.likeness(hard_negative("brunovi", rng), "brunovi") == 0
    half = replace(avatar, traits=replace(avatar.traits, headgear=None))
    assert scores_data.likeness(half, "brunovi") == 0.25
    other_colour = replace(avatar, traits=replace(avatar.traits, headgear_colour="lime"))
    assert scores_data.likeness(other_colour, "brunovi") == 0.25
    assert scores_data.likeness(replace(avatar, hair="pink", eyes="red"), "brunovi") == 0.25
    for name in CHARACTERS:
        assert scores_data.likeness(avatar, name) == (name == "brunovi")


@pytest.mark.parametrize("kind", scores_data.KINDS)
def test_every_kind_is_drawn(kind: str) -> None:
    rng = random.Random(1)
    drawn = [scores_data.draw(kind, rng) for _ in range(40)]
    best = [max(scores_data.likeness(avatar, name) for name in CHARACTERS) for avatar in drawn]
    if kind == "character":
        assert set(best) == {1}
    elif kind == "hard_negative":
        assert set(best) == {0}
    else:
        assert min(best) < 1


def test_targets_and_shapes() -> None:
    avatar = character_avatar("akavell", random.Random(2))
    renders = scores_data.make_renders([(avatar, "outlined"), (avatar, "plain")])
    assert renders.pictures.shape == (2, 3, 64, 64)
    assert renders.embeddings[:, scores.EMBEDDINGS.index("akavell")].tolist() == [1, 1]
    assert renders.embeddings[:, scores.EMBEDDINGS.index("inkurro")].tolist() == [1, 0]
    others = [number for number, embedding in enumerate(scores.EMBEDDINGS) if embedding not in ("akavell", "inkurro")]
    assert renders.embeddings[:, others].max() < 0.1, "characters that share a trait or two hardly count"
    numbers = dict(zip(scores.VALUES, renders.attributes[0].tolist(), strict=True))
    assert [list(ATTRIBUTES[name])[numbers[name]] for name in ATTRIBUTES] == [getattr(avatar, n) for n in ATTRIBUTES]
    seen = {name: scores.VALUES[name][number] for name, number in numbers.items() if number >= 0}
    assert seen["headgear"] == "cat" and seen["headgear_colour"] == "orange" and seen["cape"] == "crimson"
    assert seen["eye_patch"] == seen["mark"] == "none" and "mark_colour" not in seen


def test_graded_score_counts_traits() -> None:
    """akavell: four describable traits; half white hair, orange cat ears and a crimson cape are two items each."""
    seen = {"hair": "black", "hair_style": "short", "eyes": "blue", "skin": "fair"}
    seen |= {"hair_split": "half", "hair_second": "white", "headgear": "cat", "headgear_colour": "orange"}
    seen |= {"cape": "crimson"}
    assert scores.traits_seen(seen, "akavell") == 1
    assert scores.traits_seen(seen | {"cape": "gold"}, "akavell") == pytest.approx(0.9)
    assert scores.traits_seen(seen | {"cape": "none"}, "akavell") == pytest.approx(0.8)
    assert scores.traits_seen(seen | {"hair_split": "tips"}, "akavell") == pytest.approx(0.9)
    assert scores.traits_seen(seen | {"headgear": "none"}, "akavell") == pytest.approx(
        0.8
    ), "no ears, no colour of ears"
    assert scores.traits_seen(seen | {"skin": "dark", "hair": "red"}, "akavell") == pytest.approx(0.8)


def test_roughener_stays_in_range_and_follows_its_generator() -> None:
    pictures = torch.rand((4, 3, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1
    one, two = (scores_data.Roughener(torch.Generator().manual_seed(5))(pictures) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == pictures.shape
    assert one.abs().max() <= 1
    assert not torch.equal(one, pictures)


def test_pictures_of_other_kinds_and_sizes() -> None:
    avatar = random_avatar(random.Random(3))
    small, big = scores.as_tensor([render(avatar)]), scores.as_tensor([render(avatar, 128)])
    assert small.shape == big.shape == (1, 3, 64, 64)
    assert (small - big).abs().mean() < 0.03
    assert torch.equal(scores.as_tensor(small), small)
    with pytest.raises(ValueError, match="shape"):
        scores.as_tensor(torch.zeros(3, 64, 64))


def test_a_few_steps_learn_and_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights" / "s.safetensors"
    trained = scores_train.train(path, scores_data.soft_copy, pictures=16, steps=2)
    loaded = scores.load_scorer(path)
    pictures = torch.zeros(2, 3, 64, 64)
    assert torch.allclose(trained.identities(pictures), loaded.identities(pictures), atol=0.01)
    assert capsys.readouterr().out.count("step 1 loss") == 3
    again = scores_train.train(path, scores_data.soft_copy, parts=("attributes",), pictures=16, steps=1)
    assert torch.equal(again.identities(pictures), loaded.identities(pictures)), "the other part stays"
    assert not torch.equal(again.attribute_network.out.weight, loaded.attribute_network.out.weight)


def test_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="scores train"):
        scores.load_scorer(tmp_path / "none.safetensors")
    scorer = scores.Scorer()
    with pytest.raises(ValueError, match="word is 'nobody'"):
        scorer.identity(torch.zeros(1, 3, 64, 64), "nobody")
    with pytest.raises(ValueError, match="1 pictures for 0 wanted"):
        scorer.attribute_accuracy(torch.zeros(1, 3, 64, 64), [])


@needs_weights
def test_stored_file_is_small() -> None:
    assert scores.WEIGHTS.stat().st_size < 1_600_000


@needs_weights
@pytest.mark.parametrize("embedding", scores.EMBEDDINGS)
def test_stored_scorer_keeps_its_promises(embedding: str) -> None:
    scorer = scores.load_scorer()
    true, false = scores_data.held_out(embedding, 8, seed=77)
    for worn in (lambda x: x, scores_data.soft_copy):
        assert scorer.identity(worn(scores_data.to_floats(true.pictures)), embedding) >= scores_train.TRUE_AT_LEAST
        assert scorer.identity(worn(scores_data.to_floats(false.pictures)), embedding) <= scores_train.FALSE_AT_MOST


needs_autoencoder = pytest.mark.skipif(not scores.CHECKPOINT.exists(), reason="examples.avatars.train_base has not run")


@needs_weights
@needs_autoencoder
def test_stored_scorer_keeps_its_promises_through_the_autoencoder() -> None:
    """Every word: its renders as the checkpoint's autoencoder gives them back, and its hard negatives likewise."""
    scorer, roundtrip = scores.load_scorer(), scores_train.load_roundtrip(scores.CHECKPOINT)
    true, false = {}, {}
    for embedding in scores.EMBEDDINGS:
        for row, renders in zip((true, false), scores_data.held_out(embedding, 20, seed=78), strict=True):
            row[embedding] = round(scorer.identity(scores_data.to_floats(renders.through(roundtrip)), embedding), 3)
    assert min(true.values()) >= scores_train.TRUE_AT_LEAST, true
    assert max(false.values()) <= scores_train.FALSE_AT_MOST, false


@needs_weights
@needs_autoencoder
def test_stored_scorer_sees_nobody_in_ruined_pictures() -> None:
    """Bright blotches, as vectors make that have grown too far, are no character, whoever was meant."""
    scorer, ruin = scores.load_scorer(), scores_train.load_roundtrip(scores.CHECKPOINT, **scores_train.RUIN)
    for embedding in scores.CHARACTERS:
        true, _ = scores_data.held_out(embedding, 3, seed=79)
        assert (
            scorer.identity(scores_data.to_floats(true.through(ruin)), embedding) <= scores_train.FALSE_AT_MOST
        ), embedding


def test_ruined_pictures_are_nobody_and_have_no_attributes() -> None:
    renders = scores_data.training_renders(6, seed=4)
    ruined = renders.ruined(scores_data.blotches, count=2)
    assert ruined.embeddings.sum() == 0
    assert set(ruined.attributes.flatten().tolist()) == {scores_data.NO_ATTRIBUTE}
    assert ruined.pictures.shape == (2, 3, 64, 64)
    assert (ruined.pictures.float() - renders.pictures[-2:].float()).abs().mean() > 50
    assert len(renders.followed_by(ruined).pictures) == 8
    loss = scores_train.loss_of({n: torch.zeros(2, len(v)) for n, v in scores.VALUES.items()}, ruined, torch.arange(2))
    assert loss == 0


@needs_weights
def test_stored_scorer_sees_attributes() -> None:
    rng = random.Random(78)
    avatars = [random_avatar(rng) for _ in range(40)]
    accuracy = scores.load_scorer().attribute_accuracy([render(avatar) for avatar in avatars], avatars)
    assert list(accuracy) == [*ATTRIBUTES, "mean"]
    assert accuracy["mean"] >= 0.95


@needs_weights
@needs_autoencoder
def test_stored_scorer_grades_characters() -> None:
    """True renders through the autoencoder score high, random pictures of the base world low; the pages say both."""
    scorer, roundtrip, rng = scores.load_scorer(), scores_train.load_roundtrip(scores.CHECKPOINT), random.Random(80)
    anybody = scores_data.make_renders([(random_base(rng), "plain") for _ in range(40)]).through(roundtrip)
    floors = {name: scorer.graded(scores_data.to_floats(anybody), name) for name in CHARACTERS}
    assert max(floors.values()) < 0.25, floors
    true = {}
    for name in CHARACTERS:
        renders = scores_data.make_renders([(character_avatar(name, rng), "plain") for _ in range(12)])
        true[name] = scorer.graded(scores_data.to_floats(renders.through(roundtrip)), name)
    assert sum(true.values()) / len(true) > 0.72, true
    assert all(true[name] > 3 * floors[name] for name in CHARACTERS), (true, floors)
