"""Where and in which type the web UI computes; here on the CPU in fp32 (`--use-cpu all --no-half --precision full`)."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

cpu = torch.device("cpu")
device = device_interrogate = cpu
dtype = dtype_vae = dtype_unet = dtype_inference = torch.float32
unet_needs_upcast = False
fp8 = False


def autocast(disable: bool = False) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext()


def without_autocast(disable: bool = False) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext()


def torch_gc() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def get_optimal_device_name() -> str:
    return "cpu"


def cond_cast_unet(value: torch.Tensor) -> torch.Tensor:
    return value.to(dtype_unet) if unet_needs_upcast else value
