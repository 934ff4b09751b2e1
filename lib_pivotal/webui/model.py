"""`shared.sd_model` behind the ports: U-Net, autoencoder, layers, and pictures through txt2img's own code."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from modules import devices, processing, sd_hijack, sd_hijack_optimizations, shared
from PIL import Image
from sgm.models.autoencoder import AutoencoderKL
from sgm.modules.diffusionmodules.model import AttnBlock
from torch import Tensor, nn

from lib_pivotal.borrowing import widened
from lib_pivotal.bundle.layer_names import UnetShape, diffusers_path, kohya_name
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
from lib_pivotal.training.schedule import rescale_zero_terminal_snr
from lib_pivotal.webui.families import family_of, is_inpainting, markers, predicts_v, text_towers
from lib_pivotal.webui.session import ModelSession, attribute, summon
from lib_pivotal.webui.text import WebUITextEncoder, make_embedding, registered, transformer_blocks

SAMPLER = "Euler"
TE_PARTS: tuple[Part, ...] = ("te", "te2")
"""Of the text encoders in their order."""


class WebUIDenoiser:
    """`diffusion_model` as `ports.Denoiser`."""

    def __init__(self, model: Callable[[], Any]) -> None:
        self._model = model

    def __call__(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The raw prediction, in the type that the U-Net computes in.

        As `apply_model` has it for each family (sd_models_xl.py:37, ldm's `DiffusionWrapper`, sgm's `OpenAIWrapper`):
        an inpainting checkpoint's hole and holed picture are further channels, SDXL's vector is `y`.
        """
        model, dtype = self._model(), devices.dtype_unet
        given = latents if conditioning.concat is None else torch.cat([latents, conditioning.concat], dim=1)
        vector = {"y": _vector(model, conditioning).to(dtype)} if family_of(model) == "sdxl" else {}
        unet = model.model.diffusion_model
        prediction: Tensor = unet(
            given.to(dtype), timesteps.to(dtype), context=conditioning.context.to(dtype), **vector
        )
        return prediction


SIZES = {"original_size_as_tuple": 0, "crop_coords_top_left": 2, "target_size_as_tuple": 4}
"""SDXL's embedders by the web UI's names (sd_models_xl.py:23-30): where each one's two numbers are in
`Conditioning.sizes`."""


def _vector(model: Any, conditioning: Conditioning) -> Tensor:
    """SDXL's vector conditioning: the pooled text, then the embedded sizes, in the order of the checkpoint's embedders
    (sgm's `GeneralConditioner.forward`)."""
    pooled, sizes = conditioning.pooled, conditioning.sizes
    if pooled is None or sizes is None:
        raise HostError("SDXL needs the pooled text and the sizes of each picture beside the prompts")
    embedders = [one for one in model.conditioner.embedders if getattr(one, "input_key", "") in SIZES]
    starts = [SIZES[one.input_key] for one in embedders]
    embedded = [one(sizes[:, start : start + 2]) for one, start in zip(embedders, starts, strict=True)]
    return torch.cat([pooled, *(each.to(pooled.dtype) for each in embedded)], dim=1)


class WebUICodec:
    """`first_stage_model` as `ports.ImageCodec`."""

    def __init__(self, borrowing: ModelSession) -> None:
        self._borrowing = borrowing

    def _model(self) -> Any:
        return self._borrowing.model

    def placed(self) -> AbstractContextManager[None]:
        """See `ports.ImageCodec`."""
        return self._borrowing.autoencoder_here()

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, types and values of the weights, and the scale."""
        model = self._model()
        return weights_fingerprint(model.first_stage_model.state_dict(), scale_factor=float(model.scale_factor))

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> LatentDistribution:
        """`(batch, 3, height, width)` in [-1, 1] -> scaled mean and std, fp32; in fp32 where half precision fails."""
        stage = self._model().first_stage_model
        with self.placed():
            found = self._encode(pixels)
            if next(stage.parameters()).dtype is torch.float32 or all_finite(found.mean, found.std):
                return found
            with widened(stage), attribute(devices, "dtype_vae", torch.float32):
                found = self._encode(pixels, full=True)
        return replace(found, widened=True)

    def _encode(self, pixels: Tensor, *, full: bool = False) -> LatentDistribution:
        model = self._model()
        means, stds = [], []
        for part in pixels.split(pictures_at_once(*pixels.shape[-2:])):
            with torch.autocast(devices.device.type, enabled=False) if full else devices.autocast():
                posterior = _posterior(model, part.to(devices.device, devices.dtype_vae))
            means.append(posterior.mean.float() * model.scale_factor)
            stds.append(posterior.std.float() * model.scale_factor)
        return LatentDistribution(torch.cat(means), torch.cat(stds))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> pixels in [-1, 1], fp32, clamped."""
        with self.placed(), devices.autocast():
            pixels: Tensor = self._model().decode_first_stage(latents.to(devices.device, devices.dtype_vae))
        return pixels.float().clamp(-1, 1)


def _posterior(model: Any, pixels: Tensor) -> Any:
    """The autoencoder's distribution, unscaled. SDXL's `encode_first_stage` draws from it: what it draws from is asked
    of the class below its wrapper (sgm's autoencoder.py, `AutoencoderKLInferenceWrapper`)."""
    if family_of(model) != "sdxl":
        return model.encode_first_stage(pixels)
    stage = model.first_stage_model
    summon(stage)  # --medvram: `encode` would have moved it, too
    with torch.autocast("cuda", enabled=not model.disable_first_stage_autocast), _one_attention():
        return AutoencoderKL.encode(stage, pixels)


def _one_attention() -> AbstractContextManager[None]:
    """Inside, SDXL's autoencoder attends in its own way, or by the optimisation that is in force; never in SD1's.

    v1.10.1 leaves SD1's `AttnBlock.forward` in SDXL's place after the first checkpoint (sd_hijack.py:110) and SDXL's
    own after a later one (sd_hijack_optimizations.py:48). They round differently: pictures that were encoded anew after
    a restart made another run than those encoded after a change of checkpoint.
    """
    sd1 = getattr(sd_hijack, "diffusionmodules_model_AttnBlock_forward", None)
    own = getattr(sd_hijack_optimizations, "sgm_diffusionmodules_model_AttnBlock_forward", None)
    if own is None or AttnBlock.forward is not sd1:
        return nullcontext()
    return attribute(AttnBlock, "forward", own)


class WebUIHost:
    """`ports.Host` over the checkpoint that the web UI has loaded when the host is made."""

    def __init__(self) -> None:
        self._borrowing = ModelSession(shared.sd_model)
        self.text = WebUITextEncoder(self._loaded)
        self.denoiser = WebUIDenoiser(self._loaded)
        self.codec = WebUICodec(self._borrowing)

    def _loaded(self) -> Any:
        return self._borrowing.model

    @property
    def borrowing(self) -> ModelSession:
        """How the model is lent; the backend gives it back for a while through this."""
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
            family_of(model),
            checkpoint.sha256 or "",
            checkpoint.hash or "",
            v_prediction=predicts_v(model),
            inpainting=is_inpainting(model),
        )

    @property
    def device(self) -> torch.device:
        """Where the web UI computes."""
        return torch.device(devices.device)

    @property
    def alphas_cumprod(self) -> Tensor:
        """`(1000,)` fp32, as the checkpoint has it; of zero terminal SNR where the checkpoint says so by its marker, or
        the user by the option "Noise schedule for sampling" (sd_models.py:602, which changes a copy)."""
        model = self._loaded()
        found: Tensor = getattr(model, "alphas_cumprod_original", model.alphas_cumprod).float().cpu()
        wanted = getattr(shared.opts, "sd_noise_schedule", "Default") == "Zero Terminal SNR"
        if wanted or "ztsnr" in markers(model):
            return rescale_zero_terminal_snr(found)
        return found

    def modules(self) -> dict[str, list[nn.Module]]:
        """See `ports.Host`; for SDXL the conditioner counts as text."""
        model = self._loaded()
        return {"unet": [model.model], "text": [model.cond_stage_model], "vae": [model.first_stage_model]}

    def layers(self) -> list[Layer]:
        """U-Net (attention, feed-forward, projections, resnets, re-samplers), then the text encoders; last the U-Net's
        norms."""
        model = self._loaded()
        towers = text_towers(model)
        found = [*_unet_layers(model.model.diffusion_model)]
        for tower, part in zip(towers, TE_PARTS, strict=False):
            for path, module in self._text_layers(tower):
                found.append(Layer(kohya_name(path, part, towers=len(towers)), part, "linear", module))
        return sorted(found, key=lambda layer: layer.kind == "norm")

    def _text_layers(self, tower: Any) -> Iterator[tuple[str, nn.Module]]:
        """A text encoder's linear layers by their paths in transformers; OpenCLIP's q, k and v as three.

        SD2 stops before its last layers (`layer_idx`): these have no counterpart in transformers, and no effect.
        """
        blocks = list(transformer_blocks(tower))
        if family_of(self._loaded()) == "sd2":
            blocks = blocks[: len(blocks) - tower.wrapped.layer_idx]
        for number, block in enumerate(blocks):
            place = f"text_model.encoder.layers.{number}"
            if not hasattr(block, "attn"):
                yield from ((f"{place}.{path}", m) for path, m in block.named_modules() if isinstance(m, nn.Linear))
                continue
            thirds = self._borrowing.split_attention(block.attn).thirds
            yield from zip((f"{place}.self_attn.{name}_proj" for name in "qkv"), thirds, strict=True)
            yield f"{place}.self_attn.out_proj", block.attn.out_proj
            yield f"{place}.mlp.fc1", block.mlp.c_fc
            yield f"{place}.mlp.fc2", block.mlp.c_proj

    @contextmanager
    def session(self, request: SessionRequest) -> Iterator[None]:
        """The model frozen and placed for training; all of it back as it was on exit, whatever happens."""
        check_clip_skip(request.clip_skip, layer_count=self.text.layer_count, name=self.info.name)
        with self._borrowing.session(request):
            yield

    @torch.no_grad()
    def sample(self, requests: Sequence[SampleRequest], embeddings: EmbeddingVectors) -> list[Image.Image]:
        """Pictures by txt2img's own code, in the order asked for; those of one kind share batches."""
        pictures: dict[int, Image.Image] = {}
        known = {name: make_embedding(name, towers) for name, towers in embeddings.items()}
        with self._borrowing.generating(), registered(self._loaded(), known):
            for group in _groups(requests):
                made = _process([requests[index] for index in group])
                pictures.update(zip(group, made, strict=True))
        return [pictures[index] for index in range(len(requests))]


def _unet_layers(unet: nn.Module) -> Iterator[Layer]:
    modules = dict(unet.named_modules())
    shape = UnetShape.from_compvis_paths(f"{path}." for path in modules)
    for path, module in modules.items():
        kind = layer_kind(module)
        if kind is None or not path.startswith(("input_", "middle_", "output_")):
            continue
        ours = diffusers_path(path, shape)
        if is_adaptable(ours):
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
    # what the class keeps for the next picture knows nothing of embeddings and networks of other content
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
