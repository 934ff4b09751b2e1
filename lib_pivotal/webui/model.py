"""`shared.sd_model` behind the ports: U-Net, autoencoder, layers, and pictures through txt2img's own code."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from modules import devices, processing, sd_hijack, shared
from PIL import Image
from torch import Tensor, nn

from lib_pivotal.borrowing import widened
from lib_pivotal.bundle.layer_names import UnetShape, diffusers_path, kohya_name
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
from lib_pivotal.webui.session import Borrowing
from lib_pivotal.webui.text import WebUITextEncoder, make_embedding, registered

SAMPLER = "Euler"


class WebUIDenoiser:
    """`diffusion_model` as `ports.Denoiser`."""

    def __init__(self, model: Callable[[], Any]) -> None:
        self._model = model

    def __call__(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The raw prediction, in the type that the U-Net computes in."""
        dtype = devices.dtype_unet
        unet = self._model().model.diffusion_model
        prediction: Tensor = unet(latents.to(dtype), timesteps, context=conditioning.context.to(dtype))
        return prediction


class WebUICodec:
    """`first_stage_model` as `ports.ImageCodec`."""

    def __init__(self, model: Callable[[], Any]) -> None:
        self._model = model

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, types and values of the weights, and the scale."""
        model = self._model()
        return weights_fingerprint(model.first_stage_model.state_dict(), scale_factor=float(model.scale_factor))

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> LatentDistribution:
        """`(batch, 3, height, width)` in [-1, 1] -> scaled mean and std, fp32; in fp32 where half precision fails."""
        found = self._encode(pixels)
        if not bool(torch.isfinite(found.mean).all()):
            with widened(self._model().first_stage_model):
                found = self._encode(pixels, dtype=torch.float32)
        return found

    def _encode(self, pixels: Tensor, *, dtype: torch.dtype | None = None) -> LatentDistribution:
        model = self._model()
        context = devices.autocast() if dtype is None else torch.autocast(devices.device.type, enabled=False)
        means, stds = [], []
        for part in pixels.split(pictures_at_once(*pixels.shape[-2:])):
            with context:
                posterior = model.encode_first_stage(part.to(devices.device, dtype or devices.dtype_vae))
            means.append(posterior.mean.float() * model.scale_factor)
            stds.append(posterior.std.float() * model.scale_factor)
        return LatentDistribution(torch.cat(means), torch.cat(stds))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> pixels in [-1, 1], fp32, clamped."""
        with devices.autocast():
            pixels: Tensor = self._model().decode_first_stage(latents.to(devices.device, devices.dtype_vae))
        return pixels.float().clamp(-1, 1)


class WebUIHost:
    """`ports.Host` over the checkpoint that the web UI has loaded when the host is made."""

    def __init__(self) -> None:
        self._borrowing = Borrowing(shared.sd_model)
        self.text = WebUITextEncoder(self._loaded)
        self.denoiser = WebUIDenoiser(self._loaded)
        self.codec = WebUICodec(self._loaded)

    def _loaded(self) -> Any:
        return self._borrowing.model

    @property
    def borrowing(self) -> Borrowing:
        """How the model is lent; the studio gives it back for a while through this."""
        return self._borrowing

    @functools.cached_property
    def info(self) -> ModelInfo:
        """Name, kind and hashes of the checkpoint's file."""
        model = self._loaded()
        checkpoint = model.sd_checkpoint_info
        if not checkpoint.sha256:
            checkpoint.calculate_shorthash()
        return ModelInfo(
            checkpoint.name_for_extra,
            "sd1",
            checkpoint.sha256 or "",
            checkpoint.hash or "",
            v_prediction=getattr(model, "parameterization", "eps") == "v",
        )

    @property
    def device(self) -> torch.device:
        """Where the web UI computes."""
        return torch.device(devices.device)

    @property
    def alphas_cumprod(self) -> Tensor:
        """`(1000,)` fp32, as the checkpoint has it (the sampling option for zero SNR changes a copy)."""
        model = self._loaded()
        return getattr(model, "alphas_cumprod_original", model.alphas_cumprod).float().cpu()

    def layers(self) -> list[Layer]:
        """U-Net (attention, feed-forward, projections, resnets, re-samplers), then text model."""
        model = self._loaded()
        found = [*_unet_layers(model.model.diffusion_model)]
        for path, module in model.cond_stage_model.wrapped.transformer.named_modules():
            if isinstance(module, nn.Linear) and "encoder.layers." in path:
                found.append(Layer(kohya_name(path, "te"), "te", "linear", module))
        return found

    @contextmanager
    def session(self, request: SessionRequest) -> Iterator[None]:
        """The model frozen and placed for training; all of it back as it was on exit, whatever happens."""
        check_clip_skip(request.clip_skip, layer_count=self.text.layer_count, name=self.info.name)
        with self._borrowing.session(request):
            yield

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest], words: WordVectors) -> list[Image.Image]:
        """Pictures by txt2img's own code, in the order asked for; those of one kind share batches."""
        pictures: dict[int, Image.Image] = {}
        embeddings = {name: make_embedding(name, towers) for name, towers in words.items()}
        with self._borrowing.generating(), registered(self._loaded(), embeddings):
            for group in _groups(requests):
                made = _process([requests[index] for index in group])
                pictures.update(zip(group, made, strict=True))
        return [pictures[index] for index in range(len(requests))]


def _unet_layers(unet: nn.Module) -> Iterator[Layer]:
    modules = dict(unet.named_modules())
    shape = UnetShape.from_compvis_paths(f"{path}." for path in modules)
    for path, module in modules.items():
        if not isinstance(module, nn.Linear | nn.Conv2d) or not path.startswith(("input_", "middle_", "output_")):
            continue
        ours = diffusers_path(path, shape)
        if is_adaptable(ours):
            kind: Any = "linear" if isinstance(module, nn.Linear) else "conv"
            yield Layer(kohya_name(ours, "unet"), "unet", kind, module)


def _process(requests: Sequence[SampleRequest]) -> list[Image.Image]:
    """txt2img for requests that differ in prompt and seed only; nothing is saved and no extra network is touched."""
    first = requests[0]
    settings = processing.StableDiffusionProcessingTxt2Img(
        sd_model=shared.sd_model,
        prompt=[request.prompt for request in requests],
        negative_prompt=first.negative_prompt,
        seed=[request.seed for request in requests],
        subseed=[0] * len(requests),
        sampler_name=SAMPLER,
        steps=first.steps,
        cfg_scale=first.cfg_scale,
        width=first.width_px,
        height=first.height_px,
        batch_size=len(requests),
        do_not_save_samples=True,
        do_not_save_grid=True,
        do_not_reload_embeddings=True,
        disable_extra_networks=True,
        restore_faces=False,
        tiling=False,
    )
    # what the class keeps for the next picture knows nothing of words and networks that change under the same names
    settings.cached_c, settings.cached_uc = [None, None], [None, None]
    try:
        made = processing.process_images(settings)
    finally:
        settings.close()
        sd_hijack.model_hijack.clear_comments()
    images: list[Image.Image] = made.images[made.index_of_first_image :]
    if len(images) != len(requests):
        raise HostError(f"{len(images)} of {len(requests)} pictures were made: the generation was interrupted")
    return images


def _groups(requests: Sequence[SampleRequest]) -> Iterator[list[int]]:
    """Indices of requests that can share a batch, in batches that fit."""
    together: dict[tuple[Any, ...], list[int]] = {}
    for index, request in enumerate(requests):
        key = (request.width_px, request.height_px, request.steps, request.cfg_scale, request.negative_prompt)
        together.setdefault(key, []).append(index)
    for (width, height, *_), members in together.items():
        size = pictures_at_once(height, width)
        for start in range(0, len(members), size):
            yield members[start : start + size]
