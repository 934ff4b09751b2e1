"""A checkpoint without the web UI: diffusers' U-Net and autoencoder and transformers' CLIP behind the ports."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lib_pivotal.borrowing import OffloadedModel, widened
from lib_pivotal.bundle.hashes import checkpoint_legacy_hash, checkpoint_sha256
from lib_pivotal.bundle.layer_names import kohya_name
from lib_pivotal.errors import HostError
from lib_pivotal.hosting import (
    all_finite,
    check_clip_skip,
    is_adaptable,
    layer_kind,
    pictures_at_once,
    weights_fingerprint,
)
from lib_pivotal.ports import (
    Conditioning,
    EmbeddingVectors,
    LatentDistribution,
    Layer,
    ModelInfo,
    Part,
    SampleRequest,
    SessionRequest,
)
from lib_pivotal.prompts import Tokenizer
from lib_pivotal.standalone.families import INPAINTING_CHANNELS, Family
from lib_pivotal.standalone.sampling import SAMPLERS, Guidance, joined, sample_latents
from lib_pivotal.standalone.session import borrowed, evaluating
from lib_pivotal.standalone.single_file import load_checkpoint, scaled_linear_alphas
from lib_pivotal.standalone.text import StandaloneTextEncoder

logger = logging.getLogger(__name__)

LATENT_SCALE = 8
TE_PARTS: tuple[Part, ...] = ("te", "te2")
"""Of the text encoders in their order."""


class StandaloneDenoiser:
    """The U-Net as `ports.Denoiser`."""

    def __init__(self, unet: nn.Module) -> None:
        self.unet = unet

    def __call__(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The raw prediction; timesteps may be fractional, as samplers give them.

        SDXL's vector is the pooled text, then the embedded sizes; an inpainting checkpoint's hole and holed picture are
        further channels.
        """
        dtype: Any = self.unet.dtype
        config: Any = self.unet.config
        given = latents if conditioning.concat is None else torch.cat([latents, conditioning.concat], dim=1)
        if given.shape[1] != config.in_channels:
            raise HostError(f"the U-Net takes {config.in_channels} channels, {given.shape[1]} were given")
        prediction: tuple[Tensor] = self.unet(
            given.to(dtype),
            timesteps,
            encoder_hidden_states=conditioning.context.to(dtype),
            added_cond_kwargs=_vector(conditioning, dtype) if config.addition_embed_type == "text_time" else None,
            return_dict=False,
        )
        return prediction[0]


def _vector(conditioning: Conditioning, dtype: torch.dtype) -> dict[str, Tensor]:
    if conditioning.pooled is None or conditioning.sizes is None:
        raise HostError("SDXL needs the pooled text and the sizes of each picture beside the prompts")
    return {"text_embeds": conditioning.pooled.to(dtype), "time_ids": conditioning.sizes}


class StandaloneCodec:
    """The autoencoder as `ports.ImageCodec`."""

    def __init__(self, vae: Any, *, scale_factor: float) -> None:
        self.vae = vae
        self.scale_factor = scale_factor
        self.offloaded = OffloadedModel()
        self._fingerprint = ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, types and values of the weights, and the scale; computed once."""
        if not self._fingerprint:
            self._fingerprint = weights_fingerprint(self.vae.state_dict(), scale_factor=self.scale_factor)
        return self._fingerprint

    def placed(self) -> contextlib.AbstractContextManager[None]:
        """See `ports.ImageCodec`."""
        return self.offloaded.here()

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> LatentDistribution:
        """`(batch, 3, height, width)` in [-1, 1] -> scaled mean and std, fp32; in fp32 where half precision fails."""

        def both(part: Tensor) -> Tensor:
            distribution = self.vae.encode(part).latent_dist
            return torch.stack([distribution.mean, distribution.std])

        found, widened_once = self._through(both, pixels)
        mean, std = (torch.cat(found, dim=1) * self.scale_factor).unbind()
        return LatentDistribution(mean, std, widened=widened_once)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> pixels in [-1, 1], fp32, clamped; in fp32 where half precision fails (a black picture)."""
        given = latents.float() / self.scale_factor
        found, widened_once = self._through(
            lambda part: self.vae.decode(part, return_dict=False)[0], given, pixels_a_number=LATENT_SCALE
        )
        if widened_once:
            logger.warning("the autoencoder gave black pictures in half precision: they were decoded in fp32")
        return torch.cat(found).clamp(-1, 1)

    def _through(
        self, compute: Callable[[Tensor], Tensor], given: Tensor, *, pixels_a_number: int = 1
    ) -> tuple[list[Tensor], bool]:
        """`compute` of a few of `given` at a time, as fp32; and whether it had to be done in fp32."""
        height, width = (side * pixels_a_number for side in given.shape[-2:])

        def all_parts() -> list[Tensor]:
            parts = given.to(self.vae.device, self.vae.dtype).split(pictures_at_once(height, width))
            return [compute(part).float() for part in parts]

        with self.placed():
            found = all_parts()
            if self.vae.dtype is torch.float32 or all_finite(*found) or not all_finite(given):
                return found, False
            with widened(self.vae), torch.autocast(self.vae.device.type, enabled=False):
                return all_parts(), True


class StandaloneHost:
    """`ports.Host` over loaded diffusers and transformers models.

    `sampler` is one of `sampler.SAMPLERS`; `clip_skip` holds outside sessions, a session brings its own. `file` is the
    checkpoint's, for its hashes.
    """

    def __init__(
        self,
        *,
        text_model: nn.Module,
        unet: nn.Module,
        vae: nn.Module,
        tokenizer: Tokenizer,
        scale_factor: float = 0.18215,
        v_prediction: bool = False,
        name: str = "model",
        family: Family = "sd1",
        text_model_2: nn.Module | None = None,
        file: Path | None = None,
        alphas_cumprod: Tensor | None = None,
        sampler: str = "euler",
        clip_skip: int = 1,
    ) -> None:
        if sampler not in SAMPLERS:
            raise HostError(f"sampler = {sampler!r}: unknown; use one of {', '.join(SAMPLERS)}")
        self._name = name
        self._family = family
        self._file = file
        self._v_prediction = v_prediction
        self.text = StandaloneTextEncoder(
            text_model,
            tokenizer,
            second=text_model_2,
            family=family,
            clip_skip=clip_skip,
        )
        self.denoiser = StandaloneDenoiser(unet)
        self.codec = StandaloneCodec(vae, scale_factor=scale_factor)
        self.alphas_cumprod = scaled_linear_alphas() if alphas_cumprod is None else alphas_cumprod.float().cpu()
        self.sampler = sampler
        self._borrowed = False
        _check_widths(self.text, unet)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        **settings: Any,
    ) -> StandaloneHost:
        """A diffusers folder or a single .safetensors of SD1, SD2 or SDXL, offline; `settings` as for the class."""
        path = Path(path)
        checkpoint = load_checkpoint(path, device=device, dtype=dtype)
        facts: dict[str, Any] = {
            "name": checkpoint.name or path.stem,
            "scale_factor": checkpoint.scale_factor,
            "v_prediction": checkpoint.prediction_type == "v_prediction",
            "alphas_cumprod": checkpoint.alphas_cumprod,
            "file": path if path.is_file() else None,
            "family": checkpoint.family,
            "text_model_2": checkpoint.text_model_2,
        }
        return cls(
            text_model=checkpoint.text_model,
            unet=checkpoint.unet,
            vae=checkpoint.vae,
            tokenizer=checkpoint.tokenizer,
            **{**facts, **settings},
        )

    @functools.cached_property
    def info(self) -> ModelInfo:
        """Name, kind and the file's hashes, read when first asked for."""
        file = self._file
        return ModelInfo(
            self._name,
            self._family,
            sha256="" if file is None else checkpoint_sha256(file),
            legacy_hash="" if file is None else checkpoint_legacy_hash(file),
            v_prediction=self._v_prediction,
            inpainting=self._inpainting,
        )

    @property
    def _inpainting(self) -> bool:
        config: Any = self.denoiser.unet.config
        return bool(config.in_channels == INPAINTING_CHANNELS)

    @property
    def device(self) -> torch.device:
        """Where the U-Net is."""
        return next(self.denoiser.unet.parameters()).device

    def models(self) -> list[nn.Module]:
        """Text models, U-Net, autoencoder."""
        return [*self.text.models, self.denoiser.unet, self.codec.vae]

    def modules(self) -> dict[str, list[nn.Module]]:
        """See `ports.Host`."""
        return {"unet": [self.denoiser.unet], "text": self.text.models, "vae": [self.codec.vae]}

    def layers(self) -> list[Layer]:
        """U-Net (attention, feed-forward, projections, resnets, re-samplers), then text models, in their order; last
        the U-Net's norms."""
        found = []
        for path, module in self.denoiser.unet.named_modules():
            kind = layer_kind(module)
            if kind is not None and is_adaptable(path):
                found.append(Layer(f"lora_unet_{path.replace('.', '_')}", "unet", kind, module))
        for model, part in zip(self.text.models, TE_PARTS, strict=False):
            for path, module in model.named_modules():
                if isinstance(module, nn.Linear) and "encoder.layers." in path:
                    inside = f"text_model.{path[path.index('encoder.layers.') :]}"
                    name = kohya_name(inside, part, towers=len(self.text.models))
                    found.append(Layer(name, part, "linear", module))
        return sorted(found, key=lambda layer: layer.kind == "norm")

    @contextlib.contextmanager
    def session(self, request: SessionRequest) -> Iterator[None]:
        """One at a time: models frozen and placed; all put back on exit, whatever happens."""
        if self._borrowed:
            raise HostError(f"{self._name}: a run has the model already; end it before starting another")
        check_clip_skip(request.clip_skip, layer_count=self.text.layer_count, name=self._name)
        clip_skip, input_grad = self.text.clip_skip, self.text.input_requires_grad
        self._borrowed = True
        try:
            trained = [*self.text.models, self.denoiser.unet]
            with self.codec.offloaded.away(self.codec.vae), borrowed(self.models(), trained, request=request):
                self.text.clip_skip = request.clip_skip
                self.text.input_requires_grad = request.train_text_encoder and request.gradient_checkpointing
                yield
        finally:
            self.text.clip_skip, self.text.input_requires_grad = clip_skip, input_grad
            self._borrowed = False

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest], embeddings: EmbeddingVectors) -> list[Image.Image]:
        """Pictures in the order asked for; requests of one size, step count and prompt length run together."""
        requests = list(requests)
        for request in requests:
            _check_request(request)
        pictures: dict[int, Image.Image] = {}
        with evaluating(*self.models()):
            encoded = self._encode_pairs(requests, embeddings) if requests else []
            for group in _groups(requests, encoded):
                latents = self._sample_group([requests[i] for i in group], [encoded[i] for i in group])
                pictures.update(zip(group, _to_images(self.codec.decode(latents)), strict=True))
        return [pictures[index] for index in range(len(requests))]

    def _encode_pairs(
        self, requests: Sequence[SampleRequest], embeddings: EmbeddingVectors
    ) -> list[tuple[Conditioning, Conditioning]]:
        """(positive, negative) of each request, each a batch of one, none filled up to the other's length.

        SDXL's negative conditioning is all zeros where the prompt is empty (the web UI's sd_models_xl.py:32).
        """
        prompts = [request.prompt for request in requests] + [request.negative_prompt for request in requests]
        each = self.text.encode_each(prompts, embeddings)
        negatives = each[len(requests) :]
        if self._family == "sdxl":
            negatives = [
                one if request.negative_prompt else _zeros_like(one)
                for request, one in zip(requests, negatives, strict=True)
            ]
        return list(zip(each[: len(requests)], negatives, strict=True))

    def _sample_group(
        self, requests: Sequence[SampleRequest], encoded: Sequence[tuple[Conditioning, Conditioning]]
    ) -> Tensor:
        first = requests[0]
        beside = self._beside_the_text(first, count=len(requests))
        positive, negative = (replace(joined([pair[side] for pair in encoded]), **beside) for side in (0, 1))
        return sample_latents(
            self.denoiser,
            Guidance(positive, negative, torch.tensor([request.cfg_scale for request in requests], device=self.device)),
            seeds=[request.seed for request in requests],
            shape=(4, first.height_px // LATENT_SCALE, first.width_px // LATENT_SCALE),
            steps=first.steps,
            alphas_cumprod=self.alphas_cumprod,
            v_prediction=self._v_prediction,
            sampler=self.sampler,
        )

    def _beside_the_text(self, request: SampleRequest, *, count: int) -> dict[str, Tensor]:
        """As in txt2img: SDXL sees an uncut picture of the size asked for; an inpainting checkpoint sees one hole over
        a grey picture (processing.py:100)."""
        found: dict[str, Tensor] = {}
        height, width = request.height_px, request.width_px
        if self._family == "sdxl":
            sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32, device=self.device)
            found["sizes"] = sizes.expand(count, -1)
        if self._inpainting:
            grey = self.codec.encode(torch.zeros(1, 3, height, width)).mean.to(self.device)
            found["concat"] = torch.cat([torch.ones_like(grey[:, :1]), grey], dim=1).expand(count, -1, -1, -1)
        return found


def _zeros_like(one: Conditioning) -> Conditioning:
    pooled = None if one.pooled is None else torch.zeros_like(one.pooled)
    return Conditioning(torch.zeros_like(one.context), pooled)


def _groups(requests: Sequence[SampleRequest], encoded: Sequence[tuple[Conditioning, Conditioning]]) -> list[list[int]]:
    """Indices of requests that can share a batch, in batches that fit."""
    together: dict[tuple[int, ...], list[int]] = {}
    for index, (request, (positive, negative)) in enumerate(zip(requests, encoded, strict=True)):
        key = (request.width_px, request.height_px, request.steps, positive.context.shape[1], negative.context.shape[1])
        together.setdefault(key, []).append(index)
    batches = []
    for (width, height, *_), members in together.items():
        size = pictures_at_once(height, width)
        batches += [members[start : start + size] for start in range(0, len(members), size)]
    return batches


def _to_images(pixels: Tensor) -> list[Image.Image]:
    """`(batch, 3, height, width)` in [-1, 1] -> pictures; fractions cut off, as the web UI does."""
    array = (((pixels + 1) / 2).clamp(0, 1) * 255).permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)
    return [Image.fromarray(picture) for picture in array]


def _check_request(request: SampleRequest) -> None:
    for side in ("width_px", "height_px"):
        value = getattr(request, side)
        if value < LATENT_SCALE or value % LATENT_SCALE:
            raise HostError(f"{side} = {value}: must be a multiple of {LATENT_SCALE}, at least {LATENT_SCALE}")
    if request.steps < 1:
        raise HostError(f"steps = {request.steps}: must be at least 1")


def _check_widths(text: StandaloneTextEncoder, unet: nn.Module) -> None:
    wanted = getattr(unet.config, "cross_attention_dim", None)
    if isinstance(wanted, int) and wanted != sum(text.widths):
        given = " and ".join(map(str, text.widths))
        raise HostError(f"the U-Net wants text of width {wanted}, the text encoders give width {given}: no pair")
