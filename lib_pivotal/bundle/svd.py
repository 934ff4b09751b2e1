"""LoRA files made by singular values: out of two checkpoints, out of larger LoRAs, out of other kinds of networks.

Each verb goes layer by layer, so that no more than one layer is in memory besides the new file. What is lost is
measured on the tensors as they are stored: |delta - s · up down| / |delta|, Frobenius norms, a layer and in all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lib_pivotal.bundle.checkpoint_weights import CheckpointWeights, open_checkpoint
from lib_pivotal.bundle.deltas import kind_of, layer_delta, needs_weight, with_kernel
from lib_pivotal.bundle.foreign import for_kohya, kohya_network
from lib_pivotal.bundle.hashes import checkpoint_legacy_hash
from lib_pivotal.bundle.listing import rank_metadata
from lib_pivotal.bundle.low_rank import Factors, RankCut, factored, refactored
from lib_pivotal.bundle.metadata import lora_metadata, read_json
from lib_pivotal.bundle.network_layouts import exactly, group_layers, lora_scale, with_whole_attention
from lib_pivotal.bundle.reader import Bundle, is_finite, read_bundle, require
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError, NetworkError
from lib_pivotal.file_names import refuse_taken

Progress = Callable[[int, int, str], None]
"""Layers that are done, of how many, and the name of the last one."""

DTYPES: Mapping[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
WORST = 3
_UP, _DOWN, _MID, _DORA = "lora_up.weight", "lora_down.weight", "lora_mid.weight", "dora_scale"


@dataclass(frozen=True)
class LayerLoss:
    """A layer of the new file: its rank, and which share of its change (Frobenius norm) is not in it."""

    name: str
    rank: int
    lost: float


@dataclass(frozen=True)
class SvdReport:
    """What was written, and what of the change was lost. `notes` are sentences on what has no place in a LoRA."""

    path: Path
    layers: tuple[LayerLoss, ...]
    lost: float
    notes: tuple[str, ...] = ()

    @property
    def worst(self) -> tuple[LayerLoss, ...]:
        """The layers that lost most, the worst first; none where nothing was lost."""
        falling = sorted(self.layers, key=lambda layer: -layer.lost)
        return tuple(layer for layer in falling[:WORST] if layer.lost > 0)

    def __str__(self) -> str:
        ranks = sorted({layer.rank for layer in self.layers})
        span = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        worst = ", ".join(f"{layer.name} {layer.lost:.1%}" for layer in self.worst)
        told = f"{len(self.layers)} layers, {span}; {self.lost:.2%} of the change is lost (Frobenius norm)"
        return " ".join([f"{told}{f', most in {worst}' if worst else ''}.", *self.notes])


class _Losses:
    """Sums up what layers lose."""

    def __init__(self) -> None:
        self.layers: list[LayerLoss] = []
        self._lost = self._whole = 0.0

    def add(self, name: str, rank: int, *, delta: Tensor, stored: Tensor) -> None:
        whole, lost = (float(tensor.double().square().sum()) for tensor in (delta, delta - stored.reshape(delta.shape)))
        self._whole, self._lost = self._whole + whole, self._lost + lost
        self.layers.append(LayerLoss(name, rank, math.sqrt(lost / whole) if whole else 0.0))

    def report(self, path: Path, notes: list[str]) -> SvdReport:
        total = math.sqrt(self._lost / self._whole) if self._whole else 0.0
        return SvdReport(path, tuple(self.layers), total, tuple(notes))


# ---- a checkpoint minus its base ----


def extract(
    tuned: str | Path,
    base: str | Path,
    out: str | Path,
    *,
    cut: RankCut,
    dtype: str = "fp16",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SvdReport:
    """A fine-tuned checkpoint minus its base as a LoRA, U-Net and text encoders; layers that are alike are left out.

    Raises:
        BundleError: one of them cannot be read, they are of different kinds or shapes, or nothing differs.
    """
    cut.check()
    if dtype not in DTYPES:
        raise BundleError(f"there is no precision {dtype!r}; choose from {', '.join(DTYPES)}")
    out = _new_file(out, sources=(tuned, base), overwrite=overwrite)
    after, before = open_checkpoint(tuned), open_checkpoint(base)
    names = _common_layers(after, before)
    network, losses = dict[str, Tensor](), _Losses()
    for number, name in enumerate(names):
        delta = _difference(after.weight(name), before.weight(name), layer=name)
        if delta is not None:
            _put(network, name, factored(delta, cut), dtype=DTYPES[dtype])
            losses.add(name, _rank_of(network, name), delta=delta, stored=_stored(network, name))
        if progress is not None:
            progress(number + 1, len(names), name)
    if not network:
        raise BundleError(f"{after.path} and {before.path}: no layer differs, so there is nothing to extract")
    metadata = {
        **lora_metadata(after.family),
        **_titles(out),
        "ss_sd_model_name": before.path.name,
        "ss_sd_model_hash": checkpoint_legacy_hash(before.path),
        "ss_training_comment": f"extracted by SVD ({cut}): {after.path.name} minus {before.path.name}",
        "modelspec.merged_from": f"{after.path.name}, {before.path.name}",
    }
    _write(out, with_whole_attention(network, after.family), Bundle({}, {}, metadata))
    return losses.report(out, _left_out(after, before, same=len(names) - len(losses.layers)))


def _common_layers(after: CheckpointWeights, before: CheckpointWeights) -> list[str]:
    if after.family != before.family:
        raise BundleError(
            f"{after.path} is of {after.family.upper()}, {before.path} of {before.family.upper()}: "
            "give the base that the checkpoint was made from"
        )
    there = set(before.names)
    names = [name for name in after.names if name in there]
    for name in names:
        one, two = after.layer_shape(name), before.layer_shape(name)
        if one != two:
            raise BundleError(
                f"{name} is {list(one)} in {after.path}, but {list(two)} in {before.path}: "
                "give the base that the checkpoint was made from"
            )
    return names


def _difference(after: Tensor, before: Tensor, *, layer: str) -> Tensor | None:
    """What fine-tuning changed, fp32; None where the weights are one in the coarser of their dtypes."""
    coarse = max(after.dtype, before.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    if torch.equal(after.to(coarse), before.to(coarse)):
        return None
    delta = after.float() - before.float()
    if not is_finite(delta):
        raise BundleError(f"{layer}: one of the checkpoints holds values that are not numbers")
    return delta


def _left_out(after: CheckpointWeights, before: CheckpointWeights, *, same: int) -> list[str]:
    notes = [f"{same} layers are the same in both and were left out."] if same else []
    alone = [name for name in after.names if name not in set(before.names)]
    if alone:
        notes.append(f"{len(alone)} layers are not in the base and were left out, such as {alone[0]}.")
    pairs = ((key, after.other(key), before.other(key)) for key in after.other_keys())
    changed = [
        key for key, one, two in pairs
        if one is not None and two is not None and (one.shape != two.shape or not torch.equal(one.float(), two.float()))
    ]  # fmt: skip
    if changed:
        told = f"{len(changed)} biases, norms and tables that differ"
        notes.append(f"A LoRA has no place for {told}, such as {changed[0]}.")
    return notes


# ---- a smaller LoRA ----


def resize(
    path: str | Path, out: str | Path, *, cut: RankCut, overwrite: bool = False, progress: Progress | None = None
) -> SvdReport:
    """A LoRA at a lower rank, each layer's scale alpha / rank as it was (kohya's resize_lora.py); embeddings unchanged.

    A layer whose rank is not lowered keeps its bits, also DoRA's magnitudes and norms.

    Raises:
        BundleError: the file holds another kind of network, or none.
    """
    cut.check()
    out = _new_file(out, sources=(), overwrite=overwrite)
    bundle = require(read_bundle(path))
    layers = group_layers(kohya_network(bundle))
    loras = [name for name, layer in layers.items() if _is_lora(path, name, layer)]
    if not loras:
        raise BundleError(f"{path}: holds no LoRA, so there is nothing to resize")
    network, losses = dict[str, Tensor](), _Losses()
    for name, layer in layers.items():
        smaller = _resized(layer, cut) if name in loras else None
        _keep(network, name, layer)
        if smaller is not None:
            _put(network, name, smaller, dtype=_dtype_of(layer), scale=lora_scale(layer))
            network.pop(f"{name}.{_MID}", None)
        if name in loras:
            plain = {suffix: tensor for suffix, tensor in layer.items() if suffix != _DORA}
            delta = layer_delta(plain).weight
            losses.add(name, _rank_of(network, name), delta=delta, stored=_stored(network, name))
            if progress is not None:
                progress(len(losses.layers), len(loras), name)
    old = rank_metadata(bundle.network).get("ss_network_dim", "?")
    new = rank_metadata(network)["ss_network_dim"]
    how = f"dimension is resized from {old} to {new}" if cut.rule == "rank" else f"Dynamic resize with {cut} from {old}"
    _write(out, network, bundle, done=how)
    return losses.report(out, [])


def _is_lora(path: str | Path, name: str, layer: Mapping[str, Tensor]) -> bool:
    """Whether a layer can be resized; norms go along as they are.

    Raises:
        BundleError: it is of another kind.
    """
    try:
        kind = kind_of(layer)
    except NetworkError as error:
        raise BundleError(f"{path}: {name}: {error}") from None
    if kind not in ("LoRA", "norm"):
        raise BundleError(f"{path}: {name} is {kind}, and only LoRAs are resized. Make it a LoRA first (to_lora)")
    return kind == "LoRA"


def _resized(layer: Mapping[str, Tensor], cut: RankCut) -> Factors | None:
    """The layer's factors, without its scale, at the new rank; None where it has no more than that."""
    up, down = layer[_UP].double(), layer[_DOWN].double()
    if _MID in layer:
        unscaled = {suffix: tensor for suffix, tensor in layer.items() if suffix in (_UP, _DOWN, _MID)}
        found = factored(layer_delta(unscaled).weight, cut)
    else:
        found = refactored(up, down, cut)
    return found if found.rank < down.shape[0] else None


# ---- any kind ----


def to_lora(
    path: str | Path,
    out: str | Path,
    *,
    cut: RankCut,
    base: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> SvdReport:
    """A network of any kind as a LoRA; embeddings, norms, and layers that are LoRAs already keep their bits.

    `base`: the checkpoint, which DoRA, (IA)^3, GLoRA and OFT change relative to its weights.

    Raises:
        BundleError: it is a LoRA throughout, a layer is of no known kind, or needs the checkpoint.
    """
    cut.check()
    out = _new_file(out, sources=() if base is None else (base,), overwrite=overwrite)
    bundle = require(read_bundle(path))
    layers = group_layers(kohya_network(bundle))
    weights = None if base is None else open_checkpoint(base)
    kinds = _kinds_to_convert(path, layers, weights)
    network, losses, biases = dict[str, Tensor](), _Losses(), 0
    for name, layer in layers.items():
        if name not in kinds:
            _keep(network, name, layer)
            continue
        new, delta = _delta_of(path, name, layer, weights)
        biases += any(suffix in layer for suffix in ("diff_b", "b_norm"))
        _put(network, new, factored(delta, cut), dtype=_dtype_of(layer))
        losses.add(new, _rank_of(network, new), delta=delta, stored=_stored(network, new))
        if progress is not None:
            progress(len(losses.layers), len(kinds), new)
    told = " and ".join(sorted(set(kinds.values())))
    _write(out, network, bundle, done=f"{told} made a LoRA by SVD ({cut})", module="networks.lora")
    notes = [f"A LoRA has no place for {biases} biases, which were left out."] if biases else []
    return losses.report(out, notes)


def _kinds_to_convert(
    path: str | Path, layers: Mapping[str, Mapping[str, Tensor]], weights: CheckpointWeights | None
) -> dict[str, str]:
    """Kind by name of the layers that become LoRAs."""
    found, needing = dict[str, str](), list[str]()
    for name, layer in layers.items():
        try:
            kind = "DoRA" if _DORA in layer else kind_of(layer)
        except NetworkError as error:
            raise BundleError(f"{path}: {name}: {error}") from None
        is_flat = all(tensor.dim() < 2 for tensor in layer.values())  # norms, and their full differences
        if (kind == "LoRA" and _MID not in layer) or (is_flat and kind in ("norm", "full")):
            continue
        found[name] = kind
        needing += [name] if needs_weight(layer) else []
    if not found:
        raise BundleError(f"{path}: holds nothing that is not a LoRA already. To lower its rank, resize it")
    if needing and weights is None:
        raise BundleError(
            f"{path}: {len(needing)} layers are {found[needing[0]]}, which changes a layer relative to its weight: "
            f"give the checkpoint as the base (first layer: {needing[0]})"
        )
    return found


def _delta_of(
    path: str | Path, name: str, layer: Mapping[str, Tensor], weights: CheckpointWeights | None
) -> tuple[str, Tensor]:
    """The layer's name as a LoRA's, and its change in the shape of its weight."""
    own = None if weights is None else weights.name_of(name)
    if own is None and needs_weight(layer):
        raise BundleError(f"{path}: {name}: the checkpoint {weights and weights.path} has no such layer. Give its base")
    try:
        weight = weights.weight(own) if weights is not None and own is not None else None
        delta = with_kernel(layer_delta(layer, weight=weight).weight, name)
    except NetworkError as error:
        raise BundleError(f"{path}: {name}: {error}") from None
    if not is_finite(delta):
        raise BundleError(f"{path}: {name}: its change is not finite with this base")
    return own if own is not None and name.startswith("oft_") else name, delta


# ---- the new file ----


def _new_file(out: str | Path, *, sources: tuple[str | Path, ...], overwrite: bool) -> Path:
    out = Path(out)
    if any(out.resolve() == Path(source).resolve() for source in sources):
        raise BundleError(f"{out}: the new file cannot take the place of one that it is made from. Give another name")
    refuse_taken([out], overwrite=overwrite)
    return out


def _put(network: dict[str, Tensor], name: str, factors: Factors, *, dtype: torch.dtype, scale: float = 1.0) -> None:
    alpha = torch.tensor(scale * factors.rank, dtype=torch.float64)
    network[f"{name}.alpha"] = exactly(alpha, dtype)
    network[f"{name}.{_DOWN}"] = factors.down.to(dtype)
    network[f"{name}.{_UP}"] = factors.up.to(dtype)


def _keep(network: dict[str, Tensor], name: str, layer: Mapping[str, Tensor]) -> None:
    network |= {f"{name}.{suffix}": tensor for suffix, tensor in layer.items()}


def _stored(network: Mapping[str, Tensor], name: str) -> Tensor:
    """The change that a LoRA layer of the new file makes, fp32."""
    wanted = (_UP, _DOWN, _MID, "alpha")
    return layer_delta({s: network[f"{name}.{s}"] for s in wanted if f"{name}.{s}" in network}).weight


def _rank_of(network: Mapping[str, Tensor], name: str) -> int:
    return network[f"{name}.{_DOWN}"].shape[0]


def _dtype_of(layer: Mapping[str, Tensor]) -> torch.dtype:
    """Of a layer's tensors but single numbers, where it is one in which LoRAs are stored; else fp16."""
    dtype = next((tensor.dtype for tensor in layer.values() if tensor.numel() > 1), torch.float16)
    return dtype if dtype in DTYPES.values() else torch.float16


def _titles(out: Path) -> dict[str, str]:
    return {"ss_output_name": out.stem, "modelspec.title": out.stem}


def _write(out: Path, network: Mapping[str, Tensor], source: Bundle, *, done: str = "", module: str = "") -> None:
    """The new file: metadata of its source, with name, ranks, and what was done in front of kohya's comment."""
    metadata = {**for_kohya(source.metadata), **_titles(out), **rank_metadata(network)}
    if done:
        before = metadata.get("ss_training_comment", "")
        metadata["ss_training_comment"] = f"{done}; {before}" if before not in ("", "None") else done
    arguments = {} if module else read_json(metadata, "ss_network_args")
    if module:
        metadata["ss_network_module"] = module
    arguments |= _conv_arguments(network)
    if arguments or "ss_network_args" in metadata:
        metadata["ss_network_args"] = json.dumps(arguments)
    write_bundle(out, network=network, embeddings=source.embeddings, metadata=metadata, dtype=None)


def _conv_arguments(network: Mapping[str, Tensor]) -> dict[str, str]:
    """kohya's `network_args` of a LoCon: the most frequent rank and alpha of its convolutions larger than 1x1."""
    downs = ((key, tensor) for key, tensor in network.items() if key.endswith(f".{_DOWN}"))
    stems = {key.partition(".")[0] for key, tensor in downs if tensor.dim() == 4 and tensor.shape[-1] > 1}
    ranks = rank_metadata({key: tensor for key, tensor in network.items() if key.partition(".")[0] in stems})
    if not ranks:
        return {}
    return {"conv_dim": ranks["ss_network_dim"], "conv_alpha": ranks["ss_network_alpha"]}
