"""kohya's sd-scripts (`--config_file` TOML of train_network.py, sdxl_train_network.py, train_textual_inversion.py) and
the JSON of bmaltais' GUI around them, which has names of its own. Meanings: sd-scripts 48d368f, kohya_ss 45088f0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lib_pivotal.importing.common import Origin, new_word, set_precision, take_name
from lib_pivotal.importing.datasets import take_interval
from lib_pivotal.importing.kohya_flags import Flags, take_flag
from lib_pivotal.importing.kohya_names import expanded, gui_flags
from lib_pivotal.importing.kohya_network import take_network
from lib_pivotal.importing.kohya_pictures import take_captions, take_described_pictures, take_noise, take_pictures
from lib_pivotal.importing.kohya_rules import PREFIXES, RULES
from lib_pivotal.importing.kohya_schedule import take_course, take_length, take_optimizer
from lib_pivotal.importing.reading import read_bytes, whole
from lib_pivotal.importing.sheet import Sheet, apply_rules

TITLE = "kohya settings"
GUI_TITLE = "kohya GUI settings"
DEFAULT_RATE = 2e-6


def import_kohya(plain: Mapping[str, Any], origin: Origin) -> Sheet:
    """A TOML of the scripts: tables are only for the eye, all keys are flags."""
    return import_flags(_flat(plain), origin)


def import_flags(flat: Mapping[str, Any], origin: Origin) -> Sheet:
    """The scripts' flags by their names."""
    return _import(Flags(Sheet(expanded(flat)), origin, gui=False))


def import_kohya_gui(plain: Mapping[str, Any], origin: Origin) -> Sheet:
    """A JSON of the GUI, or the TOML of its own defaults, whose tables are only for the eye."""
    return _import(Flags(Sheet(gui_flags(_flat(plain))), origin, gui=True))


def _flat(plain: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat


def _import(flags: Flags) -> Sheet:
    sheet = flags.sheet
    words = flags.get("token_string") is not None
    take_length(flags)
    optimizer = take_optimizer(flags, words=words)
    take_course(flags)
    take_noise(flags)
    take_pictures(flags)
    take_captions(flags)
    take_described_pictures(flags)
    _take_saving(flags)
    if words:
        _take_word(flags)
    else:
        take_network(flags)
        sheet.remark(
            "kohya trains no embeddings beside a network: choose them on the Data page, or keep the network alone."
        )
    if optimizer == "prodigy":
        sheet.remark(
            "Prodigy needs one learning rate for all parts: set embeddings, U-Net and text encoder alike, to 1."
        )
    apply_rules(sheet, {flags.key(name): rule for name, rule in RULES.items()})
    apply_rules(sheet, RULES)
    for prefix, rule in PREFIXES:
        for key, value in sheet.values.items():
            if key.startswith(prefix) and not sheet.claimed(key):
                rule(sheet, key, value)
    return sheet


# ---- saving ----


def _take_saving(flags: Flags) -> None:
    sheet = flags.sheet
    name = flags.get("output_name")
    if name:
        take_name(sheet, flags.key("output_name"), str(name))
    else:
        sheet.honoured(flags.key("output_name"), "give the file a name")
    precision = flags.get("save_precision")
    if precision:
        set_precision(sheet, flags.key("save_precision"), precision, "saving.dtype")
    else:
        sheet.honoured(flags.key("save_precision"), "fp16")
    _take_interval(flags, "save_every_n_steps", "save_every_n_epochs", "saving.every_steps")
    _take_interval(flags, "sample_every_n_steps", "sample_every_n_epochs", "saving.preview_every_steps")
    for one in ("save_state", "save_state_on_train_end"):
        sheet.honoured(flags.key(one), "the state is saved every saving.state_every_steps steps")
    _take_prompts(flags)


def _take_interval(flags: Flags, steps_name: str, epochs_name: str, path: str) -> None:
    """An interval in steps or in epochs."""
    sheet = flags.sheet
    steps, epochs = whole(flags.get(steps_name)) or 0, whole(flags.get(epochs_name)) or 0
    epoch_steps = flags.epoch_steps
    total = sheet.read("schedule.max_steps")
    beyond = epochs >= sheet.epochs if sheet.epochs else epoch_steps and epochs * epoch_steps >= total
    if steps > 0:
        sheet.taken(flags.key(steps_name), path, steps)
    else:
        sheet.honoured(flags.key(steps_name))
    key = flags.key(epochs_name)
    if epochs <= 0:
        sheet.honoured(key)
    elif steps > 0:
        sheet.honoured(key, "the interval in steps counts")
    elif beyond:
        sheet.honoured(key, "beyond the run's end; at the end a file is saved anyway")
    elif epoch_steps:
        sheet.translated(key, path, epochs * epoch_steps, f"{epoch_steps} steps an epoch with the pictures here")
    else:
        take_interval(sheet, key, epochs, path)


def _take_prompts(flags: Flags) -> None:
    """Prompts from a file, or in the GUI as text; `--w 512` and the like behind them are left away."""
    sheet = flags.sheet
    written = flags.get("sample_prompts")
    key = flags.key("sample_prompts")
    if not written:
        sheet.honoured(key, "none")
        return
    path = flags.origin.find(written) if "\n" not in str(written) else None
    if path is not None and path.suffix.lower() == ".txt":
        text = read_bytes(path).decode("utf-8", "replace")
    elif flags.gui:
        text = str(written)
    else:
        sheet.refused(key, "this file is not here; write the prompts into saving.preview_prompts")
        return
    lines = (re.split(r"\s--[a-z]\b", line)[0].strip() for line in text.splitlines()[:50])
    prompts = [line for line in lines if line and not line.startswith("#")]
    sheet.translated(key, "saving.preview_prompts", prompts, "sizes, seeds and negatives are the page's own")


# ---- textual inversion ----


def _take_word(flags: Flags) -> None:
    """train_textual_inversion.py: one word, no network."""
    sheet = flags.sheet
    sheet.put("network.algorithm", "none")
    sheet.put("words_common.control", "none")
    word, told = new_word(flags.get("token_string"), ())
    key = flags.key("token_string")
    sheet.note(key, "translated" if told else "taken", told, f"words.0.name = {word['name']}")
    vectors = whole(flags.get("num_vectors_per_token")) or 1
    word["vectors"] = min(max(vectors, 1), 75)
    sheet.note(flags.key("num_vectors_per_token"), "taken", "", f"words.0.vectors = {word['vectors']}")
    begin = flags.get("init_word")
    word["init_text"] = str(begin or "")[:400]
    sheet.note(flags.key("init_word"), "taken", "", f"words.0.init_text = {word['init_text']}")
    weights = flags.origin.find(flags.get("weights"))
    if weights is not None and weights.is_file():
        word["init_file"] = str(weights)
        sheet.note(flags.key("weights"), "taken", "", "words.0.init_file")
    elif flags.get("weights"):
        sheet.refused(flags.key("weights"), "this file is not here; set words.0.init_file")
    else:
        sheet.honoured(flags.key("weights"), "none")
    sheet.put("words", [word])
    rate = flags.number("learning_rate")
    take_flag(flags, "learning_rate", "words_common.lr", rate, default=DEFAULT_RATE)
    for name in ("template", "use_object_template", "use_style_template"):
        value = sheet.get(name)
        if value in (None, "", False, "caption"):
            sheet.honoured(name, "captions are used")
        else:
            sheet.refused(
                name, "write templates into data.templates, the embedding as {word}; captions are used until then"
            )
