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
    apply,
    aside,
    choices,
    missing,
    to,
    turned,
    unless,
)

TITLE = "OneTrainer settings"
DEFAULT_EPOCHS = 100
DEFAULT_RATE = 3e-6
MODELS = ("STABLE_DIFFUSION_15", "STABLE_DIFFUSION_20", "STABLE_DIFFUSION_21", "STABLE_DIFFUSION_XL")
KINDS = {"LORA": "lora", "LOHA": "loha", "LOKR": "lokr", "OFT_2": "oft"}
LAYERS = {"full": "all", "attn-mlp": "kohya", "attn-only": "attention"}
"""OneTrainer's sets of layers for SD: everything; all of the transformers, with their projections; attention."""
WEIGHTINGS = {"CONSTANT": "none", "MIN_SNR_GAMMA": "min_snr", "DEBIASED_ESTIMATION": "debiased", "P2": "p2"}
LOSSES = {
    "mse_strength": ("mse", 1.0),
    "mae_strength": ("l1", 0.0),
    "huber_strength": ("huber", 0.0),
    "log_cosh_strength": ("mse", 0.0),
}
"""Its strength -> (our loss, or the nearest, its own default)."""
_OWN = "OneTrainer's own default"


def is_onetrainer(plain: Mapping[str, Any]) -> bool:
    """Whether these are OneTrainer's settings."""
    marks = {"training_method", "model_type", "base_model_name", "output_model_format", "additional_embeddings"}
    marks |= {"layer_filter_preset", "concept_file_name", "learning_rate_scheduler", "masked_training"}
    return len(marks & plain.keys()) >= 2


def import_onetrainer(plain: Mapping[str, Any], origin: Origin) -> ConfigTranslation:
    """Translate one file; concepts and samples in files of their own are read where they are here."""
    sheet = ConfigTranslation(plain, origin)
    path = origin.find(sheet.get("concept_file_name"))
    if plain.get("concepts"):
        path = origin.folder / origin.name if origin.folder is not None else None
    if path is not None and path.is_file():
        reading = common.read_described(path, "onetrainer", origin)
        sheet.described = None if reading is None else (reading, path)
    return apply(sheet, TABLE)


def _method(sheet: ConfigTranslation) -> str:
    return str(sheet.get("training_method", "FINE_TUNE"))


# ---- rates, length, optimiser ----


def _training_method(sheet: ConfigTranslation, key: str, value: Any) -> None:
    if str(value) in ("LORA", "EMBEDDING"):
        sheet.honoured(key, "a network and embeddings" if str(value) == "LORA" else "embeddings only")
    else:
        sheet.refused(key, "a checkpoint's own weights are not trained; choose a network or embeddings")


def _scale(sheet: ConfigTranslation) -> float:
    """OneTrainer multiplies rates by the square root of batch, accumulation or both (NamedParameterGroup.py)."""
    batch, accumulation = (
        max(whole(sheet.get(key, 1)) or 1, 1) for key in ("batch_size", "gradient_accumulation_steps")
    )
    factors = {"BATCH": batch, "GRADIENT_ACCUMULATION": accumulation, "BOTH": batch * accumulation}
    scaler = str(sheet.get("learning_rate_scaler", "NONE")).removeprefix("GLOBAL_")
    return float(factors.get(scaler, 1)) ** 0.5


def _scaler(sheet: ConfigTranslation, key: str, value: Any) -> None:
    if str(value) in ("NONE", "GLOBAL_NONE"):
        sheet.honoured(key, "learning rates act as they are written, as here")
    else:
        square = round(_scale(sheet) ** 2)
        why = f"learning rates are multiplied by √{square} there; here they are written as they act"
        sheet.note(key, "translated", why)


def _length(sheet: ConfigTranslation) -> None:
    """Batch, accumulation, and epochs as steps where the pictures are here."""
    for key, path in (("batch_size", "schedule.batch_size"), ("gradient_accumulation_steps", "schedule.accumulation")):
        sheet.own(key, path, whole(sheet.get(key, 1)), _OWN)
    epochs = whole(sheet.get("epochs", DEFAULT_EPOCHS)) or 0
    if epochs < 1:
        sheet.refused("epochs", f"{shown(sheet.get('epochs'))} is no number of epochs; set schedule.max_steps")
        return
    draws = common.draws_an_epoch(sheet.described[0] if sheet.described else None)
    common.take_epochs(sheet, "epochs", epochs, draws)
    if not sheet.has("epochs"):
        sheet.remark(f"OneTrainer trains {DEFAULT_EPOCHS} epochs where nothing is written; so it is here.")


def _optimizer(sheet: ConfigTranslation) -> None:
    """The optimiser is an object with its options, in old files a name."""
    key = "optimizer.optimizer" if sheet.has("optimizer.optimizer") else "optimizer"
    ours = "adamw"
    if sheet.has(key):
        ours = common.set_optimizer(sheet, key, sheet.get(key))
    else:
        sheet.default("optimizer", "schedule.optimizer", "adamw", _OWN)
    decay = number(sheet.get("optimizer.weight_decay"))
    for path in ("words_common.weight_decay",) if _method(sheet) == "EMBEDDING" else (
        "network.weight_decay", "words_common.weight_decay"
    ):  # fmt: skip
        if decay is not None:
            sheet.taken("optimizer.weight_decay", path, decay)
        else:
            default = common.WEIGHT_DECAY.get(ours, 0.01)
            sheet.default("optimizer.weight_decay", path, default, "the optimiser's own default")
            sheet.honoured("optimizer.weight_decay", "the optimiser's own default")
    norm = number(sheet.get("clip_grad_norm", 1.0)) or 0.0
    for path in ("schedule.clip_network", "schedule.clip_words"):
        sheet.own("clip_grad_norm", path, norm, _OWN, "one limit for embeddings and network there")


def _average(sheet: ConfigTranslation) -> None:
    keys = ("ema", "ema_decay", "ema_update_step_interval")
    if str(sheet.get("ema", "OFF")) in ("OFF", "False", "None"):
        sheet.honoured(keys)
        return
    every = max(whole(sheet.get("ema_update_step_interval", 5)) or 1, 1)
    decay = sheet.number("ema_decay", 0.999)
    per_step = decay ** (1 / every) if 0 < decay < 1 else 0.0
    sheet.put("schedule.ema_decay", min(round(per_step, 6), 0.99999))
    why = f"a decay of {decay:g} every {every} steps is {per_step:.5f} a step"
    sheet.note(keys, "translated", why, "schedule.ema_decay")


def _course(sheet: ConfigTranslation) -> None:
    name = str(sheet.get("learning_rate_scheduler", "CONSTANT"))
    if sheet.has("learning_rate_scheduler"):
        common.set_rate(sheet, "learning_rate_scheduler", name)
    else:
        sheet.default("learning_rate_scheduler", "schedule.rate", "constant", _OWN)
    key, path = "learning_rate_warmup_steps", "schedule.warmup_steps"
    warmup = sheet.number(key, 200.0)
    value = int(max(warmup, 0) / int(sheet.read("schedule.accumulation")))
    if 0 < warmup <= 1 and sheet.has(key):
        common.take_warmup(sheet, key, warmup, "a fraction of the run")
    elif sheet.has(key) and value != warmup:
        sheet.translated(key, path, value, "micro-batches there")
    else:
        sheet.own(key, path, value, _OWN)
    sheet.taken("learning_rate_min_factor", "schedule.final_factor", sheet.number("learning_rate_min_factor", 0.0))
    if number(sheet.get("learning_rate_cycles", 1.0)) == 1.0 or "RESTARTS" not in name:
        sheet.honoured("learning_rate_cycles", "one, or of no effect on this scheduler")


# ---- embeddings ----


def _embeddings(sheet: ConfigTranslation) -> None:
    """`embedding` of an EMBEDDING run, `additional_embeddings` of any."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    own, more = sheet.plain.get("embedding"), sheet.plain.get("additional_embeddings")
    if _method(sheet) == "EMBEDDING":
        found.append(("embedding", own if isinstance(own, dict) else {}))
    else:
        sheet.honoured(sheet.keys_under("embedding"), "used in EMBEDDING runs only")
    for index, one in enumerate(more if isinstance(more, list) else []):
        found += [(f"additional_embeddings.{index}", one)] if isinstance(one, dict) else []
    embeddings: list[dict[str, Any]] = []
    for key, entry in found:
        if entry.get("train") is False:
            why = "an embedding that is not trained; load its file in prompts instead"
            sheet.refused(sheet.keys_under(key), why)
        else:
            embeddings.append(_embedding(sheet, key, entry, embeddings))
    sheet.honoured("additional_embeddings", "no embeddings are trained")
    if embeddings and (fault := sheet.put("words", embeddings)):
        sheet.remark(f"The embeddings could not be imported: {fault}.")
    _embedding_rate(sheet, any_words=bool(embeddings))
    if flag(sheet.get("preserve_embedding_norm")):
        sheet.translated("preserve_embedding_norm", "words_common.control", "preserve_norm", "the same rule")
    else:
        sheet.honoured("preserve_embedding_norm", "words_common.control = none")
        why = "OneTrainer controls embedding norms on request only"
        sheet.default("preserve_embedding_norm", "words_common.control", "none", why)


def _embedding(
    sheet: ConfigTranslation, key: str, entry: Mapping[str, Any], embeddings: list[dict[str, Any]]
) -> dict[str, Any]:
    index, written = len(embeddings), entry.get("placeholder", "<embedding>")
    embedding, told = common.new_embedding(written, [known["name"] for known in embeddings])
    became = f"words.{index}.name = {embedding['name']}"
    sheet.note(f"{key}.placeholder", "translated" if told else "taken", told, became)
    if told:
        sheet.remark(f"Captions must say {embedding['name']} where they said {shown(written)}.")
    count = whole(entry.get("token_count", 1))
    vectors = min(max(count or 1, 1), 75)
    common.take_embedding(
        sheet, index, embedding, "vectors", vectors, f"{key}.token_count", "" if count else "as the text has"
    )
    text = str(entry.get("initial_embedding_text", "*"))[:400]
    common.take_embedding(sheet, index, embedding, "init_text", text, f"{key}.initial_embedding_text")
    absent = "this file is not here; set words.init_file"
    common.take_start(sheet, index, embedding, f"{key}.model_name", "words.init_file", "begins with this file", absent)
    _freeze(sheet, key, entry, embedding, index)
    sheet.honoured(f"{key}.train", "trained")
    if flag(entry.get("is_output_embedding")):
        sheet.refused(f"{key}.is_output_embedding", "embeddings are put in before the text encoder")
    else:
        sheet.honoured(f"{key}.is_output_embedding")
    sheet.ignored(f"{key}.uuid", "a mark of the other trainer")
    return embedding


def _freeze(
    sheet: ConfigTranslation, key: str, entry: Mapping[str, Any], embedding: dict[str, Any], index: int
) -> None:
    """Where an embedding stops training: steps, or epochs, of which the run's length says what share they are."""
    after, unit = whole(entry.get("stop_training_after")), str(entry.get("stop_training_after_unit", "NEVER"))
    keys = (f"{key}.stop_training_after", f"{key}.stop_training_after_unit")
    if unit == "NEVER" or not after:
        sheet.honoured(keys, "never")
    elif unit == "STEP":
        embedding["freeze_step"] = after
        sheet.note(keys, "taken", "", f"words.{index}.freeze_step = {after}")
    elif unit == "EPOCH" and sheet.epoch_steps:
        embedding["freeze_step"] = after * sheet.epoch_steps
        why = f"{sheet.epoch_steps} steps an epoch with the pictures here"
        sheet.note(keys, "translated", why, f"words.{index}.freeze_step = {embedding['freeze_step']}")
    elif unit == "EPOCH" and (share := common.share_of_epochs(sheet, after)) is not None:
        embedding["freeze_at"] = share
        sheet.note(keys, "translated", "a fraction of the run", f"words.{index}.freeze_at = {share:g}")
    else:
        why = f"{after} {unit.lower()}: only steps are known here; set words.{index}.freeze_step"
        sheet.refused(keys, why)


def _embedding_rate(sheet: ConfigTranslation, *, any_words: bool) -> None:
    key, path, scale = "embedding_learning_rate", "words_common.lr", _scale(sheet)
    own, rate = _rate_of(sheet, key)
    if not any_words:
        sheet.honoured(key, "no embeddings are trained")
    elif own is None:
        sheet.default(key, path, rate, "learning_rate holds for embeddings too")
        sheet.honoured(key, "learning_rate holds", f"{path} = {rate:g}")
    else:
        _take_rate(sheet, key, path, rate, scale)


# ---- network ----


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
    rank, alpha = whole(sheet.get("lora_rank", 16)) or 16, sheet.number("lora_alpha", 1.0)
    for key, name, value in (("lora_rank", "rank", rank), ("lora_alpha", "alpha", alpha)):
        sheet.put(f"network.te_{name}", value)
        sheet.own(key, f"network.unet_{name}", value, _OWN)
    _layers(sheet, rank, alpha)
    _part(sheet, "unet", "unet")
    _part(sheet, "text_encoder", "te")
    _second_encoder(sheet)
    scale = _scale(sheet)
    fate, why = ("translated", f"× {scale:g}") if scale != 1 else ("taken", "")
    sheet.note("learning_rate", fate, why, "the learning rates of the parts")  # type: ignore[arg-type]
    if sheet.has("dropout_probability"):
        sheet.taken("dropout_probability", "network.dropout", number(sheet.get("dropout_probability")) or 0.0)
    _stop(sheet)


def _no_network(sheet: ConfigTranslation) -> None:
    if _method(sheet) == "EMBEDDING":
        sheet.put("network.algorithm", "none")
        sheet.honoured("learning_rate", "the embedding LR")
    else:
        sheet.refused("learning_rate", "a learning rate for full fine-tuning does not fit a network; ours stays")
    keys = "lora_rank lora_alpha lora_decompose peft_type dropout_probability".split()
    keys += "layer_filter layer_filter_preset layer_filter_regex".split()
    sheet.honoured(keys, "used in LORA runs only")


def _layers(sheet: ConfigTranslation, rank: int, alpha: float) -> None:
    """Sets of layers by name; a filter of one's own is text that must be in a layer's name."""
    ours = LAYERS.get(str(sheet.get("layer_filter_preset", "full")), "")
    filters = [part.strip() for part in str(sheet.get("layer_filter") or "").split(",") if part.strip()]
    if not ours and len(filters) == 1:
        ours = {"attentions": "kohya", "attn": "attention"}.get(filters[0], "")
    if not ours:
        sheet.put("network.unet_targets", "all")
        sheet.refused("layer_filter", "add these layers as groups: network.groups; all layers until then")
        sheet.refused("layer_filter_preset", "a filter of one's own; all layers until then")
        sheet.honoured("layer_filter_regex", "see layer_filter")
        return
    named = ours if ours in choices("network.unet_targets") else "attention+ff"
    sheet.put("network.unet_targets", named)
    became = f"network.unet_targets = {named}"
    if ours == "kohya" and named != "kohya":
        group = {"pattern": r"^lora_unet_.*(?:_proj_(in|out)$)", "rank": rank, "alpha": alpha, "lr_factor": 1.0}
        sheet.put("network.groups", [group])
        became += " and a group for proj_in and proj_out"
    why = "without the first, the last and the time embedding" if ours == "all" else "the same layers"
    sheet.note("layer_filter_preset", "translated", why, became)
    if not sheet.has("layer_filter_preset"):
        why = "OneTrainer's own default: all layers"
        sheet.default("layer_filter_preset", "network.unet_targets", named, why)
    sheet.honoured("layer_filter", "the preset's", became)
    sheet.honoured("layer_filter_regex", "the preset's")


def _rate_of(sheet: ConfigTranslation, key: str) -> tuple[float | None, float]:
    """(what is written, what acts): a rate that is null is the common one."""
    own = number(sheet.get(key))
    return own, (sheet.number("learning_rate", DEFAULT_RATE) if own is None else own) * _scale(sheet)


def _take_rate(sheet: ConfigTranslation, key: str, path: str, rate: float, scale: float) -> None:
    if scale != 1:
        sheet.translated(key, path, rate, f"× {scale:g} by learning_rate_scaler")
    else:
        sheet.taken(key, path, rate)


def _part(sheet: ConfigTranslation, part: str, ours: str) -> None:
    """One part's switch and rate."""
    targets, path = f"network.{ours}_targets", f"network.{ours}_lr"
    train, key = f"{part}.train", f"{part}.learning_rate"
    if not sheet.flag(train, default=True):
        sheet.put(targets, "none")
        sheet.honoured(train, "this part is not trained", f"{targets} = none")
        sheet.honoured(key, "this part is not trained")
        return
    if ours == "te":
        sheet.put(targets, "attention+mlp")
    sheet.honoured(train, "this part is trained")
    own, rate = _rate_of(sheet, key)
    if own is None:
        sheet.default(key, path, rate, "learning_rate holds for each part")
        sheet.honoured(key, "learning_rate holds", f"{path} = {rate:g}")
    else:
        _take_rate(sheet, key, path, rate, _scale(sheet))


def _second_encoder(sheet: ConfigTranslation) -> None:
    """SDXL's second text encoder: a switch and a rate of its own."""
    if not str(sheet.get("model_type", "")).startswith("STABLE_DIFFUSION_XL"):
        return
    keys = ("text_encoder_2.train", "text_encoder_2.learning_rate")
    own, rate = _rate_of(sheet, keys[1])
    first = sheet.flag("text_encoder.train", True)
    if not sheet.flag(keys[0], True) or rate == 0:
        sheet.put("network.te2_targets", "none")
        sheet.honoured(keys, "this part is not trained", "network.te2_targets = none")
    elif first and rate == sheet.read("network.te_lr"):
        sheet.honoured(keys, "as the first text encoder")
    else:
        targets = "same" if first else "attention+mlp"
        sheet.put("network.te2_targets", targets)
        sheet.honoured(keys[0], "this part is trained", f"network.te2_targets = {targets}")
        if own is None:
            sheet.put("network.te2_lr", rate)
            sheet.honoured(keys[1], "learning_rate holds", f"network.te2_lr = {rate:g}")
        else:
            _take_rate(sheet, keys[1], "network.te2_lr", rate, _scale(sheet))


def _stop(sheet: ConfigTranslation) -> None:
    """Where the text encoder's network stops: epochs as their share of the run."""
    key, unit = "text_encoder.stop_training_after", "text_encoder.stop_training_after_unit"
    after = whole(sheet.get(key))
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


def _distribution(sheet: ConfigTranslation, key: str, value: Any) -> None:
    ours = str(value).lower()
    if value in (None, "", "UNIFORM"):
        sheet.honoured(key)
    elif ours in choices("noise.timestep_distribution"):
        sheet.renamed(key, "noise.timestep_distribution", ours, value)
    else:
        sheet.refused(key, _EVENLY)


def _weighting(sheet: ConfigTranslation) -> None:
    weighting = str(sheet.get("loss_weight_fn", "CONSTANT"))
    ours = WEIGHTINGS.get(weighting, "")
    if ours in choices("loss.weighting"):
        sheet.translated("loss_weight_fn", "loss.weighting", ours, f"{weighting} is called {ours} here")
    else:
        sheet.refused("loss_weight_fn", "there is no such weighting here; none instead", "loss.weighting = none")
    if ours in ("min_snr", "p2"):
        sheet.own("loss_weight_strength", "loss.snr_gamma", sheet.number("loss_weight_strength", 5.0), _OWN)
    else:
        sheet.honoured("loss_weight_strength", "of no effect on this weighting")


def _loss(sheet: ConfigTranslation) -> None:
    """OneTrainer adds losses by strength; here there is one."""
    on = {key: sheet.number(key, default) for key, (_, default) in LOSSES.items()}
    strongest = max(on, key=lambda key: on[key])
    kind = LOSSES[strongest][0]
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


def _masks(sheet: ConfigTranslation) -> None:
    """Masked training: its weight and chance outside the mask."""
    if not sheet.flag("masked_training"):
        sheet.honoured(("masked_training", "unmasked_probability", "unmasked_weight"))
        sheet.honoured(("normalize_masked_area_loss", "masked_prior_preservation_weight"))
        return
    why = "files NAME-masklabel.png beside the pictures are found"
    sheet.translated("masked_training", "data.masks", "linear", why)
    for key, path in (("unmasked_probability", "data.mask_off"), ("unmasked_weight", "data.mask_minimum")):
        sheet.own(key, path, sheet.number(key, 0.1), _OWN)
    normalise = sheet.flag("normalize_masked_area_loss")
    sheet.own("normalize_masked_area_loss", "data.mask_normalise", normalise, _OWN)


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
    for inner in sheet.keys_under("concepts"):
        name = re.sub(r"^concepts\.\d+\.", "", inner)
        if any(key == name or key.startswith(f"{name} (") for key in reading.untaken):
            sheet.refused(inner, "a scan has no such setting")
        else:
            sheet.honoured(inner, read_so)


def _folder_around(sheet: ConfigTranslation, read_so: str) -> None:
    """Concepts that cannot be read here: the folder around them, as the file writes it."""
    concepts = sheet.plain.get("concepts")
    path = sheet.origin.find(sheet.get("concept_file_name")) if not concepts else None
    if path is not None and _beside(sheet, path, "concepts") is not None:
        sheet.taken("concept_file_name", "data.folder", str(path), read_so)
    entries = [one for one in children(concepts) if isinstance(one, dict) and one.get("enabled", True)]
    folder = common.common_folder(sheet.origin, [str(one.get("path") or "") for one in entries])
    if folder:
        sheet.put("data.folder", folder)
        sheet.note("concept_file_name", "translated", "the folder around its concepts", f"data.folder = {folder}")
        sheet.remark(
            "The concepts' folders are not on this computer, or the file came without a place: save it there and give "
            "it as the folder on the Data page, then each concept is read with its own settings."
        )
    elif not sheet.claimed("concept_file_name"):
        sheet.refused("concept_file_name", "these concepts are not here; give their folder as data.folder")
    for inner in sheet.keys_under("concepts"):
        if inner.endswith(".path") and folder:
            sheet.note(inner, "translated", "", f"data.folder = {folder}")
        elif inner == "concepts" or sheet.get(inner) in (None, "", [], {}):
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
        sheet.put("saving.preview_prompts", prompts)
    for one in (key, *sheet.keys_under("samples")):
        if prompts:
            sheet.note(one, "translated", "its prompts", "saving.preview_prompts")
        elif sheet.get(one) in (None, "", []):
            sheet.honoured(one, "none")
        else:
            sheet.refused(one, "no prompts are here; write them into saving.preview_prompts")
    _interval(sheet, "sample_after", "saving.preview_every_steps", "MINUTE")
    _interval(sheet, "save_every", "saving.every_steps", "NEVER")
    _interval(sheet, "backup_after", "saving.state_every_steps", "MINUTE")


def _interval(sheet: ConfigTranslation, key: str, path: str, default_unit: str) -> None:
    unit, steps = str(sheet.get(f"{key}_unit", default_unit)), whole(sheet.get(key)) or 0
    if unit == "STEP" and steps > 0:
        sheet.taken(key, path, steps)
        sheet.honoured(f"{key}_unit", "steps")
    elif unit == "EPOCH" and steps > 0:
        common.take_interval(sheet, key, steps, path)
        sheet.honoured(f"{key}_unit", "epochs, as steps" if sheet.epoch_steps else "epochs")
    elif unit == "NEVER" or not steps:
        sheet.honoured((key, f"{key}_unit"), "never")
    else:
        sheet.refused((key, f"{key}_unit"), f"intervals are steps here; set {path}")


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


def _clip_skip(sheet: ConfigTranslation, key: str, value: Any) -> None:
    if str(sheet.get("model_type", "")).startswith("STABLE_DIFFUSION_XL"):
        missing("SDXL's own layer is used")(sheet, key, value)
    else:
        sheet.translated(key, "clip_skip", (whole(value) or 0) + 1, "OneTrainer counts from 0, the web UI from 1")


def _option(sheet: ConfigTranslation, key: str, value: Any) -> None:
    """An option of the optimiser, which keeps our default: told where it changes the steps."""
    name = key.rpartition(".")[2]
    usual = {"beta1": (0.9, None), "beta2": (0.999, None), "eps": (1e-8, None), "stochastic_rounding": (True, False)}
    if name in ("fused", "foreach", "capturable", "differentiable", "fused_back_pass", "fsdp_in_use", "compile"):
        sheet.ignored(key, "speed or memory; the web UI's own settings hold here")
    elif value in usual.get(name, (None, False, "", 0)) or value == {}:
        sheet.honoured(key, "the optimiser's own default")
    else:
        sheet.refused(key, "options of the optimiser keep their defaults")


_MODEL = aside("the checkpoint is used as the web UI has loaded it")
_NEVER = (None, "", "NEVER")
_EVENLY = "timesteps are sampled evenly"
_FOUND_OUT = "what the checkpoint predicts is found out from it"

# fmt: off
TABLE: Table = (
    # what several keys decide together, and what it rests on first
    ("model_type",
     unless(lambda value: not str(value).startswith(MODELS) or "DEPTH" in str(value),
            "only SD1, SD2 and SDXL train here; what fits them was taken", "load such a checkpoint in the web UI")),
    ("training_method", _training_method),
    ("learning_rate_scaler", _scaler),
    _length,
    _optimizer,
    _average,
    _course,
    ("learning_rate_cycles", missing("restarts keep their own number here", (), at="schedule.rate_cycles")),
    _embeddings,
    _network,
    ("min_noising_strength", _strength("noise.timestep_min", 0.0)),
    ("max_noising_strength", _strength("noise.timestep_max", 1.0)),
    _weighting,
    _loss,
    _masks,
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
    ("masked_prior_preservation_weight", to("data.mask_prior", number)),
    ("gradient_checkpointing",
     to("memory.gradient_checkpointing", lambda value: value not in ("OFF", "off", False, None), "on")),
    ("text_encoder_layer_skip", _clip_skip),
    ("text_encoder.dropout_probability",
     turned("data.caption_dropout", lambda value: number(value) or None, "chance that the full caption is left out")),
    # what is not here
    ("save_filename_prefix", missing("the files of steps are called after the run")),
    ("generalized_offset_noise", missing("noise offset does not depend on the timestep here")),
    ("perturbation_noise_weight", missing("OneTrainer adds it to the target too; see noise.perturbation for kohya's")),
    ("force_v_prediction force_epsilon_prediction", missing(_FOUND_OUT)),
    ("timestep_distribution", _distribution),
    ("noising_weight noising_bias dynamic_timestep_shifting", missing(_EVENLY)),
    ("timestep_shift", missing(_EVENLY, (None, 1, 1.0))),
    ("loss_scaler", missing("the loss is a mean over pictures; change the learning rates instead", (None, "", "NONE"))),
    ("custom_conditioning_image", missing("this is not here")),
    ("text_encoder_2_layer_skip", missing("SDXL's own layer is used")),
    ("text_encoder_2.dropout_probability", missing("captions are left out for both encoders at once")),
    ("text_encoder.train_embedding text_encoder_2.train_embedding",
     missing("an embedding is trained in all encoders", (None, True))),
    ("unet.stop_training_after", missing("the U-Net trains to the end")),
    ("unet.stop_training_after_unit", missing("the U-Net trains to the end", _NEVER)),
    ("text_encoder_2.stop_training_after", missing("see schedule.te_stop")),
    ("text_encoder_2.stop_training_after_unit", missing("see schedule.te_stop", _NEVER)),
    ("unet.learning_rate", missing("used in LORA runs only")),
    ("lora_model_name", missing("a run starts with a new network; continue from a saved state instead")),
    ("lora_decompose_norm_epsilon", aside("a guard against dividing by zero; here always on")),
    ("lora_decompose_output_axis", missing("DoRA's norms are taken as in the web UI")),
    ("bundle_additional_embeddings", missing("embeddings always go into the file", (None, True))),
    ("continue_last_backup", missing("states of other trainers cannot be gone on from")),
    ("validation", missing("there is no validation set; the separation score measures instead")),
    ("vb_loss_strength", aside("for checkpoints that predict a variance")),
    ("custom_learning_rate_scheduler", missing("an LR scheduler built by class cannot be read; set schedule.rate")),
    ("scheduler_params", missing("options of a scheduler are not read")),
    ("only_cache", missing("training always follows")),
    ("force_circular_padding", missing("pictures that tile are not trained apart")),
    # what does not concern training
    ("latent_caching clear_cache_before_training dataloader_threads train_device temp_device fallback_train_dtype "
     "enable_autocast_cache attention_mechanism async_offloading compile multi_gpu device_indexes "
     "gradient_reduce_precision fused_gradient_reduce async_gradient_reduce async_gradient_reduce_buffer "
     "embedding_weight_dtype lora_weight_dtype weight_dtype layer_offload_fraction enable_activation_offloading "
     "enable_async_offloading align_prop quantization", aside("speed or memory; the web UI's own settings hold here")),
    ("debug_mode debug_dir tensorboard tensorboard_expose tensorboard_always_on tensorboard_port "
     "samples_to_tensorboard validate_after validate_after_unit wandb", aside("logs of the other trainer")),
    ("workspace_dir cache_dir output_model_format include_train_config prevent_overwrites rolling_backup "
     "rolling_backup_count backup_before_save save_skip_first save_after save_after_unit sample_skip_first "
     "sample_image_format sample_video_format sample_audio_format non_ema_sampling",
     aside("files have places and names of their own here")),
    ("__version huggingface_cache_dir offline_mode secrets cloud optimizer_defaults embedding.uuid",
     aside("how the other trainer is started or looks")),
    ("base_model_name", _MODEL),
    ("frames text_encoder_sequence_length text_encoder_2_sequence_length",
     aside("for other families of checkpoints or kinds of network")),
    # what is left below these
    ("optimizer_defaults.*", aside("settings of optimisers that are not chosen")),
    ("optimizer.*", _option),
    ("quantization.*",
     missing("the checkpoint is used as the web UI has loaded it", (None, "", "NONE", "full", False, 16))),
    ("unet.* text_encoder.* text_encoder_2.* vae.*", _MODEL),
    ("prior.* transformer.* unconditional_transformer.* text_encoder_3.* text_encoder_4.* decoder.* "
     "text_encoder_3_layer_skip text_encoder_4_layer_skip effnet_encoder.* decoder_text_encoder.* decoder_vqgan.* "
     "oft_block_size oft_block_share oft_scaled lokr_dim lokr_decompose_both lokr_decompose_factor lokr_use_tucker "
     "lokr_weight_decompose lokr_dora_on_output lokr_full_matrix lokr_vec_trick",
     aside("for other families of checkpoints or kinds of network")),
    ("cloud.*", aside("renting machines is not part of training")),
    ("secrets.*", aside("keys to other services are not part of training")),
)
# fmt: on
