"""Random networks and words that fit a checkpoint: what the live tests put into files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lib_pivotal.bundle.layer_names import UnetShape, diffusers_path, kohya_name, name_for_webui
from lib_pivotal.bundle.metadata import TrainingFacts, WordFacts, build_metadata

UNET, TEXT = "model.diffusion_model.", "cond_stage_model.transformer."
WORDS = {"mirelle": 2, "quill-on": 3}
"""Names and numbers of vectors: a plain one and one that CLIP's tokenizer takes apart at the hyphen."""

RANK = 4
STRENGTH = 0.25
"""Root mean square of a layer's change, as a part of its weight's: enough to see, too little to drown the picture."""


def low_rank(name: str, weight: Tensor, *, generator: torch.Generator) -> dict[str, Tensor]:
    """kohya's three tensors of a random change of `weight`, linear or convolution."""
    outputs, inputs = weight.shape[:2]
    kernel = weight.shape[2:]
    down = torch.randn(RANK, inputs, *kernel, generator=generator)
    up = torch.randn(outputs, RANK, *(1 for _ in kernel), generator=generator)
    up *= STRENGTH * weight.float().std() / RANK**0.5
    return {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(float(RANK))}


@dataclass(frozen=True, eq=False)
class Material:
    """Random networks and words that fit a checkpoint, under the names that the project writes for the web UI."""

    weights: Mapping[str, Tensor]

    @cached_property
    def unet_layers(self) -> dict[str, Tensor]:
        """Every linear layer and convolution inside the U-Net's blocks."""
        paths = {key.removeprefix(UNET): w for key, w in self.weights.items() if key.startswith(UNET)}
        shape = UnetShape.from_compvis_paths(paths)
        inside = ("input_blocks.", "middle_block.", "output_blocks.")
        modules = {p.removesuffix(".weight"): w for p, w in paths.items() if p.endswith(".weight") and w.dim() > 1}
        return {
            name_for_webui(diffusers_path(path, shape), shape): weight
            for path, weight in modules.items()
            if path.startswith(inside) and not path.startswith("input_blocks.0.")
        }

    @cached_property
    def text_layers(self) -> dict[str, Tensor]:
        """Every linear layer of the text model's transformer."""
        return {
            kohya_name(key.removeprefix(TEXT).removesuffix(".weight"), "te"): weight
            for key, weight in self.weights.items()
            if key.startswith(f"{TEXT}text_model.encoder.layers.") and key.endswith(".weight") and weight.dim() == 2
        }

    def network(self, *parts: str) -> dict[str, Tensor]:
        """The tensors of the parts `unet` and `te`; the same numbers whichever other part is there."""
        tensors: dict[str, Tensor] = {}
        for part, layers in (("unet", self.unet_layers), ("te", self.text_layers)):
            generator = torch.Generator().manual_seed(len(part))
            for name, weight in layers.items():
                drawn = low_rank(name, weight, generator=generator)
                tensors |= drawn if part in parts else {}
        return tensors

    @cached_property
    def words(self) -> dict[str, tuple[Tensor]]:
        """Vectors of the vocabulary's size."""
        table = self.weights[f"{TEXT}text_model.embeddings.token_embedding.weight"].float()
        generator = torch.Generator().manual_seed(3)
        scale = table.std()
        return {n: (scale * torch.randn(rows, table.shape[1], generator=generator),) for n, rows in WORDS.items()}


def metadata_of(name: str) -> dict[str, str]:
    facts = {word: WordFacts(vectors=count) for word, count in WORDS.items()}
    return build_metadata(TrainingFacts(output_name=name, network_dim=RANK, network_alpha=RANK, words=facts))
