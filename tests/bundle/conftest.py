"""Small bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
TE_LAYER = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.fixture
def network() -> dict[str, Tensor]:
    """A LoRA of one U-Net layer (rank 4) and one text encoder layer (rank 2)."""
    g = torch.Generator().manual_seed(0)
    return {
        f"{LAYER}.lora_down.weight": torch.randn(4, 768, generator=g),
        f"{LAYER}.lora_up.weight": torch.randn(320, 4, generator=g),
        f"{LAYER}.alpha": torch.tensor(2.0),
        f"{TE_LAYER}.lora_down.weight": torch.randn(2, 768, generator=g),
        f"{TE_LAYER}.lora_up.weight": torch.randn(768, 2, generator=g),
        f"{TE_LAYER}.alpha": torch.tensor(2.0),
    }


@pytest.fixture
def embeddings() -> dict[str, tuple[Tensor, ...]]:
    """Two SD1 words."""
    g = torch.Generator().manual_seed(1)
    return {"kira": (torch.randn(3, 768, generator=g),), "ink-style": (torch.randn(1, 768, generator=g),)}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save tensors with the official writer: `save({...}, metadata={...}, name="x.safetensors")`."""

    def _save(
        tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None, name: str = "file.safetensors"
    ) -> Path:
        path = tmp_path / name
        own = {
            key: tensor.contiguous().clone() for key, tensor in tensors.items()
        }  # the official writer refuses sharing
        safetensors.torch.save_file(own, path, dict(metadata) if metadata else None)
        return path

    return _save
