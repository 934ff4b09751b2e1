"""ldm's text encoders: transformers' CLIP, and open_clip's transformer (which keeps q, k and v in one matrix)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

VOCABULARY = 49408


class FrozenCLIPEmbedder(nn.Module):
    """`layer` and `layer_idx` are sgm's: SDXL takes the hidden state before the last."""

    def __init__(
        self, tokenizer: Any, width: int, *, layers: int = 3, layer: str = "last", layer_idx: int = -1
    ) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.layer, self.layer_idx = layer, layer_idx
        self.transformer = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=layers,
                num_attention_heads=2,
                projection_dim=width,
            )
        )
        self.requires_grad_(False)


class ResidualAttentionBlock(nn.Module):
    """open_clip's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, 2 * width), gelu=nn.GELU(), c_proj=nn.Linear(2 * width, width))
        )

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        mask = attn_mask.to(x.dtype) if attn_mask is not None else None
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.resblocks = nn.ModuleList([ResidualAttentionBlock(width, 2) for _ in range(layers)])


class OpenCLIP(nn.Module):
    """The text half of open_clip's model."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(VOCABULARY, width)
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(77, width))
        self.transformer = Transformer(width, layers)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(width**-0.5 * torch.randn(width, width))
        self.register_buffer("attn_mask", torch.full((77, 77), float("-inf")).triu(1), persistent=False)
        nn.init.normal_(self.token_embedding.weight, std=0.02)


class FrozenOpenCLIPEmbedder(nn.Module):
    """SD2's: the layers before the last `layer_idx`, then the final norm."""

    layer, layer_idx = "penultimate", 1

    def __init__(self, width: int, layers: int = 3) -> None:
        super().__init__()
        self.model = OpenCLIP(width, layers)
        self.requires_grad_(False)

    def encode_with_transformer(self, text: Tensor) -> Tensor:
        x = (self.model.token_embedding(text) + self.model.positional_embedding).permute(1, 0, 2)
        blocks = self.model.transformer.resblocks
        for block in blocks[: len(blocks) - self.layer_idx]:
            x = block(x, attn_mask=self.model.attn_mask)
        return self.model.ln_final(x.permute(1, 0, 2))


class FrozenOpenCLIPEmbedder2(FrozenOpenCLIPEmbedder):
    """SDXL's second (sgm's): all layers' states that matter, and the pooled one."""

    return_pooled = True

    def encode_with_transformer(self, text: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        x = (self.model.token_embedding(text) + self.model.positional_embedding).permute(1, 0, 2)
        found = {}
        blocks = self.model.transformer.resblocks
        for number, block in enumerate(blocks):
            if number == len(blocks) - 1:
                found["penultimate"] = x.permute(1, 0, 2)
            x = block(x, attn_mask=self.model.attn_mask)
        found["last"] = x.permute(1, 0, 2)
        pooled = self.model.ln_final(found["last"])[torch.arange(len(text)), text.argmax(dim=-1)]
        found["pooled"] = pooled @ self.model.text_projection
        return found
