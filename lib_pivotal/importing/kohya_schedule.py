"""Length, optimiser and course of the rates in kohya's settings."""

from __future__ import annotations

import math

from lib_pivotal.importing.common import count_draws, set_optimizer, set_rate
from lib_pivotal.importing.datasets import draws_an_epoch, take_epochs, take_warmup
from lib_pivotal.importing.kohya_flags import Flags, take_flag
from lib_pivotal.importing.reading import flag, number, whole
from lib_pivotal.importing.sheet import missing

DEFAULT_STEPS = 1600

_WEIGHT_DECAY = {"adamw": 0.01, "schedule_free": 0.0, "lion": 0.0, "prodigy": 0.0, "adafactor": 0.0}
_MADE_SO = ("relative_step", "scale_parameter", "warmup_init")


def take_length(flags: Flags) -> None:
    """Batch, steps, and epochs where the pictures can be counted."""
    sheet = flags.sheet
    batch = max(whole(flags.get("train_batch_size")) or 1, 1)
    take_flag(flags, "train_batch_size", "schedule.batch_size", batch, default=1)
    accumulation = max(whole(flags.get("gradient_accumulation_steps")) or 1, 1)
    processes = max(whole(flags.get("num_processes")) or 1, 1)
    if processes > 1:
        sheet.translated(
            "num_processes",
            "schedule.accumulation",
            accumulation * processes,
            "once for each GPU",
        )
        sheet.note(flags.key("gradient_accumulation_steps"), "translated", "× GPUs", "schedule.accumulation")
    else:
        take_flag(flags, "gradient_accumulation_steps", "schedule.accumulation", accumulation, default=1)
        sheet.honoured("num_processes", "one process, as here")
    steps = whole(flags.get("max_train_steps")) or 0
    epochs = whole(flags.get("max_train_epochs")) or 0
    if flags.gui and not steps and not epochs:
        epochs = whole(sheet.get("epoch")) or 0
    if flags.described is not None and (own := flags.described.settings.get("schedule.batch_size")):
        sheet.put("schedule.batch_size", own)  # the dataset file's tables come before the flags
    draws = _draws(flags)
    steps_key, epochs_key = flags.key("max_train_steps"), flags.key("max_train_epochs")
    epochs_key = epochs_key if whole(flags.get("max_train_epochs")) or not flags.gui else "epoch"
    if epochs:
        flags.epoch_steps = take_epochs(sheet, epochs_key, epochs, draws)
        if not draws:
            sheet.put("schedule.max_steps", steps or DEFAULT_STEPS)
        sheet.honoured(steps_key, "epochs come before steps")
    elif steps:
        sheet.taken(steps_key, "schedule.max_steps", steps)
    else:
        sheet.default("max_train_steps", "schedule.max_steps", DEFAULT_STEPS, "kohya's own default")
    pictures = int(sheet.read("schedule.batch_size")) * int(sheet.read("schedule.accumulation"))
    flags.epoch_steps = flags.epoch_steps or math.ceil(draws / pictures)
    for key in {steps_key, flags.key("max_train_epochs"), "epoch"}:
        if not sheet.claimed(key):
            sheet.honoured(key, "not used")


def _draws(flags: Flags) -> int:
    """Pictures an epoch, repeats counted, of those that are here; 0 if there are none."""
    if flags.described is not None:
        return draws_an_epoch(flags.described)
    folder = flags.origin.find(flags.get("train_data_dir"))
    return count_draws(folder) if folder is not None and folder.is_dir() else 0


def take_optimizer(flags: Flags, *, words: bool) -> str:
    """Optimiser, its decay and the limit of gradients; returns our name of it."""
    sheet = flags.sheet
    key = flags.key("optimizer_type")
    written = flags.get("optimizer_type")
    if flags.flag("use_8bit_adam") and not written:
        ours = set_optimizer(sheet, flags.key("use_8bit_adam"), "AdamW8bit")
    elif flags.flag("use_lion_optimizer") and not written:
        ours = set_optimizer(sheet, flags.key("use_lion_optimizer"), "Lion")
    elif written:
        ours = set_optimizer(sheet, key, written)
    else:
        ours = "adamw"
        sheet.default("optimizer_type", "schedule.optimizer", ours, "kohya's own default")
        sheet.honoured(key, "kohya's own default: AdamW")
    path = "words_common.weight_decay" if words else "network.weight_decay"
    decay = number(sheet.get("optimizer_args.weight_decay"))
    if decay is not None:
        sheet.taken("optimizer_args.weight_decay", path, decay)
    else:
        sheet.default("optimizer_args.weight_decay", path, _WEIGHT_DECAY.get(ours, 0.01), "the optimiser's own default")
    for inner in sheet.keys_under("optimizer_args"):
        name = inner.rpartition(".")[2]
        if sheet.claimed(inner):
            continue
        if name in _MADE_SO and flag(sheet.get(inner)) is False and ours == "adafactor":
            sheet.honoured(inner, "Adafactor with its own learning rates, as here")
        elif inner == "optimizer_args":
            missing("options of the optimiser keep their defaults")(sheet, inner, sheet.get(inner))
        else:
            sheet.refused(inner, "options of the optimiser keep their defaults")
    norm = flags.number("max_grad_norm")
    for limit in ("schedule.clip_network", *(("schedule.clip_words",) if words else ())):
        take_flag(flags, "max_grad_norm", limit, norm, default=1.0)
    return ours


def take_course(flags: Flags) -> None:
    """The course of the rates and its warm-up, which may be steps, a fraction of the run, or in the GUI per cent."""
    sheet = flags.sheet
    name = flags.get("lr_scheduler")
    if name:
        set_rate(sheet, flags.key("lr_scheduler"), name)
    else:
        sheet.default("lr_scheduler", "schedule.rate", "constant", "kohya's own default")
    warmup = flags.number("lr_warmup_steps") or 0.0
    per_cent = number(sheet.get("lr_warmup")) if flags.gui else None
    plain = str(name or "constant").lower()
    if plain in ("constant", "adafactor"):
        for key in (flags.key("lr_warmup_steps"), "lr_warmup"):
            sheet.honoured(key, "this scheduler has no warm-up")
    elif per_cent and not warmup:
        take_warmup(sheet, "lr_warmup", per_cent / 100, "per cent of the run's steps")
        sheet.honoured(flags.key("lr_warmup_steps"), "the per cent count")
    else:
        key = flags.key("lr_warmup_steps")
        if 0 < warmup < 1:
            take_warmup(sheet, key, warmup, "a fraction of the run's steps")
        else:
            sheet.taken(key, "schedule.warmup_steps", int(warmup))
        sheet.honoured("lr_warmup")
    lowest = flags.number("lr_scheduler_min_lr_ratio")
    if lowest:
        sheet.taken(flags.key("lr_scheduler_min_lr_ratio"), "schedule.final_factor", lowest)
    cycles = flags.number("lr_scheduler_num_cycles")
    restarts = plain == "cosine_with_restarts"
    if cycles in (None, 1.0) or not restarts:
        sheet.honoured(
            flags.key("lr_scheduler_num_cycles"), "of no effect on this scheduler" if not restarts else "one, as here"
        )
    else:
        sheet.refused(flags.key("lr_scheduler_num_cycles"), "restarts keep their own number here")
    power = flags.number("lr_scheduler_power")
    if power in (None, 1.0) or plain != "polynomial":
        sheet.honoured(
            flags.key("lr_scheduler_power"), "of no effect on this scheduler" if plain != "polynomial" else ""
        )
    else:
        sheet.refused(flags.key("lr_scheduler_power"), "the power is 1 here, a straight line")
