"""Every algorithm by name, and what settings, form, importers and files ask of all of them.

The algorithms themselves stand in `kinds/`, one file each; `kinds.ALL` lists them.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from lib_pivotal.config_schema import Setting, describe, parse, to_plain
from lib_pivotal.errors import Fault, NetworkError

from .algorithm import Algorithm, Common
from .kinds import ALL

ALGORITHMS: dict[str, Algorithm] = {algorithm.name: algorithm for algorithm in ALL}


def algorithm_names() -> tuple[str, ...]:
    """Choices of `network.algorithm`; none trains embeddings alone."""
    return ("none", *ALGORITHMS)


def group_algorithm_names() -> tuple[str, ...]:
    """Choices of a group's algorithm; empty is that of the network."""
    return ("", *ALGORITHMS)


def algorithm_named(name: str) -> Algorithm:
    """The algorithm called `name`."""
    if name not in ALGORITHMS:
        raise NetworkError(f"algorithm = {name!r}: unknown. Choose one of {', '.join(sorted(ALGORITHMS))}.")
    return ALGORITHMS[name]


def algorithm_of(tensors: Mapping[str, Tensor]) -> Algorithm | None:
    """The algorithm that stores a layer as these tensors, by suffix; None if there is none here."""
    suffixes = frozenset(tensors)
    return next((one for one in ALGORITHMS.values() if one.accepts(suffixes) and one.stored_so(tensors)), None)


# ---- settings that only some kinds have ----


@dataclasses.dataclass(frozen=True)
class KindOption:
    """A setting that only some kinds have: their names, its description, its type and its default."""

    kinds: tuple[str, ...]
    setting: Setting
    hint: Any
    default: Any

    @property
    def titles(self) -> tuple[str, ...]:
        """The kinds as people know them."""
        return tuple(ALGORITHMS[name].title for name in self.kinds)


def all_options() -> dict[str, KindOption]:
    """Every setting that only some kinds have, by its name; two kinds that share one mean the same by it."""
    found: dict[str, KindOption] = {}
    for algorithm in ALGORITHMS.values():
        hints = typing.get_type_hints(algorithm.options)
        for field in dataclasses.fields(algorithm.options):
            kinds = found[field.name].kinds if field.name in found else ()
            option = KindOption((*kinds, algorithm.name), describe(field), hints[field.name], field.default)
            found[field.name] = option
    return found


def checked_options(names: Iterable[str], given: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """`network.options` as the algorithms of these names understand them, and the faults.

    A setting is taken where any of them has it; kept are those that are not as usual, in their proper types.
    """
    algorithms = [ALGORITHMS[name] for name in dict.fromkeys(names) if name in ALGORITHMS]
    if not algorithms:
        return dict(given), []
    kept: dict[str, Any] = {}
    faults: list[Fault] = []
    for algorithm in algorithms:
        own = {field.name for field in dataclasses.fields(algorithm.options)} & given.keys()
        parsed, found = parse(algorithm.options, {name: given[name] for name in own}, path="network.options.")
        usual = to_plain(algorithm.options())
        kept |= {name: value for name, value in to_plain(parsed).items() if value != usual[name]}
        faults += [fault for fault in found if fault not in faults]
    for name in sorted(given.keys() - {field.name for one in algorithms for field in dataclasses.fields(one.options)}):
        titles = " and ".join(algorithm.title for algorithm in algorithms)
        known = sorted({field.name for algorithm in algorithms for field in dataclasses.fields(algorithm.options)})
        remedy = f"It has {', '.join(known)}." if known else "Remove it."
        faults.append(Fault(f"network.options.{name}", given[name], f"is not a setting of {titles}", remedy))
    return kept, faults


def owned_options(names: Iterable[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `given` that any of these algorithms has: a page shows the settings of all kinds."""
    options = all_options()
    chosen = set(names)
    return {name: value for name, value in given.items() if name in options and chosen & set(options[name].kinds)}


COMMON_PATHS: Mapping[Common, tuple[str, ...]] = {
    "rank": ("network.unet_rank", "network.te_rank"),
    "alpha": ("network.unet_alpha", "network.te_alpha"),
    "dropout": ("network.dropout",),
    "rank_dropout": ("network.rank_dropout",),
    "up_lr_factor": ("network.up_lr_factor",),
}


def idle_settings(names: Iterable[str]) -> tuple[str, ...]:
    """Paths of the settings that mean nothing to any of these algorithms."""
    used = [ALGORITHMS[name] for name in names if name in ALGORITHMS]
    common = {setting for algorithm in used for setting in algorithm.common}
    found = [path for setting, paths in COMMON_PATHS.items() if setting not in common for path in paths]
    own = {field.name for algorithm in used for field in dataclasses.fields(algorithm.options)}
    return (*found, *(f"network.options.{name}" for name in all_options() if name not in own))


def kohya_module(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """`ss_network_module` and `ss_network_args` of a network of this algorithm, as kohya's scripts write them."""
    algorithm = algorithm_named(name)
    own = algorithm.options_from(options)
    return algorithm.module(own), dict(algorithm.arguments(own))
