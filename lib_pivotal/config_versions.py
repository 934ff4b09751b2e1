"""Versions of run.json: what was called otherwise once, and how it is read today.

Version 2 names settings by the field's terms; version 3 has other defaults. Files, presets, states and API bodies of
older versions are read for good: a setting that they do not name means what it meant then. A body without a version
may use old names, and today's defaults.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

VERSION = 3

RENAMED_IN_2: Mapping[str, Mapping[str, str]] = {
    "": {"words": "embeddings", "words_common": "embeddings_common"},
    "embeddings": {
        "absorb": "prune_tags",
        "keep": "keep_tags",
        "draw_weight": "sampling_weight",
        "mirror": "flip",
    },
    "schedule": {
        "rate": "lr_scheduler",
        "clip_words": "clip_embeddings",
        "words_steps": "embeddings_steps",
        "continued_words_factor": "continued_embedding_lr_factor",
    },
    "saving": {
        "preview_every_steps": "sample_every_steps",
        "preview_every_epochs": "sample_every_epochs",
        "preview_prompts": "sample_prompts",
        "preview_words": "sample_embeddings",
        "keep_previewed": "keep_sampled",
    },
}
"""Section (of version 2; "" is the run itself) -> name in version 1 -> name in version 2."""

VALUES_IN_2: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "data": {"caption_lines": {"draw": "random"}, "balance": {"words": "embeddings"}},
}
"""Section -> setting -> value in version 1 -> value in version 2."""


ADDED_IN_2: Mapping[str, tuple[str, ...]] = {
    "data": ("bare_caption", "bare_caption_class", "most_vectors", "random_vectors"),
    "embeddings": ("continued_lr_factor", "class_text"),
    "embeddings_common": (
        *("whole_tags", "direction_kappa", "start", "start_weight", "text_steps"),
        *("editability", "editability_weight", "editability_prompts"),
    ),
    "loss": ("huber_schedule", "scale_v_like_noise", "dco_beta"),
    "network": (
        *("module_dropout", "lr_ramp", "lr_ramp_start", "l1", "timestep_min", "timestep_max", "options"),
        "up_lr_factor",
    ),
    "network.groups": ("algorithm",),
    "noise": ("adaptive_offset", "random_offset", "random_perturbation", "timestep_distribution"),
    "saving": ("card", "licence"),
    "schedule": (
        "lr_scheduler_cycles",
        "lr_scheduler_power",
        "optimizer_options",
        "embeddings_only_share",
        "embedding_gradient_factor",
        "embeddings_patience",
        "embeddings_look_steps",
        "embeddings_least_steps",
    ),
}
"""Section -> settings that version 1 did not have."""
SECTIONS_ADDED_IN_2 = ("start",)
SECTIONS_ADDED_IN_3 = ("validation",)


BEFORE_3: Mapping[str, Mapping[str, Any]] = {"embeddings_common": {"norm_target": "median"}}
"""Section -> setting -> what was done before version 3, where today's default is another."""


def upgraded(plain: Mapping[str, Any], version: int) -> dict[str, Any]:
    """A run of that version as one of `VERSION`."""
    found = dict(plain)
    for step in range(version, VERSION):
        found = _STEPS[step](found)
    return found


def with_old_defaults(plain: Mapping[str, Any], version: int) -> dict[str, Any]:
    """An upgraded run with what its version meant by settings that it does not name."""
    found = dict(plain)
    if version < 3:
        for section, settings in BEFORE_3.items():
            value = found.get(section, {})
            found[section] = {**settings, **value} if isinstance(value, dict) else value
    return found


def as_version_1(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A run of today as it was written in version 1, without what was added since: for hashes made then."""
    added_sections = ("version", *SECTIONS_ADDED_IN_2, *SECTIONS_ADDED_IN_3)
    found = {key: value for key, value in plain.items() if key not in added_sections}
    for section, settings in BEFORE_3.items():
        found = _changed(found, section, functools.partial(_without_values, values=settings))
    for section, settings in VALUES_IN_2.items():
        for name, values in settings.items():
            back = {new: old for old, new in values.items()}
            found = _changed(found, section, functools.partial(_with_value, name=name, values=back))
    for section, added in ADDED_IN_2.items():
        found = _changed(found, section, functools.partial(_without, names=added))
    for section, names in RENAMED_IN_2.items():
        back = {new: old for old, new in names.items()}
        found = _changed(found, section, functools.partial(_renamed, names=back)) if section else found
    return {"version": 1, **_renamed(found, {new: old for old, new in RENAMED_IN_2[""].items()})}


def path_in_1(path: str) -> str:
    """What a setting's path was in version 1, such as `words_common.lr`: element ids of the page keep it."""
    section, dot, rest = path.partition(".")
    head = next((old for old, new in RENAMED_IN_2[""].items() if new == section), section)
    tail = next((old for old, new in RENAMED_IN_2.get(section, {}).items() if new == rest), rest)
    return f"{head}{dot}{tail}"


def _to_2(plain: dict[str, Any]) -> dict[str, Any]:
    found = _renamed(plain, RENAMED_IN_2[""])
    for section, names in RENAMED_IN_2.items():
        if section:
            found = _changed(found, section, functools.partial(_renamed, names=names))
    for section, settings in VALUES_IN_2.items():
        for name, values in settings.items():
            found = _changed(found, section, functools.partial(_with_value, name=name, values=values))
    return found


def _with_value(plain: dict[str, Any], name: str, values: Mapping[str, str]) -> dict[str, Any]:
    value = plain.get(name)
    return {**plain, name: values[value]} if isinstance(value, str) and value in values else plain


def _without_values(plain: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Without settings that have these values; with another one nothing of then can be meant."""
    return {key: value for key, value in plain.items() if key not in values or value != values[key]}


def _without(plain: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if key not in names}


def _changed(plain: dict[str, Any], section: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """A section changed, or each entry of a list; what is neither is left for the check to complain of."""
    section, _, inner = section.partition(".")
    if inner:
        return _changed(plain, section, lambda outer: _changed(outer, inner, change))
    value = plain.get(section)
    if isinstance(value, dict):
        return {**plain, section: change(value)}
    if isinstance(value, list):
        return {**plain, section: [change(one) if isinstance(one, dict) else one for one in value]}
    return plain


def _renamed(plain: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """In the same order; where both names are given, the newer one counts and the older stays, to be complained of."""
    return {names[key] if key in names and names[key] not in plain else key: value for key, value in plain.items()}


_STEPS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _to_2, 2: dict}
