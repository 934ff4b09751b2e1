"""--medvram: hooks bring one part at a time to the device. On a CPU all places are the same, the hooks are real."""

from __future__ import annotations

from typing import Any

from modules import devices, shared
from torch import Tensor, nn

_here: list[nn.Module] = []
"""The one that is on the device."""


def send_everything_to_cpu() -> None:
    while _here:
        _here.pop().to(devices.cpu)


def is_needed(sd_model: Any) -> bool:
    opts = shared.cmd_opts
    return opts.lowvram or opts.medvram or (opts.medvram_sdxl and hasattr(sd_model, "conditioner"))


def apply(sd_model: Any) -> None:
    if is_needed(sd_model):
        setup_for_low_vram(sd_model, not shared.cmd_opts.lowvram)
    else:
        sd_model.lowvram = False


def setup_for_low_vram(sd_model: Any, use_medvram: bool) -> None:
    if getattr(sd_model, "lowvram", False):
        return
    sd_model.lowvram = True
    parents: dict[nn.Module, nn.Module] = {}

    def send_me_to_gpu(module: nn.Module, _: Any) -> None:
        module = parents.get(module, module)
        if _here[:1] == [module]:
            return
        send_everything_to_cpu()
        module.to(devices.device)
        _here.append(module)

    stage = sd_model.first_stage_model
    encode, decode = stage.encode, stage.decode

    def first_stage_model_encode_wrap(x: Tensor) -> Any:
        send_me_to_gpu(stage, None)
        return encode(x)

    def first_stage_model_decode_wrap(z: Tensor) -> Any:
        send_me_to_gpu(stage, None)
        return decode(z)

    text = getattr(sd_model, "cond_stage_model", None)  # SDXL's comes with the hijack, which is later
    if hasattr(sd_model, "conditioner"):
        sd_model.conditioner.register_forward_pre_hook(send_me_to_gpu)
    elif hasattr(text, "model"):
        for module in (text.model, text.model.token_embedding):
            module.register_forward_pre_hook(send_me_to_gpu)
            parents[module] = text
    else:
        text.transformer.register_forward_pre_hook(send_me_to_gpu)
        parents[text.transformer] = text
    stage.register_forward_pre_hook(send_me_to_gpu)
    stage.encode, stage.decode = first_stage_model_encode_wrap, first_stage_model_decode_wrap
    sd_model.model.register_forward_pre_hook(send_me_to_gpu)


def is_enabled(sd_model: Any) -> bool:
    return sd_model.lowvram
