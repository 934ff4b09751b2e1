"""The single measurements behind docs/evidence.md: each is a job with a folder of its own and can be repeated alone.

`python -m examples.evidence_jobs NAME SEED OUT` trains, makes the pictures and writes made.json; what is there already
is used again. `examples.evidence` runs them all and scores the pictures.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from examples import experiment
from examples.avatars.characters import CHARACTERS
from examples.avatars.checkpoints import RETRO, checkpoint
from examples.avatars.world import caption, random_avatar
from examples.evidence_losses import held_out_losses
from examples.evidence_sheets import save_sheet
from lib_pivotal.bundle.edits import rename_embeddings
from lib_pivotal.bundle.reader import Bundle, read_bundle, require
from lib_pivotal.commands.runs import train
from lib_pivotal.evaluation.in_run import RunEvaluation
from lib_pivotal.evaluation.loading import load_on_host
from lib_pivotal.evaluation.parts_grid import Row
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.training.events import Event, FileSaved, RunEnded

CHARACTERS_OF_FIGURE = 4
MAIN_STEPS = 640
STEPS_A_EMBEDDING = 120
SINGLE_EMBEDDINGS = 4
SAVE_EVERY = 40
LOOK_AT = (40, 120, 200, 320, 400, 480)
"""Steps whose bundles are looked at on the way."""
PICTURES_PER_EMBEDDING = 12
PICTURES_ON_THE_WAY = 8
"""A word, also at the strong guidance."""
GUIDANCE = 2.0
STRONG_GUIDANCE = 4.0
"""The demo's. It helps the LoRA alone, but drives words that ask for what the checkpoint lacks into blotches."""
DRIFT_CAPTIONS = 1000
SHEETS = "sheets"
WHOLE, UNET, TE = Row("whole", 1.0, 1.0), Row("unet", 1.0, 0.0), Row("te", 0.0, 1.0)
HALF, EMBEDDINGS = Row("half", 0.5, 0.0), Row("words", 0.0, 0.0)


def main_setup(seed: int, **changes: Any) -> experiment.Setup:
    """Four characters in one run: the figure's set-up. Words first, free in norm, then the network on top of them."""
    setup = experiment.Setup(
        tuple(CHARACTERS)[:CHARACTERS_OF_FIGURE],
        steps=MAIN_STEPS,
        seed=seed,
        vectors=16,
        embeddings_lr=1e-2,
        control="none",
        embeddings_first=0.625,
    )
    return replace(setup, **changes)


@dataclass(frozen=True)
class Job:
    """One run: its set-up, and what is looked at afterwards."""

    setup: Callable[[int], experiment.Setup]
    rows: tuple[Row, ...]
    retro_rows: tuple[Row, ...] = ()
    """On the second checkpoint."""
    strong_rows: tuple[Row, ...] = ()
    strong_retro_rows: tuple[Row, ...] = ()
    """Again, at `STRONG_GUIDANCE`."""
    with_base: bool = False
    """Also what the checkpoints give without word and network, for describable traits and for nothing."""
    over_steps: bool = False
    with_losses: bool = False
    with_drift: bool = False
    with_renaming: bool = False


def _one_embedding(index: int) -> Job:
    name = list(CHARACTERS)[index]
    return Job(lambda seed: main_setup(seed, characters=(name,), steps=STEPS_A_EMBEDDING), (WHOLE,))


_SIXTEEN = tuple(CHARACTERS)
CLAIMS: dict[str, Job] = {
    "pivotal": Job(
        main_setup,
        (WHOLE, UNET, TE, EMBEDDINGS, HALF),
        (WHOLE, HALF, EMBEDDINGS),
        strong_rows=(WHOLE, UNET, EMBEDDINGS),
        strong_retro_rows=(WHOLE, HALF, EMBEDDINGS),
        with_base=True,
        over_steps=True,
        with_losses=True,
        with_drift=True,
        with_renaming=True,
    ),
    "lora_only": Job(
        lambda seed: experiment.without_embeddings(main_setup(seed)),
        (WHOLE, UNET, TE, HALF),
        (WHOLE, HALF),
        strong_rows=(WHOLE, UNET),
        strong_retro_rows=(WHOLE,),
        with_drift=True,
    ),
    "random_init": Job(lambda seed: main_setup(seed, init="random"), (WHOLE, EMBEDDINGS), over_steps=True),
    "sixteen_words": Job(
        lambda seed: main_setup(seed, characters=_SIXTEEN, steps=STEPS_A_EMBEDDING * len(_SIXTEEN)), (WHOLE,)
    ),
    **{f"one_word_{index}": _one_embedding(index) for index in range(SINGLE_EMBEDDINGS)},
}
"""Claims 1 to 6: words and network; the same without words; words from a random start. Claim 7: many words, or one."""


def _trial(**changes: Any) -> Job:
    return Job(
        lambda seed: main_setup(seed, **changes), (WHOLE, UNET, EMBEDDINGS), (WHOLE, HALF, EMBEDDINGS), with_losses=True
    )


_JOINT: dict[str, Any] = {"embeddings_first": 0.0, "embeddings_lr": 5e-3}
_ALONE: dict[str, Any] = {"embeddings_first": 0.0, "unet_targets": "none", "te_rank": 0}
TRIALS: dict[str, Job] = {
    "joint, 4 vectors, rate 5e-3, norms pulled, 800 steps": _trial(
        **_JOINT, vectors=4, control="clip_ti_decay", steps=800
    ),
    "joint, 8 vectors, rate 1e-3": _trial(embeddings_first=0.0, vectors=8, embeddings_lr=1e-3),
    "joint, 8 vectors, rate 5e-3": _trial(**_JOINT, vectors=8),
    "words alone, 16 vectors, rate 5e-3": _trial(**_ALONE, embeddings_lr=5e-3),
    "words alone, 16 vectors, rate 2e-2": _trial(**_ALONE, embeddings_lr=2e-2),
    "two phases, half the steps each, 16 vectors, rate 1e-2": _trial(embeddings_first=0.5),
}
"""What was tried for claims 3, 4 and 6, one seed each; norms are free unless it says that they are pulled."""


def folder_of(name: str, seed: int, out: Path) -> Path:
    """Where a job keeps its files."""
    return out / f"{''.join(c if c.isalnum() else '_' for c in name)}-{seed}"


# ---- one job ----


class Work:
    """A job at work on one seed, in its folder."""

    def __init__(self, job: Job, seed: int, folder: Path) -> None:
        self.job = job
        self.setup = job.setup(seed)
        self.folder = folder
        self.path = folder / "bundle.safetensors"

    @cached_property
    def host(self) -> StandaloneHost:
        """The checkpoint that is trained on."""
        return StandaloneHost.load(experiment.CHECKPOINT)

    def train(self) -> float:
        """Train once; the seconds it took (0 where a bundle is there)."""
        started = time.monotonic()
        if self.path.exists():
            return 0.0
        dataset = experiment.write_dataset(self.setup, self.folder / "pictures")
        run = experiment.make_run(self.setup, dataset, "bundle")
        saving = replace(run.saving, every_steps=SAVE_EVERY if self.job.over_steps else 0)
        ended: RunEnded = train(
            replace(run, saving=saving), self.host, output_folder=self.folder, listener=log, evaluation=RunEvaluation()
        )
        if ended.reason != "finished":
            raise RuntimeError(f"the run ended: {ended.message}")
        return round(time.monotonic() - started, 1)

    def look(self) -> None:
        """All pictures, a sheet for each row; sheets that are there stay."""
        bundle = require(read_bundle(self.path))
        self._rows(self.host, bundle, self.job.rows, "")
        self._rows(self.host, bundle, self.job.strong_rows, "strong-", few=True, guidance=STRONG_GUIDANCE)
        if self.job.with_base:
            self._bare(self.host, "")
        if self.job.over_steps:
            for step in LOOK_AT:
                saved = self.path.with_name(f"bundle-{step:06}.safetensors")
                self._rows(self.host, require(read_bundle(saved)), (WHOLE,), f"step-{step:06}-", few=True)
        if self.job.retro_rows:
            retro = StandaloneHost.load(checkpoint(RETRO))
            self._rows(retro, bundle, self.job.retro_rows, "retro-")
            rows = self.job.strong_retro_rows
            self._rows(retro, bundle, rows, "retro-strong-", few=True, guidance=STRONG_GUIDANCE)
            if self.job.with_base:
                self._bare(retro, "retro-")

    def _rows(
        self,
        host: StandaloneHost,
        bundle: Bundle,
        rows: Sequence[Row],
        prefix: str,
        *,
        few: bool = False,
        guidance: float = GUIDANCE,
    ) -> None:
        embeddings, network = load_on_host(host, bundle)
        count = PICTURES_ON_THE_WAY if few else PICTURES_PER_EMBEDDING
        asked = experiment.requests(self._prompts("word", count), cfg_scale=guidance)
        for row in rows:
            path = self.folder / SHEETS / f"{prefix}{row.label}.png"
            if path.exists() or (network is None and row != EMBEDDINGS):
                continue
            if network is None:
                made = host.sample(asked, embeddings)
            else:
                with network.attach(), network.with_multipliers(unet=row.unet, te=row.te):
                    made = host.sample(asked, embeddings)
            save_sheet(made, path, per_line=count)

    def _bare(self, host: StandaloneHost, prefix: str) -> None:
        for by, row in (("traits", "base"), ("nothing", "nothing")):
            path = self.folder / SHEETS / f"{prefix}{row}.png"
            if not path.exists():
                asked = experiment.requests(self._prompts(by, PICTURES_PER_EMBEDDING), cfg_scale=GUIDANCE)
                save_sheet(host.sample(asked, {}), path, per_line=PICTURES_PER_EMBEDDING)

    def _prompts(self, by: experiment.Asking, count: int) -> list[str]:
        return [
            prompt
            for name in self.setup.names
            for prompt in experiment.identity_prompts(name, count, seed=self.setup.seed, by=by)
        ]

    def facts(self) -> dict[str, Any]:
        """What is measured without a score."""
        bundle = require(read_bundle(self.path))
        found: dict[str, Any] = {}
        if self.job.with_losses:
            embeddings, network = load_on_host(self.host, bundle)
            rows = [row for row in self.job.rows if network or row == EMBEDDINGS]
            found["losses"] = held_out_losses(self.host, self.setup.names, embeddings, network, rows)
        if self.job.with_drift:
            found["drift"] = drift(self.host, bundle)
        if self.job.with_renaming:
            found["renaming_is_exact"] = renaming_is_exact(self.host, bundle, self.path, self.setup)
        return found


def log(event: Event) -> None:
    """Say what was saved."""
    if isinstance(event, FileSaved):
        print(event.path, flush=True)


@torch.no_grad()
def drift(host: StandaloneHost, bundle: Bundle) -> float:
    """1 - mean cosine between the text encoder's outputs for 1,000 common captions with and without the network."""
    rng = random.Random(0)
    captions = [caption(random_avatar(rng), rng) for _ in range(DRIFT_CAPTIONS)]
    _, network = load_on_host(host, bundle)
    assert network is not None

    def encoded() -> torch.Tensor:
        return torch.cat([host.text.encode(captions[i : i + 50], {}).context for i in range(0, len(captions), 50)])

    before = encoded()
    with network.attach():
        after = encoded()
    return float(1 - torch.nn.functional.cosine_similarity(before, after, dim=-1).mean())


def renaming_is_exact(host: StandaloneHost, bundle: Bundle, path: Path, setup: experiment.Setup) -> bool:
    """Claim 5: the same pictures, bit for bit, under another name."""
    old = setup.names[0]
    renamed_path = path.with_name("renamed.safetensors")
    rename_embeddings(path, {old: "qwertz-name"}, out=renamed_path, overwrite=True)
    renamed = require(read_bundle(renamed_path))
    prompts = experiment.identity_prompts(old, 4, seed=0, by="word")
    embeddings, network = load_on_host(host, bundle)
    assert network is not None
    with network.attach():
        first = host.sample(experiment.requests(prompts), embeddings)
    embeddings, network = load_on_host(host, renamed)
    assert network is not None
    with network.attach():
        second = host.sample(experiment.requests([p.replace(old, "qwertz-name") for p in prompts]), embeddings)
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=[*CLAIMS, *TRIALS])
    parser.add_argument("seed", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train-only", action="store_true", help="leave the pictures for another time")
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(1)
    folder = folder_of(parsed.job, parsed.seed, parsed.out)
    folder.mkdir(parents=True, exist_ok=True)
    work = Work((CLAIMS | TRIALS)[parsed.job], parsed.seed, folder)
    seconds = work.train()
    if seconds:
        (folder / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")
    if parsed.train_only:
        return 0
    work.look()
    if (folder / "made.json").exists():
        return 0
    facts = {"seconds": json.loads((folder / "seconds.json").read_text(encoding="utf-8")), **work.facts()}
    (folder / "made.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
