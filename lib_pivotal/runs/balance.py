"""The balance of a run: how much of a subject its embedding carries, and how much the network; in named stops.

The article leaves open what the right balance between training embeddings and training a LoRA is. Each stop sets phases,
rates, vectors and the network's strength together; docs/evidence.md has what each gave on the avatars, and why the
default is where it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lib_pivotal.config import Run, check_run, run_to_dict
from lib_pivotal.errors import ConfigError, Fault

SHARED = MappingProxyType(
    {
        "schedule.phases": "joint",
        "schedule.embeddings_only_share": 0.0,
        "schedule.embedding_gradient_factor": 1.0,
        "schedule.network_start": 0.0,
        "embeddings_common.control": "none",
    }
)
"""What every stop sets; a stop's own settings go over it."""


@dataclass(frozen=True)
class Stop:
    """One stop of the dial: `settings` by dotted path; an embedding that tags describe gets at least `vectors`."""

    key: str
    label: str
    help: str
    settings: Mapping[str, Any]
    vectors: int


def _stop(key: str, label: str, text: str, *, vectors: int, **settings: Any) -> Stop:
    own = {path.replace("__", "."): value for path, value in settings.items()}
    return Stop(key, label, text, MappingProxyType({**SHARED, **own}), vectors)


STOPS: tuple[Stop, ...] = (
    _stop(
        "network",
        "Network",
        "Nearly everything is learnt by the network, soonest; without it the embedding shows little.",
        vectors=4,
        embeddings_common__control="clip_ti_decay",
    ),
    _stop(
        "shared",
        "Shared",
        "Embedding and network learn together; the embedding has room, and shows what tags can describe.",
        vectors=16,
    ),
    _stop(
        "embedding",
        "Embedding",
        "Half of the steps train the embedding without the network: it shows the subject alone, the network the rest.",
        vectors=16,
        schedule__embeddings_only_share=0.5,
    ),
    _stop(
        "most",
        "Embedding, most",
        "Two thirds of the steps train the embedding without the network: for other checkpoints. Takes longest.",
        vectors=24,
        schedule__embeddings_only_share=0.67,
    ),
)
DEFAULT_STOP = "embedding"


def stop(key: str) -> Stop:
    """By key.

    Raises:
        ConfigError: there is none.
    """
    for one in STOPS:
        if one.key == key:
            return one
    raise ConfigError([Fault("balance", key, "is not a stop", f"Use one of: {', '.join(s.key for s in STOPS)}.")])


def with_balance(run: Run, key: str, *, styles: Sequence[str] = ()) -> Run:
    """The run at a stop; `styles` are the embeddings whose vectors stay, as no tags describe them.

    Raises:
        ConfigError: there is no such stop.
    """
    chosen = stop(key)
    plain = run_to_dict(run)
    for path, value in chosen.settings.items():
        section, name = path.split(".")
        plain[section][name] = value
    for embedding in plain["embeddings"]:
        if embedding["name"] not in styles:
            embedding["vectors"] = chosen.vectors
    return check_run(plain)[0]


def balance_of(run: Run) -> str:
    """The stop whose settings a run has; "" where it has been set otherwise. Vectors may differ."""
    plain = run_to_dict(run)
    for one in STOPS:
        if all(plain[path.split(".")[0]][path.split(".")[1]] == value for path, value in one.settings.items()):
            return one.key
    return ""


def described(key: str) -> str:
    """What a stop sets, in one line."""
    chosen = stop(key)
    share, control = (chosen.settings[path] for path in ("schedule.embeddings_only_share", "embeddings_common.control"))
    parts = [f"{chosen.vectors} vectors", f"embeddings-only share {share:g}"]
    parts.append("norms free" if control == "none" else f"norms: {control}")
    if share:
        parts.append(f"{1 / (1 - share):.1f} x the steps")
    return ", ".join(parts)
