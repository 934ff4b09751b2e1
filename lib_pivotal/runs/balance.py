"""The balance of a run: how much of a subject its embedding carries, and how much the network; in named stops.

The article leaves open what the right balance between training embeddings and training a LoRA is. Each stop sets
phases, norms, vectors and the embeddings-only share together; docs/evidence.md has what each gave on the avatars, and
why the default is where it is.
"""

from __future__ import annotations

import math
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
        "embeddings_common.whole_tags": True,
    }
)
"""What every stop sets; a stop's own settings go over it."""
LITTLE, NEARLY_ALL = 0.4, 0.95
"""Shares of an embedding below and above which there is something to say."""
SMALLEST_GAIN = 1e-6
"""Of the held-out loss of an embedding: with less, nothing was learnt (as in `evaluation.separation`)."""
NAMED = 3
"""So many embeddings are named in a sentence."""


@dataclass(frozen=True)
class Stop:
    """One stop: `settings` by dotted path; `vectors` of an embedding that tags describe, 0 = as they are."""

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
        vectors=0,
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


def with_balance(run: Run, key: str, *, styles: Sequence[str] = (), vectors: bool = True) -> Run:
    """The run at a stop; `styles` are the embeddings whose vectors stay, as no tags describe them.

    Without `vectors` those of all embeddings stay: a scan proposes as many as the core tags take and some more, and
    what presets changed it would take for changed by hand.

    Raises:
        ConfigError: there is no such stop.
    """
    chosen = stop(key)
    plain = run_to_dict(run)
    for path, value in chosen.settings.items():
        section, name = path.split(".")
        plain[section][name] = value
    for embedding in plain["embeddings"] if chosen.vectors and vectors else []:
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
    parts = [f"{chosen.vectors} vectors"] if chosen.vectors else []
    parts += [f"embeddings-only share {share:g}", "norms free" if control == "none" else "norms kept"]
    if share:
        parts.append(f"{1 / (1 - share):.1f}x the steps")
    return ", ".join(parts)


def explained(losses: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How much of what was learnt is there with parts off, over all embeddings; nothing while nothing was learnt.

    `losses` are those of `events.SeparationMeasured`. Keys as there: "unet" (embeddings and U-Net), "te" (embeddings
    and text encoder), "words" (embeddings alone): sum(base - part) / sum(base - whole).
    """
    base, whole = (sum(of[part] for of in losses.values()) for part in ("base", "whole"))
    if not base - whole > SMALLEST_GAIN * len(losses):
        return {}
    return {part: (base - sum(of[part] for of in losses.values())) / (base - whole) for part in ("unet", "te", "words")}


def said_of_parts(shares: Mapping[str, float]) -> list[str]:
    """How much of what was learnt is in each embedding, a sentence each; by embedding, NaN = unknown."""
    known = {name: min(max(share, 0.0), 1.0) for name, share in shares.items() if not math.isnan(share)}
    return [f"{name}: {share:.0%} of what was learnt is in the embedding." for name, share in known.items()]


def said_of_shares(shares: Mapping[str, float]) -> list[str]:
    """What the separation shares of a run mean and what to do, a sentence each; by embedding, NaN = unknown."""
    little = sorted((name for name, share in shares.items() if share < LITTLE), key=lambda name: shares[name])
    found = []
    if little:
        named = ", ".join(f"{name} ({max(shares[name], 0.0):.0%})" for name in little[:NAMED])
        more = f" and {len(little) - NAMED} more" if len(little) > NAMED else ""
        found.append(
            f"{named}{more}: the network has learnt what the embedding should. "
            "Raise the balance, or give it more vectors."
        )
    if shares and all(share > NEARLY_ALL for share in shares.values()):
        found.append(
            "Nearly everything is in the embeddings: a smaller rank would do, or a lower balance and fewer steps."
        )
    return found
