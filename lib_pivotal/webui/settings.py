"""The settings section "Pivotal tuning". Values have defaults of their own: with --nowebui no section is made."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from modules import shared

from lib_pivotal.ui.setting_components import setting_component

SECTION = ("pivotal", "Pivotal tuning")


@dataclass(frozen=True)
class Option:
    """One setting: default, label, what is said beside it, and the choices where there are some."""

    key: str
    default: Any
    label: str
    info: str = ""
    choices: tuple[str, ...] = ()
    minimum: int = 0
    maximum: int = 0
    lines: int = 1
    guarded: bool = False
    """The API may not change it."""


OPTIONS = (
    Option(
        "pivotal_name_priority",
        "the bundle in the prompt",
        "An embedding that is both in a bundle and in the embeddings folder is taken from",
        "the other one is reached by its qualified name: name@file, name@embeddings",
        ("the bundle in the prompt", "the embeddings folder"),
    ),
    Option(
        "pivotal_runs_folder",
        "pivotal_runs",
        "Folder of runs",
        "settings, events, states, pictures and plots of each run; relative to the web UI's data folder",
        guarded=True,
    ),
    Option(
        "pivotal_api_folders",
        "",
        "Folders that the API may use without a login, one per line",
        "besides the web UI's own; only where it was started with --api and without --api-auth",
        lines=3,
        guarded=True,
    ),
    Option(
        "pivotal_precision",
        "fp16",
        "Precision of saved files",
        "fp16 is what most LoRA files have",
        ("fp16", "fp32", "bf16"),
    ),
    Option(
        "pivotal_state_every_steps",
        0,
        "Save a resumable state every N steps",
        "0 = as the preset says",
        (),
        0,
        5000,
    ),
    Option(
        "pivotal_preview_every_steps",
        0,
        "Generate samples every N steps",
        "0 = as the preset says",
        (),
        0,
        5000,
    ),
    Option("pivotal_keep_states", 2, "States to keep", "older ones are deleted", (), 1, 20),
    Option(
        "pivotal_log_level",
        "INFO",
        "Log level",
        "what the extension writes to the console",
        ("DEBUG", "INFO", "WARNING"),
    ),
)


def value(key: str) -> Any:
    """The setting as the user has it, else its default."""
    default = next(option.default for option in OPTIONS if option.key == key)
    return shared.opts.data.get(key, default)


def register() -> None:
    """Make the section; for `on_ui_settings`."""
    for option in OPTIONS:
        component, arguments = setting_component(
            option.choices, minimum=option.minimum, maximum=option.maximum, lines=option.lines
        )
        info = shared.OptionInfo(option.default, option.label, component, arguments, section=SECTION)
        if option.info:
            info = info.info(option.info)
        info.restrict_api = option.guarded
        if option.key == "pivotal_log_level":
            info.onchange = apply_log_level
        shared.opts.add_option(option.key, info)


def apply_log_level() -> None:
    """Set the package's logger to the level in the settings."""
    logging.getLogger("lib_pivotal").setLevel(str(value("pivotal_log_level")))
