"""OpenCLIP's text encoders: SD2's, and SDXL's second one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fake_launch
import torch
from modules import devices, sd_hijack_clip
from torch import Tensor


class _OpenCLIP(sd_hijack_clip.FrozenCLIPEmbedderWithCustomWordsBase):
    """Padding is 0, not the end's token. The tokenizer is CLIP's, whose ids open_clip's own gives too."""

    def __init__(self, wrapped: Any, hijack: Any) -> None:
        super().__init__(wrapped, hijack)
        tokenizer = fake_launch.tokenizer
        self.comma_token = tokenizer.get_vocab().get(",</w>")
        self.id_start, self.id_end, self.id_pad = tokenizer.bos_token_id, tokenizer.eos_token_id, 0

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return [_encode(text) for text in texts]

    def encode_with_transformers(self, tokens: Tensor) -> Tensor:
        return self.wrapped.encode_with_transformer(tokens)

    def encode_embedding_init_text(self, init_text: str, nvpt: int) -> Tensor:
        ids = torch.asarray([_encode(init_text)], device=devices.device, dtype=torch.int)
        return self.wrapped.model.token_embedding.wrapped(ids).squeeze(0)


def _encode(text: str) -> list[int]:
    return fake_launch.tokenizer([text], truncation=False, add_special_tokens=False)["input_ids"][0]


class FrozenOpenCLIPEmbedderWithCustomWords(_OpenCLIP):
    # each class has its own, as in the real one: a wrapper of one must not reach the other
    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return super().tokenize(texts)


class FrozenOpenCLIPEmbedder2WithCustomWords(_OpenCLIP):
    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return super().tokenize(texts)

    def encode_with_transformers(self, tokens: Tensor) -> Tensor:
        found = self.wrapped.encode_with_transformer(tokens)
        z: Tensor = found[self.wrapped.layer]
        if found.get("pooled") is not None:
            z.pooled = found["pooled"]  # type: ignore[attr-defined]
        return z
