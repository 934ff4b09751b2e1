"""OneTrainer's config JSON: LoRA and EMBEDDING runs. Meanings from modules/util/config/TrainConfig.py, 23df383.

A file holds what differs from OneTrainer's defaults, or everything; embeddings of a LoRA run stand in
`additional_embeddings`, a rate of a part that is null is the common one, and alpha is 1 where none is written. Concepts
and samples may be in files of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lib_pivotal.errors import ConfigError
from lib_pivotal.file_names import legal_file_name
from lib_pivotal.importing import common
from lib_pivotal.importing.reading import Origin, children, flag, number, parse_text, read_bytes, whole
from lib_pivotal.importing.report import shown
from lib_pivotal.importing.translation import (
    ConfigTranslation,
    Rule,
    Table,
    among,
    apply,
    aside,
    choice,
    choices,
    each,
    holds,
    missing,
    refuse,
    to,
    turned,
    under,
    unless,
    where,
)

TITLE = "OneTrainer settings"
DEFAULT_EPOCHS, DEFAULT_RATE = 100, 3e-6
MODELS = ("STABLE_DIFFUSION_15", "STABLE_DIFFUSION_20", "STABLE_DIFFUSION_21", "STABLE_DIFFUSION_XL")
KINDS = {"OFT_2": "oft", **{name.upper(): name for name in common.ALIKE}}
LAYERS = {"full": "all", "attn-mlp": "kohya", "attn-only": "attention"}
"""OneTrainer's sets of layers for SD: everything; all of the transformers, with their projections; attention."""
WEIGHTINGS = {"CONSTANT": "none", "MIN_SNR_GAMMA": "min_snr", "DEBIASED_ESTIMATION": "debiased", "P2": "p2"}
LOSSES = {"mse_strength": "mse", "mae_strength": "l1", "huber_strength": "huber", "log_cosh_strength": "mse"}
"""Its strength -> our loss, or the nearest."""
USUAL = "OneTrainer's own default"


def is_onetrainer(plain: Mapping[str, Any]) -> bool:
    """Whether these are OneTrainer's settings."""
    marks = {"training_method", "model_type", "base_model_name", "output_model_format", "additional_embeddings"}
    marks |= {"layer_filter_preset", "concept_file_name", "learning_rate_scheduler", "masked_training"}
    return len(marks & plain.keys()) >= 2


def import_onetrainer(plain: Mapping[str, Any], origin: Origin) -> ConfigTranslation:
    """Translate one file; concepts and samples in files of their own are read where they are here."""
    sheet = ConfigTranslation(plain, origin, usual=USUAL)
    path = origin.find(sheet.get("concept_file_name"))
    if plain.get("concepts"):
        path = origin.folder / origin.name if origin.folder is not None else None
    if path is not None and path.is_file():
        reading = common.read_described(path, "onetrainer", origin)
        sheet.described = None if reading is None else (reading, path)
    return apply(sheet, TABLE)


def _method(sheet: ConfigTranslation) -> str:
    return str(sheet.get("training_method", "FINE_TUNE"))


def _is_xl(sheet: ConfigTranslation) -> bool:
    return str(sheet.get("model_type", "")).startswith("STABLE_DIFFUSION_XL")


# ---- rates, length, optimiser ----


def _scale(sheet: ConfigTranslation) -> float:
    """OneTrainer multiplies rates by the square root of batch, accumulation or both (NamedParameterGroup.py)."""
    batch, accumulation = (max(sheet.whole(key, 1), 1) for key in ("batch_size", "gradient_accumulation_steps"))
    factors = {"BATCH": batch, "GRADIENT_ACCUMULATION": accumulation, "BOTH": batch * accumulation}
    scaler = str(sheet.get("learning_rate_scaler", "NONE")).removeprefix("GLOBAL_")
    return float(factors.get(scaler, 1)) ** 0.5


def _scaler(sheet: ConfigTranslation, key: str, value: Any) -> None:
    square = round(_scale(sheet) ** 2)
    why = f"learning rates are multiplied by √{square} there; here they are written as they act"
    sheet.note(key, "translated", why)


def _epochs(sheet: ConfigTranslation) -> None:
    """Epochs as steps where the pictures are here."""
    epochs = sheet.whole("epochs") if sheet.has("epochs") else DEFAULT_EPOCHS
    if epochs < 1:
        sheet.refused("epochs", f"{shown(sheet.get('epochs'))} is no number of epochs; set schedule.max_steps")
        return
    common.take_epochs(sheet, "epochs", epochs, common.draws_an_epoch(sheet.described[0] if sheet.described else None))
    if not sheet.has("epochs"):
        sheet.remark(f"OneTrainer trains {DEFAULT_EPOCHS} epochs where nothing is written; so it is here.")


def _optimizer(sheet: ConfigTranslation) -> None:
    """The optimiser is an object with its options, in old files a name."""
    key = "optimizer.optimizer" if sheet.has("optimizer.optimizer") else "optimizer"
    ours, decay = "adamw", "optimizer.weight_decay"
    if sheet.has(key):
        ours = common.set_optimizer(sheet, key, sheet.get(key))
    else:
        sheet.default("optimizer", "schedule.optimizer", ours, USUAL)
    for part in ("network", "embeddings_common") if _method(sheet) != "EMBEDDING" else ("embeddings_common",):
        common.take_decay(sheet, decay, f"{part}.weight_decay", ours)
    if not sheet.claimed(decay):
        sheet.honoured(decay, "the optimiser's own default")
    norm = sheet.number("clip_grad_norm", 0.0 if sheet.has("clip_grad_norm") else 1.0)
    for path in ("schedule.clip_network", "schedule.clip_embeddings"):
        if sheet.has("clip_grad_norm"):
            sheet.taken("clip_grad_norm", path, norm, "one limit for embeddings and network there")
        else:
            sheet.default("clip_grad_norm", path, norm, USUAL)


def _average(sheet: ConfigTranslation) -> None:
    keys = ("ema", "ema_decay", "ema_update_step_interval")
    if str(sheet.get("ema", "OFF")) in ("OFF", "False", "None"):
        sheet.honoured(keys)
        return
    every, decay = max(sheet.whole(keys[2], 5), 1), sheet.number("ema_decay", 0.999)
    per_step = decay ** (1 / every) if 0 < decay < 1 else 0.0
    sheet.put("schedule.ema_decay", min(round(per_step, 6), 0.99999))
    why = f"a decay of {decay:g} every {every} steps is {per_step:.5f} a step"
    sheet.note(keys, "translated", why, "schedule.ema_decay")


def _course(sheet: ConfigTranslation) -> None:
    name = str(sheet.get("learning_rate_scheduler", "CONSTANT"))
    if sheet.has("learning_rate_scheduler"):
        common.set_rate(sheet, "learning_rate_scheduler", name)
    else:
        sheet.default("learning_rate_scheduler", "schedule.lr_scheduler", "constant", USUAL)
    key, path = "learning_rate_warmup_steps", "schedule.warmup_steps"
    warmup = sheet.number(key, 200.0)
    value = int(max(warmup, 0) / int(sheet.read("schedule.accumulation")))
    if 0 < warmup <= 1 and sheet.has(key):
        common.take_warmup(sheet, key, warmup, "a fraction of the run")
    elif sheet.has(key) and value != warmup:
        sheet.translated(key, path, value, "micro-batches there")
    else:
        sheet.own(key, path, value, value)
    if "RESTARTS" not in name:
        sheet.honoured("learning_rate_cycles", "one, or of no effect on this scheduler")


# ---- embeddings ----


def _embeddings(sheet: ConfigTranslation) -> None:
    """`embedding` of an EMBEDDING run, `additional_embeddings` of any."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    own, more = sheet.plain.get("embedding"), sheet.plain.get("additional_embeddings")
    if _method(sheet) == "EMBEDDING":
        found.append(("embedding", own if isinstance(own, dict) else {}))
    else:
        sheet.honoured(sheet.under("embedding"), "used in EMBEDDING runs only")
    for index, one in enumerate(more if isinstance(more, list) else []):
        found += [(f"additional_embeddings.{index}", one)] if isinstance(one, dict) else []
    embeddings: list[dict[str, Any]] = []
    for key, entry in found:
        if entry.get("train") is False:
            sheet.refused(sheet.under(key), "an embedding that is not trained; load its file in prompts instead")
        else:
            embeddings.append(_embedding(sheet, key, embeddings))
    sheet.honoured("additional_embeddings", "no embeddings are trained")
    if embeddings and (fault := sheet.put("embeddings", embeddings)):
        sheet.remark(f"The embeddings could not be imported: {fault}.")
    if embeddings:
        _take_rate(sheet, "embedding_learning_rate", "embeddings_common.lr", "learning_rate holds for embeddings too")
    else:
        sheet.honoured("embedding_learning_rate", "no embeddings are trained")
    key, path = "preserve_embedding_norm", "embeddings_common.control"
    if sheet.flag(key):
        sheet.translated(key, path, "preserve_norm", "the same rule")
        median = "OneTrainer takes the median of the whole vocabulary"
        sheet.default(key, "embeddings_common.norm_target", "median", median)
    else:
        sheet.honoured(key, f"{path} = none")
        sheet.default(key, path, "none", "OneTrainer controls embedding norms on request only")


def _embedding(sheet: ConfigTranslation, key: str, embeddings: list[dict[str, Any]]) -> dict[str, Any]:
    keys = [f"{key}.{name}" for name in ("placeholder", "token_count", "initial_embedding_text", "model_name")]
    embedding, told = common.take_embedding(sheet, embeddings, keys, "*")
    if told:
        written = sheet.get(keys[0], "<embedding>")
        sheet.remark(f"Captions must say {embedding['name']} where they said {shown(written)}.")
    _freeze(sheet, key, embedding, f"embeddings.{len(embeddings)}")
    sheet.honoured(f"{key}.train", "trained")
    unless(flag, "embeddings are put in before the text encoder")(
        sheet, f"{key}.is_output_embedding", sheet.get(f"{key}.is_output_embedding")
    )
    sheet.ignored(f"{key}.uuid", "a mark of the other trainer")
    return embedding


def _freeze(sheet: ConfigTranslation, key: str, embedding: dict[str, Any], place: str) -> None:
    """Where an embedding stops training: steps, or epochs, of which the run's length says what share they are."""
    keys = (f"{key}.stop_training_after", f"{key}.stop_training_after_unit")
    after, unit = sheet.whole(keys[0]), str(sheet.get(keys[1], "NEVER"))
    if unit == "NEVER" or not after:
        sheet.honoured(keys, "never")
    elif unit == "STEP" or (unit == "EPOCH" and sheet.epoch_steps):
        each_of = 1 if unit == "STEP" else sheet.epoch_steps
        why = "" if unit == "STEP" else f"{each_of} steps an epoch with the pictures here"
        embedding["freeze_step"] = after * each_of
        became = f"{place}.freeze_step = {embedding['freeze_step']}"
        sheet.note(keys, "translated" if why else "taken", why, became)
    elif unit == "EPOCH" and (share := common.share_of_epochs(sheet, after)) is not None:
        embedding["freeze_at"] = share
        sheet.note(keys, "translated", "a fraction of the run", f"{place}.freeze_at = {share:g}")
    else:
        sheet.refused(keys, f"{after} {unit.lower()}: only steps are known here; set {place}.freeze_step")


# ---- network ----


def _rank(sheet: ConfigTranslation, key: str, value: Any) -> None:
    sheet.put("network.te_rank", whole(value))
    sheet.translated(key, "network.unet_rank", whole(value), "the rank of this kind of network")


def _network(sheet: ConfigTranslation) -> None:
    """Kind, rank, alpha, layers, and each part's rate."""
    if _method(sheet) != "LORA":
        _no_network(sheet)
        return
    peft = str(sheet.get("peft_type", "LORA"))
    wanted = common.kind_of(KINDS, peft)
    if wanted == "lora" and sheet.flag("lora_decompose"):
        wanted = "dora"
        sheet.translated("lora_decompose", "network.algorithm", "dora", "DoRA")
    else:
        sheet.honoured("lora_decompose")
    if wanted in choices("network.algorithm"):
        sheet.put("network.algorithm", wanted)
        sheet.honoured("peft_type", "", f"network.algorithm = {wanted}")
    else:
        common.set_kind(sheet, "peft_type", wanted, "", peft)
    for key, name, value in (
        ("lora_rank", "rank", sheet.whole("lora_rank", 16) or 16),
        ("lora_alpha", "alpha", sheet.number("lora_alpha", 1.0)),
    ):
        sheet.put(f"network.te_{name}", value)
        sheet.own(key, f"network.unet_{name}", value, value)
    apply(sheet, KIND_OPTIONS)
    _layers(sheet)
    for part, ours in (("unet", "unet"), ("text_encoder", "te")):
        keys, targets = [f"{part}.train", f"{part}.learning_rate"], f"network.{ours}_targets"
        if not sheet.flag(keys[0], default=True):
            sheet.put(targets, "none")
            sheet.honoured(keys[0], "this part is not trained", f"{targets} = none")
            sheet.honoured(keys[1], "this part is not trained")
            continue
        if ours == "te":
            sheet.put(targets, "attention+mlp")
        sheet.honoured(keys[0], "this part is trained")
        _take_rate(sheet, keys[1], f"network.{ours}_lr", "learning_rate holds for each part")
    _second_encoder(sheet)
    scale = _scale(sheet)
    why = f"× {scale:g}" if scale != 1 else ""
    sheet.note("learning_rate", "translated" if why else "taken", why, "the learning rates of the parts")
    if sheet.has("dropout_probability"):
        sheet.taken("dropout_probability", "network.dropout", sheet.number("dropout_probability", 0.0))
    _stop(sheet)


def _no_network(sheet: ConfigTranslation) -> None:
    if _method(sheet) == "EMBEDDING":
        sheet.put("network.algorithm", "none")
        sheet.honoured("learning_rate", "the embedding LR")
    else:
        sheet.refused("learning_rate", "a learning rate for full fine-tuning does not fit a network; ours stays")
    keys = "lora_rank lora_alpha lora_decompose peft_type dropout_probability".split()
    sheet.honoured([*keys, *_FILTERS], "used in LORA runs only")


_FILTERS = ("layer_filter_preset", "layer_filter", "layer_filter_regex")


def _layers(sheet: ConfigTranslation) -> None:
    """Sets of layers by name; a filter of one's own is text that must be in a layer's name."""
    ours = LAYERS.get(str(sheet.get("layer_filter_preset", "full")), "")
    filters = [part.strip() for part in str(sheet.get("layer_filter") or "").split(",") if part.strip()]
    ours = ours or {"attentions": "kohya", "attn": "attention"}.get(filters[0] if len(filters) == 1 else "", "")
    became = f"network.unet_targets = {ours}"
    sheet.put("network.unet_targets", ours or "all")
    if not ours:
        sheet.refused("layer_filter", "add these layers as groups: network.groups; all layers until then")
        sheet.refused("layer_filter_preset", "a filter of one's own; all layers until then")
        sheet.honoured("layer_filter_regex", "see layer_filter")
        return
    why = "without the first, the last and the time embedding" if ours == "all" else "the same layers"
    sheet.note("layer_filter_preset", "translated", why, became)
    if not sheet.has("layer_filter_preset"):
        sheet.default("layer_filter_preset", "network.unet_targets", ours, f"{USUAL}: all layers")
    sheet.honoured("layer_filter", "the preset's", became)
    sheet.honoured("layer_filter_regex", "the preset's")


def _rate_of(sheet: ConfigTranslation, key: str) -> float:
    """The rate that acts: one that is null is the common one."""
    return float(sheet.number(key, sheet.number("learning_rate", DEFAULT_RATE)) * _scale(sheet))


def _take_rate(sheet: ConfigTranslation, key: str, path: str, common_why: str) -> None:
    rate, scale = _rate_of(sheet, key), _scale(sheet)
    if sheet.number(key) is None:
        sheet.default(key, path, rate, common_why)
        sheet.honoured(key, "learning_rate holds", f"{path} = {rate:g}")
    elif scale != 1:
        sheet.translated(key, path, rate, f"× {scale:g} by learning_rate_scaler")
    else:
        sheet.taken(key, path, rate)


def _second_encoder(sheet: ConfigTranslation) -> None:
    """SDXL's second text encoder: a switch and a rate of its own."""
    if not _is_xl(sheet):
        return
    keys = ("text_encoder_2.train", "text_encoder_2.learning_rate")
    rate, first = _rate_of(sheet, keys[1]), sheet.flag("text_encoder.train", True)
    if not sheet.flag(keys[0], True) or rate == 0:
        sheet.put("network.te2_targets", "none")
        sheet.honoured(keys, "this part is not trained", "network.te2_targets = none")
    elif first and rate == sheet.read("network.te_lr"):
        sheet.honoured(keys, "as the first text encoder")
    else:
        targets = "same" if first else "attention+mlp"
        sheet.put("network.te2_targets", targets)
        sheet.put("network.te2_lr", rate)
        sheet.honoured(keys[0], "this part is trained", f"network.te2_targets = {targets}")
        if sheet.number(keys[1]) is None:
            sheet.honoured(keys[1], "learning_rate holds", f"network.te2_lr = {rate:g}")
        else:
            _take_rate(sheet, keys[1], "network.te2_lr", "")


def _stop(sheet: ConfigTranslation) -> None:
    """Where the text encoder's network stops: epochs as their share of the run."""
    key, unit = "text_encoder.stop_training_after", "text_encoder.stop_training_after_unit"
    after = sheet.whole(key)
    share = common.share_of_epochs(sheet, after) if after and sheet.get(unit) == "EPOCH" else None
    for one in (key, unit):
        if sheet.get(unit, "NEVER") in ("NEVER", None):
            sheet.honoured(one, "never")
        elif share is not None:
            sheet.translated(one, "schedule.te_stop", share, "a fraction of the run")
        else:
            sheet.refused(one, "give it as a fraction of the run: schedule.te_stop")


# ---- noise, loss, masks ----


def _strength(path: str, default: float) -> Rule:
    def timestep(value: Any) -> int:
        share = number(value)
        return min(max(int((default if share is None else share) * 1000), 0), 1000)

    return turned(path, timestep, "of 1000 timesteps")


def _loss(sheet: ConfigTranslation) -> None:
    """OneTrainer adds losses by strength; here there is one."""
    on = {key: sheet.number(key, float(key == "mse_strength")) for key in LOSSES}
    strongest = max(on, key=lambda key: on[key])
    kind = LOSSES[strongest]
    sheet.put("loss.kind", kind)
    alone = sum(value > 0 for value in on.values()) == 1 and on[strongest] == 1.0
    alone = alone and strongest in ("mse_strength", "mae_strength")
    for key, value in on.items():
        if value == 0:
            sheet.honoured(key)
        elif alone:
            sheet.honoured(key, "", f"loss.kind = {kind}")
        else:
            sheet.refused(key, f"losses are not added up here, and Huber's is kohya's; loss.kind = {kind}")
    if kind == "huber":
        sheet.taken("huber_delta", "loss.huber_delta", sheet.number("huber_delta", 1.0))
    else:
        sheet.honoured("huber_delta", "of no effect on this loss")


# ---- pictures and samples ----


def _resolution(sheet: ConfigTranslation, key: str, value: Any) -> None:
    side, _ = common.resolution_of(value)
    if side is None:
        return
    first = whole(str(value).split(",")[0]) or side
    if "," in str(value):
        sheet.put("data.resolution_px", first)
        sheet.refused(key, "one size a run; the first was taken", f"data.resolution_px = {first}")
    else:
        sheet.taken(key, "data.resolution_px", first)


def _pictures(sheet: ConfigTranslation) -> None:
    """Folders from the concepts, in the file or in one beside it, with a line for each key of each concept."""
    read_so = "a scan reads OneTrainer's concepts itself"
    if sheet.described is None:
        _folder_around(sheet, read_so)
        return
    reading, path = sheet.described
    sheet.taken("concept_file_name", "data.folder", str(path), read_so)
    common.take_described(sheet, reading, path, "concepts")
    for inner in sheet.under("concepts"):
        name = re.sub(r"^concepts\.\d+\.", "", inner)
        if any(key == name or key.startswith(f"{name} (") for key in reading.untaken):
            sheet.refused(inner, "a scan has no such setting")
        else:
            sheet.honoured(inner, read_so)


def _folder_around(sheet: ConfigTranslation, read_so: str) -> None:
    """Concepts that cannot be read here: the folder around them, as the file writes it."""
    key, concepts = "concept_file_name", sheet.plain.get("concepts")
    path = sheet.origin.find(sheet.get(key)) if not concepts else None
    if path is not None and _beside(sheet, path, "concepts") is not None:
        sheet.taken(key, "data.folder", str(path), read_so)
    entries = [one for one in children(concepts) if isinstance(one, dict) and one.get("enabled", True)]
    folder = common.common_folder(sheet.origin, [str(one.get("path") or "") for one in entries])
    if folder:
        sheet.put("data.folder", folder)
        sheet.note(key, "translated", "the folder around its concepts", f"data.folder = {folder}")
        sheet.remark(
            "The concepts' folders are not on this computer, or the file came without a place: save it there and give "
            "it as the folder on the Data page, then each concept is read with its own settings."
        )
    elif not sheet.claimed(key):
        sheet.refused(key, "these concepts are not here; give their folder as data.folder")
    for inner in sheet.under("concepts"):
        if inner.endswith(".path") and folder:
            sheet.note(inner, "translated", "", f"data.folder = {folder}")
        elif inner == "concepts" or not sheet.given(inner):
            sheet.honoured(inner, "none")
        else:
            sheet.refused(inner, "what concerns single concepts is read by a scan of the concepts' file")


def _samples(sheet: ConfigTranslation) -> None:
    """Prompts of samples, in the file or in one beside it; intervals where they are steps or epochs."""
    key, samples = "sample_definition_file_name", sheet.plain.get("samples")
    path = sheet.origin.find(sheet.get(key)) if not samples else None
    if path is not None:
        samples = _beside(sheet, path, "samples")
    prompts = [str(one.get("prompt", ""))[:1000] for one in children(samples) if isinstance(one, dict)][:50]
    prompts = [prompt for prompt in prompts if prompt.strip()]
    if prompts:
        sheet.put("saving.sample_prompts", prompts)
    for one in (key, *sheet.under("samples")):
        if prompts:
            sheet.note(one, "translated", "its prompts", "saving.sample_prompts")
        elif not sheet.given(one):
            sheet.honoured(one, "none")
        else:
            sheet.refused(one, "no prompts are here; write them into saving.sample_prompts")
    _interval(sheet, "sample_after", "saving.sample_every_steps", "MINUTE")
    _interval(sheet, "save_every", "saving.every_steps", "NEVER")
    _interval(sheet, "backup_after", "saving.state_every_steps", "MINUTE")


def _interval(sheet: ConfigTranslation, key: str, path: str, default_unit: str) -> None:
    keys, unit, steps = (key, f"{key}_unit"), str(sheet.get(f"{key}_unit", default_unit)), sheet.whole(key)
    if unit == "STEP" and steps > 0:
        sheet.taken(key, path, steps)
        sheet.honoured(keys[1], "steps")
    elif unit == "EPOCH" and steps > 0:
        common.take_interval(sheet, key, steps, path)
        sheet.honoured(keys[1], "epochs, as steps" if sheet.epoch_steps else "epochs")
    elif unit == "NEVER" or not steps:
        sheet.honoured(keys, "never")
    else:
        sheet.refused(keys, f"intervals are steps here; set {path}")


def _beside(sheet: ConfigTranslation, path: Path, what: str) -> Any:
    """What a file beside the settings holds; None, and a remark, where it cannot be read."""
    try:
        return parse_text(read_bytes(path), path.name)
    except ConfigError as error:
        sheet.remark(f"The {what} {path.name} cannot be read: {error.faults[0].problem}.")
        return None


# ---- keys that stand alone ----


def _name(sheet: ConfigTranslation, key: str, value: Any) -> None:
    name = legal_file_name(PurePosixPath(str(value).replace("\\", "/")).stem)
    if name:
        sheet.translated(key, "name", name, "the file's name; it goes to the LoRA folder")
    else:
        sheet.refused(key, "no file can be called so here; give it a name")


def _option(sheet: ConfigTranslation, key: str, value: Any) -> None:
    """An option of the optimiser: taken where it changes the steps and ours has it, some as pairs."""
    name, names = key.rpartition(".")[2], {"beta1": "beta1 beta2", "beta2": "beta1 beta2"}
    usual = {"beta1": (0.9, None), "beta2": (0.999, None), "eps": (1e-8, None), "stochastic_rounding": (True, False)}
    if sheet.read("schedule.optimizer") == "adafactor":
        names = {"eps": "eps eps2", "eps2": "eps eps2"}
    pair = [sheet.get(f"optimizer.{one}", usual.get(one, (None,))[0]) for one in names.get(name, "").split()]
    option = "betas" if name in ("beta1", "beta2") and pair else "eps" if pair else name
    if name in ("fused", "foreach", "capturable", "differentiable", "fused_back_pass", "fsdp_in_use", "compile"):
        sheet.ignored(key, "speed or memory; the web UI's own settings hold here")
    elif value in usual.get(name, (None, False, "", 0)) or value == {}:
        sheet.honoured(key, "the optimiser's own default")
    elif None in pair or not common.take_option(sheet, key, option, pair or value):
        sheet.refused(key, "the optimiser has no such option here")


_NEVER = (None, "", "NEVER")
_EVENLY = "timesteps are sampled evenly"
_LOADED = "the checkpoint is used as the web UI has loaded it"

# fmt: off
KIND_OPTIONS: Table = (
    ("lokr_decompose_factor", common.kind_option("factor")),
    ("lokr_decompose_both", common.kind_option("decompose_both")),
    ("lokr_use_tucker", common.kind_option("tucker")),
    ("lokr_full_matrix", common.kind_option("full_matrix")),
    ("lokr_dim", where(lambda sheet: sheet.read("network.algorithm") == "lokr", _rank)),
    ("oft_block_size", where(lambda sheet: sheet.read("network.algorithm") == "oft", _rank)),
)
"""What its kinds of network have of their own; the sizes are the rank here."""
MASKED: Table = (
    ("masked_training",
     turned("data.masks", lambda _: "linear", "files NAME-masklabel.png beside the pictures are found")),
    ("unmasked_probability", to("data.mask_off", number, default=0.1)),
    ("unmasked_weight", to("data.mask_minimum", number, default=0.1)),
    ("normalize_masked_area_loss", to("data.mask_normalise", flag, default=False)),
    ("masked_prior_preservation_weight", to("data.mask_prior", number)),
)

TABLE: Table = (
    # what several keys decide together, and what it rests on first
    ("model_type",
     unless(lambda value: not str(value).startswith(MODELS) or "DEPTH" in str(value),
            "only SD1, SD2 and SDXL train here; what fits them was taken", "load such a checkpoint in the web UI")),
    ("training_method", among(("LORA",), holds("a network and embeddings")),
     among(("EMBEDDING",), holds("embeddings only")),
     refuse("a checkpoint's own weights are not trained; choose a network or embeddings")),
    ("learning_rate_scaler",
     among(("NONE", "GLOBAL_NONE"), holds("learning rates act as they are written, as here")), _scaler),
    ("batch_size", to("schedule.batch_size", whole, default=1)),
    ("gradient_accumulation_steps", to("schedule.accumulation", whole, default=1)),
    _epochs,
    _optimizer,
    _average,
    _course,
    ("learning_rate_min_factor", to("schedule.final_factor", number, default=0.0)),
    ("learning_rate_cycles",
     missing("", (1, 1.0), at="schedule.lr_scheduler_cycles", told="one, or of no effect on this scheduler")),
    _embeddings,
    _network,
    ("min_noising_strength", _strength("noise.timestep_min", 0.0)),
    ("max_noising_strength", _strength("noise.timestep_max", 1.0)),
    ("loss_weight_fn",
     choice("loss.weighting", WEIGHTINGS, "none", "there is no such weighting here; none instead")),
    under(lambda sheet: sheet.read("loss.weighting") in ("min_snr", "p2"), (
        ("loss_weight_strength", to("loss.snr_gamma", number, default=5.0)),
    ), "of no effect on this weighting"),
    _loss,
    under(lambda sheet: sheet.flag("masked_training"), MASKED),
    ("resolution", _resolution),
    _pictures,
    _samples,
    # each for itself
    ("output_model_destination", _name),
    ("output_dtype", common.precision("saving.dtype")),
    ("train_dtype", common.precision("memory.precision")),
    ("aspect_ratio_bucketing", to("data.bucketing", flag)),
    ("offset_noise_weight", to("noise.offset", number)),
    ("rescale_noise_scheduler_to_zero_terminal_snr", to("noise.zero_terminal_snr", flag)),
    ("gradient_checkpointing",
     to("memory.gradient_checkpointing", lambda value: value not in ("OFF", "off", False, None), "on")),
    ("text_encoder_layer_skip", where(_is_xl, missing("SDXL's own layer is used")),
     turned("clip_skip", lambda value: (whole(value) or 0) + 1, "OneTrainer counts from 0, the web UI from 1")),
    ("text_encoder.dropout_probability",
     turned("data.caption_dropout", lambda value: number(value) or None, "chance that the full caption is left out")),
    # what is not here
    ("timestep_distribution", among((None, "", "UNIFORM"), holds()),
     choice("noise.timestep_distribution", {}, "", _EVENLY)),
    ("timestep_shift", missing(_EVENLY, (None, 1, 1.0))),
    ("loss_scaler", missing("the loss is a mean over pictures; change the learning rates instead", (None, "", "NONE"))),
    ("text_encoder.train_embedding text_encoder_2.train_embedding",
     missing("an embedding is trained in all encoders", (None, True))),
    ("unet.stop_training_after_unit", missing("the U-Net trains to the end", _NEVER)),
    ("text_encoder_2.stop_training_after_unit", missing("see schedule.te_stop", _NEVER)),
    ("bundle_additional_embeddings", missing("embeddings always go into the file", (None, True))),
    *each(missing, {
        "save_filename_prefix": "the files of steps are called after the run",
        "generalized_offset_noise": "noise offset does not depend on the timestep here",
        "perturbation_noise_weight": "OneTrainer adds it to the target too; see noise.perturbation for kohya's",
        "force_v_prediction force_epsilon_prediction": "what the checkpoint predicts is found out from it",
        "noising_weight noising_bias dynamic_timestep_shifting": _EVENLY,
        "custom_conditioning_image": "this is not here",
        "text_encoder_2_layer_skip": "SDXL's own layer is used",
        "text_encoder_2.dropout_probability": "captions are left out for both encoders at once",
        "unet.stop_training_after": "the U-Net trains to the end",
        "text_encoder_2.stop_training_after": "see schedule.te_stop",
        "unet.learning_rate": "used in LORA runs only",
        "lora_decompose_output_axis": "DoRA's norms are taken as in the web UI",
        "continue_last_backup": "states of other trainers cannot be gone on from",
        "validation": "set validation.folder and validation.every_steps",
        "custom_learning_rate_scheduler":
            "an LR scheduler built by class cannot be read; set schedule.lr_scheduler",
        "scheduler_params": "options of a scheduler are not read",
        "only_cache": "training always follows",
        "force_circular_padding": "pictures that tile are not trained apart",
    }),
    ("lora_model_name", common.begin_from),
    # what is left below these, and what does not concern training
    ("optimizer_defaults.*", aside("settings of optimisers that are not chosen")),
    ("optimizer.*", _option),
    ("quantization.*", missing(_LOADED, (None, "", "NONE", "full", False, 16))),
    *each(aside, {
        "lora_decompose_norm_epsilon": "a guard against dividing by zero; here always on",
        "vb_loss_strength": "for checkpoints that predict a variance",
        "latent_caching clear_cache_before_training dataloader_threads train_device temp_device fallback_train_dtype "
        "enable_autocast_cache attention_mechanism async_offloading compile multi_gpu device_indexes "
        "gradient_reduce_precision fused_gradient_reduce async_gradient_reduce async_gradient_reduce_buffer "
        "embedding_weight_dtype lora_weight_dtype weight_dtype layer_offload_fraction enable_activation_offloading "
        "enable_async_offloading align_prop": "speed or memory; the web UI's own settings hold here",
        "debug_mode debug_dir tensorboard tensorboard_expose tensorboard_always_on tensorboard_port "
        "samples_to_tensorboard validate_after validate_after_unit wandb": "logs of the other trainer",
        "workspace_dir cache_dir output_model_format include_train_config prevent_overwrites rolling_backup "
        "rolling_backup_count backup_before_save save_skip_first save_after save_after_unit sample_skip_first "
        "sample_image_format sample_video_format sample_audio_format non_ema_sampling":
            "files have places and names of their own here",
        "__version huggingface_cache_dir offline_mode embedding.uuid": "how the other trainer is started or looks",
        "base_model_name unet.* text_encoder.* text_encoder_2.* vae.*": _LOADED,
        "frames text_encoder_sequence_length text_encoder_2_sequence_length prior.* transformer.* "
        "unconditional_transformer.* text_encoder_3.* text_encoder_4.* decoder.* text_encoder_3_layer_skip "
        "text_encoder_4_layer_skip effnet_encoder.* decoder_text_encoder.* decoder_vqgan.* oft_block_size "
        "oft_block_share oft_scaled lokr_dim lokr_decompose_both lokr_decompose_factor lokr_use_tucker "
        "lokr_weight_decompose lokr_dora_on_output lokr_full_matrix lokr_vec_trick":
            "for other families of checkpoints or kinds of network",
        "cloud.*": "renting machines is not part of training",
        "secrets.*": "keys to other services are not part of training",
    }),
)
# fmt: on
