"""OneTrainer's config JSON: LoRA and EMBEDDING runs. Meanings from modules/util/config/TrainConfig.py, 23df383.

A file holds what differs from OneTrainer's defaults, or everything; embeddings of a LoRA run stand in
`additional_embeddings`, a rate of a part that is null is the common one, and alpha is 1 where none is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_pivotal.importing.common import Origin, new_word, set_optimizer, set_rate
from lib_pivotal.importing.datasets import draws_an_epoch, share_of_epochs, take_epochs, take_warmup
from lib_pivotal.importing.onetrainer_network import DEFAULT_RATE, no_network, take_network
from lib_pivotal.importing.onetrainer_pictures import concepts_of, take_masks, take_noise, take_pictures, take_samples
from lib_pivotal.importing.onetrainer_rules import PREFIXES, RULES
from lib_pivotal.importing.reading import flag, number, whole
from lib_pivotal.importing.report import shown
from lib_pivotal.importing.sheet import Sheet, apply_rules

TITLE = "OneTrainer settings"
DEFAULT_EPOCHS = 100
SUPPORTED_MODELS = ("STABLE_DIFFUSION_15", "STABLE_DIFFUSION_20", "STABLE_DIFFUSION_21", "STABLE_DIFFUSION_XL")

_DECAY = {"adamw": 0.01, "lion": 0.0, "prodigy": 0.0, "adafactor": 0.0, "schedule_free": 0.0}


def import_onetrainer(plain: Mapping[str, Any], origin: Origin) -> Sheet:
    """Translate one file; concepts and samples in files of their own are read where they are here."""
    sheet = Sheet(plain)
    method = str(sheet.get("training_method", "FINE_TUNE"))
    _take_model(sheet, method)
    scale = _rate_scale(sheet)
    described = concepts_of(sheet, plain, origin)
    _take_length(sheet, draws_an_epoch(described[0]) if described else 0)
    _take_optimizer(sheet, words_only=method == "EMBEDDING")
    _take_course(sheet)
    _take_words(sheet, plain, method, scale, origin)
    if method == "LORA":
        take_network(sheet, scale)
    else:
        no_network(sheet, method)
    take_noise(sheet)
    take_masks(sheet)
    take_pictures(sheet, plain, origin, described)
    take_samples(sheet, plain, origin)
    apply_rules(sheet, RULES)
    for prefix, rule in PREFIXES:
        for key in sheet.keys_under(prefix):
            if not sheet.claimed(key):
                rule(sheet, key, sheet.get(key))
    return sheet


def _take_model(sheet: Sheet, method: str) -> None:
    kind = str(sheet.get("model_type", SUPPORTED_MODELS[0]))
    if kind.startswith(SUPPORTED_MODELS) and "DEPTH" not in kind:
        sheet.honoured("model_type", "load such a checkpoint in the web UI")
    else:
        sheet.refused("model_type", "only SD1, SD2 and SDXL train here; what fits them was taken")
    if method in ("LORA", "EMBEDDING"):
        sheet.honoured("training_method", "a network and embeddings" if method == "LORA" else "embeddings only")
    else:
        sheet.refused("training_method", "a checkpoint's own weights are not trained; choose a network or embeddings")


# ---- rates, length, optimiser ----


def _rate_scale(sheet: Sheet) -> float:
    """OneTrainer multiplies rates by the square root of batch, accumulation or both (NamedParameterGroup.py)."""
    batch = max(whole(sheet.get("batch_size", 1)) or 1, 1)
    accumulation = max(whole(sheet.get("gradient_accumulation_steps", 1)) or 1, 1)
    scaler = str(sheet.get("learning_rate_scaler", "NONE")).removeprefix("GLOBAL_")
    factor = {"BATCH": batch, "GRADIENT_ACCUMULATION": accumulation, "BOTH": batch * accumulation}.get(scaler, 1)
    if scaler == "NONE":
        sheet.honoured("learning_rate_scaler", "learning rates act as they are written, as here")
        return 1.0
    sheet.note(
        "learning_rate_scaler",
        "translated",
        f"learning rates are multiplied by √{factor} there; here they are written as they act",
    )
    return float(factor) ** 0.5


def _take_length(sheet: Sheet, draws: int) -> None:
    """Batch, accumulation, and epochs as steps where the `draws` of one are known."""
    for key, path in (("batch_size", "schedule.batch_size"), ("gradient_accumulation_steps", "schedule.accumulation")):
        if sheet.has(key):
            sheet.taken(key, path, whole(sheet.get(key)))
        else:
            sheet.default(key, path, 1, "OneTrainer's own default")
    epochs = whole(sheet.get("epochs", DEFAULT_EPOCHS)) or 0
    if epochs < 1:
        sheet.refused("epochs", f"{shown(sheet.get('epochs'))} is no number of epochs; set schedule.max_steps")
        return
    sheet.epoch_steps = take_epochs(sheet, "epochs", epochs, draws)
    if not sheet.has("epochs"):
        sheet.remark(f"OneTrainer trains {DEFAULT_EPOCHS} epochs where nothing is written; so it is here.")


def _take_optimizer(sheet: Sheet, *, words_only: bool) -> None:
    """The optimiser is an object with its options, in old files a name."""
    key = "optimizer.optimizer" if sheet.has("optimizer.optimizer") else "optimizer"
    ours = set_optimizer(sheet, key, sheet.get(key, "ADAMW")) if sheet.has(key) else "adamw"
    if not sheet.has(key):
        sheet.default("optimizer", "schedule.optimizer", "adamw", "OneTrainer's own default")
    paths = ["words_common.weight_decay"] if words_only else ["network.weight_decay", "words_common.weight_decay"]
    decay = number(sheet.get("optimizer.weight_decay"))
    for path in paths:
        if decay is not None:
            sheet.taken("optimizer.weight_decay", path, decay)
        else:
            sheet.default("optimizer.weight_decay", path, _DECAY.get(ours, 0.01), "the optimiser's own default")
    if decay is None:
        sheet.honoured("optimizer.weight_decay", "the optimiser's own default")
    norm = number(sheet.get("clip_grad_norm", 1.0))
    for path in ("schedule.clip_network", "schedule.clip_words"):
        if sheet.has("clip_grad_norm"):
            sheet.taken(
                "clip_grad_norm", path, 0.0 if norm is None else norm, "one limit for embeddings and network there"
            )
        else:
            sheet.default("clip_grad_norm", path, 1.0, "OneTrainer's own default")
    _take_average(sheet)


def _take_average(sheet: Sheet) -> None:
    mode = str(sheet.get("ema", "OFF"))
    if mode in ("OFF", "False", "None"):
        for key in ("ema", "ema_decay", "ema_update_step_interval"):
            sheet.honoured(key)
        return
    every = max(whole(sheet.get("ema_update_step_interval", 5)) or 1, 1)
    decay = sheet.number("ema_decay", 0.999)
    per_step = decay ** (1 / every) if 0 < decay < 1 else 0.0
    sheet.put("schedule.ema_decay", min(round(per_step, 6), 0.99999))
    why = f"a decay of {decay:g} every {every} steps is {per_step:.5f} a step"
    for key in ("ema", "ema_decay", "ema_update_step_interval"):
        sheet.note(key, "translated", why, "schedule.ema_decay")


def _take_course(sheet: Sheet) -> None:
    name = str(sheet.get("learning_rate_scheduler", "CONSTANT"))
    if sheet.has("learning_rate_scheduler"):
        set_rate(sheet, "learning_rate_scheduler", name)
    else:
        sheet.default("learning_rate_scheduler", "schedule.rate", "constant", "OneTrainer's own default")
    warmup = sheet.number("learning_rate_warmup_steps", 200.0)
    accumulation = int(sheet.read("schedule.accumulation"))
    value = int(max(warmup, 0) / accumulation)
    if 0 < warmup <= 1 and sheet.has("learning_rate_warmup_steps"):
        take_warmup(sheet, "learning_rate_warmup_steps", warmup, "a fraction of the run")
    elif not sheet.has("learning_rate_warmup_steps"):
        sheet.default("learning_rate_warmup_steps", "schedule.warmup_steps", value, "OneTrainer's own default")
    elif value == warmup:
        sheet.taken("learning_rate_warmup_steps", "schedule.warmup_steps", value)
    else:
        sheet.translated("learning_rate_warmup_steps", "schedule.warmup_steps", value, "micro-batches there")
    lowest = sheet.number("learning_rate_min_factor", 0.0)
    sheet.taken("learning_rate_min_factor", "schedule.final_factor", lowest)
    cycles = number(sheet.get("learning_rate_cycles", 1.0))
    if cycles == 1.0 or "RESTARTS" not in name:
        sheet.honoured("learning_rate_cycles", "one, or of no effect on this scheduler")
    else:
        sheet.refused("learning_rate_cycles", "restarts keep their own number here")


# ---- words ----


def _take_words(sheet: Sheet, plain: Mapping[str, Any], method: str, scale: float, origin: Origin) -> None:
    """`embedding` of an EMBEDDING run, `additional_embeddings` of any."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    own = plain.get("embedding")
    if method == "EMBEDDING":
        found.append(("embedding", own if isinstance(own, dict) else {}))
    else:
        for key in sheet.keys_under("embedding"):
            sheet.honoured(key, "used in EMBEDDING runs only")
    more = plain.get("additional_embeddings")
    found += (
        [(f"additional_embeddings.{i}", one) for i, one in enumerate(more) if isinstance(one, dict)]
        if isinstance(more, list)
        else []
    )
    words: list[dict[str, Any]] = []
    for key, entry in found:
        if entry.get("train") is False:
            for inner in sheet.keys_under(key):
                sheet.refused(inner, "an embedding that is not trained; load its file in prompts instead")
            continue
        words.append(_word(sheet, key, entry, len(words), [word["name"] for word in words], origin))
    sheet.honoured("additional_embeddings", "no embeddings are trained")
    if words and (fault := sheet.put("words", words)):
        sheet.remark(f"The embeddings could not be imported: {fault}.")
    _word_rate(sheet, scale, any_words=bool(words))
    keep = flag(sheet.get("preserve_embedding_norm"))
    if keep:
        sheet.translated("preserve_embedding_norm", "words_common.control", "preserve_norm", "the same rule")
    else:
        sheet.honoured("preserve_embedding_norm", "words_common.control = none")
        sheet.default(
            "preserve_embedding_norm",
            "words_common.control",
            "none",
            "OneTrainer controls embedding norms on request only",
        )


def _word(
    sheet: Sheet, key: str, entry: Mapping[str, Any], index: int, names: list[str], origin: Origin
) -> dict[str, Any]:
    word, told = new_word(entry.get("placeholder", "<embedding>"), names)
    sheet.note(f"{key}.placeholder", "translated" if told else "taken", told, f"words.{index}.name = {word['name']}")
    if told:
        sheet.remark(
            f"Captions must say {word['name']} where they said {shown(entry.get('placeholder', '<embedding>'))}."
        )
    count = whole(entry.get("token_count", 1))
    word["vectors"] = min(max(count or 1, 1), 75)
    sheet.note(
        f"{key}.token_count", "taken", "" if count else "as the text has", f"words.{index}.vectors = {word['vectors']}"
    )
    word["init_text"] = str(entry.get("initial_embedding_text", "*"))[:400]
    sheet.note(f"{key}.initial_embedding_text", "taken", "", f"words.{index}.init_text = {word['init_text']}")
    path = origin.find(entry.get("model_name"))
    if path is not None and path.is_file():
        word["init_file"] = str(path)
        sheet.note(f"{key}.model_name", "taken", "begins with this file", f"words.{index}.init_file")
    elif entry.get("model_name"):
        sheet.refused(f"{key}.model_name", "this file is not here; set words.init_file")
    else:
        sheet.honoured(f"{key}.model_name", "none")
    _freeze(sheet, key, entry, word, index)
    sheet.honoured(f"{key}.train", "trained")
    if flag(entry.get("is_output_embedding")):
        sheet.refused(f"{key}.is_output_embedding", "embeddings are put in before the text encoder")
    else:
        sheet.honoured(f"{key}.is_output_embedding")
    sheet.ignored(f"{key}.uuid", "a mark of the other trainer")
    return word


def _freeze(sheet: Sheet, key: str, entry: Mapping[str, Any], word: dict[str, Any], index: int) -> None:
    """Where a word stops training: steps, or epochs, of which the run's length says what share of it they are."""
    after, unit = whole(entry.get("stop_training_after")), str(entry.get("stop_training_after_unit", "NEVER"))
    keys = (f"{key}.stop_training_after", f"{key}.stop_training_after_unit")
    if unit == "STEP" and after:
        word["freeze_step"] = after
        for one in keys:
            sheet.note(one, "taken", "", f"words.{index}.freeze_step = {after}")
    elif unit == "NEVER" or not after:
        for one in keys:
            sheet.honoured(one, "never")
    elif unit == "EPOCH" and sheet.epoch_steps:
        word["freeze_step"] = after * sheet.epoch_steps
        for one in keys:
            why = f"{sheet.epoch_steps} steps an epoch with the pictures here"
            sheet.note(one, "translated", why, f"words.{index}.freeze_step = {word['freeze_step']}")
    elif unit == "EPOCH" and (share := share_of_epochs(sheet, after)) is not None:
        word["freeze_at"] = share
        for one in keys:
            sheet.note(one, "translated", "a fraction of the run", f"words.{index}.freeze_at = {share:g}")
    else:
        for one in keys:
            sheet.refused(one, f"{after} {unit.lower()}: only steps are known here; set words.{index}.freeze_step")


def _word_rate(sheet: Sheet, scale: float, *, any_words: bool) -> None:
    own, common = number(sheet.get("embedding_learning_rate")), sheet.number("learning_rate", DEFAULT_RATE)
    rate = (common if own is None else own) * scale
    if not any_words:
        sheet.honoured("embedding_learning_rate", "no embeddings are trained")
        return
    why = f"× {scale:g} by learning_rate_scaler" if scale != 1 else ""
    if own is None:
        sheet.default("embedding_learning_rate", "words_common.lr", rate, "learning_rate holds for embeddings too")
        sheet.honoured("embedding_learning_rate", "learning_rate holds", f"words_common.lr = {rate:g}")
    elif why:
        sheet.translated("embedding_learning_rate", "words_common.lr", rate, why)
    else:
        sheet.taken("embedding_learning_rate", "words_common.lr", rate)
