"""OpenCLIP and transformers names of text encoder layers."""

from __future__ import annotations

import pytest

from lib_pivotal.bundle.text_layer_names import OpenClipLayer, to_openclip, to_transformers
from lib_pivotal.errors import NetworkError

HEAD = "text_model.encoder.layers.7."


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("self_attn.q_proj", OpenClipLayer("transformer.resblocks.7.attn", 0)),
        ("self_attn.k_proj", OpenClipLayer("transformer.resblocks.7.attn", 1)),
        ("self_attn.v_proj", OpenClipLayer("transformer.resblocks.7.attn", 2)),
        ("self_attn.out_proj", OpenClipLayer("transformer.resblocks.7.attn.out_proj")),
        ("mlp.fc1", OpenClipLayer("transformer.resblocks.7.mlp.c_fc")),
        ("mlp.fc2", OpenClipLayer("transformer.resblocks.7.mlp.c_proj")),
        ("layer_norm1", OpenClipLayer("transformer.resblocks.7.ln_1")),
    ],
)
def test_both_ways(path: str, layer: OpenClipLayer) -> None:
    assert to_openclip(HEAD + path) == layer
    assert to_transformers(layer) == HEAD + path


def test_unknown_layers() -> None:
    with pytest.raises(NetworkError, match="no OpenCLIP counterpart"):
        to_openclip("text_projection")
    with pytest.raises(NetworkError, match="no transformers counterpart"):
        to_transformers(OpenClipLayer("transformer.resblocks.7.mlp.gelu"))
