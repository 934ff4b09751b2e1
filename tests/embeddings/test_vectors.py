"""Words are leaves; frozen ones stay; the state is exact."""

import pytest
import torch

from lib_pivotal.embeddings.vectors import EmbeddingSettings, TrainedEmbeddings
from lib_pivotal.errors import EmbeddingNameError


def tensors(seed=0, **sizes):
    generator = torch.Generator().manual_seed(seed)
    return {name: (torch.randn(count, 8, generator=generator),) for name, count in sizes.items()}


def two_towers(count=2):
    return {"aoi": (torch.ones(count, 8), 2 * torch.ones(count, 12))}


def test_leaves_by_name():
    embeddings = TrainedEmbeddings(tensors(aoi=1, ren=75))
    assert (
        embeddings.names() == ["aoi", "ren"] and len(embeddings) == 2 and "aoi" in embeddings and "x" not in embeddings
    )
    mapping = embeddings.as_mapping()
    assert mapping["ren"][0].shape == (75, 8)
    assert all(t.is_leaf and t.requires_grad and t.dtype == torch.float32 for row in mapping.values() for t in row)
    assert {id(t) for row in mapping.values() for t in row} == {id(p) for p in embeddings.parameters()}


def test_start_values_are_copied_into_fp32():
    given = {"aoi": (torch.ones(2, 8, dtype=torch.float16),)}
    embeddings = TrainedEmbeddings(given)
    given["aoi"][0].zero_()
    assert torch.equal(embeddings.as_mapping()["aoi"][0], torch.ones(2, 8))


def test_groups():
    embeddings = TrainedEmbeddings(two_towers(), {"aoi": EmbeddingSettings(lr_factor=0.5, weight_decay=0.1)})
    (group,) = embeddings.parameter_groups()
    assert (group.name, group.lr_factor, group.weight_decay) == ("word aoi", 0.5, 0.1)
    assert [tuple(p.shape) for p in group.parameters] == [(2, 8), (2, 12)]


def test_norms_of_the_first_tower():
    embeddings = TrainedEmbeddings(
        {"aoi": (torch.tensor([[3.0, 4.0], [0.0, 1.0]]),), "ren": (torch.tensor([[0.0, 2.0]]),)}
    )
    assert embeddings.mean_norms() == {"aoi": pytest.approx(3.0), "ren": pytest.approx(2.0)}
    assert TrainedEmbeddings(two_towers()).mean_norms()["aoi"] == pytest.approx(8**0.5)
    assert TrainedEmbeddings({}).mean_norms() == {}


def test_frozen_embeddings_get_no_update():
    embeddings = TrainedEmbeddings(tensors(aoi=2, ren=2))
    optimizer = torch.optim.AdamW(embeddings.parameters(), lr=0.1, weight_decay=0.1)
    sum(t.square().sum() for (t,) in embeddings.as_mapping().values()).backward()
    optimizer.step()
    embeddings.freeze(["aoi"])
    before = {name: t.detach().clone() for name, (t,) in embeddings.as_mapping().items()}
    optimizer.zero_grad()
    embeddings.parameters_of("ren")[0].square().sum().backward()
    optimizer.step()
    assert torch.equal(before["aoi"], embeddings.parameters_of("aoi")[0])
    assert not torch.equal(before["ren"], embeddings.parameters_of("ren")[0])
    assert embeddings.frozen == {"aoi"}


def test_freezing_by_fraction_step_and_norm():
    embeddings = TrainedEmbeddings(
        {name: (torch.full((2, 4), 0.1),) for name in ("fraction", "step", "norm", "never")},
        {
            "fraction": EmbeddingSettings(freeze_fraction=0.5),
            "step": EmbeddingSettings(freeze_step=3),
            "norm": EmbeddingSettings(freeze_norm=0.55),
        },
    )
    assert [embeddings.advance(step, max_steps=8) for step in range(1, 6)] == [[], [], ["step"], ["fraction"], []]
    with torch.no_grad():
        embeddings.parameters_of("norm")[0].mul_(3)
    assert embeddings.advance(6, max_steps=8) == ["norm"]
    with torch.no_grad():
        embeddings.parameters_of("norm")[0].mul_(0.1)
    assert embeddings.advance(7, max_steps=8) == [] and embeddings.frozen == {"fraction", "step", "norm"}


def test_fraction_zero_freezes_at_once():
    embeddings = TrainedEmbeddings(tensors(aoi=2), {"aoi": EmbeddingSettings(freeze_fraction=0.0)})
    assert embeddings.advance(0, max_steps=5) == ["aoi"]


def test_state_is_exact(tmp_path):
    embeddings = TrainedEmbeddings(tensors(aoi=3, ren=2), {"aoi": EmbeddingSettings(freeze_step=1)})
    embeddings.freeze(["ren"])
    torch.save(embeddings.state_dict(), tmp_path / "w.pt")
    other = TrainedEmbeddings(tensors(1, aoi=3, ren=2), {"aoi": EmbeddingSettings(freeze_step=6)})
    other.freeze(["aoi"])
    other.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True))
    for name in embeddings.names():
        assert torch.equal(embeddings.parameters_of(name)[0], other.parameters_of(name)[0])
    assert other.frozen == {"ren"} and other.parameters_of("aoi")[0].requires_grad
    assert other.advance(5, max_steps=9) == []


def test_state_of_other_embeddings_is_refused():
    with pytest.raises(EmbeddingNameError, match="not those of this run"):
        TrainedEmbeddings(tensors(aoi=3)).load_state_dict(TrainedEmbeddings(tensors(ren=3)).state_dict())


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"aoi": (torch.zeros(76, 8),)}, "76 vectors"),
        ({"aoi": (torch.zeros(0, 8),)}, "0 vectors"),
        ({"aoi": (torch.zeros(8),)}, r"shape \(8,\)"),
        ({"aoi": ()}, "no vectors"),
        ({"": (torch.zeros(1, 8),)}, "empty name"),
        ({"aoi": (torch.zeros(2, 8), torch.zeros(3, 12))}, "tower 1: 3 vectors"),
        ({"aoi": (torch.zeros(2, 8),), "ren": (torch.zeros(2, 9),)}, "different widths"),
    ],
)
def test_refusals(vectors, message):
    with pytest.raises(EmbeddingNameError, match=message):
        TrainedEmbeddings(vectors)


def test_settings_of_no_embedding():
    with pytest.raises(EmbeddingNameError, match="no such embedding"):
        TrainedEmbeddings(tensors(aoi=1), {"ren": EmbeddingSettings()})


def test_where_training_began_is_remembered_and_saved():
    embeddings = TrainedEmbeddings(tensors(aoi=2, ren=1))
    starts, first = embeddings.starts, embeddings.parameters_of("aoi")[0].detach().clone()
    with torch.no_grad():
        embeddings.parameters_of("aoi")[0].add_(1)
    assert torch.equal(starts["aoi"][0], first)
    embeddings.begin_here()
    assert torch.equal(starts["aoi"][0], first + 1)
    other = TrainedEmbeddings(tensors(1, aoi=2, ren=1))
    kept = other.starts
    other.load_state_dict(embeddings.state_dict())
    assert all(torch.equal(kept[name][0], starts[name][0]) for name in ("aoi", "ren"))


def test_a_state_without_starts_leaves_them():
    embeddings, other = TrainedEmbeddings(tensors(aoi=2)), TrainedEmbeddings(tensors(1, aoi=2))
    state, before = embeddings.state_dict(), other.starts["aoi"][0].clone()
    del state["_extra_state"]["starts"]
    other.load_state_dict(state)
    assert torch.equal(other.starts["aoi"][0], before)
    assert torch.equal(other.parameters_of("aoi")[0], embeddings.parameters_of("aoi")[0])
