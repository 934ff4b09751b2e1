"""What the embedding carries, recipe by recipe: runs on the avatars, scored with parts on and off.

`python -m examples.evidence_recipes NAME SEED OUT` trains one, makes its pictures and writes result.json into a folder
of its own; what is there is kept. `examples.evidence` runs them all and writes the page.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from examples import experiment
from examples.avatars.characters import CHARACTERS, varying_attributes
from examples.avatars.checkpoints import RETRO, checkpoint
from examples.avatars.scores import Scorer, load_scorer
from examples.avatars.world import Avatar, caption, random_base, tag_of
from examples.evidence_sheets import load_sheet, save_sheet
from lib_pivotal.bundle.edits import rename_embeddings
from lib_pivotal.bundle.reader import Bundle, read_bundle, require
from lib_pivotal.commands.runs import train
from lib_pivotal.evaluation.in_run import RunEvaluation
from lib_pivotal.evaluation.loading import load_on_host
from lib_pivotal.evaluation.parts_grid import Row
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.training.events import Event, FileSaved

NAMES = tuple(CHARACTERS)[:4]
NETWORK_STEPS = 550
PICTURES = 8
"""A character and row."""
FULL, UNET, HALF, EMBEDDINGS = (
    Row("full", 1.0, 1.0),
    Row("unet", 1.0, 0.0),
    Row("half", 0.5, 0.5),
    Row("words", 0.0, 0.0),
)
OWN: Mapping[float, tuple[Row, ...]] = {
    2.0: (FULL, UNET, HALF, EMBEDDINGS),
    4.0: (FULL, EMBEDDINGS),
    7.0: (FULL, EMBEDDINGS),
}
"""Guidance -> rows, on the checkpoint that was trained on; on the second one `SECOND`."""
SECOND: Mapping[float, tuple[Row, ...]] = {2.0: (FULL, HALF, EMBEDDINGS), 4.0: (FULL,)}
ON_THE_WAY: Mapping[float, tuple[Row, ...]] = {2.0: (FULL, EMBEDDINGS)}
SAVE_EVERY = 200


@dataclass(frozen=True)
class Recipe:
    """One way to train, as changes to `base_setup`; `more` are settings of the run by dotted path."""

    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    over_steps: bool = False
    """Also looked at on the way: how soon is it good?"""


def base_setup(seed: int, **changes: Any) -> experiment.Setup:
    """Four characters; room in the embeddings, free norms, and nothing else of the recipes."""
    setup = experiment.Setup(NAMES, steps=NETWORK_STEPS, seed=seed, embeddings_only_share=0.0, te_rank=0)
    return replace(setup, **changes)


def _shared(
    label: str, share: float = 0.5, more: Mapping[str, Any] | None = None, over_steps: bool = False, **changes: Any
) -> Recipe:
    """With an embeddings-only share; the network sees `NETWORK_STEPS` steps of pictures in any case."""
    return Recipe(label, {"embeddings_only_share": share, **changes}, more or {}, over_steps)


EDITABLE = {"embeddings_common.editability_weight": 0.1, "regularisation.class_text": "1girl"}
RECIPES: dict[str, Recipe] = {
    "joint4": Recipe(
        "joint, 4 vectors, LR 5e-3, norms pulled to the vocabulary's (the old default)",
        {"vectors": 4, "embeddings_lr": 5e-3, "control": "clip_ti_decay"},
        {"embeddings_common.norm_target": "median"},
    ),
    "joint16": Recipe("joint, 16 vectors, norms free"),
    "joint16_long": Recipe("the same for as many steps as a share of 0.5 takes", {"steps": 2 * NETWORK_STEPS}),
    "two_phase": Recipe(
        "two phases: embeddings alone for as many steps at 1e-2, then the network with them frozen",
        {"steps": 2 * NETWORK_STEPS, "embeddings_first": 0.5, "embeddings_lr": 1e-2},
    ),
    "share25": _shared("embeddings-only share 0.25", 0.25),
    "share50": _shared("embeddings-only share 0.5", over_steps=True),
    "share67": _shared("embeddings-only share 0.67", 0.67),
    "share50_damped": _shared(
        "share 0.5, gradient of the embeddings x 0.2 in the other steps",
        more={"schedule.embedding_gradient_factor": 0.2},
    ),
    "share50_v8": _shared("share 0.5, 8 vectors", vectors=8),
    "share50_v24": _shared("share 0.5, 24 vectors", vectors=24),
    "share50_lr1e2": _shared("share 0.5, LR 1e-2", embeddings_lr=1e-2),
    "share50_captions_norm": _shared(
        "share 0.5, norms pulled to those of the captions' tokens", control="clip_ti_decay"
    ),
    "share50_own_norm": _shared(
        "share 0.5, each vector kept at its own first norm (DCO)",
        more={"embeddings_common.norm_target": "initial"},
        control="preserve_norm",
    ),
    "share50_direction": _shared(
        "share 0.5, directions only (DTI), steps of 0.02", control="direction", embeddings_lr=2e-2
    ),
    "share50_bare": _shared("share 0.5, the bare name as caption at 0.1", more={"data.bare_caption": 0.1}),
    "share50_starved": _shared(
        "share 0.5, network r4 with module dropout 0.2 and t < 800",
        more={"network.module_dropout": 0.2, "network.timestep_max": 800},
        unet_rank=4,
    ),
    "share50_ramp": _shared(
        "share 0.5, the network's LR ramped up, L1 0.03", more={"network.lr_ramp": "exponential", "network.l1": 0.03}
    ),
    "share50_class_diffusion": _shared(
        "share 0.5, ClassDiffusion's loss at 0.1",
        more={**EDITABLE, "embeddings_common.editability": "class_diffusion"},
    ),
    "share50_core": _shared(
        "share 0.5, CoRe's loss on the text encoder's outputs at 0.1",
        more={**EDITABLE, "embeddings_common.editability": "core"},
    ),
    "joint16_dco": Recipe("joint, 16 vectors, DCO's loss (beta 1000)", {"control": "none"}, {"loss.dco_beta": 1000.0}),
    "first_then_share": _shared(
        "40 % of the steps the embeddings alone, then share 0.3 with their LR x 0.2",
        0.3,
        more={"schedule.continued_embedding_lr_factor": 0.2},
        embeddings_first=0.4,
        embeddings_lr=5e-3,
        steps=920,
    ),
    "share50_random": _shared("share 0.5, random start", init="random", over_steps=True),
    "lora": Recipe(
        "LoRA alone, as kohya's users run it: trigger word, U-Net and text encoder",
        {"pivotal": False, "te_rank": 4, "te_lr": 2e-3, "steps": 2 * NETWORK_STEPS},
        over_steps=True,
    ),
    "lora_unet": Recipe(
        "LoRA alone on the U-Net: trigger word, text encoder as it is",
        {"pivotal": False, "steps": 2 * NETWORK_STEPS},
        over_steps=True,
    ),
    "lora_short": Recipe(
        "LoRA alone, U-Net and text encoder, for as many steps as the network gets by default",
        {"pivotal": False, "te_rank": 4, "te_lr": 2e-3},
    ),
    "ti": Recipe("textual inversion alone", {"unet_targets": "none", "steps": 2 * NETWORK_STEPS}),
    "cloneofsimo": Recipe(
        "cloneofsimo's two phases: 1 vector, 5 : 1, norm pulled, then both at 1 : 1",
        {
            "vectors": 1,
            "embeddings_lr": 1e-2,
            "steps": 2 * NETWORK_STEPS,
            "embeddings_first": 0.5,
            "control": "clip_ti_decay",
        },
        {"schedule.continued_embedding_lr_factor": 0.2},
        over_steps=True,
    ),
    "diffusers": Recipe(
        "diffusers' advanced script: 2 vectors from chance at 3 : 1, the first half of the run only",
        {"vectors": 2, "embeddings_lr": 6e-3, "steps": 2 * NETWORK_STEPS, "init": "random"},
        over_steps=True,
    ),
    "onetrainer": Recipe(
        "OneTrainer's defaults: 1 vector at 1 : 1",
        {"vectors": 1, "embeddings_lr": 2e-3, "steps": 2 * NETWORK_STEPS},
        over_steps=True,
    ),
    "kgrid": Recipe(
        "kgrid's: 8 vectors at 50 : 1, r16 with alpha 8",
        {"vectors": 8, "embeddings_lr": 1e-1, "steps": 2 * NETWORK_STEPS},
        {"network.unet_alpha": 8.0, "embeddings_common.weight_decay": 5e-4},
        over_steps=True,
    ),
}
"""Rates of other trainers are kept as their ratio to the U-Net's, which is 2e-3 for every recipe here."""

DEFAULT = "share50"
"""The recipe of the presets' balance."""
EACH_STEPS = 140
"""Of the network, for each embedding of `SIXTEEN` and of the runs of one embedding."""
SIXTEEN = "sixteen"
ONE = {f"one_{number}": name for number, name in enumerate(NAMES)}
RECIPES[SIXTEEN] = _shared(
    "sixteen embeddings, the default", characters=tuple(CHARACTERS), steps=EACH_STEPS * len(CHARACTERS)
)
RECIPES |= {
    key: _shared(f"{name} alone, the default", characters=(name,), steps=EACH_STEPS) for key, name in ONE.items()
}
MATRIX = tuple(name for name in RECIPES if name not in (SIXTEEN, *ONE))


def folder_of(name: str, seed: int, out: Path) -> Path:
    """Where a recipe's run of one seed keeps its files."""
    return out / f"{name}-{seed}"


def run_recipe(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train once, make the pictures, score them; writes result.json."""
    recipe = RECIPES[name]
    setup = base_setup(seed, **recipe.changes)
    host = StandaloneHost.load(experiment.CHECKPOINT)
    timing = folder / "timing.json"
    if not timing.exists():
        timing.write_text(json.dumps(_train(recipe, setup, host, folder)), encoding="utf-8")
    bundle = require(read_bundle(folder / "bundle.safetensors"))
    look(host, bundle, setup, OWN, folder / "own")
    look(StandaloneHost.load(checkpoint(RETRO)), bundle, setup, SECOND, folder / "second")
    timed = json.loads(timing.read_text(encoding="utf-8"))
    for step in timed["saved"]:
        on_the_way = require(read_bundle(folder / f"bundle-{int(step):06}.safetensors"))
        look(host, on_the_way, setup, ON_THE_WAY, folder / "steps", prefix=f"{int(step):06}-")
    scorer = load_scorer()
    rows = {
        f"{place.name}/{sheet.stem}": scores(scorer, sheet, setup)
        for place in (folder / "own", folder / "second", folder / "steps")
        for sheet in sorted(place.glob("*.png"))
    }
    found: dict[str, Any] = timed | {"recipe": name, "seed": seed, "rows": rows}
    if setup.te_rank:
        found["drift"] = drift(host, bundle)
    if name == DEFAULT:
        found["renaming_is_exact"] = renaming_is_exact(host, folder / "bundle.safetensors", setup)
    (folder / "result.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def _train(recipe: Recipe, setup: experiment.Setup, host: StandaloneHost, folder: Path) -> dict[str, Any]:
    """The run: steps, seconds of one core, and the seconds at which each bundle on the way was saved."""
    dataset = experiment.write_dataset(setup, folder / "pictures")
    every = {"saving.every_steps": SAVE_EVERY} if recipe.over_steps else {}
    run = experiment.make_run(setup, dataset, "bundle", more={**recipe.more, **every})
    saved: dict[int, float] = {}
    started = time.process_time()

    def note(event: Event) -> None:
        if isinstance(event, FileSaved) and event.path.stem.startswith("bundle-"):
            saved[int(event.path.stem.rsplit("-", 1)[1])] = time.process_time() - started

    ended = train(run, host, output_folder=folder, listener=note, evaluation=RunEvaluation(), overwrite=True)
    if ended.reason != "finished":
        raise RuntimeError(f"{folder.name}: the run ended: {ended.message}")
    return {"steps": ended.step, "seconds": time.process_time() - started, "saved": saved}


def look(
    host: StandaloneHost,
    bundle: Bundle,
    setup: experiment.Setup,
    rows: Mapping[float, Sequence[Row]],
    folder: Path,
    *,
    prefix: str = "",
) -> None:
    """A sheet for each guidance and row; those that are there stay."""
    embeddings, network = load_on_host(host, bundle)
    prompts = [p for n in setup.names for p in experiment.identity_prompts(n, PICTURES, seed=setup.seed, by="word")]
    for guidance, wanted in rows.items():
        asked = experiment.requests(prompts, cfg_scale=guidance)
        for row in wanted:
            path = folder / f"{prefix}{row.label}-{guidance:g}.png"
            if path.exists() or (network is None and row != EMBEDDINGS) or (row == EMBEDDINGS and not embeddings):
                continue
            if network is None:
                made = host.sample(asked, embeddings)
            else:
                with network.attach(), network.with_multipliers(unet=row.unet, te=row.te):
                    made = host.sample(asked, embeddings)
            save_sheet(made, path, per_line=PICTURES)


def scores(scorer: Scorer, sheet: Path, setup: experiment.Setup) -> dict[str, Any]:
    """Strict identity and graded score, mean and by character, and `obeys`: how often the other tags are seen."""
    lines = load_sheet(sheet)
    identity = {name: scorer.identity(line, name) for name, line in zip(setup.names, lines, strict=True)}
    graded = {name: scorer.graded(line, name) for name, line in zip(setup.names, lines, strict=True)}
    obeyed = [
        obedience(scorer.attributes(line), experiment.wanted_avatars(name, PICTURES, seed=setup.seed))
        for name, line in zip(setup.names, lines, strict=True)
    ]
    return {
        "identity": mean(identity.values()),
        "graded": mean(graded.values()),
        "obeys": mean(obeyed),
        "by_embedding": {name: [identity[name], graded[name]] for name in setup.names},
    }


def obedience(seen: Sequence[Mapping[str, str]], wanted: Sequence[Avatar]) -> float:
    """Of everything that varies and was asked for by a tag (expression, shirt, background, ...): the share seen."""
    right = [
        found[name] == getattr(avatar, name)
        for found, avatar in zip(seen, wanted, strict=True)
        for name in varying_attributes()
        if tag_of(name, getattr(avatar, name)) is not None
    ]
    return sum(right) / len(right)


@torch.no_grad()
def drift(host: StandaloneHost, bundle: Bundle) -> float:
    """1 - mean cosine between the text encoder's outputs for 1,000 common captions with and without the network."""
    rng = random.Random(0)
    captions = [caption(random_base(rng), rng) for _ in range(1000)]
    _, network = load_on_host(host, bundle)
    assert network is not None

    def encoded() -> torch.Tensor:
        return torch.cat([host.text.encode(captions[i : i + 50], {}).context for i in range(0, len(captions), 50)])

    before = encoded()
    with network.attach():
        after = encoded()
    return float(1 - torch.nn.functional.cosine_similarity(before, after, dim=-1).mean())


def renaming_is_exact(host: StandaloneHost, path: Path, setup: experiment.Setup) -> bool:
    """Are the pictures the same, bit for bit, under another name?"""
    old, new = setup.names[0], "qwertz-name"
    renamed = path.with_name("renamed.safetensors")
    rename_embeddings(path, {old: new}, out=renamed, overwrite=True)
    prompts = experiment.identity_prompts(old, 4, seed=0, by="word")
    made = []
    for file, texts in ((path, prompts), (renamed, [prompt.replace(old, new) for prompt in prompts])):
        embeddings, network = load_on_host(host, require(read_bundle(file)))
        assert network is not None
        with network.attach():
            made.append([picture.tobytes() for picture in host.sample(experiment.requests(texts), embeddings)])
    return made[0] == made[1]


def run_apart(names: Sequence[str], seeds: Sequence[int], out: Path, *, jobs: int) -> list[str]:
    """Every recipe with every seed, each in a process of its own with one thread; what went wrong."""
    todo = [(name, seed) for seed in seeds for name in names]
    with ThreadPoolExecutor(jobs) as pool:
        return [said for said in pool.map(lambda pair: _apart(*pair, out), todo) if said]


def _apart(name: str, seed: int, out: Path) -> str:
    """One run in a process of its own; what went wrong."""
    folder = folder_of(name, seed, out)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "result.json").exists():
        return ""
    command = [sys.executable, "-m", "examples.evidence_recipes", name, str(seed), str(out)]
    with (folder / "log.txt").open("w") as log:
        status = subprocess.call(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    print(f"{name}-{seed}: {'done' if status == 0 else 'FAILED'}", flush=True)
    return "" if status == 0 else f"{name}-{seed} failed; see {folder / 'log.txt'}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("seed", type=int)
    parser.add_argument("out", type=Path)
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(1)
    folder = folder_of(parsed.name, parsed.seed, parsed.out)
    folder.mkdir(parents=True, exist_ok=True)
    run_recipe(parsed.name, parsed.seed, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
