"""LoRA as a kind of network: which of its forms the settings or a file's tensors ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_pivotal.config_schema import setting
from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.adapter import Adapter, AdapterSpec
from lib_pivotal.networks.algorithm import LYCORIS, Algorithm
from lib_pivotal.networks.decomposed import Additive
from lib_pivotal.ports import Layer

from .lora import LoraAdapter, file_spec, rank_stabilised
from .lora_starts import STARTS, started_lora
from .lora_tucker import SUFFIXES, TuckerLoraAdapter, has_core, initial_tucker

KEYS = (frozenset({"lora_down.weight", "lora_up.weight"}), frozenset(SUFFIXES.values()))
"""A layer's keys, plain and with Tucker's core."""
MID = SUFFIXES["mid"]


@dataclass(frozen=True)
class LoraOptions:
    """LoRA's own settings."""

    rank_stabilised: bool = rank_stabilised()
    freeze_down: bool = setting(
        False, "LoRA-FA: only the up factor is trained, the down factor stays as it began; half the parameters."
    )
    start: str = setting(
        "zero",
        "How a LoRA begins: zero, or in the layer's own main directions (PiSSA by singular values, OLoRA by QR), which "
        "learn faster; their file is a normal LoRA of twice the rank.",
        choices=("zero", *STARTS),
    )
    tucker: bool = setting(
        False, "On convolutions larger than 1×1, Tucker's form: a small core convolution between two 1×1 ones."
    )


def make_lora(
    layer: Layer, spec: AdapterSpec, *, options: LoraOptions, generator: torch.Generator, device: torch.device
) -> Adapter:
    """A new LoRA on `layer`.

    Raises:
        NetworkError: two settings that exclude each other.
    """
    tucker = options.tucker and has_core(layer)
    if options.start != "zero":
        if options.freeze_down or tucker:
            other = "freeze_down" if options.freeze_down else "tucker"
            raise NetworkError(f"start = {options.start!r} and {other} exclude each other. Choose one of them.")
        return started_lora(layer, spec, start=options.start, device=device)
    if tucker:
        return make_tucker(layer, spec, generator=generator, device=device, freeze_down=options.freeze_down)
    return LoraAdapter(layer, spec, generator=generator, device=device, freeze_down=options.freeze_down)


def make_tucker(
    layer: Layer, spec: AdapterSpec, *, generator: torch.Generator, device: torch.device, freeze_down: bool = False
) -> TuckerLoraAdapter:
    """A new LoRA in Tucker's form."""
    tensors = initial_tucker(layer, spec.rank, generator=generator)
    on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
    return TuckerLoraAdapter(layer, spec, on_device, freeze_down=freeze_down)


def lora_like(layer: Layer, tensors: Mapping[str, Tensor], device: torch.device) -> Additive:
    """A LoRA of the rank and form that a file's tensors have."""
    if MID in tensors:
        if layer.kind != "conv":
            raise NetworkError(f"{layer.name}.{MID}: is for a convolution, and this layer is none.")
        return make_tucker(layer, file_spec(tensors), generator=torch.Generator(), device=device)
    return LoraAdapter(layer, file_spec(tensors), generator=torch.Generator(), device=device)


def has_form(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a file's core, where it has one, is a convolution's."""
    return tensors[MID].dim() == 4 if MID in tensors else True


def lora_arguments(options: LoraOptions) -> dict[str, str]:
    """kohya's `--network_args`: nothing but for Tucker's form, which LyCORIS makes."""
    return {"algo": "locon", "use_tucker": "True"} if options.tucker else {}


ALGORITHM = Algorithm(
    name="lora",
    title="LoRA",
    summary="Two thin matrices a layer; the file that every program reads. On convolutions it is LoCon.",
    make=make_lora,
    like=lora_like,
    keys=KEYS,
    optional=frozenset({"alpha"}),
    stored_so=has_form,
    options=LoraOptions,
    ranks=lambda options: 1 if options.start == "zero" else 2,
    module=lambda options: LYCORIS if options.tucker else "networks.lora",
    arguments=lora_arguments,
)
