"""HCP-Diffusion's training YAML. Meanings from its sources at 404f0e8: hcpdiff/train_ac.py, models/lora_base.py.

A layer's change is scaled by alpha / rank, with alpha 1 where none is written, or by alpha alone with
`alpha_auto_scale: False`; a rank below 1 is a share of the layer's features out. Embeddings begin with the files in
`emb_dir`. `hcp_yaml` reads a file with its bases, `hcp_dataset` its pictures as a scan does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_pivotal.errors import ConfigError
from lib_pivotal.importing import common
from lib_pivotal.importing.hcp_dataset import BACKGROUNDS, REGULAR
from lib_pivotal.importing.hcp_layers import Leaf, by_rank, group_pattern, meant, preset_of, text_leaves, unet_leaves
from lib_pivotal.importing.hcp_yaml import resolve
from lib_pivotal.importing.reading import Origin, flag, leaves, number, read_bytes, whole
from lib_pivotal.importing.report import shown
from lib_pivotal.importing.translation import (
    OFF,
    ConfigTranslation,
    Table,
    also,
    among,
    apply,
    aside,
    each,
    holds,
    means,
    missing,
    refuse,
    to,
    turned,
    unless,
    when,
    where,
)

TITLE = "HCP-Diffusion settings"
MOST_TEMPLATES = 100
LOSSES = {"MSELoss": "none", "MinSNRLoss": "min_snr", "SoftMinSNRLoss": "soft_min_snr_cubed"}
ALGORITHMS = {"LohaBlock": "loha", "LokrBlock": "lokr", "DiagOFTBlock": "oft", "LoconBlock": "lora"}
"""LyCORIS' classes for HCP -> kinds of network."""
_PARTS = frozenset("tokenizer_pt lora_unet lora_text_encoder plugin_unet plugin_TE text_encoder unet".split())
_ABOUT = frozenset("train model data _base_ logger exp_dir mixed_precision ckpt_type".split())

# fmt: off
_SCHEDULER = {"name": "one_cycle", "num_warmup_steps": 200, "num_training_steps": 1000, "scheduler_kwargs": {}}
KNOWN_BASES: Mapping[str, Mapping[str, Any]] = {
    "train_base.yaml": {
        "mixed_precision": "fp16",
        "seed": 114514,
        "train": {
            "train_steps": 1000, "gradient_accumulation_steps": 1, "max_grad_norm": 1.0, "save_step": 100,
            "optimizer": {"_target_": "torch.optim.AdamW", "weight_decay": 1e-3},
            "optimizer_pt": {"_target_": "torch.optim.AdamW", "weight_decay": 5e-4},
            "scale_lr": True, "scale_lr_pt": True, "scheduler": _SCHEDULER, "scheduler_pt": "${.scheduler}",
        },
        "model": {"tokenizer_repeats": 2, "gradient_checkpointing": True, "clip_skip": 0, "clip_final_norm": True},
    },
    "lora_conventional.yaml": {
        "_base_": ["train_base.yaml", "tuning_base.yaml"],
        "train": {"scheduler": {**_SCHEDULER, "name": "constant_with_warmup", "num_warmup_steps": 50}},
        "model": {"tokenizer_repeats": 1},
        "lora_unet": [{"lr": 1e-4, "rank": 8, "layers": [r"re:.*\.attn.?$", r"re:.*\.ff$"]}],
        "lora_text_encoder": [{"lr": 1e-5, "rank": 4, "layers": [r"re:.*self_attn$", r"re:.*mlp$"]}],
    },
    "tuning_base.yaml": {"tokenizer_pt": {"emb_dir": "embs/", "train": []}},
    "base_dataset.yaml": {"data": {"dataset1": {
        "batch_size": 4, "loss_weight": 1.0,
        "bucket": {
            "_target_": "hcpdiff.data.bucket.RatioBucket.from_files", "target_area": 512 * 512, "num_bucket": 5,
        },
    }}},
    "regularization_dataset.yaml": {"_base_": ["base_dataset.yaml"], "data": {"dataset_class": {
        "batch_size": 1, "loss_weight": 1.0,
        "bucket": {"_target_": "hcpdiff.data.bucket.FixedBucket", "target_size": [512, 512]},
    }}},
}
# fmt: on
"""What HCP's own base files hold and a file that rests on them needs; used where they are not on this computer."""


def is_hcp(plain: Mapping[str, Any]) -> bool:
    """Whether these are HCP's settings; files of OneTrainer, and HCP's own for making pictures, are not."""
    if {"training_method", "model_type"} & plain.keys() or {"prompt", "infer_args"} <= plain.keys():
        return False
    if "_base_" in plain:
        return bool((_PARTS | _ABOUT) & plain.keys() - {"_base_"})
    return bool(_PARTS & plain.keys() and _ABOUT & plain.keys()) or {"train", "model"} <= plain.keys()


def import_hcp(
    plain: Mapping[str, Any],
    origin: Origin,
    *,
    bases: Mapping[str, Mapping[str, Any]] = KNOWN_BASES,
    one_folder: bool = False,
) -> ConfigTranslation:
    """Translate one file, with its bases as far as they are here. `one_folder`: what lies around the sources is a tree
    that a scan reads as a whole."""
    merged = resolve(plain, origin.folder, bases, only_below=origin.uploaded)
    sheet = ConfigTranslation(merged.plain, origin, usual="HCP's own default")
    sheet.remarks += merged.remarks
    for name in merged.missing:
        sheet.remark(f"The base {name} is not on this computer: what stands in it is missing here.")
    if origin.folder is not None and not one_folder:
        path = origin.folder / origin.name
        reading = common.read_described(path, "hcp", origin)
        sheet.described = None if reading is None else (reading, path)
    apply(sheet, TABLE)
    for key in sheet.values:  # keys that exist to be referred to, and how objects are made
        if not sheet.claimed(key) and any(key == one or key.startswith(f"{one}.") for one in merged.used):
            sheet.honoured(key, "used in other settings")
        elif not sheet.claimed(key) and key.rpartition(".")[2] in ("_partial_", "_recursive_", "_convert_"):
            sheet.honoured(key, _HOW_MADE)
        if key.startswith("data.") and key.endswith(".cond_root"):
            sheet.refused(key, "pictures of ControlNet have no use here")
    for setting, value, why in (
        ("embeddings_common.control", "none", "HCP does not control embedding norms"),
        ("embeddings_common.keep_commas", True, "in HCP commas of init texts count"),
        ("schedule.clip_embeddings", 0.0, "HCP never limits the gradients of embeddings"),
    ):
        sheet.default(setting, setting, value, why)
    return sheet


def _dicts(items: Any) -> dict[str, dict[str, Any]]:
    """Those values of a mapping or list that are mappings, by key or place."""
    pairs = items.items() if isinstance(items, dict) else enumerate(items) if isinstance(items, list) else ()
    return {str(key): one for key, one in pairs if isinstance(one, dict)}


# ---- rates and steps ----


def _accumulation(sheet: ConfigTranslation) -> int:
    return max(sheet.whole("train.gradient_accumulation_steps", 1), 1)


def _pictures(sheet: ConfigTranslation) -> int:
    return sum(whole(one.get("batch_size")) or 1 for one in _dicts(sheet.plain.get("data")).values()) or 1


def _factor(sheet: ConfigTranslation, key: str) -> float:
    """By what HCP multiplies rates: pictures a step over all datasets."""
    return float(_pictures(sheet) * _accumulation(sheet)) if sheet.flag(key) else 1.0


def _scaled(sheet: ConfigTranslation, key: str, value: Any) -> None:
    if not sheet.flag(key):
        sheet.honoured(key, "learning rates act as they are written, as here")
        return
    what = "the network's" if key == "train.scale_lr" else "the embedding"
    why = (
        f"HCP multiplies {what} learning rates by {_factor(sheet, key):g} = pictures a step of all datasets "
        f"({_pictures(sheet)}) × "
        f"accumulation ({_accumulation(sheet)}), for one GPU; here learning rates are written as they act"
    )
    sheet.note(key, "translated", why)


def _steps(sheet: ConfigTranslation) -> None:
    """HCP counts micro-batches as steps; here a step is an update."""
    accumulation = _accumulation(sheet)
    why = f"HCP counts each of the {accumulation} micro-batches of an update as a step" if accumulation > 1 else ""
    sheet.taken("train.gradient_accumulation_steps", "schedule.accumulation", accumulation)
    for key, path in (("train.train_steps", "schedule.max_steps"), ("train.save_step", "saving.every_steps")):
        steps = whole(sheet.get(key))
        if steps is None:
            sheet.honoured(key, "not given")
        elif why:
            sheet.translated(key, path, max(steps // accumulation, 1), why)
        else:
            sheet.taken(key, path, steps)


def _epochs(sheet: ConfigTranslation) -> None:
    """Epochs come before steps in HCP (train_ac.py: epochs × batches of the first set); known only after the data."""
    epochs = sheet.whole("train.train_epochs")
    if epochs < 1:
        sheet.honoured("train.train_epochs", "not given; steps count")
        return
    draws = common.draws_an_epoch(sheet.described[0] if sheet.described else None)
    common.take_epochs(sheet, "train.train_epochs", epochs, draws)
    sheet.honoured("train.train_steps", "epochs come before steps")


def _scheduler(sheet: ConfigTranslation) -> None:
    at, accumulation = "train.scheduler", _accumulation(sheet)
    name = sheet.get(f"{at}.name")
    if name is not None and common.set_rate(sheet, f"{at}.name", name) == "one_cycle":
        why = "torch's OneCycleLR ends there"
        sheet.default("final_div_factor of one_cycle", "schedule.final_factor", 4e-06, why)
    key = f"{at}.num_warmup_steps"
    warmup = sheet.whole(key)
    if str(name) in ("constant", "None"):
        sheet.honoured(key, "this scheduler has no warm-up")
    elif accumulation > 1 and warmup:
        sheet.translated(key, "schedule.warmup_steps", warmup // accumulation, "HCP counts micro-batches")
    else:
        sheet.taken(key, "schedule.warmup_steps", warmup)
    key = f"{at}.num_training_steps"
    length, steps = whole(sheet.get(key)), whole(sheet.get("train.train_steps"))
    if length is not None and length == steps:
        sheet.honoured(key, "the LR scheduler is as long as the run, as here")
    elif str(name).startswith("constant"):
        sheet.honoured(key, "of no effect on a constant learning rate")
    else:
        sheet.refused(key, f"here the LR scheduler is always as long as the run ({shown(steps)} steps)")
    of_embeddings = sheet.under("train.scheduler_pt")
    same = all(sheet.get(key) == sheet.get(key.replace("scheduler_pt", "scheduler")) for key in of_embeddings)
    for key in of_embeddings:
        if same or sheet.get(key) in (None, "${.scheduler}"):
            sheet.honoured(key, "as the network's")
        else:
            sheet.refused(key, "embeddings and network share one LR scheduler here, the network's was taken")


def _optimizers(sheet: ConfigTranslation) -> None:
    key, key_pt = "train.optimizer._target_", "train.optimizer_pt._target_"
    kind, of_embeddings = sheet.get(key), sheet.get(key_pt)
    if kind is not None:
        common.set_optimizer(sheet, key, kind)
    if of_embeddings is not None and of_embeddings == kind:
        sheet.honoured(key_pt, "as the network's")
    else:
        sheet.refused(key_pt, "embeddings and network share one optimiser here, the network's was taken")
    for part, path in (("optimizer", "network.weight_decay"), ("optimizer_pt", "embeddings_common.weight_decay")):
        if (decay := sheet.number(f"train.{part}.weight_decay")) is not None:
            sheet.taken(f"train.{part}.weight_decay", path, decay)
        elif kind is not None:
            sheet.default(f"train.{part}.weight_decay", path, 0.01, "AdamW's own default")


def _optimizer_option(sheet: ConfigTranslation, key: str, value: Any) -> None:
    name, of_network = key.rpartition(".")[2], key.replace("optimizer_pt", "optimizer")
    if name in ("_partial_", "relative_step", "warmup_init", "scale_parameter", "type"):
        sheet.honoured(key, "how the optimiser is made; here too")
    elif key != of_network and value == sheet.get(of_network):
        sheet.honoured(key, "as the network's")
    elif key != of_network:
        sheet.refused(key, "embeddings and network share one optimiser here, the network's was taken")
    elif not common.take_option(sheet, key, name, value):
        sheet.refused(key, "the optimiser has no such option here")


# ---- loss and model ----


def _loss(sheet: ConfigTranslation) -> None:
    """By the class's name; what is not written is the squared error."""
    at = "train.loss.criterion"
    name = str(sheet.get(f"{at}._target_", "torch.nn.MSELoss")).rpartition(".")[2]
    ours = LOSSES.get(name)
    if name == "L1Loss":
        sheet.translated(f"{at}._target_", "loss.kind", "l1", f"{name} is called l1 here")
    elif ours:
        sheet.translated(
            f"{at}._target_", "loss.weighting", ours, f"{name} is called {ours} here, on the squared error"
        )
    else:
        why = "there is no such loss here; the plain squared error instead"
        sheet.refused(f"{at}._target_", why, "loss.weighting = none")
    if sheet.number(f"{at}.gamma") is not None or name.endswith("SNRLoss"):
        sheet.own(f"{at}.gamma", "loss.snr_gamma", sheet.number(f"{at}.gamma"), 1.0)


def _is_number(value: Any) -> bool:
    return whole(value) is not None


def _from_1(skip: Any) -> int:
    return (whole(skip) or 0) + 1


def _is_xl(sheet: ConfigTranslation) -> bool:
    return "xl" in str(sheet.get("model.pretrained_model_name_or_path", "")).lower()


def _skip_of_xl(sheet: ConfigTranslation, key: str, value: Any) -> None:
    why = "SDXL's own layer is the one before the last; that is Clip skip 1 of the web UI"
    sheet.note(key, "translated" if whole(value) == 1 else "not supported", why, "clip_skip = 1")


# ---- embeddings ----


def _embeddings(sheet: ConfigTranslation) -> None:
    """Embeddings with their rates, and what they begin with."""
    tokenizer, at = sheet.plain.get("tokenizer_pt"), "tokenizer_pt.train"
    listed = tokenizer.get("train") if isinstance(tokenizer, dict) else None
    items = _dicts(listed) if isinstance(listed, list) else {}
    folder = sheet.origin.find(sheet.get("tokenizer_pt.emb_dir")) if items else None
    told = "this folder is not here; embeddings start from their init text" if items else "no embeddings are trained"
    told = f"embeddings are looked for in {folder.name}" if folder else told
    sheet.note("tokenizer_pt.emb_dir", "taken" if folder else "ignored", told)
    if not items:
        sheet.honoured(at, "no embeddings are trained")
        return
    factor = _factor(sheet, "train.scale_lr_pt")
    rates = {place: number(item.get("lr")) or 0.0 for place, item in items.items()}
    highest = max(rates.values())
    if sheet.put("embeddings_common.lr", highest * factor):
        stays = f"{sheet.read('embeddings_common.lr'):g}"
        sheet.remark(f"The embedding LR {highest * factor:g} is out of range; it stays {stays}.")
    pairs = (value for key, value in leaves(sheet.plain.get("data", {})) if ".word_names." in key)
    negative = {str(pair[1]) for pair in pairs if isinstance(pair, list) and len(pair) == 2 and pair[1]}
    embeddings: list[dict[str, Any]] = []
    for place, item in items.items():
        index, key, name = len(embeddings), f"{at}.{place}", str(item.get("name", ""))
        if str(item.get("name")) in negative:
            sheet.refused(sheet.under(key), "the negative embedding of DreamArtist has no use here")
            continue
        embedding, told = common.new_embedding(name, embeddings)
        embeddings.append(embedding)
        start = _start(embedding, name, folder)
        share = embedding["lr_factor"] = rates[place] / highest if highest else 1.0
        if told:
            sheet.remark(f"Captions must say {embedding['name']} where they said {item.get('name')}.")
        done = "; ".join(filter(None, [told, start]))
        sheet.note(
            f"{key}.name", "translated" if done else "taken", done, f"embeddings.{index}.name = {embedding['name']}"
        )
        why = f"× {factor:g} by scale_lr_pt" if factor != 1 else ""
        became = f"embeddings_common.lr = {highest * factor:g}"
        became += f", embeddings.{index}.lr_factor = {share:g}" if share != 1 else ""
        sheet.note(f"{key}.lr", "translated" if why else "taken", why, became)
    sheet.put("embeddings", embeddings)


def _start(embedding: dict[str, Any], name: str, folder: Path | None) -> str:
    """Begin with the file that HCP would begin with, where it is here; returns what was done."""
    path = folder / f"{name}.pt" if folder and re.fullmatch(r"[\w. -]{1,80}", name) else None
    if path is None or not path.is_file():
        return f"its file is not here; set its init text and number of vectors ({embedding['vectors']} now)"
    count = common.vectors_of(path)
    if not count:
        return f"{path.name} cannot be read as an embedding; set its init text"
    embedding["init_file"], embedding["vectors"] = str(path), count
    return f"begins with {path.name}, {count} vectors"


# ---- network ----


@dataclass(frozen=True)
class Item:
    """One entry of a list of layers: `key` in the file, layers found, and what they get. `share` is a rank below 1."""

    key: str
    rank_key: str
    entries: tuple[str, ...]
    found: tuple[Leaf, ...]
    rank: int
    share: float
    alpha: float
    lr: float


def _network(sheet: ConfigTranslation) -> None:
    """Both parts: settings from the entry that one of our targets means exactly, groups from the others."""
    groups: list[dict[str, Any]] = []
    whole_layers, trained = _whole_layers(sheet), False
    for part, name, plugin in (("unet", "lora_unet", "plugin_unet"), ("te", "lora_text_encoder", "plugin_TE")):
        entries = [*_lists(sheet, name), *_plugins(sheet, plugin)]
        items = [item for entry in entries if (item := _item(sheet, part, *entry))]
        _settle(sheet, part, items, groups)
        trained |= bool(items)
    common.put_groups(sheet, groups)
    if not trained and not whole_layers:
        sheet.put("network.algorithm", "none")
    elif not trained:
        sheet.put("network.unet_targets", whole_layers)
        sheet.remark(
            "These settings train layers of the checkpoint itself. That is not what this is for: a network on "
            f"{whole_layers} with our own rank and LR was set instead."
        )


def _whole_layers(sheet: ConfigTranslation) -> str:
    """Layers of the U-Net that HCP would train as they are, as a target of ours; "" if there are none."""
    why = "training the checkpoint's own weights is not what this is for; a network instead"
    apply(sheet, [("unet.* text_encoder.*", missing(why, (None,)))])
    units = sheet.plain.get("unet")
    layers = [one.get("layers") for one in _dicts(units).values()] if isinstance(units, list) else []
    entries = [str(layer) for one in layers if isinstance(one, list) for layer in one]
    try:
        return (preset_of("unet", meant(entries, unet_leaves())) or "attention+ff") if entries else ""
    except ValueError:
        return "attention+ff"


def _lists(sheet: ConfigTranslation, name: str) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """(key, entry, name of its rank) of each entry of a list of layers."""
    written = sheet.plain.get(name)
    if not isinstance(written, list) or not written:
        sheet.honoured(sheet.under(name), "no network in this part")
        return
    for index, entry in _dicts(written).items():
        yield f"{name}.{index}", entry, "rank"


def _plugins(sheet: ConfigTranslation, name: str) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """The same of LyCORIS blocks: `{loha: {_target_: lycoris.hcp.LohaBlock.wrap_model, dim, alpha, lr, layers}}`."""
    written = sheet.plain.get(name)
    if not isinstance(written, dict) or not written:
        sheet.honoured(sheet.under(name), "no plugin in this part")
        return
    for plugin, entry in written.items():
        key, target = f"{name}.{plugin}", str(entry.get("_target_", "")) if isinstance(entry, dict) else ""
        if kind := next((ours for block, ours in ALGORITHMS.items() if block in target), ""):
            common.set_kind(sheet, f"{key}._target_", kind, "the same kind of network", kind)
            yield key, entry, "dim"
        else:
            sheet.refused(sheet.under(key), "this plugin is not here")


def _item(sheet: ConfigTranslation, part: str, key: str, entry: Mapping[str, Any], rank_name: str) -> Item | None:
    """One entry with its lines; None where it cannot be translated."""
    if entry.get("branch") == "n":
        sheet.refused(sheet.under(key), "the negative branch of DreamArtist++ is not here")
        return None
    written = entry.get("layers")
    entries = tuple(map(str, written if isinstance(written, list) else [written] if written is not None else []))
    try:
        found = _found(part, entries)
        problem = "" if found else "no layer of this name is known"
    except ValueError as error:
        found, problem = [], str(error)
    if problem:
        sheet.refused(sheet.under(key), "its layers could not be identified")
        sheet.refused(f"{key}.layers", problem)
        return None
    rank, alpha, lr = (number(entry.get(name)) for name in (rank_name, "alpha", "lr"))
    # a whole number in the file is a rank, a fraction a share; YAML and JSON tell 1 from 1.0, as HCP does
    is_share = isinstance(entry.get(rank_name), float) or (rank is not None and not rank.is_integer())
    scaled = flag(entry.get("alpha_auto_scale", True)) is not False
    size = 1 if rank is None or is_share else max(int(rank), 1)
    apply(sheet, ENTRY, at=f"{key}.")
    own = [f"{key}.{name}" for name in ("layers", "lr", rank_name, "alpha", "_target_")]
    sheet.refused([one for one in sheet.under(key, still_open=True) if one not in own], _NO_OPTION)
    return Item(
        key,
        f"{key}.rank" if sheet.has(f"{key}.rank") else f"{key}.dim",
        entries,
        tuple(found),
        size,
        float(rank) if rank is not None and is_share else 0.0,
        (1.0 if alpha is None else alpha) * (1 if scaled else size),
        (1e-5 if lr is None else lr) * _factor(sheet, "train.scale_lr"),
    )


def _found(part: str, entries: tuple[str, ...]) -> list[Leaf]:
    """The layers that entries mean; text encoders may be named as those of HCP's pair for SDXL."""
    if part == "unet":
        return meant(entries, unet_leaves())
    pair = ("clip_B.", "clip_bigG.")
    return meant(entries, text_leaves()) or [
        leaf for leaf in text_leaves() if meant(entries, [Leaf(f"{one}{leaf.path}", leaf.features) for one in pair])
    ]


def _settle(sheet: ConfigTranslation, part: str, items: list[Item], groups: list[dict[str, Any]]) -> None:
    if not items:
        sheet.put(f"network.{part}_targets", "none")
        if part == "te":
            sheet.put("network.te_lr", 0.0)
        return
    presets = [preset_of(part, item.found) if not item.share else "" for item in items]
    base = next((index for index, preset in enumerate(presets) if preset), None)
    head = items[base or 0]
    fault = sheet.put(f"network.{part}_lr", head.lr)
    targets = presets[base] if base is not None else ("all" if part == "unet" else "attention+mlp")
    for name, value in (("targets", targets), ("rank", head.rank), ("alpha", head.alpha)):
        sheet.put(f"network.{part}_{name}", value)
    for index, item in enumerate(items):
        factor = item.lr / head.lr if head.lr else 1.0
        pairs: Sequence[tuple[int, str]] = ()
        if index != base and item.share:
            pairs = by_rank(part, item.found, item.share)
        elif index != base:
            pairs = [(item.rank, group_pattern(part, item.entries, item.found))]
        pairs = [(rank, pattern) for rank, pattern in pairs if pattern]
        _tell_layers(sheet, part, item, presets[index] if index == base else "", named=bool(pairs))
        _tell_rate(sheet, part, item, factor, head.lr, fault, grouped=index != base)
        if index != base and item.share:
            sheet.remark(
                f"{item.key}: a rank of {item.share:g} of each layer's size became {len(pairs)} groups of layers, "
                "by the names of SD1 and SD2."
            )
        groups += [common.group(pattern, rank, item.alpha, factor) for rank, pattern in pairs]
    if base is None:
        groups.append(common.group(rf"^lora_{part}\d?_", 0, 0.0))
    seen: set[str] = set()
    for item in items:
        names = {leaf.path for leaf in item.found}
        if names & seen:
            sheet.remark(f"{item.key}: some layers are in two entries; HCP would train two changes of them, here one.")
        seen |= names


def _tell_layers(sheet: ConfigTranslation, part: str, item: Item, preset: str, *, named: bool) -> None:
    """The lines of one entry's layers, rank and alpha; `preset` is empty for a group."""
    key, grouped = item.key, not preset
    where, glue = ("network.groups", " ") if grouped else (f"network.{part}", "_")
    count = f"{len(item.found)} layers of SD1"
    if grouped and not item.share and not named:
        sheet.refused(f"{key}.layers", "these layers cannot be named by one pattern; add a group by hand")
    elif grouped:
        sheet.note(f"{key}.layers", "translated", f"{count}, as a group", where)
    else:
        sheet.note(f"{key}.layers", "translated", count, f"{where}_targets = {preset}")
    if item.share:
        sheet.note(item.rank_key, "translated", "a share of each layer's size, as groups by rank", where)
    else:
        sheet.note(item.rank_key, "taken", "", f"{where}{glue}rank = {item.rank}")
    if sheet.has(f"{key}.alpha"):
        as_written = sheet.number(f"{key}.alpha") == item.alpha
        sheet.note(f"{key}.alpha", "taken" if as_written else "translated", "", f"{where}{glue}alpha = {item.alpha:g}")
    elif not grouped:
        sheet.default(f"{key}.alpha", f"network.{part}_alpha", item.alpha, sheet.usual)
        sheet.remark(f"{key}: no alpha is written; HCP's is 1, so the change is scaled by 1 / rank.")


def _tell_rate(
    sheet: ConfigTranslation, part: str, item: Item, factor: float, head_lr: float, fault: str, *, grouped: bool
) -> None:
    key, written = f"{item.key}.lr", sheet.number(f"{item.key}.lr")
    if fault:
        sheet.refused(key, f"network.{part}_lr {fault}")
    elif written is not None:
        why = f"× {item.lr / written:g} by scale_lr" if abs(item.lr - written) > 1e-12 and written else ""
        where = "network.groups" if grouped else f"network.{part}"
        became = f"network.{part}_lr = {head_lr:g}" + (f", {where} lr_factor = {factor:g}" if factor != 1 else "")
        sheet.note(key, "translated" if why or grouped else "taken", why, became)


# ---- pictures ----


def _data(sheet: ConfigTranslation) -> None:
    """The first dataset is the run's; one that is called after class or regularisation is the set beside. Where its
    folders are here, the file is read as a scan reads it: every source of every set."""
    sets = _dicts(sheet.plain.get("data"))
    beside = next((name for name in sets if REGULAR.search(name)), "")
    own = next((name for name in sets if name != beside), "")
    if beside:
        folder = _folder_of(sheet, sets[beside])
        for name in _dicts(sets[beside].get("source")):
            root = f"data.{beside}.source.{name}.img_root"
            if folder:
                sheet.taken(root, "regularisation.folder", folder)
            else:
                sheet.refused(root, "these folders have none in common; put them into one")
        _beside(sheet, f"data.{beside}")
    if sheet.described is not None:
        common.take_described(sheet, *sheet.described, "data")
    for name in sets:
        if name == beside:
            continue
        if sheet.described is not None:
            _lines_as_read(sheet, f"data.{name}")
        elif name == own:
            _own(sheet, f"data.{own}", sets[own])
        else:
            why = "a run has one set of pictures and one beside it; put the folders into one"
            sheet.refused(sheet.under(f"data.{name}"), why)


def _lines_as_read(sheet: ConfigTranslation, key: str) -> None:
    """A line for each key of a set that a scan reads itself: what it does not take is not supported."""
    assert sheet.described is not None
    reading, path = sheet.described
    untaken = {one.partition(" (")[0] for one in reading.untaken}
    _plumbing(sheet, key)
    for inner in sheet.under(key):
        name = re.sub(r"^source\.[^.]+\.", "source.", inner.removeprefix(f"{key}."))
        if {name, str(sheet.get(inner)).rpartition(".")[2]} & untaken:
            sheet.refused(inner, "a scan has no such setting")
        elif not sheet.claimed(inner):
            became = f"data.folder = {path}" if inner.endswith(".img_root") else ""
            sheet.note(inner, "taken", "a scan reads HCP's file itself, source by source", became)


def _folder_of(sheet: ConfigTranslation, dataset: Mapping[str, Any]) -> str:
    """The folder around all sources of a set; "" if they have none in common."""
    roots = [str(one.get("img_root", "")) for one in _dicts(dataset.get("source")).values()]
    return common.common_folder(sheet.origin, roots)


def _own(sheet: ConfigTranslation, key: str, dataset: Mapping[str, Any]) -> None:
    apply(sheet, OWN, at=f"{key}.")
    _plumbing(sheet, key)
    _bucket(sheet, f"{key}.bucket", dataset.get("bucket"))
    sources, folder = _dicts(dataset.get("source")), _folder_of(sheet, dataset)
    for index, (name, source) in enumerate(sources.items()):
        inner, root = f"{key}.source.{name}", str(source.get("img_root", ""))
        if folder and root and len(sources) > 1:
            sheet.translated(f"{inner}.img_root", "data.folder", folder, "the folder around all sources")
        elif folder and root:
            sheet.taken(f"{inner}.img_root", "data.folder", folder)
        else:
            sheet.refused(f"{inner}.img_root", "the sources' folders have none in common; put them into one")
        _repeat(sheet, f"{inner}.repeat", root)
        if index == 0:
            _transforms(sheet, inner, source.get("text_transforms", source.get("tag_transforms")))
            _template(sheet, inner, source)
        made = [one for one in sheet.under(inner, still_open=True) if one.endswith(("._target_", "._partial_"))]
        made = [one for one in made if not one.startswith(f"{inner}.caption_file")]
        sheet.honoured(made, _HOW_MADE)
        apply(sheet, SOURCE if index == 0 else [*LATER, *SOURCE], at=f"{inner}.")


def _beside(sheet: ConfigTranslation, key: str) -> None:
    """A set with its own weight in the same step: our regularisation set."""
    apply(sheet, BESIDE, at=f"{key}.")
    for inner in sheet.under(key, still_open=True):
        if inner.endswith((".prompt_template", ".caption_file", ".path")) or ".word_names" in inner:
            sheet.note(inner, "translated", "their captions lie beside the pictures, without the embeddings")
    _plumbing(sheet, key)
    sheet.honoured(sheet.under(key, still_open=True), "as for the run's own pictures")


def _plumbing(sheet: ConfigTranslation, key: str) -> None:
    """Keys of a dataset that say how it is built or cached."""
    for inner in sheet.under(key, still_open=True):
        name = inner.rpartition(".")[2]
        if name == "att_mask_encode" and sheet.flag(inner):
            sheet.refused(inner, _PLUMBING[name])
        elif name in _PLUMBING or inner == f"{key}._target_":
            sheet.honoured(inner, _PLUMBING.get(name, _HOW_MADE))


def _bucket(sheet: ConfigTranslation, key: str, bucket: Any) -> None:
    """Buckets of about an area, or pictures of one fixed size."""
    if not isinstance(bucket, dict):
        return
    kind, area = str(bucket.get("_target_", "")), number(bucket.get("target_area"))
    if "FixedBucket" in kind:
        _fixed_size(sheet, f"{key}.target_size", bucket.get("target_size", 512))
        sheet.honoured(f"{key}._target_", "one size for all pictures")
    elif area and area > 0:
        sheet.put("data.bucketing", True)
        apply(sheet, RATIO_BUCKET, at=f"{key}.")
    elif "SizeBucket" in kind:
        sheet.refused(f"{key}._target_", "pictures are brought to data.resolution_px; set it to their size")
    apply(sheet, BUCKET, at=f"{key}.")


def _fixed_size(sheet: ConfigTranslation, key: str, size: Any) -> None:
    sides = [whole(one) or 0 for one in (size if isinstance(size, list) else [size, size])][:2]
    if len(sides) < 2 or min(sides) < 1:
        sheet.refused(key, f"{shown(size)} is no size")
    elif sides[0] == sides[1]:
        sheet.put("data.bucketing", False)
        sheet.translated(key, "data.resolution_px", sides[0], "square pictures: buckets are off")
    else:
        side = round(math.sqrt(sides[0] * sides[1]))
        sheet.refused(key, f"one size that is no square: buckets of {side} px were taken instead")
        sheet.put("data.resolution_px", side)


def _repeat(sheet: ConfigTranslation, key: str, root: str) -> None:
    repeat, path = whole(sheet.get(key)), Path(root) / "multiply.txt"
    try:
        said = number((path.read_text(encoding="utf-8")[:40] if path.is_file() else "").split("\n")[0].strip())
    except (OSError, ValueError):
        said = None
    if repeat in (None, 1):
        sheet.honoured(key, "once an epoch, as here")
    elif said is not None and round(said) == repeat:
        sheet.honoured(key, "the folder's multiply.txt says the same, and is read here")
    else:
        why = f"repeats stand in the folder: write {repeat} into multiply.txt there, or balance by embeddings"
        sheet.refused(key, why)


def _transforms(sheet: ConfigTranslation, key: str, transforms: Any) -> None:
    base = next((one for one in ("text_transforms", "tag_transforms") if sheet.under(f"{key}.{one}")), "")
    listed = transforms.get("transforms") if isinstance(transforms, dict) else None
    steps = list(_dicts(listed).values()) if isinstance(listed, list) else []
    names = [str(one.get("_target_", "")).rpartition(".")[2] for one in steps]
    sheet.default(f"{key}: TagShuffle", "data.shuffle_tags", "TagShuffle" in names, "tags keep their order without it")
    for index, (step, name) in enumerate(zip(steps, names, strict=True)):
        inner = f"{key}.{base}.transforms.{index}"
        if name == "TagShuffle":
            sheet.translated(f"{inner}._target_", "data.shuffle_tags", True, "tags are shuffled")
        elif name in ("TagDropout", "TagErase"):
            chance = 0.1 if (written := number(step.get("p"))) is None else written
            path = "data.tag_dropout" if name == "TagDropout" else "data.caption_dropout"
            fault, became = sheet.put(path, chance), f"{path} = {chance:g}"
            sheet.note(f"{inner}._target_", "translated", fault or "embeddings are never dropped here", became)
            sheet.note(f"{inner}.p", "not supported" if fault else "taken", fault, became)
        elif name == "TemplateFill":
            sheet.honoured(f"{inner}._target_", "templates are filled")
        else:
            sheet.refused(sheet.under(inner), f"{name or 'this step'} is not here")
        sheet.note(sheet.under(f"{inner}.word_names"), "translated", _NAMES)


def _template(sheet: ConfigTranslation, key: str, source: Mapping[str, Any]) -> None:
    """The lines of the template file, with HCP's names for embeddings as ours."""
    inner, path = f"{key}.prompt_template", sheet.origin.find(source.get("prompt_template"))
    if path is None or path.suffix.lower() != ".txt":
        sheet.refused(inner, "this file is not here; write its lines into data.templates, the embedding as {word}")
        return
    try:
        lines = read_bytes(path).decode("utf-8").splitlines()
    except (ConfigError, UnicodeDecodeError):
        sheet.refused(inner, "this file cannot be read; write its lines into data.templates")
        return
    names = source.get("word_names")
    found = [_our_template(line, names if isinstance(names, dict) else {}) for line in lines if line.strip()]
    templates = list(dict.fromkeys(line for line in found[:MOST_TEMPLATES] if line))
    if templates in ([], ["{caption}"]):
        sheet.note(inner, "translated", "the caption alone, as without templates")
    else:
        sheet.translated(inner, "data.templates", templates, "its lines, with {word} for the trained embedding")


def _our_template(line: str, names: Mapping[str, Any]) -> str:
    """`a photo of a {pt1} {class}, {caption}` -> `a photo of a {word} dog, {caption}`."""

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        if name == "caption":
            return "{caption}"
        value = names.get(name)
        if re.fullmatch(r"pt\d*", name):
            return "{word}" if value or name not in names else ""
        return str(value) if isinstance(value, str) else ""

    return " ".join(re.sub(r"\{(\w*)\}", one, line).split()).replace(" ,", ",")


def _background(value: Any) -> str | None:
    colour = tuple(whole(one) or 0 for one in value[:3]) if isinstance(value, list) else ()
    return BACKGROUNDS.get(colour)


def _side(area: Any) -> int | None:
    return None if number(area) is None else round(math.sqrt(number(area) or 0.0))


def _batch(value: Any) -> Any:
    return int(found) if (found := number(value)) is not None and found.is_integer() else found


# ---- the tables ----

_HOW_MADE = "how an object is made"
_NO_OPTION = "this option of a layer is not here"
_NAMES = "names stand in the captions, or in templates as {word}"
_PLUMBING = {
    "cache_latents": "latents are always kept, in memory up to memory.latents_mb",
    "cache_path": "set data.cache_folder to keep latents on disk; they are renewed when pictures change",
    "att_mask_encode": "a mask counts for its pixels alone",
    "encoder_attention_mask": "text is padded as the web UI does it",
    **dict.fromkeys(("return_path", "_partial_", "_convert_"), _HOW_MADE),
}

# fmt: off
ENTRY: Table = (
    ("_partial_ alpha_auto_scale", holds("taken into account")),
    ("type", among(("lora",), holds("taken into account")), refuse(_NO_OPTION)),
    ("branch", holds("the positive branch is the whole network here")),
    ("dropout", to("network.dropout", lambda value: number(value) or 0.0)),
    ("factor", common.kind_option("factor"), refuse("this option of the network is not here")),
)
"""What an entry of layers may hold besides its layers, rank, alpha and rate."""
OWN: Table = (
    ("batch_size", to("schedule.batch_size", _batch, default=1)),
    ("loss_weight",
     unless(lambda value: number(value) not in (None, 1.0),
            "the run's own pictures always count once; scale the other set's weight",
            "the run's own pictures count once, as here")),
)
BESIDE: Table = (
    ("batch_size", to("regularisation.batch_size", _batch, default=1)),
    ("loss_weight", to("regularisation.weight", number, default=1.0)),
    ("bucket*", holds("brought to the same sizes as the run's own pictures")),
)
RATIO_BUCKET: Table = (
    ("target_area", turned("data.resolution_px", _side, "the side of a square of this area")),
    ("step_size", to("data.bucket_step_px", whole, default=8)),
    ("_target_", holds("aspect-ratio buckets", "data.bucketing = true")),
)
BUCKET: Table = (
    ("pre_build_bucket", aside("buckets are found again for each run")),
    ("num_bucket", means("as many buckets as the pictures' shapes need")),
    ("ratio_max", means("as far as the pictures' shapes go")),
    ("_target_ _partial_", holds(_HOW_MADE)),
)
LATER: Table = (
    ("text_transforms* tag_transforms* prompt_template* att_mask*", holds("the first source's hold for all")),
)
SOURCE: Table = (
    ("att_mask",
     turned("data.masks", lambda value: "hcp_exact" if value else None,
            "HCP's grey scale, never scaled; put the files into `mask/` beside the pictures", off="no masks")),
    ("bg_color",
     when(_background, turned("data.transparency", _background, "what stands behind transparent pixels")),
     refuse("behind transparent pixels there is white, grey or a random colour")),
    ("caption_file*",
     means("captions are found beside the pictures: .txt, .caption, .json, or one .json for the folder")),
    ("word_names*", means(_NAMES)),
    ("image_transforms*", refuse("changes of the picture are not read; see data.flip and data.crop")),
)

TABLE: Table = (
    # what several keys decide together
    ("train.scale_lr train.scale_lr_pt", _scaled),
    _steps,
    _scheduler,
    ("train.scheduler.scheduler_kwargs.num_cycles", to("schedule.lr_scheduler_cycles", whole)),
    ("train.scheduler.scheduler_kwargs.power", to("schedule.lr_scheduler_power", number)),
    ("train.scheduler.scheduler_kwargs.*", missing("options of a scheduler are not read")),
    ("train.scheduler.*", refuse("an LR scheduler built by class cannot be read; set schedule.lr_scheduler")),
    _optimizers,
    ("train.optimizer.* train.optimizer_pt.*", _optimizer_option),
    _loss,
    ("train.loss.criterion._partial_", holds("how the loss is made")),
    ("train.loss.type",
     missing("the error of the predicted picture is not here; noise or v, as the checkpoint",
             (None, "eps"), told="what is predicted follows from the checkpoint")),
    ("train.cfg_scale",
     missing("DreamArtist's training with a negative embedding is not supported", (None, 1, "1", "1.0", "None"))),
    ("model.clip_skip", when(_is_number, where(_is_xl, also("clip_skip", 1, _skip_of_xl))),
     when(_is_number, turned("clip_skip", _from_1, "HCP counts from 0, the web UI from 1"))),
    ("model.clip_final_norm",
     where(lambda sheet: sheet.flag("model.clip_final_norm", default=True) != _is_xl(sheet),
           holds("as the web UI does for this kind of checkpoint")),
     refuse("the last norm is used where the web UI uses it")),
    ("model.tokenizer_repeats",
     when(whole, turned("data.max_tokens", lambda value: 75 * (whole(value) or 0),
                        "HCP cuts captions after this many times 75 tokens"))),
    ("model.ema_unet model.ema_text_encoder", to("schedule.ema_decay", lambda value: number(value) or 0, off=OFF)),
    ("model.ema.decay_max", to("schedule.ema_decay", number)),
    ("model.ema._target_ model.ema._partial_", holds("how the average is made")),
    ("model.ema.*", missing("the average's warm-up has its own rule here")),
    _embeddings,
    _network,
    _data,
    _epochs,
    # each for itself
    ("mixed_precision", common.precision("memory.precision")),
    ("seed", to("seed", whole)),
    ("train.max_grad_norm",
     to("schedule.clip_network", number, "limits the network's gradients; HCP never those of embeddings")),
    ("model.gradient_checkpointing", to("memory.gradient_checkpointing", flag)),
    # what is not here
    *each(missing, {
        "previewer": "write the prompts of pictures into the settings",
        "train.resume": "continuing from HCP's files is not possible; convert them and load them as embeddings",
        "model.tokenizer model.unet model.text_encoder model.vae": "the checkpoint is used as the web UI has loaded it",
        "model.noise_scheduler": "noise has settings of its own here",
    }),
    # what does not concern training
    *each(aside, {
        "exp_dir exp_dir_base": "files go to the folder of this extension's runs",
        "allow_tf32 train.set_grads_to_none model.enable_xformers model.force_cast_precision model.vae_dtype":
            "speed or memory; the web UI's own settings hold here",
        "ckpt_type": "a bundle is always a safetensors file",
        "train.workers": "pictures are read as they are needed",
        "train.loss.criterion.reduction": "here each sample has its own loss, always",
        "model.revision model.pretrained_model_name_or_path": "the checkpoint is the one that the web UI has loaded",
        "tokenizer_pt.replace": "embedding files are written new, none is replaced",
        "logger.* vis_info.* previewer.* infer.* trainer.*": "logs and samples of the other trainer",
    }),
)
# fmt: on
