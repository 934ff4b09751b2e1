"""`python -m examples.bench_overhead`: what one adapter costs where arithmetic costs nothing.

A GPU that is waiting for Python pays this share 160 (SD1.5) to 700 times (SDXL) a step. A chain of small linear layers
(64 → 64, 4 tokens) is run forward and backward, into its input too, as a trained embedding needs it: bare, with ours,
with the textbook's forward hook of the kind (the change built by plain autograd), with peft's layer and with LyCORIS'.
All stand in one process, one thread, interleaved, each round in another order. Figures are the least CPU
time (`time.process_time`) of all rounds, a layer, less the bare layer's least: the adapter's own.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib_pivotal.networks.network import build_network
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Layer

WIDTH, TOKENS, LAYERS = 64, 4, 32


@dataclass(frozen=True)
class Kind:
    """One kind: ours, the textbook's hook, peft's config and LyCORIS' class, where they have it."""

    algorithm: str
    rank: int
    options: Mapping[str, Any] = field(default_factory=dict)
    plain: str = ""
    peft: tuple[str, Mapping[str, Any]] | None = None
    lycoris: tuple[str, Mapping[str, Any]] | None = None


KINDS = {
    "LoRA r 4": Kind("lora", 4, {}, "lora", ("LoraConfig", {"r": 4, "lora_alpha": 4}), ("LoConModule", {})),
    "DoRA r 4": Kind("dora", 4, {}, "", ("LoraConfig", {"r": 4, "lora_alpha": 4, "use_dora": True})),
    "LoHa r 2": Kind("loha", 2, {}, "loha", ("LoHaConfig", {"r": 2, "alpha": 2}), ("LohaModule", {})),
    "LoKr factor 8": Kind(
        "lokr",
        4,
        {"factor": 8, "full_matrix": True},
        "lokr",
        ("LoKrConfig", {"r": 1000, "alpha": 1, "decompose_factor": 8}),
        ("LokrModule", {"factor": 8, "full_matrix": True}),
    ),
    "LoKr factor 8, r 2": Kind(
        "lokr",
        2,
        {"factor": 8},
        "",
        ("LoKrConfig", {"r": 2, "alpha": 2, "decompose_factor": 8}),
        ("LokrModule", {"factor": 8}),
    ),
    "DiagOFT": Kind("oft", 8, {}, "oft", ("OFTConfig", {"r": 8}), ("DiagOFTModule", {})),
    "BOFT": Kind(
        "boft",
        8,
        {},
        "",
        ("BOFTConfig", {"boft_block_size": 8, "boft_n_butterfly_factor": 1}),
        ("ButterflyOFTModule", {}),
    ),
    "GLoRA r 4": Kind("glora", 4, {}, "", None, ("GLoRAModule", {})),
    "DyLoRA r 4": Kind("dylora", 4, {"unit": 1}, "", None, ("DyLoraModule", {"block_size": 1})),
    "(IA)³": Kind("ia3", 1, {"on_input": "none"}, "ia3", ("IA3Config", {"feedforward_modules": []}), ("IA3Module", {})),
    "(IA)³ on inputs": Kind(
        "ia3", 1, {"on_input": "all"}, "", ("IA3Config", {"feedforward_modules": ".*"}), ("IA3Module", {})
    ),
    "full difference": Kind("full", 1, {"biases": False}, "full", None, ("FullModule", {"bias": False})),
}


@dataclass
class Way:
    """A chain with one way of adapting it, and the times measured, CPU seconds a layer."""

    chain: nn.Sequential
    parameters: Sequence[nn.Parameter] = ()
    active: Callable[[], AbstractContextManager[Any]] = nullcontext
    seconds: list[float] = field(default_factory=list)


def chain() -> nn.Sequential:
    """Frozen layers; their names are what peft is told to adapt."""
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))).requires_grad_(False)


def ours(kind: Kind) -> Way:
    """Our hooks."""
    made = chain()
    layers = [Layer(f"lora_unet_{index}", "unet", "linear", module) for index, module in enumerate(made)]
    rule = LayerRule("", rank=kind.rank, alpha=float(kind.rank))
    network = build_network(layers, [rule], algorithm=kind.algorithm, options=kind.options, seed=0, device="cpu")
    return Way(made, list(network.parameters()), network.attach)


# ---- the textbook's hooks ----

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


def _new(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) * 0.01)


def plain_lora(rank: int) -> tuple[Hook, list[nn.Parameter]]:
    down, up = _new(rank, WIDTH), _new(WIDTH, rank)
    return lambda m, x, y: y + F.linear(F.linear(x[0], down), up) * 1.0, [down, up]


def plain_loha(rank: int) -> tuple[Hook, list[nn.Parameter]]:
    a1, a2, b1, b2 = _new(rank, WIDTH), _new(rank, WIDTH), _new(WIDTH, rank), _new(WIDTH, rank)
    return lambda m, x, y: y + F.linear(x[0], (b1 @ a1) * (b2 @ a2) * 1.0), [a1, a2, b1, b2]


def plain_lokr(rank: int) -> tuple[Hook, list[nn.Parameter]]:
    first, second = _new(8, 8), _new(WIDTH // 8, WIDTH // 8)
    return lambda m, x, y: y + F.linear(x[0], torch.kron(first, second) * 1.0), [first, second]


def plain_oft(rank: int) -> tuple[Hook, list[nn.Parameter]]:
    blocks, eye = _new(WIDTH // rank, rank, rank), torch.eye(rank)

    def hook(module: nn.Module, x: tuple[Tensor, ...], y: Tensor) -> Tensor:
        skew = blocks - blocks.transpose(1, 2)
        rotation = torch.linalg.solve(eye - skew, eye + skew)
        turned = torch.einsum("kmn,kmi->kni", rotation, module.weight.view(-1, rank, WIDTH)).reshape(WIDTH, WIDTH)
        return y + F.linear(x[0], turned - module.weight)

    return hook, [blocks]


def plain_ia3(rank: int) -> tuple[Hook, list[nn.Parameter]]:
    gain = _new(WIDTH)
    return lambda m, x, y: y + (y - m.bias) * gain * 1.0, [gain]


def plain_full(rank: int) -> tuple[Hook, list[nn.Parameter]]:
    difference = _new(WIDTH, WIDTH)
    return lambda m, x, y: y + F.linear(x[0], difference * 1.0), [difference]


PLAIN = {
    "lora": plain_lora,
    "loha": plain_loha,
    "lokr": plain_lokr,
    "oft": plain_oft,
    "ia3": plain_ia3,
    "full": plain_full,
}


def plain(kind: Kind) -> Way:
    """The hook that a page of a textbook gives, on each layer."""
    made, parameters = chain(), []
    for module in made:
        hook, own = PLAIN[kind.plain](kind.rank)
        module.register_forward_hook(hook)
        parameters += own
    return Way(made, parameters)


# ---- theirs ----


def with_peft(kind: Kind) -> Way:
    """peft's layers in place of the chain's."""
    import peft

    assert kind.peft is not None
    made, (name, settings) = chain(), kind.peft
    config = getattr(peft, name)(target_modules=[str(index) for index in range(LAYERS)], **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.inject_adapter_in_model(config, made)
    return Way(made, [parameter for parameter in made.parameters() if parameter.requires_grad])


def with_lycoris(kind: Kind) -> Way:
    """LyCORIS' forward in place of the layers' own."""
    import lycoris.modules as kinds

    assert kind.lycoris is not None
    made, (name, settings), parameters = chain(), kind.lycoris, []
    for index, module in enumerate(made):
        adapter = getattr(kinds, name)(f"layer_{index}", module, lora_dim=kind.rank, alpha=kind.rank, **settings)
        adapter.apply_to()
        parameters += [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    return Way(made, parameters)


def ways(kind: Kind) -> dict[str, Way]:
    """All ways there are for a kind; what is not installed is left out."""
    found = {"ours": ours(kind)}
    if kind.plain:
        found["plain hook"] = plain(kind)
    for name, make, given in (("peft", with_peft, kind.peft), ("LyCORIS", with_lycoris, kind.lycoris)):
        if given is not None:
            try:
                found[name] = make(kind)
            except ImportError:
                continue
    for way in found.values():
        with torch.no_grad():
            for parameter in way.parameters:
                if not parameter.any():
                    parameter.normal_(std=1e-3)
    return found


# ---- measuring ----


def measure(way: Way, passes: int) -> float:
    """CPU seconds of a forward and backward pass, a layer."""
    x, gradient = torch.randn(1, TOKENS, WIDTH, requires_grad=True), torch.randn(1, TOKENS, WIDTH)
    with way.active():
        started = time.process_time()
        for _ in range(passes):
            way.chain(x).backward(gradient)
            x.grad = None
            for parameter in way.parameters:
                parameter.grad = None
        return (time.process_time() - started) / passes / LAYERS


def run(kinds: Mapping[str, Kind], *, rounds: int, passes: int) -> str:
    """A markdown table, microseconds a layer."""
    bare, order = Way(chain()), random.Random(0)
    everything = {name: ways(kind) for name, kind in kinds.items()}
    flat = [bare, *(way for found in everything.values() for way in found.values())]
    for way in flat:
        measure(way, 3)
    for _ in range(rounds):
        order.shuffle(flat)
        for way in flat:
            way.seconds.append(measure(way, passes))
    return table(bare, everything)


def table(bare: Way, everything: Mapping[str, Mapping[str, Way]]) -> str:
    """The adapter's own time by kind and way, and ours over peft's: of the adapter alone, and with its layer."""
    names = ("ours", "plain hook", "peft", "LyCORIS")
    lines = [
        f"bare layer: {1e6 * min(bare.seconds):.1f} µs",
        "",
        f"| µs an adapter | {' | '.join(names)} | ours / peft | with the layer |",
        "|---" * (len(names) + 3) + "|",
    ]
    for kind, found in everything.items():
        whole = {name: min(way.seconds) for name, way in found.items()}
        own = {name: seconds - min(bare.seconds) for name, seconds in whole.items()}
        cells = [f"{1e6 * own[name]:.1f}" if name in own else "" for name in names]
        ratios = [f"{values['ours'] / values['peft']:.2f}" if "peft" in values else "" for values in (own, whole)]
        lines.append(f"| {kind} | {' | '.join([*cells, *ratios])} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench_overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--passes", type=int, default=10, help="forward and backward passes a round")
    parser.add_argument("--only", nargs="*", default=[], help="kinds whose name contains one of these")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    chosen = {
        name: kind for name, kind in KINDS.items() if not options.only or any(text in name for text in options.only)
    }
    print(run(chosen, rounds=options.rounds, passes=options.passes))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
