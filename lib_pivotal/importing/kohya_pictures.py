"""Noise, loss, pictures and captions in kohya's settings."""

from __future__ import annotations

from lib_pivotal.importing.common import place_of, resolution_of
from lib_pivotal.importing.datasets import take_described
from lib_pivotal.importing.kohya_flags import Flags
from lib_pivotal.importing.reading import whole
from lib_pivotal.importing.sheet import missing


def take_noise(flags: Flags) -> None:
    """Noise offset or pyramid (the GUI has a switch between them), min-SNR, loss."""
    sheet = flags.sheet
    kind = str(sheet.get("noise_offset_type", "")).lower() if flags.gui else ""
    for name, path, wanted in (
        ("noise_offset", "noise.offset", "original"),
        ("multires_noise_iterations", "noise.multires_iterations", "multires"),
        ("multires_noise_discount", "noise.multires_discount", "multires"),
    ):
        key, value = flags.key(name), flags.number(name)
        if kind and kind != wanted:
            sheet.honoured(key, f"not used: noise_offset_type is {kind}")
        elif value is None or not value:
            sheet.honoured(key)
        else:
            sheet.taken(key, path, int(value) if path.endswith("iterations") else value)
    sheet.honoured("noise_offset_type", "taken into account")
    gamma = flags.number("min_snr_gamma")
    key = flags.key("min_snr_gamma")
    if gamma:
        sheet.put("loss.weighting", "min_snr")
        sheet.taken(key, "loss.snr_gamma", gamma, "loss.weighting = min_snr")
    else:
        sheet.honoured(key)
    key = flags.key("debiased_estimation_loss")
    if flags.flag("debiased_estimation_loss") and gamma:
        sheet.refused(key, "one weighting a run; min-SNR was taken")
    elif flags.flag("debiased_estimation_loss"):
        sheet.translated(key, "loss.weighting", "debiased", "a weighting here")
    else:
        sheet.honoured(key)
    _take_loss_kind(flags)


def _take_loss_kind(flags: Flags) -> None:
    sheet = flags.sheet
    written = str(flags.get("loss_type") or "l2").lower()
    ours = {"l2": "mse", "l1": "l1", "huber": "huber", "smooth_l1": "smooth_l1"}.get(written)
    key = flags.key("loss_type")
    if ours is None:
        sheet.refused(key, "there is no such loss here; the squared error instead", "loss.kind = mse")
    elif ours == written:
        sheet.taken(key, "loss.kind", ours)
    else:
        sheet.translated(key, "loss.kind", ours, f"{written} is called {ours} here")
    with_threshold = ours in ("huber", "smooth_l1")
    delta = flags.number("huber_c")
    if delta and with_threshold:
        sheet.taken(flags.key("huber_c"), "loss.huber_delta", delta)
    schedule = str(flags.get("huber_schedule") or "snr")
    for name in ("huber_c", "huber_schedule", "huber_scale"):
        inner = flags.key(name)
        if sheet.claimed(inner):
            continue
        if not with_threshold:
            sheet.honoured(inner, "of no effect on this loss")
        elif name == "huber_schedule" and schedule == "snr":
            sheet.honoured(inner, "the threshold follows the signal-to-noise ratio, as here")
        elif name == "huber_schedule":
            sheet.refused(inner, "the threshold follows the signal-to-noise ratio here")
        else:
            missing("the threshold has no further scale", (None, "", 1, 1.0))(sheet, inner, sheet.get(inner))


def take_pictures(flags: Flags) -> None:
    """Folders, size, buckets, flips and masks."""
    sheet = flags.sheet
    folder = flags.get("train_data_dir")
    if folder:
        sheet.taken(
            flags.key("train_data_dir"),
            "data.folder",
            place_of(flags.origin, folder),
            "folders N_name count N times, as there",
        )
    beside = flags.get("reg_data_dir")
    if beside:
        sheet.taken(flags.key("reg_data_dir"), "regularisation.folder", place_of(flags.origin, beside))
        sheet.default(
            "batch of regularisation", "regularisation.batch_size", sheet.read("schedule.batch_size"), "one for one"
        )
        sheet.remark(
            "kohya mixes regularisation pictures into the batch, one for one; here they come beside it: half of "
            "kohya's steps see as many of your own pictures."
        )
    else:
        sheet.honoured(flags.key("reg_data_dir"), "no set beside")
    side, why = resolution_of(flags.get("resolution"))
    if side is None:
        sheet.honoured(flags.key("resolution"), "512 px")
    elif why:
        sheet.translated(flags.key("resolution"), "data.resolution_px", side, why)
    else:
        sheet.taken(flags.key("resolution"), "data.resolution_px", side)
    for name, path, default, on in (
        ("enable_bucket", "data.bucketing", False, True),
        ("bucket_no_upscale", "data.upscale", True, False),
        ("flip_aug", "data.flip", False, True),
    ):
        key = flags.key(name)
        if sheet.has(key):
            sheet.taken(key, path, on if flags.flag(name) else not on)
        else:
            sheet.default(name, path, default, "kohya's own default")
    if why and not sheet.read("data.bucketing"):
        sheet.put("data.bucketing", True)
        sheet.refused(flags.key("resolution"), f"one size that is no square: buckets of about {side} px instead")
    masked, alpha = flags.flag("masked_loss"), flags.flag("alpha_mask")
    if alpha:
        sheet.translated(flags.key("alpha_mask"), "data.transparency", "mask", "transparent pixels are masked away")
    if masked:
        sheet.put("data.mask_normalise", False)
        sheet.translated(
            flags.key("masked_loss"),
            "data.masks",
            "linear",
            "not scaled; put masks into `mask/` beside the pictures",
        )
    for name in ("masked_loss", "alpha_mask"):
        if not sheet.claimed(flags.key(name)):
            sheet.honoured(flags.key(name))


def take_described_pictures(flags: Flags) -> None:
    """kohya's own dataset file, whose tables come before the flags: last of all."""
    if flags.dataset_file is None:
        return
    key, path = flags.key("dataset_config"), flags.dataset_file
    flags.sheet.taken(key, "data.folder", str(path), "the Data page reads kohya's file itself, repeats and all")
    if flags.described is not None:
        take_described(flags.sheet, flags.described, path, key)


def take_captions(flags: Flags) -> None:
    """Shuffling, separators, length and clip skip."""
    sheet = flags.sheet
    for name, path, default in (
        ("shuffle_caption", "data.shuffle_tags", False),
        ("enable_wildcard", "data.wildcards", False),
        ("weighted_captions", "data.emphasis", False),
    ):
        key = flags.key(name)
        if sheet.has(key):
            sheet.taken(key, path, flags.flag(name))
        else:
            sheet.default(name, path, default, "kohya's own default")
    separator = flags.get("keep_tokens_separator")
    if separator:
        sheet.taken(flags.key("keep_tokens_separator"), "data.keep_separator", str(separator))
    else:
        sheet.honoured(flags.key("keep_tokens_separator"), "none is used")
    tokens = whole(flags.get("max_token_length"))
    key = flags.key("max_token_length")
    if tokens in (75, 150, 225):
        sheet.taken(key, "data.max_tokens", tokens, "longer captions lose their end")
    elif sheet.has(key) and tokens is not None:
        sheet.refused(key, "kohya knows 75, 150 and 225 tokens; captions are not cut here")
    else:
        sheet.honoured(key, "75 tokens, kohya's own default")
        sheet.default("max_token_length", "data.max_tokens", 75, "kohya's own default: longer captions lose their end")
    skip = whole(flags.get("clip_skip"))
    if skip:
        sheet.taken(flags.key("clip_skip"), "clip_skip", skip)
    else:
        sheet.honoured(flags.key("clip_skip"), "the last layer, as Clip skip 1")
