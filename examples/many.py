"""Sixteen words from one folder, by defaults: 15 characters and a style, laid out as kgrid's pipeline does it.

`python -m examples.many --out DIR` writes the pictures, scans and plans them without a choice made, shows the plan and
stops if it has a warning; `--steps N` trains that plan (0: its own number of steps) and measures what sits where.
Writes plan.json, run.json, bundle.safetensors, rows.png and report.json.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from PIL import Image

from examples import experiment
from examples.avatars import make
from examples.avatars.characters import DESCRIBABLE, STYLES, character_avatar
from examples.avatars.scores import Scorer, load_scorer
from examples.avatars.world import ATTRIBUTES, Avatar, caption, random_avatar
from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.commands.runs import train
from lib_pivotal.config import Run, write_run
from lib_pivotal.data.dataset import scan
from lib_pivotal.evaluation.in_run import RunEvaluation
from lib_pivotal.evaluation.loading import load_on_host
from lib_pivotal.evaluation.parts_grid import ROWS, draw_grid
from lib_pivotal.runs.defaults import fitted_run
from lib_pivotal.runs.host_defaults import HostDefaults
from lib_pivotal.runs.plan import RunPlan, make_plan
from lib_pivotal.standalone.console import ConsoleListener
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.standalone.plan_cli import plan_text
from lib_pivotal.standalone.tokenizer import clip_reading
from lib_pivotal.training.events import Event, RunEnded, SeparationMeasured
from lib_pivotal.training.logs import default_logs, fan_out

EMBEDDINGS, STYLE_EMBEDDINGS = 16, 1
PICTURES = 24
PAIRS = 4
THUMB_PX, ALIKE = 9, 8.0
"""Pictures of one folder are alike if their thumbnails differ by less, of 255 on average."""
MORE = 3
"""Halves: so many more pictures are thought of as wanted, since some are alike."""
PICTURES_PER_EMBEDDING = 12
SHOWN_EACH = 2
EMBEDDINGS_A_BAND = 8
GUIDANCE = 4.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.many", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=None, help="train: so many steps, 0 = as planned")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="of each word")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of each character beside the next one")
    parser.add_argument(
        "--each", type=int, default=PICTURES_PER_EMBEDDING, help="pictures that are scored, of each word"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--anyway", action="store_true", help="train although the plan has warnings")
    parser.add_argument(
        "--rates",
        choices=("default", "avatars"),
        default="default",
        help="avatars: those of the demo; the avatars' network is a thousandth of a real one and wants higher ones",
    )
    parsed = parser.parse_args(arguments)
    parsed.out.mkdir(parents=True, exist_ok=True)
    folder = write_pictures(parsed.out / "pictures", pictures=parsed.pictures, pairs=parsed.pairs, seed=parsed.seed)
    run, plan = plan_by_defaults(folder)
    (parsed.out / "plan.json").write_text(json.dumps(plan.as_dict(), indent=2) + "\n", encoding="utf-8")
    print(plan_text(plan), flush=True)
    if plan.at_least("warning"):
        print("the plan by defaults has warnings: see above", file=sys.stderr)
        if not parsed.anyway:
            return 1
    if parsed.steps is None:
        return 0
    run = replace(run, seed=parsed.seed)
    run = with_rates_of_avatars(run) if parsed.rates == "avatars" else run
    return train_and_measure(run, parsed.out, steps=parsed.steps, each=parsed.each, device=parsed.device)


def write_pictures(folder: Path, *, pictures: int, pairs: int, seed: int) -> Path:
    """The folder as a person would have it from the pipeline, captions by a tagger; what is there stays."""
    if not folder.exists():
        characters, styles = make.choose_embeddings(EMBEDDINGS, styles=STYLE_EMBEDDINGS)
        planned = make.plan(characters, styles, pictures=pictures * MORE // 2, pairs=pairs * MORE // 2, seed=seed)
        make.write(distinct(planned), folder, layout="kgrid")
    return folder


def distinct(planned: Sequence[make.Picture]) -> list[make.Picture]:
    """Without those that look like another one of the same folder: so small a world differs by a mouth or a shirt."""
    kept: list[make.Picture] = []
    seen: dict[tuple[str, str | None], list[np.ndarray[Any, Any]]] = {}
    for picture in planned:
        small = picture.draw(64).resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX)
        pixels = np.asarray(small, dtype=np.float32)
        others = seen.setdefault((picture.concept, picture.style), [])
        if all(np.abs(pixels - other).mean() > ALIKE for other in others):
            others.append(pixels)
            kept.append(picture)
    return kept


def plan_by_defaults(folder: Path) -> tuple[Run, RunPlan]:
    """What the page's Scan does: nothing is chosen here."""
    dataset = scan(folder)
    around = HostDefaults(prompts=clip_reading())
    run = fitted_run(dataset, circumstances=around).run
    return run, make_plan(dataset, run, prompts=around.prompts)


def with_rates_of_avatars(run: Run) -> Run:
    """The same plan at the learning rates of the demo."""
    setup = experiment.Setup(())
    network = replace(run.network, unet_lr=setup.unet_lr, unet_targets=setup.unet_targets)
    return replace(run, embeddings_common=replace(run.embeddings_common, lr=setup.embeddings_lr), network=network)


def train_and_measure(run: Run, out: Path, *, steps: int, each: int, device: str) -> int:
    """Train the plan, then look: through the saved file, as the web UI would."""
    steps = steps or run.schedule.max_steps
    schedule = replace(run.schedule, max_steps=steps, warmup_steps=min(run.schedule.warmup_steps, steps // 10))
    saving = replace(run.saving, sample_every_steps=0, state_every_steps=0, separation_every_steps=steps)
    run = replace(run, name="bundle", schedule=schedule, saving=saving)
    write_run(out / "run.json", run)
    host = StandaloneHost.load(experiment.CHECKPOINT, device=device)
    separation: list[SeparationMeasured] = []

    def listen(event: Event) -> None:
        if isinstance(event, SeparationMeasured):
            separation.append(event)

    started = time.monotonic()
    listeners = fan_out([ConsoleListener(), listen, *default_logs(out, "bundle")])
    ended: RunEnded = train(run, host, output_folder=out, listener=listeners, evaluation=RunEvaluation())
    if ended.bundle is None:
        print(ended.message or "nothing was trained", file=sys.stderr)
        return 1
    report = {"steps": ended.step, "seconds": round(time.monotonic() - started, 1)}
    names = [embedding.name for embedding in run.embeddings]
    report |= look(host, load_scorer(), names, ended.bundle, out, each=each)
    report["share_of_words"] = separation[-1].shares if separation else {}
    report["losses"] = separation[-1].losses if separation else {}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(report_text(report))
    return 0 if ended.reason == "finished" else 130


@torch.no_grad()
def look(
    host: StandaloneHost, scorer: Scorer, names: Sequence[str], bundle_path: Path, out: Path, *, each: int
) -> dict[str, Any]:
    """Identity and attribute accuracy by row and word, parts switched off in turn; and the sheet."""
    embeddings, network = load_on_host(host, require(read_bundle(bundle_path)))
    asked = {name: prompts(name, each) for name in names}
    texts = [text for name in names for text, _ in asked[name]]
    requests = experiment.requests(texts, cfg_scale=GUIDANCE)
    made = {}
    for row in ROWS:
        if network is None:
            made[row.label] = host.sample(requests, embeddings)
            continue
        with network.attach(), network.with_multipliers(unet=row.unet, te=row.te):
            made[row.label] = host.sample(requests, embeddings)
    bare = [text for name in names for text, _ in prompts(name, each, by_embedding=False)]
    made["base"] = host.sample(experiment.requests(bare, cfg_scale=GUIDANCE), {})
    found: dict[str, Any] = {}
    for label, pictures in made.items():
        lines = {name: pictures[n * each : (n + 1) * each] for n, name in enumerate(names)}
        identity = {name: scorer.identity(line, name) for name, line in lines.items()}
        attributes = {name: accuracy(scorer, lines[name], name, [a for _, a in asked[name]]) for name in names}
        key = experiment.ROW_KEYS.get(label, label)
        found[key] = {
            "identity": mean(identity.values()),
            **{measure: mean(one[measure] for one in attributes.values()) for measure in ("asked", "own")},
            "identity_by_word": identity,
            "attributes_by_word": attributes,
        }
    bands = [rows_picture(made, names, each, some) for some in chunks(range(len(names)), EMBEDDINGS_A_BAND)]
    stacked(bands).save(out / "rows.png")
    return {"rows": found, "words": list(names)}


def chunks(numbers: range, size: int) -> list[range]:
    """The numbers in order, so many at a time."""
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def rows_picture(
    made: Mapping[str, Sequence[Image.Image]], names: Sequence[str], each: int, some: range
) -> Image.Image:
    """A row for each way of switching, the first pictures of these words side by side."""
    few = min(SHOWN_EACH, each)
    shown = {label: [pictures[n * each + i] for n in some for i in range(few)] for label, pictures in made.items()}
    labels = [names[n] if i == 0 else "" for n in some for i in range(few)]
    return draw_grid(shown, labels, title="16 words by defaults; parts switched on and off" if some[0] == 0 else "")


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """One picture, these below each other on white."""
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    y_px = 0
    for picture in pictures:
        sheet.paste(picture, (0, y_px))
        y_px += picture.height
    return sheet


def prompts(name: str, count: int, *, by_embedding: bool = True) -> list[tuple[str, Avatar]]:
    """Prompts with what they ask for. By word: it stands for the looks; else these are asked for in tags."""
    rng = random.Random(f"{name}/many")
    found = []
    for _ in range(count):
        avatar = random_avatar(rng) if name in STYLES else character_avatar(name, rng)
        tags = caption(avatar, rng).split(", ")
        if by_embedding:
            own = set() if name in STYLES else set(make.core_tags(avatar))
            tags = [name, *(tag for tag in tags if tag not in own)]
        found.append((", ".join(tags), avatar))
    return found


def accuracy(scorer: Scorer, pictures: Sequence[Any], name: str, wanted: Sequence[Avatar]) -> dict[str, float]:
    """Shares of attributes that are seen: `asked` for in the prompt, and the character's `own`, which no prompt names.

    A style has no looks of its own: there all attributes are asked for.
    """
    shares = scorer.attribute_accuracy(pictures, wanted)
    own = () if name in STYLES else DESCRIBABLE
    asked = [shares[attribute] for attribute in ATTRIBUTES if attribute not in own]
    return {"asked": mean(asked), "own": mean(shares[attribute] for attribute in own or ATTRIBUTES)}


def report_text(report: dict[str, Any]) -> str:
    """A few lines for the terminal."""
    lines = [f"{report['steps']} steps in {report['seconds']:.0f} s", "row    identity  own looks  asked for"]
    for label, row in report["rows"].items():
        lines.append(f"{label:6} {row['identity']:8.2f} {row['own']:10.2f} {row['asked']:10.2f}")
    shares = [share for share in report["share_of_words"].values() if share == share]  # not NaN
    if shares:
        lines.append(f"share of what was learnt that sits in the words: {mean(shares):.2f} on average")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
