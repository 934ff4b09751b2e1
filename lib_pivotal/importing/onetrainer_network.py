"""The network of OneTrainer's settings: kind, rank, layers, and the rates of its parts."""

from __future__ import annotations

from typing import Any

from lib_pivotal.importing.datasets import share_of_epochs
from lib_pivotal.importing.reading import number, whole
from lib_pivotal.importing.sheet import Sheet, choices

DEFAULT_RATE = 3e-6
LAYER_KEYS = ("layer_filter", "layer_filter_preset", "layer_filter_regex")
PEFT_KINDS = {"LORA": "lora", "LOHA": "loha", "LOKR": "lokr", "OFT_2": "oft"}
LAYER_PRESETS = {"full": "all", "attn-mlp": "kohya", "attn-only": "attention"}
"""OneTrainer's sets of layers for SD: everything; all of the transformers, with their projections; attention."""


def no_network(sheet: Sheet, method: str) -> None:
    """Keys of a network in a run that trains none."""
    if method == "EMBEDDING":
        sheet.put("network.algorithm", "none")
        sheet.honoured("learning_rate", "the embedding LR")
    else:
        sheet.refused("learning_rate", "a learning rate for full fine-tuning does not fit a network; ours stays")
    for key in ("lora_rank", "lora_alpha", "lora_decompose", "peft_type", "dropout_probability", *LAYER_KEYS):
        sheet.honoured(key, "used in LORA runs only")


def take_network(sheet: Sheet, scale: float) -> None:
    """Kind, rank, alpha, layers, and each part's rate."""
    peft = str(sheet.get("peft_type", "LORA"))
    wanted = PEFT_KINDS.get(peft, "")
    if wanted == "lora" and sheet.flag("lora_decompose"):
        wanted = "dora"
        sheet.translated("lora_decompose", "network.algorithm", "dora", "DoRA")
    else:
        sheet.honoured("lora_decompose")
    if wanted in choices("network.algorithm"):
        sheet.put("network.algorithm", wanted)
        sheet.honoured("peft_type", "", f"network.algorithm = {wanted}")
    else:
        sheet.refused("peft_type", f"{peft} is not here; a LoRA of the same rank instead", "network.algorithm = lora")
    rank = whole(sheet.get("lora_rank", 16)) or 16
    sheet.put("network.te_rank", rank)
    own_or_default(sheet, "lora_rank", "network.unet_rank", rank)
    alpha = sheet.number("lora_alpha", 1.0)
    sheet.put("network.te_alpha", alpha)
    own_or_default(sheet, "lora_alpha", "network.unet_alpha", alpha)
    _take_layers(sheet, rank, alpha)
    common = sheet.number("learning_rate", DEFAULT_RATE)
    _part_rate(sheet, "unet", "network.unet_lr", "network.unet_targets", common, scale)
    _part_rate(sheet, "text_encoder", "network.te_lr", "network.te_targets", common, scale)
    _second_encoder(sheet, common, scale)
    sheet.note(
        "learning_rate",
        "translated" if scale != 1 else "taken",
        f"× {scale:g}" if scale != 1 else "",
        "the learning rates of the parts",
    )
    dropout = number(sheet.get("dropout_probability"))
    if sheet.has("dropout_probability"):
        sheet.taken("dropout_probability", "network.dropout", dropout or 0.0)
    _take_stop(sheet)


def _take_stop(sheet: Sheet) -> None:
    """Where the text encoder's network stops: epochs as their share of the run."""
    after, unit = whole(sheet.get("text_encoder.stop_training_after")), "text_encoder.stop_training_after_unit"
    share = share_of_epochs(sheet, after) if after and sheet.get(unit) == "EPOCH" else None
    for key in ("text_encoder.stop_training_after", unit):
        if sheet.get(unit, "NEVER") in ("NEVER", None):
            sheet.honoured(key, "never")
        elif share is not None:
            sheet.translated(key, "schedule.te_stop", share, "a fraction of the run")
        else:
            sheet.refused(key, "give it as a fraction of the run: schedule.te_stop")


def _take_layers(sheet: Sheet, rank: int, alpha: float) -> None:
    """Sets of layers by name; a filter of one's own is text that must be in a layer's name."""
    preset = str(sheet.get("layer_filter_preset", "full"))
    ours = LAYER_PRESETS.get(preset, "")
    named = ours if ours in choices("network.unet_targets") else "attention+ff"
    filters = [part.strip() for part in str(sheet.get("layer_filter") or "").split(",") if part.strip()]
    if not ours and filters in (["attentions"], ["attn"]):
        ours = named = {"attentions": "kohya", "attn": "attention"}[filters[0]]
        named = ours if ours in choices("network.unet_targets") else "attention+ff"
    if not ours:
        sheet.put("network.unet_targets", "all")
        sheet.refused("layer_filter", "add these layers as groups: network.groups; all layers until then")
        sheet.refused("layer_filter_preset", "a filter of one's own; all layers until then")
        sheet.honoured("layer_filter_regex", "see layer_filter")
        return
    sheet.put("network.unet_targets", named)
    groups = []
    if ours == "kohya" and named != "kohya":
        groups.append({"pattern": r"^lora_unet_.*(?:_proj_(in|out)$)", "rank": rank, "alpha": alpha, "lr_factor": 1.0})
        sheet.put("network.groups", groups)
    became = f"network.unet_targets = {named}" + (" and a group for proj_in and proj_out" if groups else "")
    if sheet.has("layer_filter_preset"):
        why = "without the first, the last and the time embedding" if ours == "all" else "the same layers"
        sheet.note("layer_filter_preset", "translated", why, became)
    else:
        sheet.default("layer_filter_preset", "network.unet_targets", named, "OneTrainer's own default: all layers")
    sheet.honoured("layer_filter", "the preset's", became)
    sheet.honoured("layer_filter_regex", "the preset's")


def _part_rate(sheet: Sheet, part: str, lr_path: str, targets: str, common: float, scale: float) -> None:
    """One part's switch and rate."""
    on = sheet.flag(f"{part}.train", default=True)
    own = number(sheet.get(f"{part}.learning_rate"))
    rate = (common if own is None else own) * scale
    if not on:
        sheet.put(targets, "none")
        sheet.honoured(f"{part}.train", "this part is not trained", f"{targets} = none")
        sheet.honoured(f"{part}.learning_rate", "this part is not trained")
        return
    if part == "text_encoder":
        sheet.put(targets, "attention+mlp")
    sheet.honoured(f"{part}.train", "this part is trained")
    if not sheet.has(f"{part}.learning_rate") or own is None:
        sheet.default(f"{part}.learning_rate", lr_path, rate, "learning_rate holds for each part")
        sheet.honoured(f"{part}.learning_rate", "learning_rate holds", f"{lr_path} = {rate:g}")
    elif scale != 1:
        sheet.translated(f"{part}.learning_rate", lr_path, rate, f"× {scale:g} by learning_rate_scaler")
    else:
        sheet.taken(f"{part}.learning_rate", lr_path, rate)


def _second_encoder(sheet: Sheet, common: float, scale: float) -> None:
    """SDXL's second text encoder: a switch and a rate of its own."""
    if not str(sheet.get("model_type", "")).startswith("STABLE_DIFFUSION_XL"):
        return
    first, second = sheet.flag("text_encoder.train", True), sheet.flag("text_encoder_2.train", True)
    own = number(sheet.get("text_encoder_2.learning_rate"))
    rate = (common if own is None else own) * scale
    keys = ("text_encoder_2.train", "text_encoder_2.learning_rate")
    if not second or rate == 0:
        sheet.put("network.te2_targets", "none")
        for key in keys:
            sheet.honoured(key, "this part is not trained", "network.te2_targets = none")
    elif first and rate == sheet.read("network.te_lr"):
        for key in keys:
            sheet.honoured(key, "as the first text encoder")
    else:
        targets = "same" if first else "attention+mlp"
        sheet.put("network.te2_targets", targets)
        sheet.honoured(keys[0], "this part is trained", f"network.te2_targets = {targets}")
        if own is None:
            sheet.put("network.te2_lr", rate)
            sheet.honoured(keys[1], "learning_rate holds", f"network.te2_lr = {rate:g}")
        elif scale != 1:
            sheet.translated(keys[1], "network.te2_lr", rate, f"× {scale:g} by learning_rate_scaler")
        else:
            sheet.taken(keys[1], "network.te2_lr", rate)


def own_or_default(sheet: Sheet, key: str, path: str, value: Any) -> None:
    """A key's value, or OneTrainer's default where the file has none."""
    if sheet.has(key):
        sheet.taken(key, path, value)
    else:
        sheet.default(key, path, value, "OneTrainer's own default")
