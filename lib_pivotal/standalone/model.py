"""A checkpoint without the web UI: diffusers' U-Net and autoencoder and transformers' CLIP behind the ports."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lib_pivotal.bundle.hashes import checkpoint_legacy_hash, checkpoint_sha256
from lib_pivotal.errors import HostError
from lib_pivotal.hosting import check_clip_skip, is_adaptable, pictures_at_once, weights_fingerprint
from lib_pivotal.ports import (
    Conditioning,
    LatentDistribution,
    Layer,
    ModelInfo,
    SampleRequest,
    SessionRequest,
    WordVectors,
)
from lib_pivotal.standalone.prompts import COMMA_BACKTRACK, Tokenizer
from lib_pivotal.standalone.sampler import SAMPLERS, Guidance, sample_latents
from lib_pivotal.standalone.session import borrowed, evaluating
from lib_pivotal.standalone.text import StandaloneTextEncoder

LATENT_SCALE = 8


def scaled_linear_alphas() -> Tensor:
    """SD's ᾱ `(1000,)` fp32: √β evenly spaced from √0.00085 to √0.012, computed in fp64 as ldm does."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


class StandaloneDenoiser:
    """The U-Net as `ports.Denoiser`."""

    def __init__(self, unet: nn.Module) -> None:
        self.unet = unet

    def __call__(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The raw prediction."""
        return self.predict(latents, timesteps, conditioning.context)

    def predict(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """As above; timesteps may be fractional, as samplers give them."""
        dtype = self.unet.dtype
        prediction = self.unet(
            latents.to(dtype),  # type: ignore[arg-type]
            timesteps,
            encoder_hidden_states=context.to(dtype),  # type: ignore[arg-type]
            return_dict=False,
        )
        return prediction[0]


class StandaloneCodec:
    """The autoencoder as `ports.ImageCodec`."""

    def __init__(self, vae: Any, *, scale_factor: float) -> None:
        self.vae = vae
        self.scale_factor = scale_factor
        self._fingerprint = ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, types and values of the weights, and the scale; computed once."""
        if not self._fingerprint:
            self._fingerprint = weights_fingerprint(self.vae.state_dict(), scale_factor=self.scale_factor)
        return self._fingerprint

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> LatentDistribution:
        """`(batch, 3, height, width)` in [-1, 1] -> scaled mean and std, fp32."""
        means, stds = [], []
        for part in pixels.to(self.vae.device, self.vae.dtype).split(pictures_at_once(*pixels.shape[-2:])):
            distribution = self.vae.encode(part).latent_dist
            means.append(distribution.mean.float() * self.scale_factor)
            stds.append(distribution.std.float() * self.scale_factor)
        return LatentDistribution(torch.cat(means), torch.cat(stds))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> pixels in [-1, 1], fp32, clamped."""
        size = (latents.shape[-2] * LATENT_SCALE, latents.shape[-1] * LATENT_SCALE)
        parts = (latents.float() / self.scale_factor).to(self.vae.device, self.vae.dtype).split(pictures_at_once(*size))
        return torch.cat([self.vae.decode(part, return_dict=False)[0].float() for part in parts]).clamp(-1, 1)


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
        file: Path | None = None,
        alphas_cumprod: Tensor | None = None,
        sampler: str = "euler",
        clip_skip: int = 1,
        comma_backtrack: int = COMMA_BACKTRACK,
    ) -> None:
        if sampler not in SAMPLERS:
            raise HostError(f"sampler = {sampler!r}: unknown; use one of {', '.join(SAMPLERS)}")
        self._name = name
        self._file = file
        self._v_prediction = v_prediction
        self.text = StandaloneTextEncoder(text_model, tokenizer, clip_skip=clip_skip, comma_backtrack=comma_backtrack)
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
        """A diffusers folder or a single .safetensors of SD1, offline; `settings` as for the class."""
        from lib_pivotal.standalone.single_file import load_checkpoint

        path = Path(path)
        checkpoint = load_checkpoint(path, device=device, dtype=dtype)
        facts: dict[str, Any] = {
            "name": checkpoint.name or path.stem,
            "scale_factor": checkpoint.scale_factor,
            "v_prediction": checkpoint.prediction_type == "v_prediction",
            "alphas_cumprod": checkpoint.alphas_cumprod,
            "file": path if path.is_file() else None,
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
        if self._file is None:
            return ModelInfo(self._name, "sd1", v_prediction=self._v_prediction)
        sha256, legacy = checkpoint_sha256(self._file), checkpoint_legacy_hash(self._file)
        return ModelInfo(self._name, "sd1", sha256, legacy, self._v_prediction)

    @property
    def device(self) -> torch.device:
        """Where the U-Net is."""
        return next(self.denoiser.unet.parameters()).device

    def models(self) -> list[nn.Module]:
        """Text model, U-Net, autoencoder."""
        return [self.text.model, self.denoiser.unet, self.codec.vae]

    def layers(self) -> list[Layer]:
        """U-Net (attention, feed-forward, projections, resnets, re-samplers), then text model; in the models' order."""
        found = []
        for path, module in self.denoiser.unet.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and is_adaptable(path):
                kind: Any = "linear" if isinstance(module, nn.Linear) else "conv"
                found.append(Layer(f"lora_unet_{path.replace('.', '_')}", "unet", kind, module))
        for path, module in self.text.model.named_modules():
            if isinstance(module, nn.Linear) and "encoder.layers." in path:
                inside = path[path.index("encoder.layers.") :].replace(".", "_")
                found.append(Layer(f"lora_te_text_model_{inside}", "te", "linear", module))
        return found

    @contextlib.contextmanager
    def session(self, request: SessionRequest) -> Iterator[None]:
        """One at a time: models frozen and placed; all put back on exit, whatever happens."""
        if self._borrowed:
            raise HostError(f"{self._name}: a run has the model already; end it before starting another")
        check_clip_skip(request.clip_skip, layer_count=self.text.layer_count, name=self._name)
        clip_skip, input_grad = self.text.clip_skip, self.text.input_requires_grad
        self._borrowed = True
        try:
            with borrowed(self.models(), [self.text.model, self.denoiser.unet], request=request):
                self.text.clip_skip = request.clip_skip
                self.text.input_requires_grad = request.train_text_encoder and request.gradient_checkpointing
                yield
        finally:
            self.text.clip_skip, self.text.input_requires_grad = clip_skip, input_grad
            self._borrowed = False

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest], words: WordVectors) -> list[Image.Image]:
        """Pictures in the order asked for; requests of one size, step count and prompt length run together."""
        requests = list(requests)
        for request in requests:
            _check_request(request)
        pictures: dict[int, Image.Image] = {}
        with evaluating(*self.models()):
            encoded = self._encode_pairs(requests, words) if requests else []
            for group in _groups(requests, encoded):
                latents = self._sample_group([requests[i] for i in group], [encoded[i] for i in group])
                pictures.update(zip(group, _to_images(self.codec.decode(latents)), strict=True))
        return [pictures[index] for index in range(len(requests))]

    def _encode_pairs(self, requests: Sequence[SampleRequest], words: WordVectors) -> list[tuple[Tensor, Tensor]]:
        """(positive, negative) of each request, none filled up to the other's length."""
        prompts = [request.prompt for request in requests] + [request.negative_prompt for request in requests]
        each = self.text.encode_each(prompts, words)
        return list(zip(each[: len(requests)], each[len(requests) :], strict=True))

    def _sample_group(self, requests: Sequence[SampleRequest], encoded: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        first = requests[0]
        scale = torch.tensor([request.cfg_scale for request in requests], device=self.device)
        return sample_latents(
            self.denoiser.predict,
            Guidance(torch.stack([p for p, _ in encoded]), torch.stack([n for _, n in encoded]), scale),
            seeds=[request.seed for request in requests],
            shape=(4, first.height_px // LATENT_SCALE, first.width_px // LATENT_SCALE),
            steps=first.steps,
            alphas_cumprod=self.alphas_cumprod,
            v_prediction=self._v_prediction,
            sampler=self.sampler,
        )


def _groups(requests: Sequence[SampleRequest], encoded: Sequence[tuple[Tensor, Tensor]]) -> list[list[int]]:
    """Indices of requests that can share a batch, in batches that fit."""
    together: dict[tuple[int, ...], list[int]] = {}
    for index, (request, (positive, negative)) in enumerate(zip(requests, encoded, strict=True)):
        key = (request.width_px, request.height_px, request.steps, positive.shape[0], negative.shape[0])
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
    if isinstance(wanted, int) and (wanted,) != text.widths:
        raise HostError(f"the U-Net wants text of width {wanted}, the text model gives {text.widths[0]}: no SD1 pair")
