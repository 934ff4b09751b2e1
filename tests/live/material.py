"""Random networks and words that fit a checkpoint of SD1, SD2 or SDXL: what the live tests put into files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from lib_pivotal.bundle.layer_names import UnetShape, diffusers_path, kohya_name, name_for_webui
from lib_pivotal.bundle.metadata import EmbeddingFacts, TrainingFacts, build_metadata
from lib_pivotal.ports import Part

Towers: TypeAlias = tuple[Tensor, ...]
"""A word: one tensor `(vectors, width)` a text encoder."""

UNET = "model.diffusion_model."
TEXT_ENCODERS: dict[str, dict[Part, str]] = {
    "sd1": {"te": "cond_stage_model."},
    "sd2": {"te": "cond_stage_model."},
    "sdxl": {"te": "conditioner.embedders.0.", "te2": "conditioner.embedders.1."},
}
"""Family -> part -> how the checkpoint's keys of this text encoder begin."""

CLIP, OPEN_CLIP = "transformer.text_model.", "model."
SPELLINGS = {1: ("string_to_param.*",), 2: ("clip_l", "clip_g")}
"""Number of text encoders -> what stands behind a word's name in a bundle; the web UI writes it so."""

EMBEDDINGS = {"mirelle": 2, "quill-on": 3}
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


def spelled(embeddings: Mapping[str, Towers]) -> dict[str, Tensor]:
    """The tensors of words in a bundle."""
    return {
        f"bundle_emb.{name}.{key}": tower
        for name, towers in embeddings.items()
        for key, tower in zip(SPELLINGS[len(towers)], towers, strict=True)
    }


@dataclass(frozen=True, eq=False)
class Material:
    """Random networks and words that fit a checkpoint, under the names that the project writes for the web UI."""

    weights: Mapping[str, Tensor]

    @cached_property
    def family(self) -> str:
        """`sd1`, `sd2` or `sdxl`."""
        if any(key.startswith("conditioner.") for key in self.weights):
            return "sdxl"
        return "sd1" if any(key.startswith(f"cond_stage_model.{CLIP}") for key in self.weights) else "sd2"

    @property
    def text_parts(self) -> tuple[Part, ...]:
        """The text encoders: `te`, and SDXL's `te2`."""
        return tuple(TEXT_ENCODERS[self.family])

    @cached_property
    def vocabularies(self) -> Towers:
        """The token embeddings of each text encoder."""
        return tuple(
            self.weights[f"{tower}{CLIP}embeddings.token_embedding.weight"]
            if self._is_clip(tower)
            else self.weights[f"{tower}{OPEN_CLIP}token_embedding.weight"]
            for tower in TEXT_ENCODERS[self.family].values()
        )

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(table.shape[1] for table in self.vocabularies)

    def vectors(self, rows: int, *, generator: torch.Generator) -> Towers:
        """A random word of the vocabularies' size."""
        return tuple(
            table.float().std() * torch.randn(rows, table.shape[1], generator=generator) for table in self.vocabularies
        )

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

    def text_layers(self, part: Part) -> dict[str, Tensor]:
        """Every linear layer of a text encoder's transformer."""
        tower = TEXT_ENCODERS[self.family][part]
        found = self._clip_layers(tower) if self._is_clip(tower) else self._open_clip_layers(tower)
        return {kohya_name(path, part, towers=len(self.text_parts)): weight for path, weight in found}

    def _is_clip(self, tower: str) -> bool:
        return f"{tower}{CLIP}embeddings.token_embedding.weight" in self.weights

    def _clip_layers(self, tower: str) -> Iterator[tuple[str, Tensor]]:
        """transformers' paths and weights."""
        for key, weight in self.weights.items():
            inside = key.startswith(f"{tower}{CLIP}encoder.layers.")
            if inside and key.endswith(".weight") and weight.dim() == 2:
                yield key.removeprefix(f"{tower}transformer.").removesuffix(".weight"), weight

    def _open_clip_layers(self, tower: str) -> Iterator[tuple[str, Tensor]]:
        """The same for OpenCLIP, whose q, k and v are one tensor; the web UI wants all four of the attention."""
        endings = {"attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
        for key, weight in self.weights.items():
            if not key.startswith(f"{tower}{OPEN_CLIP}transformer.resblocks."):
                continue
            number, _, rest = key.removeprefix(f"{tower}{OPEN_CLIP}transformer.resblocks.").partition(".")
            layer = f"text_model.encoder.layers.{number}"
            if rest == "attn.in_proj_weight":
                for one, third in zip("qkv", weight.chunk(3), strict=True):
                    yield f"{layer}.self_attn.{one}_proj", third
            elif rest.removesuffix(".weight") in endings and rest.endswith(".weight"):
                yield f"{layer}.{endings[rest.removesuffix('.weight')]}", weight

    def network(self, *parts: str) -> dict[str, Tensor]:
        """The tensors of the parts `unet`, `te` and `te2`; the same numbers whichever other part is there."""
        return {key: tensor for part in parts for key, tensor in self._changes[part].items()}

    @cached_property
    def _changes(self) -> dict[str, dict[str, Tensor]]:
        layers = {"unet": self.unet_layers, **{part: self.text_layers(part) for part in self.text_parts}}
        changes: dict[str, dict[str, Tensor]] = {part: {} for part in layers}
        for part, those in layers.items():
            generator = torch.Generator().manual_seed(len(part))
            for name, weight in those.items():
                changes[part] |= low_rank(name, weight, generator=generator)
        return changes

    def whole(self, parts: Sequence[str]) -> tuple[str, ...]:
        """`te` stands for every text encoder."""
        return tuple(part for part in ("unet", *self.text_parts) if part in parts or (part == "te2" and "te" in parts))

    @cached_property
    def embeddings(self) -> dict[str, Towers]:
        """Vectors of the vocabulary's size."""
        generator = torch.Generator().manual_seed(3)
        return {name: self.vectors(rows, generator=generator) for name, rows in EMBEDDINGS.items()}


def metadata_of(name: str) -> dict[str, str]:
    facts = {embedding: EmbeddingFacts(vectors=count) for embedding, count in EMBEDDINGS.items()}
    return build_metadata(TrainingFacts(output_name=name, network_dim=RANK, network_alpha=RANK, embeddings=facts))
