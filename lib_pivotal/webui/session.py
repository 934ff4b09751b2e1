"""Borrowing the web UI's model for a run: everything that training needs otherwise, set inside and put back exactly.

Line numbers are of v1.10.1. What is touched: LoRAs merged into the weights, hypernetworks, tiling, token merging,
the forward of cross attention and of OpenCLIP's attention, ldm's own checkpointing, gradients and modes, types,
placement under --medvram and of the autoencoder, clip skip, and `shared.state`. The registry of embeddings is not: how
a run's own are found instead is told in `text.registered`.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import ldm.modules.attention
import sgm.modules.attention
import torch
from modules import devices, lowvram, sd_hijack, sd_hijack_optimizations, sd_models, sd_unet, shared
from torch import nn

from lib_pivotal.borrowing import (
    OffloadedModel,
    flags_restored,
    frozen,
    gradient_flags,
    types_restored,
    widened,
    with_gradient_flags,
)
from lib_pivotal.errors import HostError
from lib_pivotal.ports import ModelInfo, SessionRequest
from lib_pivotal.webui import compat, families
from lib_pivotal.webui.checkpointing import checkpointed, without_own_checkpointing
from lib_pivotal.webui.split_attention import SplitAttention, split

logger = logging.getLogger(__name__)

MIB = 1024 * 1024
_ATTENTIONS = (ldm.modules.attention.CrossAttention, sgm.modules.attention.CrossAttention)


def check_trainable(model: Any) -> None:
    """Refuse, before anything starts, what cannot be trained as it is loaded now.

    Raises:
        HostError: the reason and the remedy.
    """
    if model is None:
        raise HostError("no checkpoint is loaded. Choose one above, and wait until it is there.")
    if families.is_taken_apart(model):
        raise HostError(
            "the web UI is loading a checkpoint, or has failed to. Wait; if nothing changes, choose another checkpoint "
            "above, and then the one that you want."
        )
    families.check_kind(model)
    if shared.cmd_opts.lowvram:
        raise HostError("--lowvram keeps only pieces of the U-Net on the GPU. Start the web UI with --medvram instead.")
    if getattr(devices, "fp8", False):
        raise HostError("weights are stored in fp8. Set Settings > Optimizations > FP8 weight to Disable, and reload.")
    if sd_unet.current_unet is not None:
        raise HostError("another U-Net (TensorRT) stands in for the checkpoint's. Set Settings > SD Unet to None.")
    if shared.opts.use_old_emphasis_implementation:
        raise HostError("Settings > Compatibility > Use old emphasis implementation is on. Switch it off to train.")


def trainable_info(model: Any) -> ModelInfo | None:
    """Name and kind of a loaded checkpoint, without hashes; None if `check_trainable` would refuse it."""
    try:
        check_trainable(model)
    except HostError:
        return None
    return families.plain_info(model)


class ModelSession:
    """The model of one run: lent, given back for a while, lent again."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._checkpoint = model.sd_checkpoint_info
        self._request: SessionRequest | None = None
        self._stack: ExitStack | None = None
        self._bytes_before = 0
        self._gradients_before: list[tuple[nn.Parameter, bool]] = []
        self._split: dict[nn.Module, SplitAttention] = {}
        self.offloaded = OffloadedModel()
        """Of the autoencoder."""
        self._autoencoder_users = 0
        self.memory_line = ""

    @property
    def checkpoint_title(self) -> str:
        """The checkpoint's title, as the web UI's list shows it."""
        return str(self._checkpoint.title)

    def split_attention(self, attention: nn.MultiheadAttention) -> SplitAttention:
        """The same thirds for the same attention every time: a network is attached to them."""
        if attention not in self._split:
            self._split[attention] = SplitAttention(attention)
        return self._split[attention]

    @contextmanager
    def session(self, request: SessionRequest) -> Iterator[None]:
        """Everything set for training; all of it as before on exit."""
        check_trainable(self.model)
        self._bytes_before = _allocated_bytes()
        self._request = request
        merged = MergedNetworks.now(self.model)
        try:
            self._enter()
            yield
        finally:
            self._leave()
            self._request = None
            if self.is_loaded():
                merged.again()
            self._split.clear()
            self.memory_line = self._tell_memory()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Inside, the model is the web UI's again; after it, the one that is loaded then is borrowed anew.

        The caller makes sure that it is the right checkpoint (`is_loaded`). When it is not, the model stays away:
        the run can only be ended.
        """
        self._leave()
        yield
        if self.is_loaded():
            self.model = shared.sd_model
            self._enter()

    def is_loaded(self) -> bool:
        """Whether the checkpoint of the run is the one that is loaded now (also in another object), and whole."""
        model = shared.sd_model
        info = getattr(model, "sd_checkpoint_info", None)
        return info is not None and info.filename == self._checkpoint.filename and not families.is_taken_apart(model)

    @contextmanager
    def generating(self) -> Iterator[None]:
        """Inside the session, for pictures: attention and gradient flags as the web UI has them, so that its products
        have the same shapes; and the checkpoint stays the one it is."""
        if self._stack is None:
            raise HostError("samples of a run need its model, which is not available now")
        with ExitStack() as stack:
            stack.enter_context(self.offloaded.here())
            stack.enter_context(_option("sd_model_checkpoint", self._checkpoint.title))
            stack.enter_context(_attention(self._attention_before))
            stack.enter_context(with_gradient_flags(self._gradients_before))
            for name in ("skipped", "interrupted", "stopping_generation"):
                if hasattr(shared.state, name):  # the last one came with 1.9
                    stack.enter_context(attribute(shared.state, name, False))
            yield

    @contextmanager
    def autoencoder_here(self) -> Iterator[None]:
        """Inside, the autoencoder is on its device; after it, off it again as far as a run wants that. May be nested.

        Under --medvram it comes by its own hook, and the web UI would leave it there until something else is needed.
        """
        model, outermost = self.model, self._autoencoder_users == 0
        hooked = outermost and lowvram.is_enabled(model)
        self._autoencoder_users += 1
        try:
            with self.offloaded.here():
                if hooked:
                    summon(model.first_stage_model)
                yield
        finally:
            self._autoencoder_users -= 1
            if hooked:
                lowvram.send_everything_to_cpu()

    def _enter(self) -> None:
        request = self._request
        assert request is not None
        model = self.model
        unet, text = model.model.diffusion_model, model.cond_stage_model
        self._attention_before = [cls.forward for cls in _ATTENTIONS]
        self._gradients_before = gradient_flags(model)
        # scaled dot product attention has a gradient and is as quick as any; the autoencoder keeps its own
        differentiable = sd_hijack_optimizations.scaled_dot_product_attention_forward
        with ExitStack() as stack:
            restore_merged(model)
            stack.enter_context(_state("pivotal tuning"))
            stack.enter_context(_option("CLIP_stop_at_last_layers", request.clip_skip))
            stack.enter_context(_without_hypernetworks())
            stack.enter_context(_without_tiling())
            stack.enter_context(_without_token_merging(model))
            stack.enter_context(_attention([differentiable] * len(_ATTENTIONS)))
            stack.enter_context(without_own_checkpointing(unet))
            stack.enter_context(flags_restored(model))
            stack.enter_context(frozen(model))
            # --upcast-sampling widens modules of the U-Net as they are used (sd_hijack_unet.py:131-132)
            stack.enter_context(types_restored(model))
            model.eval()
            if lowvram.is_enabled(model):
                stack.enter_context(_placed(model))
            else:
                stack.enter_context(self.offloaded.away(model.first_stage_model))
            if request.precision == "fp32":
                stack.enter_context(widened(model))
                stack.enter_context(attribute(unet, "dtype", torch.float32))
                stack.enter_context(attribute(devices, "dtype_unet", torch.float32))
                stack.enter_context(attribute(devices, "dtype_vae", torch.float32))
            stack.enter_context(split(map(self.split_attention, _fused_attentions(text))))
            if request.gradient_checkpointing:
                stack.enter_context(checkpointed([unet, text]))
            self._stack = stack.pop_all()

    def _leave(self) -> None:
        if self._stack is not None:
            stack, self._stack = self._stack, None
            stack.close()
        self._gradients_before = []  # they would keep the model
        gc.collect()
        devices.torch_gc()

    def _tell_memory(self) -> str:
        if not torch.cuda.is_available():
            return ""
        after, before = _allocated_bytes(), self._bytes_before
        return f"GPU memory back to {after / MIB:.0f} MiB (before the run: {before / MIB:.0f} MiB)"


def summon(module: nn.Module) -> None:
    """What --medvram's hooks do before the module is called: it comes to its device (lowvram.py:49)."""
    for hook in module._forward_pre_hooks.values():
        hook(module, ())


def restore_merged(model: Any) -> None:
    """Take LoRAs that the web UI has merged into the weights out again (networks.py:391-408), without a gradient."""
    networks = compat.lora_networks()
    with torch.no_grad():
        networks.load_networks([])
        for module in model.modules():
            if module.__dict__.get("network_current_names"):
                networks.network_apply_weights(module)


@dataclass(frozen=True, eq=False)
class MergedNetworks:
    """The LoRAs that are in the weights: name, multipliers, and what `load_networks` calls `dyn_dim`; and the modules
    that they are in (a layer that has not been run since has none yet)."""

    networks: tuple[tuple[str, float, float, Any], ...]
    modules: tuple[nn.Module, ...]

    @classmethod
    def now(cls, model: nn.Module) -> MergedNetworks:
        """As it is now."""
        loaded = compat.lora_networks().loaded_networks
        return cls(
            tuple((net.name, net.te_multiplier, net.unet_multiplier, net.dyn_dim) for net in loaded),
            tuple(module for module in model.modules() if module.__dict__.get("network_current_names")),
        )

    def again(self) -> None:
        """Put them back; the web UI computes the same weights from the same backup."""
        if not self.networks:
            return
        networks = compat.lora_networks()
        names, te, unet, dyn = (list(column) for column in zip(*self.networks, strict=True))
        with torch.no_grad():
            networks.load_networks(names, te, unet, dyn)
            for module in self.modules:
                networks.network_apply_weights(module)


def _fused_attentions(text: nn.Module) -> list[nn.MultiheadAttention]:
    """OpenCLIP's: transformers' CLIP has none."""
    return [module for module in text.modules() if isinstance(module, nn.MultiheadAttention)]


def _allocated_bytes() -> int:
    if not torch.cuda.is_available():
        return 0
    gc.collect()
    torch.cuda.empty_cache()
    return int(torch.cuda.memory_allocated())


@contextmanager
def _state(job: str) -> Iterator[None]:
    """The web UI knows that it is busy."""
    shared.state.begin(job=job)
    try:
        yield
    finally:
        shared.state.end()


@contextmanager
def _option(name: str, value: Any) -> Iterator[None]:
    """A setting has another value, without its callback and without being written to disk."""
    missing = object()
    before = shared.opts.data.get(name, missing)
    shared.opts.data[name] = value
    try:
        yield
    finally:
        if before is missing:
            shared.opts.data.pop(name, None)
        else:
            shared.opts.data[name] = before


@contextmanager
def attribute(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute has another value inside."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _without_hypernetworks() -> Iterator[None]:
    before = list(shared.loaded_hypernetworks)
    shared.loaded_hypernetworks.clear()
    try:
        yield
    finally:
        shared.loaded_hypernetworks[:] = before


@contextmanager
def _without_tiling() -> Iterator[None]:
    hijack = sd_hijack.model_hijack
    before = hijack.circular_enabled
    hijack.apply_circular(False)
    try:
        yield
    finally:
        hijack.apply_circular(before)


@contextmanager
def _without_token_merging(model: Any) -> Iterator[None]:
    before = getattr(model, "applied_token_merged_ratio", 0)
    sd_models.apply_token_merging(model, 0)
    try:
        yield
    finally:
        sd_models.apply_token_merging(model, before)


@contextmanager
def _attention(forwards: Sequence[Any]) -> Iterator[None]:
    """ldm's and sgm's cross attention computed so."""
    with ExitStack() as stack:
        for cls, forward in zip(_ATTENTIONS, forwards, strict=True):
            stack.enter_context(attribute(cls, "forward", forward))
        yield


@contextmanager
def _placed(model: Any) -> Iterator[None]:
    """--medvram moves one part at a time to the GPU; training needs text encoder and U-Net there together.

    The hooks that move them (`lowvram.setup_for_low_vram`) come off for the run. The autoencoder keeps its own: it
    comes and goes by itself. For SDXL `cond_stage_model` is the conditioner with both text encoders.
    """
    lowvram.send_everything_to_cpu()
    removed = []
    parts = [model.cond_stage_model, model.model]
    try:
        for module in (module for part in parts for module in part.modules()):
            for key, hook in list(module._forward_pre_hooks.items()):
                if getattr(hook, "__qualname__", "").startswith("setup_for_low_vram."):
                    removed.append((module, key, module._forward_pre_hooks.pop(key)))
        for part in parts:
            part.to(devices.device)
        yield
    finally:
        lowvram.send_everything_to_cpu()
        for part in parts:
            part.to(devices.cpu)
        for module, key, hook in removed:
            module._forward_pre_hooks[key] = hook
