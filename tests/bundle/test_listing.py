"""Listing: everything from the header."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib_pivotal.bundle import safetensors_file
from lib_pivotal.bundle.listing import list_bundle, list_folder, network_rank
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError


def test_what_a_listing_says(
    tmp_path: Path, network: dict[str, Tensor], embeddings: dict[str, tuple[Tensor, ...]]
) -> None:
    path = write_bundle(tmp_path / "x.safetensors", network=network, embeddings=embeddings, metadata={"ss_seed": "1"})
    summary = list_bundle(path)
    assert {(embedding.name, embedding.vectors, embedding.widths) for embedding in summary.embeddings} == {
        ("kira", 3, (768,)),
        ("ink-style", 1, (768,)),
    }
    assert summary.parts == ("unet", "te")
    assert (summary.family, summary.rank, summary.ranks) == ("sd1", 4, (2, 4))
    assert summary.algorithms == ("lora",)
    assert summary.file_bytes == path.stat().st_size
    assert summary.embedding_bytes == 4 * 768 * 2
    assert summary.network_bytes == sum(tensor.numel() * 2 for tensor in network.values())
    assert set(summary.hashes) == {"sshs_model_hash", "sshs_legacy_hash"}
    assert summary.problems == ()
    assert json.loads(json.dumps(summary.as_dict()))["words"][0]["vectors"] in (1, 3)


@pytest.mark.parametrize(
    ("tensors", "metadata", "family"),
    [
        ({"lora_unet_a_attn2_to_k.lora_down.weight": torch.ones(4, 1024)}, {}, "sd2"),
        ({"lora_unet_a_attn2_to_k.lora_down.weight": torch.ones(4, 2048)}, {}, "sdxl"),
        ({"unet.a.attn2.to_k.lora_A.weight": torch.ones(4, 768)}, {}, "sd1"),
        ({"lora_unet_a_attn2_to_k.lora_down.weight": torch.ones(4, 64)}, {"ss_base_model_version": "sd_v1"}, "sd1"),
        ({"lora_te2_x.alpha": torch.ones(1)}, {}, "sdxl"),
        ({"bundle_emb.dog.clip_l": torch.ones(1, 768), "bundle_emb.dog.clip_g": torch.ones(1, 1280)}, {}, "sdxl"),
        ({"x": torch.ones(1)}, {"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"),
        ({"x": torch.ones(1)}, {"ss_v2": "True"}, "sd2"),
        ({"x": torch.ones(1)}, {"ss_v2": "False"}, "sd1"),
        ({"x": torch.ones(1)}, {}, "unknown"),
    ],
)
def test_family(save: Callable[..., Path], tensors: dict[str, Tensor], metadata: dict[str, str], family: str) -> None:
    assert list_bundle(save(tensors, metadata=metadata)).family == family


def test_algorithms_and_parts_of_other_layouts(save: Callable[..., Path]) -> None:
    tensors = {
        "lora_unet_a.hada_w1_b": torch.ones(6, 8),
        "lora_te1_b.lokr_w1": torch.ones(2, 2),
        "text_encoder_2.c.lora_A.weight": torch.ones(4, 8),
        "lora_unet_d.dora_scale": torch.ones(1, 8),
    }
    summary = list_bundle(save(tensors))
    assert summary.algorithms == ("dora", "loha", "lokr", "lora")
    assert summary.parts == ("unet", "te", "te2")


def test_rank_is_the_most_frequent() -> None:
    shapes = {f"lora_unet_{i}.lora_down.weight": (rank, 8) for i, rank in enumerate((4, 8, 8))}
    assert network_rank(shapes) == 8
    assert network_rank({"x": (1,)}) is None


def test_no_tensor_data_is_read(save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = save({"bundle_emb.dog.emb_params": torch.full((2, 768), float("nan"))})
    monkeypatch.setattr(safetensors_file, "_read_tensor", lambda *a, **k: pytest.fail("tensor data was read"))
    assert [embedding.name for embedding in list_bundle(path).embeddings] == ["dog"]


def test_a_folder_with_an_unreadable_file(save: Callable[..., Path], tmp_path: Path) -> None:
    save({"bundle_emb.dog.emb_params": torch.ones(2, 768)}, name="good.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    (tmp_path / "sub").mkdir()
    save({"x": torch.ones(1)}, name="sub/deep.safetensors")
    (tmp_path / "note.txt").write_text("no model")
    listed = {summary.path.name: summary for summary in list_folder(tmp_path)}
    assert set(listed) == {"good.safetensors", "bad.safetensors", "deep.safetensors"}
    assert listed["bad.safetensors"].problems[0].severity == "error"
    assert len(list_folder(tmp_path, recursive=False)) == 2
    with pytest.raises(BundleError):
        list_bundle(tmp_path / "bad.safetensors")


def test_two_hundred_real_sized_headers_are_quick(tmp_path: Path, save: Callable[..., Path]) -> None:
    """264 layers, as a LoRA of SD1.5 with text encoder has: 792 keys a header."""
    tensors = {}
    for i in range(264):
        tensors[f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_x{i}.lora_down.weight"] = torch.ones(1, 8)
        tensors[f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_x{i}.lora_up.weight"] = torch.ones(8, 1)
        tensors[f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_x{i}.alpha"] = torch.tensor(1.0)
    path = save({**tensors, "bundle_emb.dog.emb_params": torch.ones(2, 768)})
    for i in range(199):
        (tmp_path / f"{i}.safetensors").hardlink_to(path)
    begun = time.process_time()
    listed = list_folder(tmp_path)
    seconds = time.process_time() - begun
    assert len(listed) == 200 and all(summary.embeddings[0].name == "dog" for summary in listed)
    limit = 4 if sys.gettrace() is None else 20  # measuring coverage slows every line down
    assert seconds < limit, f"{seconds:.1f} s of CPU time for 200 files"
