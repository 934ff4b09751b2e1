"""The text encoders of a loaded checkpoint wrapped, embeddings spliced in, and what was found is noted."""

from __future__ import annotations

from typing import Any

import ldm.modules.attention
import ldm.modules.diffusionmodules.model
import ldm.modules.encoders.modules as encoders
import sgm.modules.attention
import sgm.modules.diffusionmodules.model
import torch
from modules import devices, sd_hijack_optimizations, shared
from torch import Tensor, nn

_own_attention = {
    cls: cls.forward for cls in (ldm.modules.attention.CrossAttention, sgm.modules.attention.CrossAttention)
}


diffusionmodules_model_AttnBlock_forward = ldm.modules.diffusionmodules.model.AttnBlock.forward  # noqa: N816


def undo_optimizations() -> None:
    for cls, forward in _own_attention.items():
        cls.forward = forward
    sgm.modules.diffusionmodules.model.AttnBlock.forward = diffusionmodules_model_AttnBlock_forward


class StableDiffusionModelHijack:
    fixes: list[list[Any]] | None = None
    layers: list[nn.Module] | None = None
    circular_enabled = False
    clip: Any = None
    optimization_method: str | None = None

    def __init__(self) -> None:
        from modules.textual_inversion import textual_inversion

        self.extra_generation_params: dict[str, Any] = {}
        self.comments: list[str] = []
        self.embedding_db = textual_inversion.EmbeddingDatabase()
        self.embedding_db.add_embedding_dir(shared.cmd_opts.embeddings_dir)

    def apply_optimizations(self, option: str | None = None) -> None:
        for cls in _own_attention:
            cls.forward = sd_hijack_optimizations.split_cross_attention_forward_invokeAI
        self.optimization_method = "InvokeAI"

    def hijack(self, m: Any) -> None:
        from modules import sd_hijack_clip, sd_hijack_open_clip

        conditioner = getattr(m, "conditioner", None)
        if conditioner is not None:
            towers = []
            for place, embedder in enumerate(conditioner.embedders):
                if type(embedder).__name__ == "FrozenCLIPEmbedder":
                    self._splice(embedder.transformer.text_model.embeddings)
                    wrapper = sd_hijack_clip.FrozenCLIPEmbedderForSDXLWithCustomWords
                elif type(embedder).__name__ == "FrozenOpenCLIPEmbedder2":
                    self._splice(embedder.model, "clip_g")
                    wrapper = sd_hijack_open_clip.FrozenOpenCLIPEmbedder2WithCustomWords
                else:
                    continue
                conditioner.embedders[place] = wrapper(embedder, self)
                towers.append(conditioner.embedders[place])
            m.cond_stage_model = towers[0] if len(towers) == 1 else conditioner
        elif type(m.cond_stage_model) is encoders.FrozenCLIPEmbedder:
            self._splice(m.cond_stage_model.transformer.text_model.embeddings)
            m.cond_stage_model = sd_hijack_clip.FrozenCLIPEmbedderWithCustomWords(m.cond_stage_model, self)
        elif type(m.cond_stage_model) is encoders.FrozenOpenCLIPEmbedder:
            self._splice(m.cond_stage_model.model)
            m.cond_stage_model = sd_hijack_open_clip.FrozenOpenCLIPEmbedderWithCustomWords(m.cond_stage_model, self)
        self.apply_optimizations()
        self.clip = m.cond_stage_model
        self.layers = list(m.modules())

    def _splice(self, owner: Any, key: str = "clip_l") -> None:
        owner.token_embedding = EmbeddingsWithFixes(owner.token_embedding, self, textual_inversion_key=key)

    def undo_hijack(self, m: Any) -> None:
        conditioner = getattr(m, "conditioner", None)
        if conditioner is not None:
            for place, embedder in enumerate(conditioner.embedders):
                if hasattr(embedder, "wrapped"):
                    _unsplice(embedder.wrapped)
                    conditioner.embedders[place] = embedder.wrapped
            if hasattr(m, "cond_stage_model"):
                delattr(m, "cond_stage_model")
        else:
            m.cond_stage_model = m.cond_stage_model.wrapped
            _unsplice(m.cond_stage_model)
        undo_optimizations()
        self.apply_circular(False)
        self.layers = self.clip = None

    def apply_circular(self, enable: bool) -> None:
        if self.circular_enabled == enable:
            return
        self.circular_enabled = enable
        for layer in self.layers or ():
            if type(layer) is nn.Conv2d:
                layer.padding_mode = "circular" if enable else "zeros"

    def clear_comments(self) -> None:
        self.comments = []
        self.extra_generation_params = {}

    def get_prompt_lengths(self, text: str) -> tuple[Any, Any]:
        if self.clip is None:
            return "-", "-"
        _, token_count = self.clip.process_texts([text])
        return token_count, self.clip.get_target_prompt_token_count(token_count)


def _unsplice(wrapped: Any) -> None:
    owner = wrapped.transformer.text_model.embeddings if hasattr(wrapped, "transformer") else wrapped.model
    owner.token_embedding = owner.token_embedding.wrapped


class EmbeddingsWithFixes(nn.Module):
    """Token vectors, and the embeddings' over them; the fixes hold for one call."""

    def __init__(self, wrapped: nn.Module, embeddings: Any, textual_inversion_key: str = "clip_l") -> None:
        super().__init__()
        self.wrapped = wrapped
        self.embeddings = embeddings
        self.textual_inversion_key = textual_inversion_key

    def forward(self, input_ids: Tensor) -> Tensor:
        batch_fixes, self.embeddings.fixes = self.embeddings.fixes, None
        inputs = self.wrapped(input_ids)
        if not batch_fixes or not any(batch_fixes):
            return inputs
        rows = []
        for fixes, tensor in zip(batch_fixes, inputs, strict=False):
            for offset, embedding in fixes:
                vec = embedding.vec[self.textual_inversion_key] if isinstance(embedding.vec, dict) else embedding.vec
                emb = devices.cond_cast_unet(vec)
                length = min(tensor.shape[0] - offset - 1, emb.shape[0])
                tensor = torch.cat([tensor[: offset + 1], emb[:length], tensor[offset + 1 + length :]])
                tensor = tensor.to(dtype=inputs.dtype)
            rows.append(tensor)
        return torch.stack(rows)


model_hijack = StableDiffusionModelHijack()
