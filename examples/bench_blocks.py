"""The kinds of network on SD1.5's transformer blocks, one by one at their true shapes.

    python -m examples.bench_blocks [--px 256] [--rounds 5] [--only "LoKr" ...]

A whole step takes many seconds, of which all contenders share all but the sixteen transformer blocks. So one block of
each of the four shapes is run forward and backward (into its input and the text's context, as trained embeddings need
it), bare and with each contender in turn, interleaved, each round in another order. The surcharge is the least CPU time
(`time.process_time`, one thread) with the contender less the least of the bare block, times the number of blocks of the
shape, summed; *step* is 1 + surcharge / F, and F, the whole frozen step, is measured in the same process before and
after. *kept* is what the block holds between forward and backward beyond the bare block, summed alike: exact. Nothing
but `attention+ff` is adapted: 160 layers.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples.bench import MIB, SIZES, Model, PeftLayers, Variant, clear, load, take_step
from examples.bench_kinds import CONTENDERS, contenders_on
from lib_pivotal.ports import Layer

SHAPES = (
    ("down_blocks.0.attentions.0", 5, 1),
    ("down_blocks.1.attentions.0", 5, 2),
    ("down_blocks.2.attentions.0", 5, 4),
    ("mid_block.attentions.0", 1, 8),
)
"""A transformer of each shape, how many there are, and by how much its picture is smaller than the latents."""

TEXT_TOKENS = 77


@dataclass
class Timed:
    """A contender on one block: CPU seconds of each round, bytes kept for the backward pass."""

    parameters: Sequence[nn.Parameter]
    active: Callable[[], AbstractContextManager[Any]]
    seconds: list[float] = field(default_factory=list)
    kept: int = 0


@dataclass
class Block:
    """One transformer block, its inputs, and the contenders on it."""

    module: nn.Module
    x: Tensor
    context: Tensor
    count: int
    ways: dict[str, Timed]

    def step(self, way: Timed, *, measure_kept: bool = False) -> None:
        """Forward and backward, timed."""
        inputs = [tensor.detach().requires_grad_() for tensor in (self.x, self.context)]
        gradient = torch.ones_like(self.x)
        with way.active():
            if measure_kept:
                with torch.profiler.profile(
                    activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
                ) as records:
                    out = self.module(inputs[0], encoder_hidden_states=inputs[1])
                events = records.profiler.kineto_results.events()
                way.kept = sum(event.nbytes() for event in events if event.name() == "[memory]")
                out.backward(gradient)
            else:
                started = time.process_time()
                self.module(inputs[0], encoder_hidden_states=inputs[1]).backward(gradient)
                way.seconds.append(time.process_time() - started)
        clear(way.parameters)


def blocks(model: Model, px: int, only: Sequence[str]) -> list[Block]:
    """One block of each shape with all contenders made for it."""
    found = []
    for path, count, smaller in SHAPES:
        module = model.unet.get_submodule(path).transformer_blocks[0]
        side, width = px // 8 // smaller, module.attn1.to_q.in_features
        layers = [
            Layer(f"lora_unet_{path}.transformer_blocks.0.{name}".replace(".", "_"), "unet", "linear", linear)
            for name, linear in module.named_modules()
            if isinstance(linear, nn.Linear)
        ]
        ways = {"bare": Timed((), nullcontext)}
        for contender in CONTENDERS:
            for title, active, parameters in contenders_on(layers, module, contender, PeftLayers):
                if not only or any(text in title for text in only):
                    ways[title] = Timed(parameters, active)
        x, context = torch.randn(1, side * side, width), torch.randn(1, TEXT_TOKENS, model.size.text_width)
        found.append(Block(module, x, context, count, ways))
    return found


def measure_floor(model: Model, embedding: nn.Parameter) -> float:
    """CPU seconds of a whole step without a network."""
    started = time.process_time()
    take_step(model, Variant("F"), embedding)
    embedding.grad = None
    return time.process_time() - started


def run(model: Model, px: int, rounds: int, only: Sequence[str]) -> str:
    """A markdown table."""
    model.latents, model.noise = (torch.randn(1, 4, px // 8, px // 8) for _ in range(2))
    embedding, order = nn.Parameter(torch.randn(1, model.size.text_width) * 0.01), random.Random(0)
    made = blocks(model, px, only)
    measure_floor(model, embedding)
    floors = [measure_floor(model, embedding)]
    for block in made:
        for way in block.ways.values():
            block.step(way, measure_kept=True)
    gc.disable()
    for _ in range(rounds):
        for block in made:
            ways = list(block.ways.values())
            order.shuffle(ways)
            for way in ways:
                block.step(way)
    gc.enable()
    floors.append(measure_floor(model, embedding))
    return table(made, floors)


def table(made: Sequence[Block], floors: Sequence[float]) -> str:
    """Contender by contender: step over F, and what the sixteen blocks keep beyond the bare ones."""
    floor = min(floors)
    bare = sum(block.count * min(block.ways["bare"].seconds) for block in made)
    measured = ", ".join(f"{seconds:.2f}" for seconds in floors)
    lines = [
        f"F: {measured} CPU s; the bare blocks are {bare / floor:.2f} of it",
        "",
        "| what | step / F | surcharge, CPU s | by shape, ms a block | kept beyond bare, MiB | weights, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for title in made[0].ways:
        extra = [min(block.ways[title].seconds) - min(block.ways["bare"].seconds) for block in made]
        surcharge = sum(block.count * seconds for block, seconds in zip(made, extra, strict=True))
        kept = sum(block.count * (block.ways[title].kept - block.ways["bare"].kept) for block in made) / MIB
        weights = sum(4 * block.count * sum(p.numel() for p in block.ways[title].parameters) for block in made) / MIB
        shapes = " ".join(f"{1e3 * seconds:.1f}" for seconds in extra)
        lines.append(
            f"| {title} | {1 + surcharge / floor:.3f} | {surcharge:.2f} | {shapes} | {kept:+.0f} | {weights:.1f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench_blocks", description=__doc__.splitlines()[0])
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="contenders whose name contains one of these")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    print(run(load(SIZES["sd15"]), options.px, options.rounds, options.only))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
