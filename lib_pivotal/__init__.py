"""Pivotal tuning: train embeddings and a LoRA together, and keep them in one file.

The public names, imported when they are asked for (the web UI's start pays for none of them):

- `Run`, `read_run`, `run_from_dict`: the settings of a run, from run.json or a dict.
- `train(run, host, output_folder=..., listener=...)`: train on a host (see `ports.Host`).
- `RunEvaluation()`, as `train(..., evaluation=...)`: the samples and the separation score that the settings ask for.
- `StandaloneHost.load(checkpoint)`: a checkpoint without the web UI (needs the extra `standalone`).
- `read_bundle`, `write_bundle`, `Bundle`: the file.
- `PivotalError`: what all of them raise where something cannot work, with the reason as its text.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Bundle": "lib_pivotal.bundle.reader",
    "PivotalError": "lib_pivotal.errors",
    "Run": "lib_pivotal.config",
    "RunEvaluation": "lib_pivotal.evaluation.in_run",
    "StandaloneHost": "lib_pivotal.standalone.model",
    "read_bundle": "lib_pivotal.bundle.reader",
    "read_run": "lib_pivotal.config",
    "run_from_dict": "lib_pivotal.config",
    "train": "lib_pivotal.commands.runs",
    "write_bundle": "lib_pivotal.bundle.writer",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """The public thing of this name, from the module that has it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
