"""Callbacks of extensions, in the order of their coming; what one raises is reported and stops nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modules import errors


@dataclass
class BeforeTokenCounterParams:
    prompt: str
    steps: int
    styles: list[str]
    is_positive: bool = True


@dataclass
class ScriptCallback:
    script: str
    callback: Callable[..., Any]
    name: str = "unnamed"


_CATEGORIES = (
    "app_started",
    "model_loaded",
    "ui_tabs",
    "ui_settings",
    "infotext_pasted",
    "script_unloaded",
    "before_ui",
    "before_token_counter",
)
callback_map: dict[str, list[ScriptCallback]] = {f"callbacks_{name}": [] for name in _CATEGORIES}


def add_callback(category: str, fun: Callable[..., Any]) -> None:
    frame = sys._getframe(1)  # the real one asks `inspect.stack`, which takes a tenth of a second below pytest
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame = frame.f_back
    filename = frame.f_code.co_filename
    callback_map[f"callbacks_{category}"].append(ScriptCallback(filename, fun))


def clear_callbacks() -> None:
    for callbacks in callback_map.values():
        callbacks.clear()


def _call(category: str, *arguments: Any) -> list[Any]:
    answers = []
    for each in callback_map[f"callbacks_{category}"]:
        try:
            answers.append(each.callback(*arguments))
        except Exception:
            errors.report(f"Error executing callback {category} for {each.script}", exc_info=True)
    return answers


def app_started_callback(demo: Any, app: Any) -> None:
    _call("app_started", demo, app)


def model_loaded_callback(sd_model: Any) -> None:
    _call("model_loaded", sd_model)


def ui_tabs_callback() -> list[Any]:
    return [tab for tabs in _call("ui_tabs") for tab in tabs or []]


def ui_settings_callback() -> None:
    _call("ui_settings")


def infotext_pasted_callback(infotext: str, params: dict[str, Any]) -> None:
    _call("infotext_pasted", infotext, params)


def script_unloaded_callback() -> None:
    for each in reversed(callback_map["callbacks_script_unloaded"]):
        try:
            each.callback()
        except Exception:
            errors.report(f"Error executing callback script_unloaded for {each.script}", exc_info=True)


def before_ui_callback() -> None:
    for each in reversed(callback_map["callbacks_before_ui"]):
        try:
            each.callback()
        except Exception:
            errors.report(f"Error executing callback before_ui for {each.script}", exc_info=True)


def before_token_counter_callback(params: BeforeTokenCounterParams) -> None:
    _call("before_token_counter", params)


def on_app_started(callback: Callable[..., Any], *, name: str | None = None) -> None:
    add_callback("app_started", callback)


def on_model_loaded(callback: Callable[..., Any], *, name: str | None = None) -> None:
    add_callback("model_loaded", callback)


def on_ui_tabs(callback: Callable[..., Any], *, name: str | None = None) -> None:
    add_callback("ui_tabs", callback)


def on_ui_settings(callback: Callable[..., Any], *, name: str | None = None) -> None:
    add_callback("ui_settings", callback)


def on_infotext_pasted(callback: Callable[..., Any], *, name: str | None = None) -> None:
    add_callback("infotext_pasted", callback)


def on_script_unloaded(callback: Callable[..., Any], *, name: str | None = None) -> None:
    add_callback("script_unloaded", callback)


def on_before_ui(callback: Callable[..., Any], *, name: str | None = None) -> None:
    add_callback("before_ui", callback)


def on_before_token_counter(callback: Callable[..., Any], *, name: str | None = None) -> None:
    add_callback("before_token_counter", callback)
