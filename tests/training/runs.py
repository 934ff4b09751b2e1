"""What tests of whole runs share: small runs, a listener that keeps what it hears, files compared."""

import functools
import hashlib
from pathlib import Path

import torch

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.commands import runs
from lib_pivotal.config import run_from_dict
from lib_pivotal.evaluation.in_run import RunEvaluation
from lib_pivotal.networks.registry import ALGORITHMS
from lib_pivotal.training.assemble import compile_run
from lib_pivotal.training.events import Notice, StepDone
from lib_pivotal.training.prepare import prepare_pictures
from tests.networks.battery import ROWS

train = functools.partial(runs.train, evaluation=RunEvaluation())
"""As whoever starts a run calls it."""


def plain_run(folder, **schedule):
    return {
        "name": "two",
        "seed": 3,
        "words": [
            {"name": "aoi", "init_text": "red hair, *[0.1,1]", "vectors": 3},
            {"name": "hana", "init_text": "random", "vectors": 2},
        ],
        "network": {"unet_rank": 2, "te_rank": 2, "te_targets": "attention+mlp", "te_lr": 1e-3, "unet_lr": 1e-3},
        "data": {"folder": str(folder), "resolution_px": 64, "tag_dropout": 0.2},
        "schedule": {"max_steps": 8, "batch_size": 2, "rate": "cosine", **schedule},
        "saving": {"state_every_steps": 0, "dtype": "fp32"},
    }


def make_run(folder, *, saving=None, **schedule):
    plain = plain_run(folder, **schedule)
    plain["saving"].update(saving or {})
    return run_from_dict(plain)


def kind_run(folder, row, *, saving=None, dropout=0.0, **schedule):
    """A run of a row of the networks' battery on the U-Net, in the kind's own settings."""
    plain = plain_run(folder, **schedule)
    kind = ROWS[row]
    plain["network"] |= {"algorithm": kind.algorithm, "options": dict(kind.options), "unet_rank": max(kind.rank, 4)}
    plain["network"] |= {"te_targets": "none", "unet_targets": "norms" if kind.algorithm == "norm" else "all"}
    if dropout:
        common = ALGORITHMS[kind.algorithm].common
        plain["network"] |= {name: dropout for name in ("dropout", "rank_dropout") if name in common}
        plain["network"]["module_dropout"] = dropout
    plain["saving"].update(saving or {})
    return run_from_dict(plain)


def compiled(run):
    return compile_run(run, prepare_pictures(run))


class Recorder:
    """Keeps every event; `then` is called with each."""

    def __init__(self, then=None):
        self.events = []
        self._then = then

    def __call__(self, event):
        self.events.append(event)
        if self._then:
            self._then(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def losses(self):
        return [event.losses["loss"] for event in self.of(StepDone)]

    @property
    def told(self):
        return [event.message for event in self.of(Notice)]


def stopping_at(step, commands):
    """A listener that stops the run after this step."""
    return Recorder(lambda event: commands.stop() if isinstance(event, StepDone) and event.step == step else None)


def tensors_of(path):
    bundle = require(read_bundle(path))
    flat = dict(bundle.network)
    flat.update({f"word {name} {i}": t for name, towers in bundle.embeddings.items() for i, t in enumerate(towers)})
    return flat


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key


def contents(folder: Path):
    """Every file below a folder with its time and hash: to see that nothing was touched."""
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
