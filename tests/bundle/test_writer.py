"""Writing: legal content only, atomic, bit for bit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lib_pivotal.bundle import writer
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError

legal_names = st.from_regex(r"[a-z]([a-z0-9_-]{0,30}[a-z])?", fullmatch=True)
tower_widths = st.sampled_from([(768,), (1024,), (768, 1280), (64,)])
Embeddings = dict[str, tuple[Tensor, ...]]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    names=st.lists(legal_names, min_size=1, max_size=5, unique=True),
    widths=tower_widths,
    vectors=st.integers(1, 75),
    dtype=st.sampled_from([torch.float16, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 1000),
)
def test_round_trip_for_any_legal_name(
    tmp_path: Path, names: list[str], widths: tuple[int, ...], vectors: int, dtype: torch.dtype, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    embeddings = {name: tuple(torch.randn(vectors, width, generator=g).to(dtype) for width in widths) for name in names}
    network = {"lora_unet_x.lora_up.weight": torch.randn(4, 2, generator=g).to(dtype)}
    path = write_bundle(
        tmp_path / "x.safetensors", network=network, embeddings=embeddings, metadata={"ss_note": "ä\u2028"}, dtype=None
    )
    back = read_bundle(path)
    assert not back.problems
    assert set(back.embeddings) == set(embeddings) and set(back.network) == set(network)
    for name, towers in embeddings.items():
        assert [t.dtype for t in back.embeddings[name]] == [dtype] * len(widths)
        assert all(torch.equal(a, b) for a, b in zip(back.embeddings[name], towers, strict=True))
    assert torch.equal(back.network["lora_unet_x.lora_up.weight"], network["lora_unet_x.lora_up.weight"])
    assert back.metadata["ss_note"] == "ä\u2028"


def test_the_official_library_reads_it_and_data_is_aligned(
    tmp_path: Path, network: dict[str, Tensor], embeddings: Embeddings
) -> None:
    path = write_bundle(tmp_path / "x.safetensors", network=network, embeddings=embeddings, metadata={"ss_seed": "1"})
    found = safetensors.torch.load_file(path)
    assert set(found) == {*network, "bundle_emb.kira.string_to_param.*", "bundle_emb.ink-style.string_to_param.*"}
    assert all(tensor.dtype == torch.float16 and tensor.is_contiguous() for tensor in found.values())
    assert torch.equal(found["bundle_emb.kira.string_to_param.*"], embeddings["kira"][0].half())
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


def test_the_same_content_gives_the_same_bytes(
    tmp_path: Path, network: dict[str, Tensor], embeddings: Embeddings
) -> None:
    metadata = {f"ss_{i}": str(i) for i in range(30)}
    first = write_bundle(
        tmp_path / "a.safetensors", network=network, embeddings=embeddings, metadata=metadata
    ).read_bytes()
    reordered = dict(reversed(list(metadata.items())))
    for _ in range(3):
        path = write_bundle(tmp_path / "b.safetensors", network=network, embeddings=embeddings, metadata=reordered)
        assert path.read_bytes() == first


def test_views_and_gradients_do_not_matter(tmp_path: Path) -> None:
    leaf = torch.randn(6, 768, requires_grad=True)
    embeddings = {"dog": (leaf[::2],), "cat": (leaf[1::2],)}
    back = read_bundle(
        write_bundle(tmp_path / "x.safetensors", network={}, embeddings=embeddings, metadata={}, dtype=None)
    )
    assert torch.equal(back.embeddings["dog"][0], leaf.detach()[::2])


def test_integers_of_the_network_are_kept(tmp_path: Path) -> None:
    network = {"lora_unet_x.steps": torch.arange(5)}
    back = read_bundle(write_bundle(tmp_path / "x.safetensors", network=network, embeddings={}, metadata={}))
    assert back.network["lora_unet_x.steps"].dtype == torch.int64


def test_old_hashes_are_replaced(tmp_path: Path, embeddings: Embeddings) -> None:
    metadata = {"sshs_model_hash": "old", "sshs_legacy_hash": "old"}
    back = read_bundle(write_bundle(tmp_path / "x.safetensors", network={}, embeddings=embeddings, metadata=metadata))
    assert len(back.metadata["sshs_model_hash"]) == 64 and len(back.metadata["sshs_legacy_hash"]) == 8


@pytest.mark.parametrize(
    ("embeddings", "reason"),
    [
        ({"Dog": (torch.ones(1, 768),)}, "upper-case"),
        ({"a.b": (torch.ones(1, 768),)}, "dot"),
        ({"../x": (torch.ones(1, 768),)}, "'/'"),
        ({"dog": ()}, "no tensors"),
        ({"dog": (torch.ones(768),)}, r"needed \[vectors, width\]"),
        ({"dog": (torch.ones(0, 768),)}, "no vectors"),
        ({"dog": (torch.ones(76, 768),)}, "76 vectors"),
        ({"dog": (torch.ones(1, 768), torch.ones(2, 1280))}, "unequal"),
        ({"dog": (torch.ones(1, 1280), torch.ones(1, 768))}, "do not make a pair"),
        ({"dog": (torch.ones(1, 2048),)}, "fits no model"),
        ({"dog": (torch.ones(1, 768, dtype=torch.int64),)}, "not floating point"),
        ({"dog": (torch.full((1, 768), float("nan")),)}, "not finite"),
        ({"dog": (torch.full((1, 768), 1e6),)}, "too large"),
        ({"dog": (torch.ones(1, 768),), "cat": (torch.ones(1, 1024),)}, "different models"),
        ({"dog": (torch.ones(1, 768),), "DOG": (torch.ones(1, 768),)}, "only in case"),
        ({}, "neither a network nor an embedding"),
    ],
)
def test_bad_embeddings_are_refused_with_the_reason(tmp_path: Path, embeddings: Embeddings, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        write_bundle(tmp_path / "x.safetensors", network={}, embeddings=embeddings, metadata={})
    assert not list(tmp_path.iterdir())


def test_all_reasons_at_once(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        write_bundle(
            tmp_path / "x.pt",
            network={"bundle_emb.x.clip_l": torch.ones(1, 768), "lora_unet_x.alpha": torch.tensor(float("nan"))},
            embeddings={"2 Dogs": (torch.ones(80, 768),)},
            metadata={"ss_seed": 1},  # type: ignore[dict-item]
        )
    text = str(caught.value)
    reasons = ("belongs to an embedding", "not finite", "begins with '2'", "upper-case", "80 vectors", "is int", "x.pt")
    for reason in reasons:
        assert reason in text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, embeddings: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_bundle(tmp_path / "x.safetensors", network={}, embeddings=embeddings, metadata={})
    before = path.read_bytes()
    monkeypatch.setattr(writer, "_same_bits", lambda first, second: False)
    with pytest.raises(BundleError, match="reading it back"):
        write_bundle(path, network={}, embeddings={"cat": embeddings["kira"]}, metadata={})
    monkeypatch.undo()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="No space left"):
        write_bundle(path, network={}, embeddings={"cat": embeddings["kira"]}, metadata={})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there(tmp_path: Path, embeddings: Embeddings) -> None:
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(tmp_path / "none" / "x.safetensors", network={}, embeddings=embeddings, metadata={})


def test_rights_follow_the_umask(tmp_path: Path, embeddings: Embeddings) -> None:
    path = write_bundle(tmp_path / "x.safetensors", network={}, embeddings=embeddings, metadata={})
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode
