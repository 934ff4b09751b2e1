"""Noise, loss, masks, pictures and samples in OneTrainer's settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_pivotal.data.sources.source import Reading
from lib_pivotal.errors import ConfigError
from lib_pivotal.importing.common import Origin, common_folder, place_of, resolution_of
from lib_pivotal.importing.datasets import read_described, take_described, take_interval
from lib_pivotal.importing.onetrainer_network import own_or_default
from lib_pivotal.importing.reading import children, parse_text, read_bytes, whole
from lib_pivotal.importing.sheet import Sheet, choices


def take_noise(sheet: Sheet) -> None:
    """Range of timesteps, weighting and loss."""
    for key, path, default in (
        ("min_noising_strength", "noise.timestep_min", 0.0),
        ("max_noising_strength", "noise.timestep_max", 1.0),
    ):
        share = sheet.number(key, default)
        if sheet.has(key):
            sheet.translated(key, path, min(max(int(share * 1000), 0), 1000), "of 1000 timesteps")
    weighting = str(sheet.get("loss_weight_fn", "CONSTANT"))
    ours = {"CONSTANT": "none", "MIN_SNR_GAMMA": "min_snr", "DEBIASED_ESTIMATION": "debiased", "P2": "p2"}.get(
        weighting, ""
    )
    if ours in choices("loss.weighting"):
        sheet.translated("loss_weight_fn", "loss.weighting", ours, f"{weighting} is called {ours} here")
    else:
        sheet.refused("loss_weight_fn", "there is no such weighting here; none instead", "loss.weighting = none")
    strength = sheet.number("loss_weight_strength", 5.0)
    if ours in ("min_snr", "p2") and sheet.has("loss_weight_strength"):
        sheet.taken("loss_weight_strength", "loss.snr_gamma", strength)
    elif ours in ("min_snr", "p2"):
        sheet.default("loss_weight_strength", "loss.snr_gamma", strength, "OneTrainer's own default")
    else:
        sheet.honoured("loss_weight_strength", "of no effect on this weighting")
    _take_loss(sheet)


def _take_loss(sheet: Sheet) -> None:
    """OneTrainer adds losses by strength; here there is one."""
    names = {
        "mse_strength": ("mse", 1.0),
        "mae_strength": ("l1", 0.0),
        "huber_strength": ("huber", 0.0),
        "log_cosh_strength": ("", 0.0),
    }
    on = {key: sheet.number(key, default) for key, (_, default) in names.items()}
    strongest = max(on, key=lambda key: on[key])
    kind = names[strongest][0] or "mse"
    sheet.put("loss.kind", kind)
    alone = (
        sum(value > 0 for value in on.values()) == 1
        and on[strongest] == 1.0
        and strongest in ("mse_strength", "mae_strength")
    )
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


def take_masks(sheet: Sheet) -> None:
    """Masked training: its weight and chance outside the mask."""
    if not sheet.flag("masked_training"):
        for key in (
            "masked_training",
            "unmasked_probability",
            "unmasked_weight",
            "normalize_masked_area_loss",
            "masked_prior_preservation_weight",
        ):
            sheet.honoured(key)
        return
    sheet.translated(
        "masked_training", "data.masks", "linear", "files NAME-masklabel.png beside the pictures are found"
    )
    for key, path, default in (
        ("unmasked_probability", "data.mask_off", 0.1),
        ("unmasked_weight", "data.mask_minimum", 0.1),
    ):
        own_or_default(sheet, key, path, sheet.number(key, default))
    own_or_default(sheet, "normalize_masked_area_loss", "data.mask_normalise", sheet.flag("normalize_masked_area_loss"))


def concepts_of(sheet: Sheet, plain: Mapping[str, Any], origin: Origin) -> tuple[Reading, Path] | None:
    """The concepts as a scan reads them, and the file that holds them; None where their folders are not here."""
    if plain.get("concepts"):
        path = origin.folder / origin.name if origin.folder is not None else None
    else:
        path = origin.find(sheet.get("concept_file_name"))
    if path is None or not path.is_file():
        return None
    reading = read_described(path, "onetrainer", origin.may_read)
    return None if reading is None else (reading, path)


def take_pictures(
    sheet: Sheet, plain: Mapping[str, Any], origin: Origin, described: tuple[Reading, Path] | None
) -> None:
    """Size, and folders from the concepts, in the file or in one beside it."""
    side, _ = resolution_of(sheet.get("resolution", "512"))
    if side is not None and sheet.has("resolution"):
        first = whole(str(sheet.get("resolution")).split(",")[0]) or side
        if "," in str(sheet.get("resolution")):
            sheet.put("data.resolution_px", first)
            sheet.refused("resolution", "one size a run; the first was taken", f"data.resolution_px = {first}")
        else:
            sheet.taken("resolution", "data.resolution_px", first)
    if described is not None:
        reading, path = described
        sheet.taken("concept_file_name", "data.folder", str(path), "a scan reads OneTrainer's concepts itself")
        take_described(sheet, reading, path, "concepts")
        _concept_lines(sheet, reading)
    else:
        _take_common_folder(sheet, plain, origin)


def _concept_lines(sheet: Sheet, reading: Reading) -> None:
    """A line for each key of each concept: what the reading did not take is not supported."""
    for inner in sheet.keys_under("concepts"):
        name = re.sub(r"^concepts\.\d+\.", "", inner)
        if any(key == name or key.startswith(f"{name} (") for key in reading.untaken):
            sheet.refused(inner, "a scan has no such setting")
        else:
            sheet.honoured(inner, "a scan reads OneTrainer's concepts itself")


def _take_common_folder(sheet: Sheet, plain: Mapping[str, Any], origin: Origin) -> None:
    """Concepts that cannot be read here: the folder around them, as the file writes it."""
    concepts = plain.get("concepts")
    path = origin.find(sheet.get("concept_file_name")) if not concepts else None
    if path is not None and _read_beside(sheet, path, "concepts") is not None:
        sheet.taken("concept_file_name", "data.folder", str(path), "a scan reads OneTrainer's concepts itself")
    entries = [one for one in children(concepts) if isinstance(one, dict)]
    folders = [str(one.get("path", "")) for one in entries if one.get("path") and one.get("enabled", True)]
    folder = common_folder(folders) if folders else ""
    if folder:
        folder = place_of(origin, folder)
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
        elif not sheet.claimed(inner):
            sheet.refused(inner, "what concerns single concepts is read by a scan of the concepts' file")


def take_samples(sheet: Sheet, plain: Mapping[str, Any], origin: Origin) -> None:
    """Prompts of samples, in the file or in one beside it; intervals where they are steps or epochs."""
    samples = plain.get("samples")
    path = origin.find(sheet.get("sample_definition_file_name")) if not samples else None
    if path is not None:
        samples = _read_beside(sheet, path, "samples")
    prompts = [str(one.get("prompt", ""))[:1000] for one in children(samples) if isinstance(one, dict)][:50]
    prompts = [prompt for prompt in prompts if prompt.strip()]
    if prompts:
        sheet.put("saving.preview_prompts", prompts)
    for key in ("sample_definition_file_name", *sheet.keys_under("samples")):
        if prompts:
            sheet.note(key, "translated", "its prompts", "saving.preview_prompts")
        elif sheet.get(key) in (None, "", []):
            sheet.honoured(key, "none")
        else:
            sheet.refused(key, "no prompts are here; write them into saving.preview_prompts")
    for what, path_of in (
        ("sample_after", "saving.preview_every_steps"),
        ("save_every", "saving.every_steps"),
        ("backup_after", "saving.state_every_steps"),
    ):
        unit_key = f"{what}_unit"
        unit = str(sheet.get(unit_key, "MINUTE" if what != "save_every" else "NEVER"))
        steps = whole(sheet.get(what)) or 0
        if unit == "STEP" and steps > 0:
            sheet.taken(what, path_of, steps)
            sheet.honoured(unit_key, "steps")
        elif unit == "EPOCH" and steps > 0 and sheet.epoch_steps:
            why = f"{sheet.epoch_steps} steps an epoch with the pictures here"
            sheet.translated(what, path_of, steps * sheet.epoch_steps, why)
            sheet.honoured(unit_key, "epochs, as steps")
        elif unit == "EPOCH" and steps > 0:
            take_interval(sheet, what, steps, path_of)
            sheet.honoured(unit_key, "epochs")
        elif unit == "NEVER" or not steps:
            sheet.honoured(what, "never")
            sheet.honoured(unit_key, "never")
        else:
            for key in (what, unit_key):
                sheet.refused(key, f"intervals are steps here; set {path_of}")


def _read_beside(sheet: Sheet, path: Path, what: str) -> Any:
    """What a file beside the settings holds; None, and a remark, where it cannot be read."""
    try:
        return parse_text(read_bytes(path), path.name)
    except ConfigError as error:
        sheet.remark(f"The {what} {path.name} cannot be read: {error.faults[0].problem}.")
        return None
