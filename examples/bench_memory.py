"""Memory of real sizes: SD1.5, SD2.1 and SDXL counted class by class as on a GPU, and counted against measured.

    python -m examples.bench_memory cards            a minute or two, 2 GB: nothing of the models is held, only sizes
    python -m examples.bench_memory check [--family sd1] [--px 256 384 ...]    5 to 15 GB: real steps, by the profiler

"Counted" is what the pre-flight says (`lib_pivotal.training.memory`). "Measured" is the largest sum of live tensors
that torch's CPU allocator handed out in a real step. Weights are random: no download.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from PIL import Image
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib_pivotal.config import Run, run_from_dict
from lib_pivotal.ports import TrainingBatch
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.standalone.single_file import scaled_linear_alphas
from lib_pivotal.training import build
from lib_pivotal.training.assemble import compile_run
from lib_pivotal.training.memory import PURPOSES, MemoryCount, count_memory
from lib_pivotal.training.prepare import prepare_pictures

MIB = 2**20
PASSING = ("kept_unet", "kept_text", "working", "gradients")
_CROSS_DOWN, _CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
UNETS: dict[str, dict[str, Any]] = {
    "sd1": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", _CROSS_DOWN, _CROSS_DOWN),
        "up_block_types": (_CROSS_UP, _CROSS_UP, "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
TEXTS = {"sd1": ((768, 12, 12),), "sd2": ((1024, 23, 16),), "sdxl": ((768, 12, 12), (1280, 32, 20))}
"""Width, layers and heads of each text encoder."""


def make_host(family: str, dtype: torch.dtype) -> StandaloneHost:
    """Of the family's real size; inside a fake mode its weights take no memory."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return _make_host(family)
    finally:
        torch.set_default_dtype(before)


def _make_host(family: str) -> StandaloneHost:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from lib_pivotal.standalone.tokenizer import clip_tokenizer

    texts: list[nn.Module] = []
    for index, (width, layers, heads) in enumerate(TEXTS[family]):
        config = CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            projection_dim=width,
        )
        texts.append((CLIPTextModelWithProjection if index else CLIPTextModel)(config))
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    return StandaloneHost(
        text_model=texts[0],
        text_model_2=texts[1] if len(texts) > 1 else None,
        unet=UNet2DConditionModel(**UNETS[family]),
        vae=vae,
        tokenizer=clip_tokenizer(),
        family=family,  # type: ignore[arg-type]
    )


def make_run(folder: Path, *, px: int, batch: int, rank: int = 16, checkpointing: bool = False) -> Run:
    """The defaults of a run, with four words and the text encoder trained through them."""
    return run_from_dict(
        {
            "name": "bench",
            "words": [{"name": name, "vectors": 4} for name in ("aoi", "hana", "mio", "rin")],
            "network": {"unet_rank": rank, "unet_alpha": rank},
            "data": {"folder": str(folder), "resolution_px": px},
            "schedule": {"batch_size": batch},
            "memory": {"gradient_checkpointing": checkpointing},
        }
    )


def write_pictures(folder: Path, px: int) -> Path:
    """Four pictures of four words."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("aoi", "hana", "mio", "rin"):
        Image.new("RGB", (px, px)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"{name}, 1girl, smile, looking at viewer, upper body, simple background")
    return folder


@contextlib.contextmanager
def norms_as_on_a_gpu() -> Iterator[None]:
    """CUDA's autocast runs norms and softmax in fp32, the CPU's does not."""
    functional = torch.nn.functional
    before = functional.group_norm, functional.layer_norm, functional.softmax

    def wide(value: Any) -> Any:
        autocast = torch.is_autocast_enabled("cpu")
        return value.float() if autocast and isinstance(value, Tensor) else value

    def group_norm(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
        return before[0](wide(x), groups, wide(weight), wide(bias), eps)

    def layer_norm(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
        return before[1](wide(x), shape, wide(weight), wide(bias), eps)

    def softmax(x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return before[2](wide(x), *arguments, **options)

    functional.group_norm, functional.layer_norm, functional.softmax = group_norm, layer_norm, softmax  # type: ignore
    try:
        yield
    finally:
        functional.group_norm, functional.layer_norm, functional.softmax = before  # type: ignore


# ---- cards -------------------------------------------------------------------------------------------------------

CARDS = (
    ("SD1.5, 512 px, batch 4", "sd1", 512, 4, False),
    ("the same, checkpointed", "sd1", 512, 4, True),
    ("SD2.1, 768 px, batch 2, checkpointed", "sd2", 768, 2, True),
    ("SDXL, 1024 px, batch 1, checkpointed", "sdxl", 1024, 1, True),
    ("the same, not checkpointed", "sdxl", 1024, 1, False),
)


def cards(folder: Path) -> str:
    """A markdown table: fp16 weights and autocast, r16 attention+ff, AdamW, four words."""
    counts: dict[str, MemoryCount] = {}
    for title, family, px, batch, checkpointing in CARDS:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        run = make_run(write_pictures(folder / str(px), px), px=px, batch=batch, checkpointing=checkpointing)
        with mode:
            host = make_host(family, torch.float16)
        host.alphas_cumprod = scaled_linear_alphas()
        with norms_as_on_a_gpu():
            counts[title] = count_memory(compile_run(run, prepare_pictures(run)), host, as_gpu=True)
        print(title, counts[title].largest, file=sys.stderr, flush=True)
    return "\n\n".join(_card_table(counts, moment) for moment in ("a step", "encoding pictures"))


def _card_table(counts: dict[str, MemoryCount], moment: str) -> str:
    lines = [f"| {moment}, MiB | " + " | ".join(counts) + " |", "|---" * (len(counts) + 1) + "|"]
    for part, embeddings in PURPOSES.items():
        sizes = [count.moment(moment).parts.get(part, 0) / MIB for count in counts.values()]
        if any(sizes):
            lines.append(f"| {embeddings} | " + " | ".join(f"{size:,.0f}" for size in sizes) + " |")
    totals = [count.moment(moment).total_bytes / MIB for count in counts.values()]
    return "\n".join([*lines, "| **all** | " + " | ".join(f"**{total:,.0f}**" for total in totals) + " |"])


# ---- check -------------------------------------------------------------------------------------------------------


SETTINGS = ((1, 16, False), (1, 16, True), (2, 4, False), (2, 64, True))
"""Batch, rank, gradient checkpointing."""


def check(
    folder: Path, sizes: Sequence[int], family: str, dtype: torch.dtype, settings: Sequence[Any], steps: int = 1
) -> str:
    """A markdown table: what a step allocates beyond weights, network and optimiser, counted and measured."""
    torch.manual_seed(0)
    host = make_host(family, dtype)
    title = f"{family}, {str(dtype).removeprefix('torch.')}, CPU"
    lines = [f"| {title} | counted, MiB | measured, MiB | counted / measured |", "|---|---|---|---|"]
    for px in sizes:
        for batch, rank, checkpointing in settings:
            run = make_run(
                write_pictures(folder / str(px), px), px=px, batch=batch, rank=rank, checkpointing=checkpointing
            )
            count = count_memory(compile_run(run, prepare_pictures(run)), host).moment("a step")
            counted = sum(count.parts.get(part, 0) for part in PASSING) / MIB
            measured = measure_step(run, host, steps=steps) / MIB
            title = f"{px} px, batch {batch}, rank {rank}{', checkpointed' if checkpointing else ''}"
            lines.append(f"| {title} | {counted:,.0f} | {measured:,.0f} | {counted / measured:.3f} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


def measure_step(run: Run, host: StandaloneHost, *, steps: int = 1) -> int:
    """The largest sum of live tensors that a real step allocated; `steps` - 1 more are taken before, with AdamW."""
    from torch.profiler import ProfilerActivity, profile

    count, side = run.schedule.batch_size, run.data.resolution_px // 8
    batch = TrainingBatch(
        latents=torch.zeros(count, 4, side, side),
        captions=[f"aoi, 1girl, number {index}" for index in range(count)],
        mask=None,
        weights=torch.ones(count),
        keys=[str(index) for index in range(count)],
        sizes=torch.ones(count, 6),
    )
    prepared = compile_run(run, prepare_pictures(run))
    embeddings = build.make_embeddings(prepared.embeddings, host.text, host.device, seed=prepared.seed)
    with host.session(prepared.session):
        network = build.make_network(prepared.network, host.layers(), host.device, seed=prepared.seed)
        assert network is not None
        step = build.make_micro_step(prepared, host, network)
        with network.attach():
            optimizer = torch.optim.AdamW([*embeddings.parameters(), *network.parameters()], lr=1e-4)
            for index in range(1, steps):
                started = time.process_time()
                loss = step.losses(batch, embeddings.as_mapping(), seeds=(0, index)).sum()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                resident = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
                seconds = time.process_time() - started
                print(f"step {index}: loss {loss.item():.4f}, {seconds:.0f} CPU s, {resident}", file=sys.stderr)
            gc.collect()
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as records:
                step.losses(batch, embeddings.as_mapping(), seeds=(0, 0)).sum().backward()
    live = most = 0
    events = [event for event in records.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench_memory", description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("what", choices=("cards", "check"))
    parser.add_argument("--px", type=int, nargs="*", default=[256], help="sizes to check")
    parser.add_argument("--family", choices=tuple(UNETS), default="sd1", help="what to check")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights to check")
    parser.add_argument("--settings", type=int, nargs="*", default=range(len(SETTINGS)), help="which to check")
    parser.add_argument("--steps", type=int, default=1, help="steps of each, of which the last is measured")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "cards":
            print(cards(Path(folder)))
        else:
            settings = [SETTINGS[index] for index in options.settings]
            dtype = getattr(torch, options.dtype)
            print(check(Path(folder), options.px, options.family, dtype, settings, options.steps))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
