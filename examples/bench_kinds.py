"""The kinds of network against LyCORIS and peft on the same layers, for `python -m examples.bench --kinds`.

Attention and feed-forward of the U-Net (160 linear layers of SD1.5). LyCORIS' modules run as its `apply_to` leaves
them, peft's as `inject_adapter_in_model` does; both are taken off after each step, so that all see one bare model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lib_pivotal.networks.network import Network, build_network
from lib_pivotal.networks.targets import part_rules
from lib_pivotal.ports import Layer

if TYPE_CHECKING:
    from examples.bench import Model, Variant

LAYERS = "attention+ff"
PEFT_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]


@dataclass(frozen=True)
class Contender:
    """A kind at one size: ours, LyCORIS' class with its settings, and peft's config, where they have it."""

    title: str
    algorithm: str
    rank: int
    options: Mapping[str, Any] = field(default_factory=dict)
    lycoris: tuple[str, Mapping[str, Any]] | None = None
    peft: tuple[str, Mapping[str, Any]] | None = None


CONTENDERS = (
    Contender("LoRA r16", "lora", 16, {}, ("LoConModule", {}), ("LoraConfig", {"r": 16, "lora_alpha": 16})),
    Contender("LoHa r8", "loha", 8, {}, ("LohaModule", {}), ("LoHaConfig", {"r": 8, "alpha": 8})),
    Contender(
        "LoKr factor 8, whole",
        "lokr",
        16,
        {"factor": 8, "full_matrix": True},
        ("LokrModule", {"factor": 8, "full_matrix": True}),
        ("LoKrConfig", {"r": 10000, "alpha": 1, "decompose_factor": 8}),
    ),
    Contender("LoKr factor 8, r8", "lokr", 8, {"factor": 8}, ("LokrModule", {"factor": 8})),
    Contender(
        "DiagOFT r32",
        "oft",
        32,
        {},
        ("DiagOFTModule", {}),
        ("OFTConfig", {"r": 32}),
    ),
    Contender("BOFT r10", "boft", 10, {}, ("ButterflyOFTModule", {})),
    Contender("GLoRA r8", "glora", 8, {}, ("GLoRAModule", {})),
    Contender("(IA)³", "ia3", 1, {"on_input": "none"}, ("IA3Module", {}), ("IA3Config", {"feedforward_modules": []})),
    Contender("full", "full", 1, {"biases": False}),
)


def kind_variants(model: Model, make: Callable[..., Variant], peft_layers: Callable[..., Any]) -> list[Variant]:
    """F, then each contender of ours, of LyCORIS and of peft; what is not installed is left out."""
    found = [make("F: no network, one word")]
    for contender in CONTENDERS:
        for title, active, parameters in contenders_on(model.layers, model.unet, contender, peft_layers):
            found.append(make(title, active, parameters))
    return found


def contenders_on(
    layers: Sequence[Layer], module: nn.Module, contender: Contender, peft_layers: Callable[..., Any]
) -> Iterator[tuple[str, Callable[[], AbstractContextManager[Any]], list[nn.Parameter]]]:
    """Ours, LyCORIS' and peft's of one kind on those of `layers` (all within `module`) that are attention or
    feed-forward: title, what puts it on, parameters."""
    network = _ours(layers, contender)
    yield f"ours, {contender.title}", network.attach, list(network.parameters())
    names = set(network.layer_names)
    modules = [layer.module for layer in layers if layer.name in names]
    for title, active, parameters in _theirs(module, contender, modules, peft_layers):
        yield f"{title}, {contender.title}", active, parameters


def _ours(layers: Sequence[Layer], contender: Contender) -> Network:
    rules = part_rules("unet", LAYERS, rank=contender.rank, alpha=float(contender.rank))
    network = build_network(
        layers, rules, algorithm=contender.algorithm, options=contender.options, seed=0, device="cpu"
    )
    _away_from_zero(list(network.parameters()))
    return network


def _away_from_zero(parameters: Sequence[nn.Parameter]) -> None:
    """As in the middle of a run: a factor of zeros would flatter nobody."""
    with torch.no_grad():
        for parameter in parameters:
            if not parameter.any():
                parameter.normal_(std=1e-3)


def _theirs(
    within: nn.Module, contender: Contender, modules: Sequence[nn.Module], peft_layers: Callable[..., Any]
) -> Iterator[tuple[str, Callable[[], Any], list[nn.Parameter]]]:
    if contender.lycoris is not None:
        try:
            layers = LycorisLayers(modules, contender)
            yield "LyCORIS", layers.attach, layers.parameters
        except ImportError:
            pass
    if contender.peft is not None:
        try:
            import peft
        except ImportError:
            return
        name, settings = contender.peft
        config = getattr(peft, name)(target_modules=PEFT_TARGETS, **settings)
        swapped = peft_layers(within, config)
        _away_from_zero(swapped.parameters)
        yield "peft", swapped.attach, swapped.parameters


class LycorisLayers:
    """LyCORIS' modules on the same layers, put on for a step and taken off again."""

    def __init__(self, modules: Sequence[nn.Module], contender: Contender) -> None:
        import lycoris.modules as kinds

        assert contender.lycoris is not None
        name, settings = contender.lycoris
        kind, rank = getattr(kinds, name), contender.rank
        self._made = [
            kind(f"layer_{number}", module, lora_dim=rank, alpha=rank, **settings)
            for number, module in enumerate(modules)
        ]
        self.parameters = [parameter for made in self._made for parameter in made.parameters()]
        _away_from_zero(self.parameters)

    @contextmanager
    def attach(self) -> Iterator[None]:
        """Their forward in place of the layers' own."""
        for made in self._made:
            made.apply_to()
        try:
            yield
        finally:
            for made in self._made:
                made.restore()
