"""The single measurements behind docs/evidence.md: each is a job that writes one JSON file and can be repeated alone.

`python -m examples.evidence_jobs NAME SEED OUT` runs one; `examples.evidence` runs them all, two at a time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from examples import experiment
from examples.avatars.characters import CHARACTERS
from examples.avatars.scores import load_scorer
from examples.avatars.world import caption, random_avatar
from lib_pivotal.bundle.reader import Bundle, read_bundle, require
from lib_pivotal.bundle.workshop import rename_words
from lib_pivotal.evaluation.loading import load_on_host
from lib_pivotal.evaluation.parts_grid import Row
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.training.events import Event, FileSaved, RunEnded
from lib_pivotal.training.run import train

CHARACTERS_OF_FIGURE = 4
MAIN_STEPS = 800
STEPS_A_WORD = 160
SINGLE_WORDS = 4
PICTURES_PER_WORD = 16
DRIFT_CAPTIONS = 1000
HALF = Row("half U-Net", 0.5, 0.0)


def main_setup(seed: int, **changes: Any) -> experiment.Setup:
    """Four characters in one run: the figure's set-up."""
    setup = experiment.Setup(tuple(CHARACTERS)[:CHARACTERS_OF_FIGURE], steps=MAIN_STEPS, seed=seed)
    return replace(setup, **changes)


# ---- jobs ----


def pivotal(seed: int, out: Path) -> dict[str, Any]:
    """Claims 1, 3, 4, 5, 6: words and network together."""
    setup = main_setup(seed)
    host, bundle, path, seconds = trained(setup, out)
    result = scored(host, setup, bundle, out)
    result["transfer"] = transfer(setup, bundle)
    result["drift"] = drift(host, bundle)
    result["renaming_is_exact"] = renaming_is_exact(host, bundle, path, setup)
    result["over_steps"] = over_steps(host, setup, path)
    return {**result, "seconds": seconds}


def lora_only(seed: int, out: Path) -> dict[str, Any]:
    """Claims 2, 4, 6: the same without words; the name is a plain trigger."""
    setup = experiment.without_words(main_setup(seed))
    host, bundle, _, seconds = trained(setup, out)
    result = scored(host, setup, bundle, out)
    result["transfer"] = transfer(setup, bundle)
    result["drift"] = drift(host, bundle)
    return {**result, "seconds": seconds}


def random_init(seed: int, out: Path) -> dict[str, Any]:
    """Claim 6: the same run with words that begin at random."""
    setup = main_setup(seed, init="random")
    host, bundle, path, seconds = trained(setup, out)
    return {**scored(host, setup, bundle, out), "over_steps": over_steps(host, setup, path), "seconds": seconds}


def sixteen_words(seed: int, out: Path) -> dict[str, Any]:
    """Claim 7: all characters in one run, as many steps a word as a run with one word has."""
    names = tuple(CHARACTERS)
    setup = main_setup(seed, characters=names, steps=STEPS_A_WORD * len(names))
    host, bundle, _, seconds = trained(setup, out)
    return {**scored(host, setup, bundle, out), "seconds": seconds}


def one_word(index: int) -> Callable[[int, Path], dict[str, Any]]:
    """Claim 7: a run with one word."""

    def job(seed: int, out: Path) -> dict[str, Any]:
        setup = main_setup(seed, characters=(list(CHARACTERS)[index],), steps=STEPS_A_WORD)
        host, bundle, _, seconds = trained(setup, out)
        return {**scored(host, setup, bundle, out), "seconds": seconds}

    return job


JOBS: dict[str, Callable[[int, Path], dict[str, Any]]] = {
    "pivotal": pivotal,
    "lora_only": lora_only,
    "random_init": random_init,
    "sixteen_words": sixteen_words,
    **{f"one_word_{index}": one_word(index) for index in range(SINGLE_WORDS)},
}


# ---- what they share ----


def trained(setup: experiment.Setup, out: Path) -> tuple[StandaloneHost, Bundle, Path, float]:
    """Train once; a bundle that is there already is used again."""
    host = StandaloneHost.load(experiment.CHECKPOINT)
    path = out / "bundle.safetensors"
    started = time.monotonic()
    if not path.exists():
        dataset = experiment.write_dataset(setup, out / "pictures")
        run = experiment.make_run(setup, dataset, "bundle")
        saving = replace(run.saving, every_steps=max(setup.steps // 5, 1))
        ended: RunEnded = train(replace(run, saving=saving), host, output_folder=out, listener=log)
        if ended.reason != "finished":
            raise RuntimeError(f"the run ended: {ended.message}")
    return host, require(read_bundle(path)), path, round(time.monotonic() - started, 1)


def log(event: Event) -> None:
    """Say what was saved."""
    if isinstance(event, FileSaved):
        print(event.path, flush=True)


def scored(host: StandaloneHost, setup: experiment.Setup, bundle: Bundle, out: Path) -> dict[str, Any]:
    """Identity with parts on and off, and the base; pictures are kept for the figure."""
    words, network = load_on_host(host, bundle)
    scorer = load_scorer()
    result = experiment.score(
        host, scorer, setup.names, words=words, network=network, pictures_per_word=PICTURES_PER_WORD, seed=setup.seed
    )
    base = experiment.score_base(host, scorer, setup.names, pictures_per_word=PICTURES_PER_WORD, seed=setup.seed)
    for row, made in {**result.pictures, **base.pictures}.items():
        for number, picture in enumerate(made):
            picture.save(out / f"{row}-{number:03}.png")
    identity = dict(result.identity)
    by_word = {**result.by_word, **base.by_word}
    if not setup.pivotal:
        identity.pop("words")  # there are none: this row would be the base with an unknown trigger
    return {"identity": identity, "base": base.identity["base"], "by_word": by_word}


def transfer(setup: experiment.Setup, bundle: Bundle) -> dict[str, float]:
    """Identity on the second checkpoint: whole, words only, words with half of the U-Net's weights, base."""
    host = StandaloneHost.load(experiment.RETRO_CHECKPOINT)
    scorer = load_scorer()
    words, network = load_on_host(host, bundle)
    rows = (Row("whole", 1.0, 1.0), Row("words", 0.0, 0.0), HALF)
    labels = {"whole": "whole", "words": "words", HALF.label: "words_half_unet"}
    result = experiment.score(
        host,
        scorer,
        setup.names,
        words=words,
        network=network,
        rows=rows,
        labels=labels,
        pictures_per_word=PICTURES_PER_WORD,
        seed=setup.seed,
    )
    base = experiment.score_base(host, scorer, setup.names, pictures_per_word=PICTURES_PER_WORD, seed=setup.seed)
    return {**result.identity, "base": base.identity["base"]}


@torch.no_grad()
def drift(host: StandaloneHost, bundle: Bundle) -> float:
    """1 - mean cosine between the text encoder's outputs for 1,000 common captions with and without the network."""
    import random

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
    rename_words(path, {old: "qwertz-name"}, out=renamed_path)
    renamed = require(read_bundle(renamed_path))
    prompts = experiment.identity_prompts(old, 4, seed=0, with_word=True)
    words, network = load_on_host(host, bundle)
    assert network is not None
    with network.attach():
        first = host.sample(experiment.requests(prompts), words)
    words, network = load_on_host(host, renamed)
    assert network is not None
    with network.attach():
        second = host.sample(experiment.requests([p.replace(old, "qwertz-name") for p in prompts]), words)
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def over_steps(host: StandaloneHost, setup: experiment.Setup, path: Path) -> dict[str, float]:
    """Identity of the whole at each bundle that was saved on the way."""
    scorer = load_scorer()
    found: dict[str, float] = {}
    for saved in sorted(path.parent.glob("bundle-[0-9]*.safetensors")):
        words, network = load_on_host(host, require(read_bundle(saved)))
        result = experiment.score(
            host,
            scorer,
            setup.names,
            words=words,
            network=network,
            rows=(Row("whole", 1.0, 1.0),),
            pictures_per_word=PICTURES_PER_WORD,
            seed=setup.seed,
        )
        found[saved.stem.rpartition("-")[2]] = result.identity["whole"]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("seed", type=int)
    parser.add_argument("out", type=Path)
    parsed = parser.parse_args(arguments)
    torch.set_num_threads(1)
    folder = parsed.out / f"{parsed.job}-{parsed.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    result = JOBS[parsed.job](parsed.seed, folder)
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["identity"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
