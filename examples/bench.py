"""Time and memory of a training step on SD1.5's real size, against the floor that no network can go below.

    python -m examples.bench [--quick] [--rounds N] [--json FILE] [--markdown FILE] [--only NAME ...]

The floor F is the text encoder and the frozen U-Net, forward and backward into one spliced word, without a network.
Every variant runs on the same model in one process, one thread, interleaved; each round in another order, so that no
variant always follows the same one. Figures are medians of the ratio to the same round's F. CPU time
(`time.process_time`) is the primary figure: whatever else the machine does disturbs it only through shared caches and
memory. Weights are random: no download.

Memory, two figures, both with the adapter's weights and without the optimiser's state (a column of its own):
"tensors" is what torch's CPU allocator hands out during one step (the profiler's memory records, replayed: exact and
repeatable); "resident" is the process's peak in an untimed step (Linux, VmHWM reset, heap trimmed before), with the
allocator's slack.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import logging
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples.bench_kinds import kind_variants
from lib_pivotal.networks.network import Network, build_network
from lib_pivotal.networks.targets import part_rules
from lib_pivotal.ports import Layer

MIB = 1024 * 1024
RANK = 16


@dataclass(frozen=True)
class Size:
    """A model's size; `sd15` is Stable Diffusion 1.5's, `tiny` the avatars' (and the tests')."""

    unet_channels: tuple[int, ...]
    down_blocks: tuple[str, ...]
    up_blocks: tuple[str, ...]
    layers_per_block: int
    heads: int
    text_width: int
    text_layers: int
    text_heads: int
    latent_side: int


_D, _U = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
SIZES = {
    "sd15": Size(
        unet_channels=(320, 640, 1280, 1280),
        down_blocks=(_D, _D, _D, "DownBlock2D"),
        up_blocks=("UpBlock2D", _U, _U, _U),
        layers_per_block=2,
        heads=8,
        text_width=768,
        text_layers=12,
        text_heads=12,
        latent_side=32,
    ),
    "tiny": Size(
        unet_channels=(64, 128),
        down_blocks=(_D, _D),
        up_blocks=(_U, _U),
        layers_per_block=1,
        heads=4,
        text_width=64,
        text_layers=4,
        text_heads=4,
        latent_side=8,
    ),
}


@dataclass
class Model:
    """Frozen text encoder and U-Net with random weights, and the inputs of a step."""

    size: Size
    text: nn.Module
    unet: nn.Module
    ids: Tensor
    latents: Tensor
    timesteps: Tensor
    noise: Tensor
    layers: list[Layer] = field(default_factory=list)

    def forward(self, embedding: Tensor) -> Tensor:
        """The loss of one step; `word` `(vectors, width)` stands from token position 1 on. Batch = `latents`' batch."""

        def splice(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            rows = embedding.expand(output.shape[0], -1, -1)
            return torch.cat([output[:, :1], rows, output[:, 1 + embedding.shape[0] :]], dim=1)

        table: nn.Module = self.text.text_model.embeddings.token_embedding
        handle = table.register_forward_hook(splice)
        try:
            context = self.text(self.ids.expand(self.latents.shape[0], -1))[0]
        finally:
            handle.remove()
        prediction = self.unet(self.latents, self.timesteps, context, return_dict=False)[0]
        return nn.functional.mse_loss(prediction, self.noise)

    @contextmanager
    def batch(self, count: int) -> Iterator[None]:
        """Inputs of `count` pictures for a while."""
        before = self.latents, self.timesteps, self.noise
        self.latents, self.timesteps, self.noise = (
            tensor.repeat(count, *[1] * (tensor.dim() - 1)) for tensor in before
        )
        try:
            yield
        finally:
            self.latents, self.timesteps, self.noise = before


def load(size: Size) -> Model:
    """The model, frozen, in training mode (diffusers checkpoints only then; there is no dropout)."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=size.text_width,
            intermediate_size=4 * size.text_width,
            num_hidden_layers=size.text_layers,
            num_attention_heads=size.text_heads,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=size.latent_side,
        block_out_channels=size.unet_channels,
        down_block_types=size.down_blocks,
        up_block_types=size.up_blocks,
        layers_per_block=size.layers_per_block,
        attention_head_dim=size.heads,
        cross_attention_dim=size.text_width,
    )
    text.requires_grad_(False).eval()
    unet.requires_grad_(False).train()
    shape = (1, 4, size.latent_side, size.latent_side)
    model = Model(
        size=size,
        text=text,
        unet=unet,
        ids=torch.randint(0, 49000, (1, 77)),
        latents=torch.randn(shape),
        timesteps=torch.tensor([500]),
        noise=torch.randn(shape),
    )
    for name, module in unet.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            kohya = "lora_unet_" + name.replace(".", "_")
            model.layers.append(Layer(kohya, "unet", "linear" if isinstance(module, nn.Linear) else "conv", module))
    return model


# ---- variants ----------------------------------------------------------------------------------------------------


@dataclass
class Variant:
    """One way of taking a step: `active` puts its network on the model, `parameters` are what it trains."""

    name: str
    active: Callable[[], AbstractContextManager[Any]] = nullcontext
    parameters: Sequence[nn.Parameter] = ()
    vectors: int = 1
    batch: int = 1
    grad: bool = True
    quick: bool = True


class PlainHooks:
    """The textbook adapter, `y + s·up(down(x))` in a forward hook: what ours is measured against."""

    def __init__(self, network: Network, layers: Sequence[Layer]) -> None:
        tensors = network.kohya_tensors()
        modules = {layer.name: layer.module for layer in layers}
        self._pairs = [
            (
                modules[name],
                nn.Parameter(tensors[f"{name}.lora_down.weight"].clone()),
                nn.Parameter(tensors[f"{name}.lora_up.weight"].clone()),
            )
            for name in network.layer_names
        ]
        self.parameters = [parameter for _, down, up in self._pairs for parameter in (down, up)]

    @contextmanager
    def attach(self) -> Iterator[None]:
        def hooked(down: nn.Parameter, up: nn.Parameter) -> Callable[..., Tensor]:
            def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
                return output + nn.functional.linear(nn.functional.linear(args[0], down), up) * 1.0

            return hook

        handles = [module.register_forward_hook(hooked(down, up)) for module, down, up in self._pairs]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class PeftLayers:
    """peft's layers (LoRA where no config is given), swapped in for a step and out again so that the other variants
    see the bare model."""

    def __init__(self, unet: nn.Module, config: Any = None) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        before = {name: module for name, module in unet.named_modules() if isinstance(module, nn.Linear)}
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        inject_adapter_in_model(config or LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets), unet)
        self._swaps: list[tuple[nn.Module, str, nn.Module, nn.Module]] = []
        for name, module in before.items():
            parent, _, child = name.rpartition(".")
            owner = unet.get_submodule(parent)
            if getattr(owner, child) is not module:
                self._swaps.append((owner, child, module, getattr(owner, child)))
        self.parameters = [
            parameter for *_, new in self._swaps for parameter in new.parameters() if parameter.requires_grad
        ]
        self._put(2)

    def _put(self, index: int) -> None:
        for swap in self._swaps:
            setattr(swap[0], swap[1], swap[index])

    @contextmanager
    def attach(self) -> Iterator[None]:
        self._put(3)
        try:
            yield
        finally:
            self._put(2)


@contextmanager
def checkpointing(unet: nn.Module, *, transformers_only: bool) -> Iterator[None]:
    """diffusers' gradient checkpointing (non-reentrant), on every block or on the transformer blocks alone."""
    chosen = [
        module
        for module in unet.modules()
        if hasattr(module, "gradient_checkpointing")
        and (not transformers_only or type(module).__name__ == "Transformer2DModel")
    ]
    for module in chosen:
        module.gradient_checkpointing = True
    try:
        yield
    finally:
        for module in chosen:
            module.gradient_checkpointing = False


def variants(model: Model) -> list[Variant]:
    """Section 6's variants, F second."""

    def network(preset: str, *, fuse: bool = True) -> Network:
        rules = part_rules("unet", preset, rank=RANK, alpha=float(RANK))
        made = build_network(model.layers, rules, seed=0, device="cpu", fuse=fuse)
        with torch.no_grad():  # away from zero, as in the middle of a run: a zero factor would flatter nobody
            for name, parameter in made.named_parameters():
                if name.endswith("up"):
                    parameter.normal_(std=1e-3)
        return made

    wide, narrow = network("attention+ff"), network("diffusers")
    loose = network("attention+ff", fuse=False)
    plain, peft = PlainHooks(wide, model.layers), PeftLayers(model.unet)
    wide_parameters, narrow_parameters = list(wide.parameters()), list(narrow.parameters())

    @contextmanager
    def idle() -> Iterator[None]:
        with wide.attach(), wide.with_multipliers(unet=0.0, te=0.0):
            yield

    def checkpointed(transformers_only: bool) -> Callable[[], AbstractContextManager[Any]]:
        @contextmanager
        def active() -> Iterator[None]:
            with wide.attach(), checkpointing(model.unet, transformers_only=transformers_only):
                yield

        return active

    return [
        Variant("forward only", grad=False),
        Variant("F: no network, one word"),
        Variant("ours, attention+ff", wide.attach, wide_parameters),
        Variant("ours, attention+ff, not fused", loose.attach, list(loose.parameters()), quick=False),
        Variant("plain hooks, attention+ff", plain.attach, plain.parameters),
        Variant("ours, q k v out", narrow.attach, narrow_parameters),
        Variant("peft, q k v out", peft.attach, peft.parameters),
        Variant("ours, attention+ff, detached", idle),
        Variant("ours, attention+ff, 16 words", wide.attach, wide_parameters, vectors=16),
        Variant("ours, attention+ff, checkpointed: all", checkpointed(False), wide_parameters, quick=False),
        Variant("ours, attention+ff, checkpointed: transformers", checkpointed(True), wide_parameters, quick=False),
        Variant("F, batch 2", batch=2, quick=False),
        Variant("ours, attention+ff, batch 2", wide.attach, wide_parameters, batch=2, quick=False),
    ]


# ---- measuring ---------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """Figures of a variant: seconds a step, ratio to the same round's F, MiB."""

    name: str
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    optimizer_cpu_s: list[float] = field(default_factory=list)
    resident_mib: float = 0.0
    peak_mib: float = 0.0
    weights_mib: float = 0.0
    optimizer_mib: float = 0.0


def reset_resident_peak() -> bool:
    """Give freed memory back and set the process's peak to what it holds now; False where Linux is not."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return False
    return True


def resident_peak_mib() -> float:
    """The process's peak since `reset_resident_peak`."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def take_step(model: Model, variant: Variant, embedding: nn.Parameter) -> None:
    """Forward, backward; gradients stay in `.grad`."""
    with torch.set_grad_enabled(variant.grad):
        loss = model.forward(embedding)
    if variant.grad:
        loss.backward()


def clear(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


def measure_time(model: Model, variant: Variant, result: Result) -> None:
    """One timed step and, where something is trained, one timed AdamW step (its state made before)."""
    embedding = nn.Parameter(torch.randn(variant.vectors, model.size.text_width) * 0.01)
    trained = [embedding, *variant.parameters]
    with ExitStack() as stack:
        stack.enter_context(model.batch(variant.batch))
        stack.enter_context(variant.active())
        gc.collect()
        gc.disable()
        try:
            wall, cpu = time.perf_counter(), time.process_time()
            take_step(model, variant, embedding)
            result.cpu_s.append(time.process_time() - cpu)
            result.wall_s.append(time.perf_counter() - wall)
        finally:
            gc.enable()
    if variant.grad:
        optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0)
        optimizer.step()
        state = [value for entry in optimizer.state.values() for value in entry.values() if value.dim()]
        result.optimizer_mib = sum(value.numel() * value.element_size() for value in state) / MIB
        cpu = time.process_time()
        optimizer.step()
        result.optimizer_cpu_s.append(time.process_time() - cpu)
    clear(trained)


def measure_memory(model: Model, variant: Variant, result: Result) -> None:
    """Largest sum of live tensors that the step itself allocated, from the profiler's allocation records; then the
    process's own peak in a second step, from a trimmed heap."""
    embedding = nn.Parameter(torch.randn(variant.vectors, model.size.text_width) * 0.01)
    trained = [embedding, *variant.parameters]
    with ExitStack() as stack:
        stack.enter_context(model.batch(variant.batch))
        stack.enter_context(variant.active())
        if reset_resident_peak():
            take_step(model, variant, embedding)
            result.resident_mib = resident_peak_mib() + result.weights_mib
            clear(trained)
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            take_step(model, variant, embedding)
    live = peak = 0
    records = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(records, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    clear(trained)
    result.peak_mib = peak / MIB + result.weights_mib


def run(model: Model, chosen: Sequence[Variant], *, rounds: int, memory: bool) -> list[Result]:
    """Warm up once each (with the memory records), then `rounds` interleaved rounds."""
    results = [
        Result(variant.name, weights_mib=sum(p.numel() * p.element_size() for p in variant.parameters) / MIB)
        for variant in chosen
    ]
    for variant, result in zip(chosen, results, strict=True):
        if memory:
            measure_memory(model, variant, result)
        else:
            measure_time(model, variant, Result(variant.name))
        print(f"warm: {variant.name} {result.peak_mib:.0f} MiB", file=sys.stderr, flush=True)
    pairs, order = list(zip(chosen, results, strict=True)), random.Random(0)
    for index in range(rounds):
        order.shuffle(pairs)
        for variant, result in pairs:
            measure_time(model, variant, result)
        print(f"round {index + 1} of {rounds}\n{table(results)}", file=sys.stderr, flush=True)
    return results


def table(results: Sequence[Result]) -> str:
    """A markdown table; ratios are medians of each round's ratio to that round's F."""
    floor = next(result for result in results if result.name.startswith("F:"))
    lines = [
        "| what | CPU step / F | least CPU / F's least | wall step / F | CPU s | AdamW CPU s | tensors over F's, MiB "
        "| resident over F's, MiB | weights, MiB | AdamW state, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        cpu = statistics.median(a / b for a, b in zip(result.cpu_s, floor.cpu_s, strict=True))
        wall = statistics.median(a / b for a, b in zip(result.wall_s, floor.wall_s, strict=True))
        optimizer = f"{statistics.median(result.optimizer_cpu_s):.3f}" if result.optimizer_cpu_s else ""
        extra = f"{result.peak_mib - floor.peak_mib:+.0f}" if result.peak_mib else ""
        resident = f"{result.resident_mib - floor.resident_mib:+.0f}" if result.resident_mib else ""
        least = min(result.cpu_s) / min(floor.cpu_s)
        lines.append(
            f"| {result.name} | {cpu:.3f} | {least:.3f} | {wall:.3f} | {statistics.median(result.cpu_s):.2f} "
            f"| {optimizer} | {extra} | {resident} | {result.weights_mib:.1f} | {result.optimizer_mib:.1f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer variants, three rounds")
    parser.add_argument("--rounds", type=int, default=0, help="rounds (default 7; 3 with --quick)")
    parser.add_argument("--size", choices=sorted(SIZES), default="sd15")
    parser.add_argument("--only", nargs="*", default=[], help="variants whose name contains one of these (F always)")
    parser.add_argument("--kinds", action="store_true", help="all kinds of network, with LyCORIS' and peft's")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory records")
    parser.add_argument("--json", type=Path, help="write every single figure here")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rounds = options.rounds or (3 if options.quick else 7)
    model = load(SIZES[options.size])
    chosen = [
        variant
        for variant in (kind_variants(model, Variant, PeftLayers) if options.kinds else variants(model))
        if (variant.quick or not options.quick)
        and (not options.only or variant.name.startswith("F:") or any(text in variant.name for text in options.only))
    ]
    results = run(model, chosen, rounds=rounds, memory=not options.no_memory)
    text = table(results)
    print(f"{options.size}, {rounds} rounds, torch {torch.__version__}, one thread\n\n{text}")
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    if options.markdown:
        options.markdown.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
