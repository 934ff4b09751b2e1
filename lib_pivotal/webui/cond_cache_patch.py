"""Cached conditionings that know what they were computed with, and infotext that does not forget it.

v1.10.1 reuses a conditioning when prompt and tags are the same (modules/processing.py:440-491). What the tags *stand
for* is not compared, so the picture stays as it was when a file or a collision changes; and what was found while the
prompt was read ("TI hashes", "Emphasis") is missing from the infotext of every reused one, and what was found for the
second pass from every infotext (:968, before it). Its "TI hashes" name a bundle's embedding by the LoRA's name and SDXL
writes each twice (modules/sd_hijack_clip.py:237-248).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from modules import extra_networks, processing, sd_hijack, shared

from lib_pivotal.webui import catalog, compat, file_invalidation, resolution_patch
from lib_pivotal.webui.cond_facts import Facts, FactsOf
from lib_pivotal.webui.patches import Patches
from lib_pivotal.webui.resolution import resolver

TI_HASHES = "TI hashes"


@dataclass
class _Memory:
    patches: Patches = field(default_factory=Patches)
    facts: FactsOf = field(default_factory=FactsOf)


_memory = _Memory()


def register() -> None:
    """Put the patches in place."""
    unregister()
    if compat.find_lora_networks() is None:
        return
    _memory.patches.wrap(processing.StableDiffusionProcessing, "cached_params", _cached_params)
    _memory.patches.wrap(processing.StableDiffusionProcessing, "get_conds_with_caching", _get_conds_with_caching)


def unregister() -> None:
    """Take them back."""
    _memory.patches.undo()
    _memory.facts = FactsOf()


def _cached_params(original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """The web UI's key, and what acts now: files by their content, names by what they stand for."""
    state = file_invalidation.network_state(), resolver.in_force().fingerprint
    key = original(*arguments, **named)
    return (*key, state) if any(state) else key


def _get_conds_with_caching(
    original: Callable[..., Any],
    p: Any,
    function: Callable[..., Any],
    required_prompts: Any,
    steps: Any,
    caches: Any,
    extra_network_data: Any,
    *arguments: Any,
    **named: Any,
) -> Any:
    computed: list[bool] = []

    def counted(*inner: Any, **inner_named: Any) -> Any:
        computed.append(True)
        return function(*inner, **inner_named)

    parameters = sd_hijack.model_hijack.extra_generation_params
    with _activated(p, extra_network_data):
        before = dict(parameters)
        parameters.pop(TI_HASHES, None)
        resolver.local.used = {}
        try:
            result = original(p, counted, required_prompts, steps, caches, extra_network_data, *arguments, **named)
        finally:
            entries, resolver.local.used = resolver.local.used, None
        used = tuple((entry.name.replace(":", "").replace(",", ""), entry.digest) for entry in entries.values())
        if computed:
            found = {key: value for key, value in parameters.items() if before.get(key) != value or key == TI_HASHES}
            _memory.facts.put(result, Facts(found, used))
        elif (known := _memory.facts.get(result)) is not None:
            parameters.update(known.parameters)
            used = known.used
        hashes = joined_hashes(before.get(TI_HASHES), _hashes_of(used), parameters.get(TI_HASHES))
        if hashes:
            parameters[TI_HASHES] = hashes
        if getattr(p, "is_hr_pass", False):  # the web UI does it behind the first pass alone
            p.extra_generation_params.update(parameters)
    return result


def _hashes_of(used: tuple[tuple[str, str], ...]) -> str:
    """The embeddings that were used, each with the hash of its file."""
    if not shared.opts.textual_inversion_add_hashes_to_infotext:
        return ""
    if not getattr(shared.opts, "lora_bundled_ti_to_infotext", True):
        return ""
    return ", ".join(f"{embedding}: {digest}" for embedding, digest in used if digest)


def joined_hashes(*lists: str | None) -> str:
    """Several lists `name: hash, name: hash` as one, nothing twice, in the order of their coming."""
    pairs = [pair.strip() for part in lists if part for pair in part.split(",")]
    return ", ".join(dict.fromkeys(pair for pair in pairs if pair))


@contextlib.contextmanager
def _activated(p: Any, extra_network_data: Any) -> Iterator[None]:
    """The extra networks of this conditioning in force while it is computed, where the web UI leaves others.

    It does so in two places. With "use first pass conds" the second pass' prompts are read with the first pass'
    networks (modules/processing.py:1524-1527); these are put back afterwards. And a refiner that has to be loaded
    anew drops every network (modules/sd_samplers_common.py:195-199, sd_models.py:722-725).
    """
    generation = resolver.generation
    active = None if generation is None else generation.data
    if p.disable_extra_networks or active == extra_network_data or not _has_embeddings(extra_network_data):
        yield
        return
    early = extra_network_data is getattr(p, "hr_extra_network_data", None) and not p.is_hr_pass
    extra_networks.activate(p, extra_network_data)
    try:
        yield
    finally:
        if early:
            extra_networks.activate(p, p.extra_network_data)


def _has_embeddings(extra_network_data: Any) -> bool:
    return any(catalog.brings_embeddings(name) for name in resolution_patch.names_of(extra_network_data))
