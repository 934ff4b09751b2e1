"""Would the stock web UI take the file? Its rules (v1.10.1, networks.py 191-265, textual_inversion.py), in our words.

Written from the description in docs/bundle-format.md, independent of lib_pivotal.bundle: if the writer drifts, this
does not drift with it. The real web UI is asked in tests/live.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from lib_pivotal.bundle.writer import write_bundle

EXPECTED_WIDTH = {"sd1": 768, "sd2": 1024, "sdxl": 768 + 1280}


class RefusedError(Exception):
    """The whole LoRA fails to load."""


def stock_embeddings(tensors: Mapping[str, Tensor], family: str) -> dict[str, Tensor | dict[str, Tensor]]:
    """Name -> vectors, as the stock web UI registers them; raises where it would lose the LoRA."""
    inner: dict[str, dict[str, Tensor]] = {}
    terms: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        head, _, rest = key.partition(".")
        if head != "bundle_emb":
            continue
        name, dot, place = rest.partition(".")
        if not dot:
            raise RefusedError(key)
        if place.partition(".")[0] == "string_to_param":
            if "." not in place:
                raise RefusedError(key)
            terms[name] = tensor
            inner.setdefault(name, {})
        else:
            inner.setdefault(name, {})[place] = tensor
    found: dict[str, Tensor | dict[str, Tensor]] = {}
    for name, others in inner.items():
        if name == "":
            raise RefusedError("an empty name")
        if name in terms:
            vectors: Tensor | dict[str, Tensor] = terms[name].float()
            width, count = terms[name].shape[-1], terms[name].shape[0]
        elif {"clip_g", "clip_l"} <= set(others):
            vectors = {place: tensor.float() for place, tensor in others.items()}
            width, count = others["clip_g"].shape[-1] + others["clip_l"].shape[-1], others["clip_g"].shape[0]
        elif len(others) == 1:
            (tensor,) = others.values()
            vectors = tensor.float().reshape(-1, tensor.shape[-1])
            width, count = vectors.shape[-1], vectors.shape[0]
        else:
            raise RefusedError(f"{name}: multiple terms")
        if count > 75:
            raise RefusedError(f"{name}: longer than a chunk")
        if width == EXPECTED_WIDTH[family]:
            found[name] = vectors
    return found


@pytest.mark.parametrize(("family", "widths"), [("sd1", (768,)), ("sd2", (1024,)), ("sdxl", (768, 1280))])
@pytest.mark.parametrize("vectors", [1, 75])
def test_every_embedding_arrives_with_its_vectors(
    tmp_path: Path, family: str, widths: tuple[int, ...], vectors: int
) -> None:
    names = ["kira", "ink-style", "a_b-c9d", "x", "string_to_param", "clip_l", "bundle_emb"]
    embeddings = {name: tuple(torch.randn(vectors, width) for width in widths) for name in names}
    network = {"lora_unet_x.lora_down.weight": torch.randn(2, 3)}
    path = write_bundle(
        tmp_path / "x.safetensors", network=network, embeddings=embeddings, metadata={}, dtype=torch.float32
    )
    found = stock_embeddings(safetensors.torch.load_file(path), family)
    assert set(found) == set(names)
    for name, towers in embeddings.items():
        got = found[name]
        got_towers = (got["clip_l"], got["clip_g"]) if isinstance(got, dict) else (got,)
        assert all(torch.equal(a, b) for a, b in zip(got_towers, towers, strict=True))


def test_the_check_itself_refuses_what_the_stock_reader_refuses() -> None:
    v = torch.ones(1, 768)
    for tensors in (
        {"bundle_emb.a.clip_l": v, "bundle_emb.a.clip_l_out": v},
        {"bundle_emb.v1.5-a.emb_params": v, "bundle_emb.v1.6-a.emb_params": v},
        {"bundle_emb.a": v},
        {"bundle_emb.a.string_to_param.*": torch.ones(76, 768)},
    ):
        with pytest.raises(RefusedError):
            stock_embeddings(tensors, "sd1")
    assert stock_embeddings({"bundle_emb.a.clip_l": torch.ones(1, 64)}, "sd1") == {}
