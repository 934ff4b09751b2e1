"""The network: adapters on chosen layers, switched by part, saved as kohya's keys."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lib_pivotal.errors import NetworkError
from lib_pivotal.parameter_groups import ParameterGroup
from lib_pivotal.ports import PARTS, Layer, Part

from .adapter import Adapter, AdapterSpec, Cost, Switch, layer_weight, token_count
from .algorithm import Algorithm
from .fused import SharedDown, fuse
from .kinds.lora import LoraAdapter
from .registry import algorithm_named, algorithm_of
from .targets import LayerRule

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Entry:
    """An adapter with the rate and group that its rule gave it, and the factor of its `up` parameters (LoRA+)."""

    adapter: Adapter
    lr_factor: float = 1.0
    group: str = ""
    up: frozenset[str] = frozenset()
    up_lr_factor: float = 1.0

    def rates(self) -> Iterator[tuple[nn.Parameter, float]]:
        """Each parameter with its LR factor."""
        for name, parameter in self.adapter.named_parameters():
            is_up = name.rpartition(".")[2] in self.up
            yield parameter, self.lr_factor * (self.up_lr_factor if is_up else 1.0)


class Network(nn.Module):
    """Adapters on a host's frozen layers. Made by `build_network` or `Network.from_kohya`.

    Nothing happens to the host until `attach()`; the layers' weights are never written, but for `merge()`, which
    keeps copies and puts them back. Gradient checkpointing of the host works in both of torch's ways; the reentrant
    one gives no gradient at all to a block none of whose *inputs* requires one (torch's rule, not ours).
    """

    def __init__(self, entries: Sequence[_Entry], *, fuse_inputs: bool = True, unmatched: Sequence[str] = ()) -> None:
        super().__init__()
        self.unmatched = tuple(unmatched)
        self._entries = {entry.adapter.layer.name: entry for entry in entries}
        if len(self._entries) != len(entries):
            names = [entry.adapter.layer.name for entry in entries]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise NetworkError(f"layers named twice: {', '.join(twice)}. The host must give every layer its own name.")
        self._switches: dict[Part, Switch] = {part: Switch() for part in PARTS}
        self.adapters = nn.ModuleDict()
        for name, entry in self._entries.items():
            entry.adapter.switch = self._switches[entry.adapter.layer.part]
            if not isinstance(entry.adapter, nn.Module):
                raise NetworkError(f"{name}: {type(entry.adapter).__name__} is not an nn.Module.")
            self.adapters[name] = entry.adapter
        loras = [entry.adapter for entry in entries if isinstance(entry.adapter, LoraAdapter)]
        self._shared: list[SharedDown] = fuse(loras) if fuse_inputs else []
        self._attached = False
        self._told: set[str] = set()
        self._resting: frozenset[str] = frozenset()
        self._handles: dict[str, list[RemovableHandle]] = {}
        self._originals: dict[str, Tensor] = {}
        self._original_biases: dict[str, Tensor] = {}

    # ---- what there is -------------------------------------------------------------------------------------------

    @property
    def parts(self) -> frozenset[Part]:
        """The parts that have adapters."""
        return frozenset(entry.adapter.layer.part for entry in self._entries.values())

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Kohya names of the adapted layers, in the host's order."""
        return tuple(self._entries)

    def spec(self, layer_name: str) -> AdapterSpec:
        """Rank, alpha and dropout of one layer's adapter."""
        return self._entry(layer_name).adapter.spec

    def costs(self, tokens: Mapping[str, int]) -> dict[str, Cost]:
        """What each layer's adapter costs at its number of tokens; a layer that is not named gets one."""
        return {name: entry.adapter.cost(tokens.get(name, 1)) for name, entry in self._entries.items()}

    def parameter_groups(self) -> list[ParameterGroup]:
        """One group for each (part, group name, rate factor), in the order of the layers."""
        found: dict[tuple[Part, str, float], list[nn.Parameter]] = {}
        for entry in self._entries.values():
            for parameter, lr_factor in entry.rates():
                found.setdefault((entry.adapter.layer.part, entry.group, lr_factor), []).append(parameter)
        groups = []
        for (part, group, lr_factor), parameters in found.items():
            alike = sum(key[:2] == (part, group) for key in found)
            name = f"{part}/{group}" if group else part
            name = f"{name} ×{lr_factor:g}" if alike > 1 else name
            groups.append(ParameterGroup(name, parameters, lr_factor=lr_factor, part=part))
        return groups

    def _entry(self, layer_name: str) -> _Entry:
        if layer_name not in self._entries:
            raise NetworkError(
                f"layer {layer_name!r}: this network has no adapter there. It has {len(self._entries)} layers, "
                f"for example {next(iter(self._entries), 'none')!r}."
            )
        return self._entries[layer_name]

    # ---- on the host ---------------------------------------------------------------------------------------------

    @contextmanager
    def attach(self) -> Iterator[None]:
        """Hooks on; off again on exit, also after an exception."""
        if self._attached:
            raise NetworkError("the network is attached already. Leave the first attach() before the next.")
        self._attached = True
        told = self._tell_ways() if _log.isEnabledFor(logging.DEBUG) else []
        try:
            self._sync()
            yield
        finally:
            self._attached = False
            self._sync()
            for handle in told:
                handle.remove()

    def _tell_ways(self) -> list[RemovableHandle]:
        """At each layer's first pass, in which way it runs and what that costs a token: for the log at debug level."""
        return [
            entry.adapter.layer.module.register_forward_hook(self._way_of(entry.adapter))
            for name, entry in self._entries.items()
            if name not in self._told
        ]

    def _way_of(self, adapter: Adapter) -> Callable[[nn.Module, Any, Tensor], None]:
        def tell(module: nn.Module, args: Any, output: Tensor) -> None:
            layer = adapter.layer
            if layer.name in self._told:
                return
            self._told.add(layer.name)
            tokens = token_count(layer, output)
            cost = adapter.cost(tokens)
            way = "rebuilt" if cost.rebuilt else "by its factors"
            each = cost.multiplications / tokens
            _log.debug("%s: %s, %d tokens, %.0f multiplications a token", layer.name, way, tokens, each)

        return tell

    def _sync(self) -> None:
        """Register or remove hooks so that a part at multiplier 0, and a layer that rests, has none at all."""
        for name, entry in self._entries.items():
            on = self._attached and not self._originals and self._switches[entry.adapter.layer.part].value != 0
            if on and name not in self._resting:
                if name not in self._handles:
                    self._handles[name] = entry.adapter.attach()
            else:
                for handle in self._handles.pop(name, []):
                    handle.remove()
        if not self._handles:
            for shared in self._shared:
                shared.clear()

    def rebind(self, layers: Sequence[Layer]) -> None:
        """Go over to `layers` of the same names: the host has loaded its checkpoint anew, into other modules.

        Raises:
            NetworkError: a layer is missing, or of another shape; nothing was changed.
        """
        by_name = {layer.name: layer for layer in layers}
        for name, entry in self._entries.items():
            found = by_name.get(name)
            if found is None or layer_weight(found).shape != layer_weight(entry.adapter.layer).shape:
                raise NetworkError(f"layer {name!r}: not in the loaded model. Load the checkpoint that was trained.")
        if all(by_name[name].module is entry.adapter.layer.module for name, entry in self._entries.items()):
            return
        for handles in self._handles.values():
            for handle in handles:
                handle.remove()
        self._handles.clear()
        for name, entry in self._entries.items():
            entry.adapter.layer = by_name[name]
        self._sync()

    @property
    def multipliers(self) -> dict[Part, float]:
        """The multiplier of each part."""
        return {part: switch.value for part, switch in self._switches.items()}

    def set_multipliers(self, *, unet: float = 1.0, te: float = 1.0, te2: float | None = None) -> None:
        """Strength of each part, at once; 0 = off and free. `te2` follows `te` unless given."""
        self._set({"unet": unet, "te": te, "te2": te if te2 is None else te2})

    def _set(self, values: Mapping[Part, float]) -> None:
        merged = bool(self._originals)
        if merged:
            self.unmerge()
        for part, value in values.items():
            self._switches[part].value = float(value)
        if merged:
            self.merge()
        self._sync()

    @contextmanager
    def with_multipliers(self, *, unet: float = 1.0, te: float = 1.0, te2: float | None = None) -> Iterator[None]:
        """`set_multipliers` for a while: the former strengths come back on exit."""
        before = self.multipliers
        self.set_multipliers(unet=unet, te=te, te2=te2)
        try:
            yield
        finally:
            self._set(before)

    @contextmanager
    def without(self, layer_names: Iterable[str]) -> Iterator[None]:
        """These layers' changes are left out for a while: kohya's `module_dropout`, for which the loop draws them.

        There each module draws in its own forward, unscaled (networks/lora.py#L93-L96, 48d368f). Here the layers are
        fixed before it, so that all processes, all pieces of a micro-batch and what checkpointing computes anew agree.
        """
        before, self._resting = self._resting, frozenset(layer_names)
        try:
            self._sync()
            yield
        finally:
            self._resting = before
            self._sync()
            for shared in self._shared:
                shared.clear()

    # ---- merged --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def merge(self) -> None:
        """Write `W + multiplier · ΔW` into the layers; attached hooks rest until `unmerge()`.

        Copies of the layers' own weights are kept in the machine's memory, as the web UI does for its networks.
        """
        if self._originals:
            raise NetworkError("the network is merged already. Call unmerge() first.")
        for name, entry in self._entries.items():
            weight = layer_weight(entry.adapter.layer)
            multiplier = entry.adapter.switch.value
            if multiplier == 0:
                continue
            delta = entry.adapter.delta(weight) * multiplier
            self._originals[name] = weight.detach().to("cpu", copy=True)
            weight.copy_(weight.to(delta) + delta)
            bias_delta = entry.adapter.bias_delta()
            if bias_delta is not None:
                bias = _bias(entry.adapter.layer)
                self._original_biases[name] = bias.detach().to("cpu", copy=True)
                bias.copy_(bias.to(bias_delta) + bias_delta * multiplier)
        self._sync()

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the layers' own weights back, bit for bit."""
        while self._originals:
            name, original = self._originals.popitem()
            layer_weight(self._entries[name].adapter.layer).copy_(original)
        while self._original_biases:
            name, original = self._original_biases.popitem()
            _bias(self._entries[name].adapter.layer).copy_(original)
        self._sync()

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Merged for a while (sampling without hooks); the layers' own weights come back whatever happens."""
        try:
            self.merge()
            yield
        finally:
            self.unmerge()

    # ---- files ---------------------------------------------------------------------------------------------------

    def kohya_tensors(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """`<layer>.lora_down.weight`, `.lora_up.weight`, `.alpha` (and more, by algorithm): contiguous CPU copies."""
        return {
            f"{name}.{suffix}": tensor.detach().to(device="cpu", dtype=dtype, copy=True).contiguous()
            for name, entry in self._entries.items()
            for suffix, tensor in entry.adapter.kohya_tensors().items()
        }

    @classmethod
    def from_kohya(
        cls,
        layers: Sequence[Layer],
        tensors: Mapping[str, Tensor],
        *,
        rules: Sequence[LayerRule] = (),
        up_lr_factor: float = 1.0,
        fuse: bool = True,
    ) -> Network:
        """The network that `tensors` hold: algorithm, rank and alpha by layer, as the file has them.

        Of `rules` the first that matches a layer gives its LR factor and group. Keys that belong to no layer here, or
        to an algorithm that is not here, are listed in `unmatched`.
        """
        by_name = {layer.name: layer for layer in layers}
        found, unmatched = _by_layer(by_name, tensors)
        entries = []
        for name, layer in by_name.items():
            if name not in found:
                continue
            algorithm = algorithm_of(found[name])
            if algorithm is None or layer.kind not in algorithm.layers:
                unmatched.extend(f"{name}.{suffix}" for suffix in found[name])
                continue
            adapter = algorithm.like(layer, found[name], layer_weight(layer).device)
            adapter.load(found[name])
            rule = next((rule for rule in rules if rule.matches(name)), LayerRule("", rank=1, alpha=1.0))
            entries.append(_Entry(adapter, rule.lr_factor, rule.group, _ups(algorithm), up_lr_factor))
        if unmatched:
            _log.warning("%d keys match no layer of this model, first %r", len(unmatched), unmatched[0])
        return cls(entries, fuse_inputs=fuse, unmatched=unmatched)

    @torch.no_grad()
    def apply_max_norm(self, limit: float) -> int:
        """kohya's `scale_weight_norms`: shrink every layer whose change is larger than `limit`; how many were."""
        if limit <= 0:
            raise NetworkError(f"max norm = {limit}: must be above 0. Do not call this to leave norms alone.")
        return sum(entry.adapter.limit_norm(limit) for entry in self._entries.values())


def build_network(
    layers: Sequence[Layer],
    rules: Sequence[LayerRule],
    *,
    algorithm: str = "lora",
    options: Mapping[str, Any] | None = None,
    up_lr_factor: float = 1.0,
    seed: int,
    device: torch.device | str,
    fuse: bool = True,
) -> Network:
    """A fresh network on the layers that `rules` choose; it changes nothing until it is trained.

    The first rule whose pattern is found in a layer's kohya name decides; a layer without a rule, or whose rule has
    rank 0, or of a sort that the algorithm does not take (norms, for most), stays bare. A rule may name an algorithm
    of its own. `options` are the algorithms' own settings; each takes those that it has. `up_lr_factor`: LoRA+,
    Hayou et al. 2024 (arXiv 2402.12354), a higher rate for the factor that begins at zero. A layer's initial weights
    depend on `seed` and its name alone, so that hosts which list their layers in another order begin alike.
    """
    entries, bare = [], 0
    for layer in layers:
        rule = next((rule for rule in rules if rule.matches(layer.name)), None)
        if rule is None or rule.rank == 0:
            continue
        chosen = algorithm_named(rule.algorithm or algorithm)
        if layer.kind not in chosen.layers:
            bare += layer.kind != "norm"  # a preset means layers with matrices; norms are asked for by a kind
            continue
        own = chosen.options_from(options or {})
        adapter = chosen.make(
            layer, _spec(rule, own), options=own, generator=_generator(seed, layer.name), device=torch.device(device)
        )
        entries.append(_Entry(adapter, rule.lr_factor, rule.group, _ups(chosen), up_lr_factor))
    if bare:
        _log.warning("%s: %d of the chosen layers stay bare, since it does not take convolutions", algorithm, bare)
    if not entries:
        patterns = ", ".join(repr(rule.pattern) for rule in rules) or "no rule"
        example = f"the first is {layers[0].name!r}" if layers else "the host gave none"
        raise NetworkError(
            f"none of {len(layers)} layers gets an adapter from {patterns} ({example}). Widen the rules."
        )
    return Network(entries, fuse_inputs=fuse)


def _spec(rule: LayerRule, options: Any) -> AdapterSpec:
    """Size and regularisation by a rule. rsLoRA (arXiv 2312.03732, section 4) divides by √rank: by way of alpha, since
    every program that reads the file divides by the rank."""
    spec = AdapterSpec(rank=rule.rank, alpha=rule.alpha, dropout=rule.dropout, rank_dropout=rule.rank_dropout)
    if getattr(options, "rank_stabilised", False):
        return replace(spec, alpha=spec.alpha * math.sqrt(spec.rank))
    return spec


def _ups(algorithm: Algorithm) -> frozenset[str]:
    return algorithm.up if "up_lr_factor" in algorithm.common else frozenset()


def _bias(layer: Layer) -> Tensor:
    bias = layer.module.bias
    if not isinstance(bias, Tensor):
        raise NetworkError(f"{layer.name}: the network changes a bias, and this model's layer has none.")
    return bias


def _generator(seed: int, layer_name: str) -> torch.Generator:
    digest = hashlib.sha256(f"network {seed} {layer_name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _by_layer(
    names: Mapping[str, object], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Tensors by layer name and suffix, and the keys whose layer is not in `names`."""
    found: dict[str, dict[str, Tensor]] = {}
    unmatched = []
    for key, tensor in tensors.items():
        name, _, suffix = key.partition(".")
        if name in names:
            found.setdefault(name, {})[suffix] = tensor
        else:
            unmatched.append(key)
    return found, unmatched
