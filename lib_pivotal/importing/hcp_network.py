"""HCP's `lora_unet`, `lora_text_encoder` and plugins as the network's settings and groups of layers.

A layer's change is scaled by alpha / rank, with alpha 1 where none is written, or by alpha alone with
`alpha_auto_scale: False`; a rank below 1 is a share of the layer's features out (models/lora_base.py, 404f0e8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib_pivotal.importing.hcp_layers import (
    Leaf,
    by_rank,
    group_pattern,
    meant,
    preset_of,
    text_leaves,
    unet_leaves,
)
from lib_pivotal.importing.reading import flag, number
from lib_pivotal.importing.sheet import Sheet, choices

PARTS = (("unet", "lora_unet", "plugin_unet"), ("te", "lora_text_encoder", "plugin_TE"))
ALGORITHMS = {"LohaBlock": "loha", "LokrBlock": "lokr", "DiagOFTBlock": "oft", "LoconBlock": "lora"}
"""LyCORIS' classes for HCP -> kinds of network."""


@dataclass(frozen=True)
class Item:
    """One entry of such a list: `key` in the file, layers found, and what they get. `share` is a rank below 1."""

    key: str
    entries: tuple[str, ...]
    found: tuple[Leaf, ...]
    rank: int
    share: float
    alpha: float
    lr: float


def take_network(sheet: Sheet, plain: Mapping[str, Any], factor: float) -> None:
    """Both parts; `factor` is what HCP multiplies rates by."""
    groups: list[dict[str, Any]] = []
    whole = _whole_layers(sheet, plain)
    trained = False
    for part, name, plugin in PARTS:
        items = _items(sheet, part, name, plain.get(name), factor)
        items += _plugin_items(sheet, part, plugin, plain.get(plugin), factor)
        _settle_part(sheet, part, items, groups)
        trained |= bool(items)
    if groups and (fault := sheet.put("network.groups", groups)):
        sheet.remark(f"The groups of layers could not be taken over: network.groups {fault}.")
    if not trained and not whole:
        sheet.put("network.algorithm", "none")
    elif not trained:
        sheet.put("network.unet_targets", whole)
        sheet.remark(
            "These settings train layers of the checkpoint itself. That is not what this is for: a network on "
            f"{whole} with our own rank and LR was set instead."
        )


def _whole_layers(sheet: Sheet, plain: Mapping[str, Any]) -> str:
    """Layers of the U-Net that HCP would train as they are, as a target of ours; "" if there are none."""
    entries: list[str] = []
    for name in ("unet", "text_encoder"):
        for key in sheet.keys_under(name):
            if sheet.get(key) in (None, []):
                sheet.honoured(key)
            else:
                sheet.refused(key, "training the checkpoint's own weights is not what this is for; a network instead")
        written = plain.get(name)
        for one in written if isinstance(written, list) and name == "unet" else []:
            layers = one.get("layers") if isinstance(one, dict) else None
            entries += [str(layer) for layer in layers] if isinstance(layers, list) else []
    if not entries:
        return ""
    try:
        return preset_of("unet", meant(entries, unet_leaves())) or "attention+ff"
    except ValueError:
        return "attention+ff"


def _items(sheet: Sheet, part: str, name: str, written: Any, factor: float) -> list[Item]:
    if not isinstance(written, list) or not written:
        for key in sheet.keys_under(name):
            sheet.honoured(key, "no network in this part")
        return []
    found = []
    for index, entry in enumerate(written):
        key = f"{name}.{index}"
        if isinstance(entry, dict):
            item = _item(sheet, part, key, entry, factor, rank_name="rank")
            found += [item] if item else []
    return found


def _plugin_items(sheet: Sheet, part: str, name: str, written: Any, factor: float) -> list[Item]:
    """LyCORIS blocks: `{loha: {_target_: lycoris.hcp.LohaBlock.wrap_model, dim, alpha, lr, layers}}`."""
    if not isinstance(written, dict) or not written:
        for key in sheet.keys_under(name):
            sheet.honoured(key, "no plugin in this part")
        return []
    found = []
    for plugin, entry in written.items():
        key = f"{name}.{plugin}"
        target = str(entry.get("_target_", "")) if isinstance(entry, dict) else ""
        kind = next((ours for block, ours in ALGORITHMS.items() if block in target), "")
        if not kind or not isinstance(entry, dict):
            for inner in sheet.keys_under(key):
                sheet.refused(inner, "this plugin is not here")
            continue
        if kind in choices("network.algorithm"):
            sheet.translated(f"{key}._target_", "network.algorithm", kind, "the same kind of network")
        else:
            sheet.refused(
                f"{key}._target_", f"{kind} is not here; a LoRA of the same rank instead", "network.algorithm = lora"
            )
        item = _item(sheet, part, key, entry, factor, rank_name="dim")
        found += [item] if item else []
    return found


def _item(sheet: Sheet, part: str, key: str, entry: Mapping[str, Any], factor: float, *, rank_name: str) -> Item | None:
    """One entry with its lines; None where it cannot be translated."""
    if entry.get("branch") == "n":
        for inner in sheet.keys_under(key):
            sheet.refused(inner, "the negative branch of DreamArtist++ is not here")
        return None
    written = entry.get("layers")
    entries = tuple(
        str(one) for one in (written if isinstance(written, list) else [written] if written is not None else [])
    )
    try:
        found = _found(part, entries)
        problem = "" if found else "no layer of this name is known"
    except ValueError as error:
        found, problem = [], str(error)
    if problem:
        sheet.refused(f"{key}.layers", problem)
        for inner in sheet.keys_under(key):
            if inner != f"{key}.layers":
                sheet.refused(inner, "its layers could not be identified")
        return None
    rank = number(entry.get(rank_name))
    # a whole number in the file is a rank, a fraction a share; YAML and JSON tell 1 from 1.0, as HCP does
    is_share = isinstance(entry.get(rank_name), float) or (rank is not None and not rank.is_integer())
    alpha = number(entry.get("alpha"))
    scaled = flag(entry.get("alpha_auto_scale", True)) is not False
    size = 1 if rank is None or is_share else max(int(rank), 1)
    _claim(sheet, key, entry, rank_name)
    return Item(
        key,
        entries,
        tuple(found),
        size,
        float(rank) if rank is not None and is_share else 0.0,
        (1.0 if alpha is None else alpha) * (1 if scaled else size),
        (1e-5 if number(entry.get("lr")) is None else number(entry.get("lr")) or 0.0) * factor,
    )


def _found(part: str, entries: tuple[str, ...]) -> list[Leaf]:
    if part == "unet":
        return meant(entries, unet_leaves())
    plain = meant(entries, text_leaves())
    return plain or [leaf for leaf in text_leaves() if meant(entries, _prefixed(leaf))]


def _prefixed(leaf: Leaf) -> list[Leaf]:
    """The leaf's names in HCP's pair of encoders."""
    return [Leaf(f"{prefix}{leaf.path}", leaf.features) for prefix in ("clip_B.", "clip_bigG.")]


def _claim(sheet: Sheet, key: str, entry: Mapping[str, Any], rank_name: str) -> None:
    """Lines of what an entry may hold besides its layers, rank, alpha and rate."""
    for inner in sheet.keys_under(key):
        name = inner.removeprefix(f"{key}.")
        if name in ("layers", "lr", rank_name, "alpha", "_target_"):
            continue
        if name in ("_partial_", "alpha_auto_scale") or (name == "type" and sheet.get(inner) == "lora"):
            sheet.honoured(inner, "taken into account")
        elif name == "branch":
            sheet.honoured(inner, "the positive branch is the whole network here")
        elif name == "dropout":
            sheet.taken(inner, "network.dropout", number(sheet.get(inner)) or 0.0)
        elif name == "factor":
            sheet.refused(inner, "this option of the network is not here")
        else:
            sheet.refused(inner, "this option of a layer is not here")


def _settle_part(sheet: Sheet, part: str, items: list[Item], groups: list[dict[str, Any]]) -> None:
    """The part's settings from the item that one of our targets means exactly, groups from the others."""
    targets = f"network.{part}_targets"
    if not items:
        sheet.put(targets, "none")
        if part == "te":
            sheet.put("network.te_lr", 0.0)
        return
    presets = [preset_of(part, item.found) if not item.share else "" for item in items]
    base = next((index for index, preset in enumerate(presets) if preset), None)
    head = items[0] if base is None else items[base]
    lr_fault = sheet.put(f"network.{part}_lr", head.lr)
    sheet.put(targets, presets[base] if base is not None else ("all" if part == "unet" else "attention+mlp"))
    sheet.put(f"network.{part}_rank", head.rank)
    sheet.put(f"network.{part}_alpha", head.alpha)
    for index, item in enumerate(items):
        _tell(sheet, part, item, head_lr=head.lr, grouped=index != base, preset=presets[index], fault=lr_fault)
        if index != base:
            groups += _groups(sheet, part, item, head.lr)
    if base is None:
        groups.append({"pattern": rf"^lora_{part}\d?_", "rank": 0, "alpha": 0.0, "lr_factor": 1.0})
    seen: set[str] = set()
    for item in items:
        names = {leaf.path for leaf in item.found}
        if names & seen:
            sheet.remark(f"{item.key}: some layers are in two entries; HCP would train two changes of them, here one.")
        seen |= names


def _groups(sheet: Sheet, part: str, item: Item, base_lr: float) -> list[dict[str, Any]]:
    factor = item.lr / base_lr if base_lr else 1.0
    if item.share:
        pairs = by_rank(part, item.found, item.share)
        sheet.remark(
            f"{item.key}: a rank of {item.share:g} of each layer's size became {len(pairs)} groups of layers, "
            "by the names of SD1 and SD2."
        )
    else:
        pairs = [(item.rank, group_pattern(part, item.entries, item.found))]
    return [
        {"pattern": pattern, "rank": rank, "alpha": item.alpha, "lr_factor": factor}
        for rank, pattern in pairs
        if pattern
    ]


def _tell(sheet: Sheet, part: str, item: Item, *, head_lr: float, grouped: bool, preset: str, fault: str) -> None:
    """The lines of one entry's layers, rank, alpha and rate."""
    key, where = item.key, "network.groups" if grouped else f"network.{part}"
    rank_key = f"{key}.rank" if sheet.has(f"{key}.rank") else f"{key}.dim"
    if grouped and not item.share and not group_pattern(part, item.entries, item.found):
        sheet.refused(f"{key}.layers", "these layers cannot be named by one pattern; add a group by hand")
    elif grouped:
        sheet.note(f"{key}.layers", "translated", f"{len(item.found)} layers of SD1, as a group", where)
    else:
        sheet.note(f"{key}.layers", "translated", f"{len(item.found)} layers of SD1", f"{where}_targets = {preset}")
    if item.share:
        sheet.note(rank_key, "translated", "a share of each layer's size, as groups by rank", where)
    else:
        sheet.note(rank_key, "taken", "", f"{where}{' rank' if grouped else '_rank'} = {item.rank}")
    became = f"{where}{' alpha' if grouped else '_alpha'} = {item.alpha:g}"
    if sheet.has(f"{key}.alpha"):
        sheet.note(
            f"{key}.alpha", "taken" if number(sheet.get(f"{key}.alpha")) == item.alpha else "translated", "", became
        )
    elif not grouped:
        sheet.default(f"{key}.alpha", f"network.{part}_alpha", item.alpha, "HCP's own default")
        sheet.remark(f"{key}: no alpha is written; HCP's is 1, so the change is scaled by 1 / rank.")
    written = number(sheet.get(f"{key}.lr"))
    if fault:
        sheet.refused(f"{key}.lr", f"network.{part}_lr {fault}")
    elif written is not None:
        scaled = abs(item.lr - written) > 1e-12
        why = f"× {item.lr / written:g} by scale_lr" if scaled and written else ""
        factor = item.lr / head_lr if head_lr else 1.0
        name = f"network.{part}_lr = {head_lr:g}" + (f", {where} lr_factor = {factor:g}" if factor != 1 else "")
        sheet.note(f"{key}.lr", "translated" if why or grouped else "taken", why, name)
