"""`<kind:name:arguments>` in prompts: taken apart, and activated whatever one of them raises."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modules import errors

extra_network_registry: dict[str, ExtraNetwork] = {}
extra_network_aliases: dict[str, ExtraNetwork] = {}
re_extra_net = re.compile(r"<(\w+):([^>]+)>")


class ExtraNetworkParams:
    """An item with one `=` is a named argument, with more of them a positional one."""

    def __init__(self, items: Sequence[Any] | None = None) -> None:
        self.items = items or []
        self.positional: list[Any] = []
        self.named: dict[str, str] = {}
        for item in self.items:
            pieces = item.split("=", 2) if isinstance(item, str) else [item]
            if len(pieces) == 2:
                self.named[pieces[0]] = pieces[1]
            else:
                self.positional.append(item)

    def __eq__(self, other: object) -> bool:
        return self.items == other.items  # type: ignore[attr-defined]


class ExtraNetwork:
    def __init__(self, name: str) -> None:
        self.name = name

    def activate(self, p: Any, params_list: list[ExtraNetworkParams]) -> None:
        raise NotImplementedError

    def deactivate(self, p: Any) -> None:
        raise NotImplementedError


def initialize() -> None:
    extra_network_registry.clear()
    extra_network_aliases.clear()


def register_extra_network(extra_network: ExtraNetwork) -> None:
    extra_network_registry[extra_network.name] = extra_network


def register_extra_network_alias(extra_network: ExtraNetwork, alias: str) -> None:
    extra_network_aliases[alias] = extra_network


def lookup_extra_networks(extra_network_data: Mapping[str, list[Any]]) -> dict[ExtraNetwork, list[Any]]:
    """Kinds by their network; an alias' tags join its network's."""
    found: dict[ExtraNetwork, list[Any]] = {}
    for kind, params in extra_network_data.items():
        network = extra_network_registry.get(kind) or extra_network_aliases.get(kind)
        if network is not None:
            found.setdefault(network, []).extend(params)
    return found


def activate(p: Any, extra_network_data: Mapping[str, list[Any]]) -> None:
    """Those that are named, then all others with nothing; one that raises is reported, and activated with nothing."""
    activated = []
    for network, params in lookup_extra_networks(extra_network_data).items():
        try:
            network.activate(p, params)
            activated.append(network)
        except Exception as error:
            errors.display(error, f"activating extra network {network.name}")
    for name, network in extra_network_registry.items():
        if network in activated:
            continue
        try:
            network.activate(p, [])
        except Exception as error:
            errors.display(error, f"activating extra network {name}")
    if p.scripts is not None:
        p.scripts.after_extra_networks_activate(p, extra_network_data=extra_network_data)


def deactivate(p: Any, extra_network_data: Mapping[str, list[Any]]) -> None:
    """Those that were named, then all others."""
    named = list(lookup_extra_networks(extra_network_data))
    for network in [*named, *(each for each in extra_network_registry.values() if each not in named)]:
        try:
            network.deactivate(p)
        except Exception as error:
            errors.display(error, f"deactivating extra network {network.name}")


def parse_prompt(prompt: str) -> tuple[str, defaultdict[str, list[ExtraNetworkParams]]]:
    found: defaultdict[str, list[ExtraNetworkParams]] = defaultdict(list)

    def taken(match: re.Match[str]) -> str:
        found[match[1]].append(ExtraNetworkParams(items=match[2].split(":")))
        return ""

    return re.sub(re_extra_net, taken, prompt), found


def parse_prompts(prompts: Sequence[str]) -> tuple[list[str], Any]:
    """The prompts without tags; the tags of the *first* hold for all."""
    parsed = [parse_prompt(prompt) for prompt in prompts]
    return [text for text, _ in parsed], parsed[0][1] if parsed else None


def get_user_metadata(filename: str | None, lister: Any = None) -> dict[str, Any]:
    """The .json beside a file; {} where there is none or it cannot be read."""
    if filename is None:
        return {}
    path = Path(filename).with_suffix(".json")
    try:
        return json.loads(path.read_text(encoding="utf8")) if path.exists() else {}
    except Exception as error:
        errors.display(error, f"reading extra network user metadata from {path}")
        return {}
