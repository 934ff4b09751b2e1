"""Reading: tolerant of spellings, and of one bad word among good ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib_pivotal.bundle.reader import is_finite, read_bundle, require
from lib_pivotal.errors import BundleError

L, G = torch.randn(2, 768), torch.randn(2, 1280)


def test_a_plain_lora_is_a_bundle_without_embeddings(save: Callable[..., Path], network: dict[str, Tensor]) -> None:
    bundle = read_bundle(save(network, metadata={"ss_seed": "1"}))
    assert not bundle.embeddings and not bundle.problems
    assert bundle.metadata == {"ss_seed": "1"}
    assert all(torch.equal(bundle.network[key], tensor) for key, tensor in network.items())


def test_embeddings_and_network_are_told_apart_and_every_spelling_is_read(
    save: Callable[..., Path], network: dict[str, Tensor]
) -> None:
    path = save(
        {
            **network,
            "bundle_emb.webui.string_to_param.*": L,
            "bundle_emb.other-term.string_to_param.265": L,
            "bundle_emb.kohya.emb_params": L,
            "bundle_emb.onetrainer.emp_params": L,
            "bundle_emb.new-onetrainer.clip_l": L,
            "bundle_emb.new-onetrainer.clip_l_out": L,
            "bundle_emb.single.<s1>": L[0],
            "bundle_emb.v1.5-girl.string_to_param.*": L,
            "bundle_emb.ema yasuhara.clip_l": L,
            "bundle_emb.cog.text_encoders_0": L,
        }
    )
    bundle = read_bundle(path)
    assert set(bundle.network) == set(network)
    assert set(bundle.embeddings) == {
        "webui", "other-term", "kohya", "onetrainer", "new-onetrainer", "single", "v1.5-girl", "ema yasuhara", "cog",
    }  # fmt: skip
    assert torch.equal(bundle.embeddings["single"][0], L[:1])
    assert all(torch.equal(v[0], L) for name, v in bundle.embeddings.items() if name != "single")
    assert not bundle.errors
    warned = {problem.embedding for problem in bundle.problems}
    assert warned == {"new-onetrainer", "single", "v1.5-girl", "ema yasuhara"}


def test_sdxl_spellings(save: Callable[..., Path]) -> None:
    bundle = read_bundle(
        save(
            {
                "bundle_emb.pair.clip_l": L,
                "bundle_emb.pair.clip_g": G,
                "bundle_emb.cog.text_encoders_0": L,
                "bundle_emb.cog.text_encoders_1": G,
                "bundle_emb.hcp.string_to_param.*": torch.cat([L, G], 1),
            }
        )
    )
    for name in ("pair", "cog", "hcp"):
        first, second = bundle.embeddings[name]
        assert torch.equal(first, L) and torch.equal(second, G)


def test_one_bad_embedding_does_not_take_the_others_with_it(
    save: Callable[..., Path], network: dict[str, Tensor]
) -> None:
    nan = L.clone()
    nan[1, 5] = float("nan")
    bundle = read_bundle(
        save(
            {
                **network,
                "bundle_emb.good.string_to_param.*": L,
                "bundle_emb.nan.string_to_param.*": nan,
                "bundle_emb.long.string_to_param.*": torch.randn(76, 768),
                "bundle_emb.half.clip_g": G,
                "bundle_emb.whole.emb_params": torch.ones(2, 768, dtype=torch.int32),
                "bundle_emb.nokey": L.clone(),
            }
        )
    )
    assert set(bundle.embeddings) == {"good"}
    assert {problem.embedding or problem.key for problem in bundle.errors} == {
        "nan", "long", "half", "whole", "bundle_emb.nokey",
    }  # fmt: skip
    with pytest.raises(BundleError, match=r"5 part\(s\) could not be read"):
        require(bundle)


def test_names_that_differ_in_case_are_kept_and_told(save: Callable[..., Path]) -> None:
    bundle = read_bundle(save({"bundle_emb.Dog.emb_params": L, "bundle_emb.dog.emb_params": L.clone()}))
    assert set(bundle.embeddings) == {"Dog", "dog"}
    assert any("only in case" in problem.what for problem in bundle.problems)


def test_cloneofsimo_tokens(save: Callable[..., Path]) -> None:
    tensors = {"<s1>": torch.randn(768), "text_encoder:0:up": torch.randn(3, 4)}
    bundle = read_bundle(save(tensors, metadata={"<s1>": "<embed>", "text_encoder": "[]"}))
    assert set(bundle.embeddings) == {"<s1>"} and bundle.embeddings["<s1>"][0].shape == (1, 768)
    assert set(bundle.network) == {"text_encoder:0:up"}


def test_a_broken_network_is_told(save: Callable[..., Path]) -> None:
    bundle = read_bundle(save({"lora_unet_x.alpha": torch.tensor(float("inf"))}))
    assert bundle.errors[0].key == "lora_unet_x.alpha"


def test_a_torch_file_is_read_without_running_it(tmp_path: Path, network: dict[str, Tensor]) -> None:
    path = tmp_path / "old.pt"
    torch.save({**network, "bundle_emb.dog.string_to_param.*": L}, path)
    bundle = read_bundle(path)
    assert set(bundle.embeddings) == {"dog"} and set(bundle.network) == set(network)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_are_kept(save: Callable[..., Path], dtype: torch.dtype) -> None:
    assert read_bundle(save({"bundle_emb.dog.emb_params": L.to(dtype)})).embeddings["dog"][0].dtype == dtype


def test_is_finite() -> None:
    assert is_finite(torch.ones(2)) and is_finite(torch.ones(2, dtype=torch.int8))
    assert not is_finite(torch.tensor([1.0, float("nan")]).to(torch.float8_e5m2))
