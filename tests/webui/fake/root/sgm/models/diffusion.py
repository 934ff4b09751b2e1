"""sgm's `DiffusionEngine` with what the web UI's `sd_models_xl` adds to it, and `GeneralConditioner`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from ldm.models.ddpm import alphas_cumprod
from ldm.modules.openaimodel import timestep_embedding
from modules import shared
from sgm.models.autoencoder import AutoencoderKLInferenceWrapper
from torch import Tensor, nn


class ConcatTimestepEmbedderND(nn.Module):
    def __init__(self, input_key: str, width: int) -> None:
        super().__init__()
        self.input_key, self.width = input_key, width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([timestep_embedding(column, self.width) for column in x.T], dim=-1)


class GeneralConditioner(nn.Module):
    """Embedders by `input_key`: what has three dimensions stands side by side in crossattn, else in vector."""

    def __init__(self, embedders: Sequence[nn.Module]) -> None:
        super().__init__()
        self.embedders = nn.ModuleList(embedders)
        self.wrapped = nn.Module()

    def forward(self, batch: dict[str, Any], force_zero_embeddings: Sequence[str] = ()) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {}
        for embedder in self.embedders:
            with torch.no_grad():
                outputs = embedder(batch[embedder.input_key])
            for output in outputs if isinstance(outputs, tuple) else (outputs,):
                kept = torch.zeros_like(output) if embedder.input_key in force_zero_embeddings else output
                found.setdefault("crossattn" if output.dim() == 3 else "vector", []).append(kept)
        return {key: torch.cat(values, dim=-1) for key, values in found.items()}

    def _first(self, name: str) -> Any:
        return next(getattr(embedder, name) for embedder in self.embedders if hasattr(embedder, name))

    def encode_embedding_init_text(self, init_text: str, nvpt: int) -> Tensor:
        towers = [one for one in self.embedders if hasattr(one, "encode_embedding_init_text")]
        return torch.cat([tower.encode_embedding_init_text(init_text, nvpt) for tower in towers], dim=1)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return self._first("tokenize")(texts)

    def process_texts(self, texts: Sequence[str]) -> tuple[list[Any], int]:
        return self._first("process_texts")(texts)

    def get_target_prompt_token_count(self, token_count: int) -> int:
        return self._first("get_target_prompt_token_count")(token_count)


class SdxlWrapper(nn.Module):
    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.diffusion_model = unet
        self.conditioning_key = "crossattn"

    def forward(self, x: Tensor, t: Tensor, c: dict[str, Tensor]) -> Tensor:
        return self.diffusion_model(x, t, context=c["crossattn"], y=c["vector"])


class DiffusionEngine(nn.Module):
    def __init__(self, unet: nn.Module, embedders: Sequence[nn.Module], *, v: bool = False) -> None:
        super().__init__()
        self.model = SdxlWrapper(unet)
        self.first_stage_model = AutoencoderKLInferenceWrapper()
        self.conditioner = GeneralConditioner(embedders)
        self.cond_stage_key = "txt"
        self.parameterization = "v" if v else "eps"
        self.scale_factor = 0.13025
        self.disable_first_stage_autocast = True
        self.is_sdxl_inpaint = False
        self.alphas_cumprod = alphas_cumprod()
        self.requires_grad_(False)
        self.eval()

    @contextmanager
    def ema_scope(self) -> Iterator[None]:
        yield

    def apply_model(self, x: Tensor, t: Tensor, cond: dict[str, Any]) -> Tensor:
        return self.model(torch.cat([x, *cond["c_concat"]], dim=1) if self.is_sdxl_inpaint else x, t, cond)

    def get_learned_conditioning(self, batch: list[str]) -> dict[str, Tensor]:
        height, width = (getattr(batch, name, None) or 1024 for name in ("height", "width"))

        def sizes(*numbers: int) -> Tensor:
            return torch.tensor([numbers], dtype=torch.float32).repeat(len(batch), 1)

        conds = {
            "txt": batch,
            "original_size_as_tuple": sizes(height, width),
            "crop_coords_top_left": sizes(shared.opts.sdxl_crop_top, shared.opts.sdxl_crop_left),
            "target_size_as_tuple": sizes(height, width),
        }
        zero = getattr(batch, "is_negative_prompt", False) and all(text == "" for text in batch)
        return self.conditioner(conds, force_zero_embeddings=["txt"] if zero else [])

    def encode_first_stage(self, x: Tensor) -> Tensor:
        return self.scale_factor * self.first_stage_model.encode(x)

    def get_first_stage_encoding(self, x: Tensor) -> Tensor:
        return x

    def decode_first_stage(self, z: Tensor) -> Tensor:
        return self.first_stage_model.decode(z / self.scale_factor)
