"""What the core asks of a host: protocols and the small records that pass through them.

A *host* owns a loaded checkpoint. The core never sees how it is stored: the standalone host wraps diffusers and
transformers, the web UI's host wraps `shared.sd_model`. Both must do at training time exactly what they do when
they make a picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

Precision = Literal["model", "fp32", "bf16", "fp16"]
"""Arithmetic of the frozen model; `model`: as its weights are."""
Part = Literal["unet", "te", "te2"]
LayerKind = Literal["linear", "conv", "norm"]
PARTS: tuple[Part, ...] = ("unet", "te", "te2")

EmbeddingVectors = Mapping[str, tuple[Tensor, ...]]
"""Embedding name -> one tensor `(vectors, width)` a text tower: one for SD1 and SD2, two (CLIP-L, OpenCLIP-G) for
SDXL."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer that a network can be attached to.

    `name` is the kohya name without suffix (`lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q`),
    the same for every host; `module` is the host's own frozen `nn.Linear` or `nn.Conv2d`, or of kind norm its
    `nn.LayerNorm` or `nn.GroupNorm`.
    """

    name: str
    part: Part
    kind: LayerKind
    module: nn.Module


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Encoded prompts: `context` `(batch, 77·chunks, width)`; `pooled` and `sizes` for SDXL only.

    `concat` `(batch, 5, h, w)` for inpainting checkpoints only: what they see beside the noisy latents, see
    `TrainingBatch.inpaint`.
    """

    context: Tensor
    pooled: Tensor | None = None
    sizes: Tensor | None = None
    concat: Tensor | None = None


@dataclass(frozen=True)
class VocabularyStats:
    """Of one tower's token table: median and mean norm of its rows, and the standard deviation of its entries."""

    median_norm: float
    std: float
    mean_norm: float = 0.0

    @classmethod
    def of(cls, table: Tensor) -> VocabularyStats:
        """Measured on a token table `(tokens, width)`, or on some of its rows."""
        rows = table.detach().float()
        norms = rows.norm(dim=1)
        return cls(float(norms.median()), float(rows.std()), float(norms.mean()))


class TokenTables(Protocol):
    """A checkpoint's vocabulary: the vectors that text begins as."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of a token vector, one a tower: `(768,)`, `(1024,)`, `(768, 1280)`."""
        ...

    def embed_text(self, text: str) -> tuple[Tensor, ...]:
        """The token vectors of `text` without start, end and padding: `(tokens, width)` a tower, fp32, detached."""
        ...


class TextEncoder(TokenTables, Protocol):
    """Prompts to conditioning, identical to what the host does at inference (chunks of 75, emphasis, BREAK, skip)."""

    def encode(self, prompts: Sequence[str], embeddings: EmbeddingVectors) -> Conditioning:
        """Encode `prompts`; every name in `embeddings` stands for its vectors. Differentiable in `embeddings`."""
        ...

    def token_ids(self, text: str) -> list[int]:
        """The token ids of `text` without start, end and padding."""
        ...

    def vocabulary_stats(self) -> tuple[VocabularyStats, ...]:
        """One record a tower."""
        ...


class Denoiser(Protocol):
    """The U-Net: its raw prediction (noise or v, as the checkpoint was trained)."""

    def __call__(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """`latents` `(batch, 4, h/8, w/8)`, `timesteps` `(batch,)` integers 0..999 -> prediction of the same shape."""
        ...


@dataclass(frozen=True, eq=False)
class LatentDistribution:
    """What the autoencoder says of pictures, scaled as the U-Net expects: `mean` and `std` `(batch, 4, h/8, w/8)`.

    `widened`: in its own type the numbers were not finite, so that it was run in fp32.
    """

    mean: Tensor
    std: Tensor
    widened: bool = False


class ImageCodec(Protocol):
    """The autoencoder."""

    @property
    def fingerprint(self) -> str:
        """Changes when the autoencoder's weights do: part of every latent cache's key."""
        ...

    def placed(self) -> AbstractContextManager[None]:
        """Inside a session the autoencoder is not on the device but for each call; inside this it stays for many."""
        ...

    def encode(self, pixels: Tensor) -> LatentDistribution:
        """`pixels` `(batch, 3, height, width)` in [-1, 1] -> scaled latents."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> pixels `(batch, 3, height, width)` in [-1, 1], clamped."""
        ...


@dataclass(frozen=True)
class ModelInfo:
    """Of the checkpoint: `family` is `sd1`, `sd2` or `sdxl`; hashes as kohya's metadata wants them (may be empty);
    `inpainting`: its U-Net takes nine channels."""

    name: str
    family: Literal["sd1", "sd2", "sdxl"] = "sd1"
    sha256: str = ""
    legacy_hash: str = ""
    v_prediction: bool = False
    inpainting: bool = False


@dataclass(frozen=True)
class SampleRequest:
    """A picture to make through the host's normal way of generating."""

    prompt: str
    negative_prompt: str = ""
    width_px: int = 512
    height_px: int = 512
    steps: int = 20
    cfg_scale: float = 7.0
    seed: int = 0


@dataclass(frozen=True)
class SessionRequest:
    """How a run wants the model placed while it borrows it."""

    gradient_checkpointing: bool = False
    precision: Precision = "model"
    clip_skip: int = 1
    train_text_encoder: bool = False


class Host(Protocol):
    """A loaded checkpoint, presented through ports."""

    @property
    def info(self) -> ModelInfo: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def text(self) -> TextEncoder: ...
    @property
    def denoiser(self) -> Denoiser: ...
    @property
    def codec(self) -> ImageCodec: ...
    @property
    def alphas_cumprod(self) -> Tensor:
        """`(1000,)` fp32."""
        ...

    def layers(self) -> list[Layer]:
        """Every adaptable layer, in a fixed order."""
        ...

    def modules(self) -> Mapping[str, Sequence[nn.Module]]:
        """The checkpoint's modules, `unet`, `text` and `vae`: to be counted, not to be changed."""
        ...

    def session(self, request: SessionRequest) -> AbstractContextManager[None]:
        """Exclusive use of the model: everything frozen and placed for training; all put back on exit."""
        ...

    def sample(self, requests: Sequence[SampleRequest], embeddings: EmbeddingVectors) -> list[Image.Image]:
        """Pictures through the host's normal sampler, with whatever is attached to its layers now."""
        ...


OWN_LOSS = "loss"
"""The name of the loss of a run's own pictures; those of further sets have others."""


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """One micro-batch, as `data` makes it and `training.step` takes it.

    `latents` `(batch, 4, h, w)` scaled; `mask` `(batch, 1, h, w)` weights of the loss or None; `weights` `(batch,)`
    loss weight a picture (prior preservation, concept weights); `keys` names the pictures for logs; `embeddings` lists
    the trained embeddings in each caption (for the counts of draws).
    `sizes` `(batch, 6)` fp32 in px: height and width of the picture before any resizing, top and left of the cut in the
    resized (and mirrored) picture, height and width trained: SDXL's conditioning (Podell et al. 2023, arXiv 2307.01952,
    sections 2.2 and 2.3).
    `inpaint` `(batch, 5, h, w)` for inpainting checkpoints, else None: the hole (1 = to be painted), then the latents
    of the picture with the hole in it, as the web UI's `inpainting_image_conditioning` puts them.
    `name` is the loss that the batch belongs to. `again` is the micro-batch of the same step whose noise it gets, where
    it looks at the same pictures once more; None for noise of its own. With `prior` the target is not the noise but
    what the model predicts without network and embeddings.
    """

    latents: Tensor
    captions: list[str]
    mask: Tensor | None
    weights: Tensor
    keys: list[str]
    embeddings: list[tuple[str, ...]] = field(default_factory=list)
    sizes: Tensor | None = None
    inpaint: Tensor | None = None
    name: str = OWN_LOSS
    again: int | None = None
    prior: bool = False
