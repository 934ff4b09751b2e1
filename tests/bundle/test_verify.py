"""Verification: finds what is wrong, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib_pivotal.bundle.metadata import EmbeddingFacts, TrainingFacts, build_metadata
from lib_pivotal.bundle.verify import verify
from lib_pivotal.bundle.writer import write_bundle

Embeddings = dict[str, tuple[Tensor, ...]]


@pytest.fixture
def bundle(tmp_path: Path, network: dict[str, Tensor], embeddings: Embeddings) -> Path:
    facts = TrainingFacts("x", embeddings={name: EmbeddingFacts(vectors=len(v[0])) for name, v in embeddings.items()})
    return write_bundle(
        tmp_path / "b.safetensors", network=network, embeddings=embeddings, metadata=build_metadata(facts)
    )


def test_a_good_bundle_has_no_problems(bundle: Path) -> None:
    assert verify(bundle) == []


def test_one_changed_bit_is_found(bundle: Path) -> None:
    content = bytearray(bundle.read_bytes())
    content[-100] ^= 1
    bundle.write_bytes(content)
    assert any(p.severity == "error" and "sshs_model_hash" in p.what for p in verify(bundle))


def test_a_wrong_legacy_hash_is_found(save: Callable[..., Path], bundle: Path) -> None:
    from lib_pivotal.bundle.hashes import data_hash

    path = save({"lora_unet_x.alpha": torch.tensor(1.0)}, metadata={"ss_v2": "False"})
    metadata = {"ss_v2": "False", "sshs_model_hash": data_hash(path), "sshs_legacy_hash": "00000000"}
    path = save({"lora_unet_x.alpha": torch.tensor(1.0)}, metadata=metadata)
    assert ["sshs_legacy_hash says 00000000, should be e3b0c442" in p.what for p in verify(path)] == [True]


@pytest.mark.parametrize(
    ("tensors", "text", "severity"),
    [
        ({"lora_unet_x.lora_up.weight": torch.ones(2, 2)}, "has no lora_down.weight", "error"),
        (
            {"lora_unet_x.lora_up.weight": torch.ones(2, 3), "lora_unet_x.lora_down.weight": torch.ones(2, 2)},
            "do not fit together",
            "error",
        ),
        ({"lora_unet_x.alpha": torch.ones(2)}, "alpha has 2 values", "error"),
        ({"lora_other_x.alpha": torch.ones(1)}, "no known part", "warning"),
        ({"unet.x.lora_A.weight": torch.ones(1, 1)}, "not in kohya's layout", "warning"),
        (
            {"bundle_emb.dog.clip_l": torch.ones(1, 768), "bundle_emb.dog.clip_l_out": torch.ones(1, 768)},
            "stock",
            "warning",
        ),
        ({"bundle_emb.v1.5-x.clip_l": torch.ones(1, 768)}, "has a dot", "warning"),
        ({"bundle_emb.alphabet.clip_l": torch.ones(1, 768)}, "alpha", "warning"),
        (
            {"bundle_emb.a.clip_l": torch.ones(1, 768), "bundle_emb.b.clip_l": torch.ones(1, 1024)},
            "different models",
            "error",
        ),
        ({f"bundle_emb.{chr(97 + i)}.clip_l": torch.ones(1, 768) for i in range(13)}, "Forge", "warning"),
        ({"bundle_emb.dog.clip_g": torch.ones(1, 1280)}, "without clip_l", "error"),
    ],
)
def test_what_is_found(save: Callable[..., Path], tensors: dict[str, Tensor], text: str, severity: str) -> None:
    problems = verify(save(tensors, metadata={"ss_v2": "False"}))
    assert [p for p in problems if text in p.what and p.severity == severity], list(map(str, problems))


def test_a_dotted_embedding_of_sdxl_is_named_in_full(save: Callable[..., Path]) -> None:
    """Cut at the dot, its two tensors have no known names: the stock web UI takes the file for one of several terms."""
    towers = {f"bundle_emb.mira.v2.{key}": torch.ones(1, width) for key, width in (("clip_l", 768), ("clip_g", 1280))}
    other = {f"bundle_emb.kira.{key}": torch.ones(1, width) for key, width in (("clip_l", 768), ("clip_g", 1280))}
    refused = [problem for problem in verify(save({**towers, **other})) if "refuses the whole file" in problem.what]
    assert [(problem.embedding, problem.remedy) for problem in refused] == [("mira.v2", "Rename it without a dot.")]
    alone = save({"bundle_emb.mira.v2.string_to_param.*": torch.ones(1, 768)})
    assert not [problem for problem in verify(alone) if "refuses" in problem.what], "one tensor: read as `mira`"
    two = {f"bundle_emb.mira.v{number}.string_to_param.*": torch.ones(1, 768) for number in (1, 2)}
    refused = [problem for problem in verify(save(two)) if "refuses the whole file" in problem.what]
    assert sorted(problem.embedding for problem in refused) == ["mira.v1", "mira.v2"]


def test_metadata(save: Callable[..., Path]) -> None:
    embedding = {"bundle_emb.dog.clip_l": torch.ones(1, 768)}
    assert any("no ss_ metadata" in p.what for p in verify(save(embedding)))
    problems = verify(save(embedding, metadata={"ss_v2": "False", "pivotal.words": '{"cat": {}}'}))
    assert any("differ: cat, dog" in p.what for p in problems)


def test_errors_come_first_and_a_bad_file_is_a_problem(save: Callable[..., Path], tmp_path: Path) -> None:
    problems = verify(save({"lora_unet_x.lora_up.weight": torch.ones(2, 2)}))
    assert [p.severity for p in problems] == ["error", "warning"]
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    assert verify(tmp_path / "bad.safetensors")[0].severity == "error"
    assert verify(tmp_path / "none.safetensors")[0].severity == "error"


def test_a_torch_file_is_verified_too(tmp_path: Path, network: dict[str, Tensor]) -> None:
    torch.save(network, tmp_path / "x.pt")
    assert verify(tmp_path / "x.pt") == []
