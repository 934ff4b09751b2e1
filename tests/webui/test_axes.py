"""Axes for "X/Y/Z plot"."""

from __future__ import annotations

import sys
import types
from types import SimpleNamespace
from typing import Any

import pytest

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import write_lora

EMBEDDING_AXES = ["Embedding norm", "Embedding towards init text"]


class AxisOption:
    """As scripts/xyz_grid.py has it."""

    def __init__(
        self,
        label: str,
        type: Any,  # noqa: A002
        apply: Any,
        confirm: Any = None,
        cost: float = 0.0,
        choices: Any = None,
    ) -> None:
        self.label, self.type, self.apply, self.confirm, self.choices = label, type, apply, confirm, choices


@pytest.fixture
def plot(fake_webui: FakeWebUI) -> types.ModuleType:
    """The built-in script, listed as the web UI lists it: its class' module is the file's name."""
    module = types.ModuleType("xyz_grid.py")
    module.AxisOption, module.axis_options = AxisOption, [AxisOption("Nothing", str, None)]  # type: ignore[attr-defined]
    script = type("Script", (fake_webui.scripts.Script,), {"__module__": "xyz_grid.py"})
    fake_webui.scripts.scripts_data.append(fake_webui.scripts.ScriptClassData(script, "xyz_grid.py", "", module))
    return module


def axis(plot: Any, label: str) -> Any:
    return next(option for option in plot.axis_options if option.label == label)


def test_axes_are_added_once(plot: Any) -> None:
    from lib_pivotal.webui import axes

    for _ in range(2):
        axes.register()
    labels = [option.label for option in plot.axis_options]
    assert labels == ["Nothing", "LoRA part", "LoRA U-Net weight", "LoRA TE weight", *EMBEDDING_AXES]
    assert axis(plot, "LoRA part").choices() == ["full", "U-Net", "TE", "embeddings", "none"]


def test_without_a_plot_nothing_happens(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import axes

    axes.register()
    assert fake_webui.scripts.scripts_data == []
    assert "xyz_grid" not in sys.modules


@pytest.mark.parametrize(
    ("label", "value", "expected"),
    [
        ("LoRA part", "U-Net", "<lora:one:0:0.8> <lora:two:0:1> a"),
        ("LoRA part", "u-net", "<lora:one:0:0.8> <lora:two:0:1> a"),
        ("LoRA part", "two=words", "<lora:one:0.8> <lora:two:0:0> a"),
        ("LoRA U-Net weight", 0.5, "<lora:one:0.8:0.5> <lora:two:1:0.5> a"),
        ("LoRA TE weight", 0.5, "<lora:one:0.5:0.8> <lora:two:0.5:1> a"),
    ],
)
def test_values_are_applied_to_every_prompt(plot: Any, label: str, value: Any, expected: str) -> None:
    from lib_pivotal.webui import axes

    axes.register()
    text = "<lora:one:0.8> <lora:two:1> a"
    p = SimpleNamespace(prompt=text, hr_prompt=[text, text])
    axis(plot, label).apply(p, value, None)
    assert (p.prompt, p.hr_prompt) == (expected, [expected, expected])
    empty = SimpleNamespace(prompt=text, hr_prompt="")
    axis(plot, label).apply(empty, value, None)
    assert empty.hr_prompt == ""


def test_the_settings_network_is_in_the_prompt_before(fake_webui: FakeWebUI, plot: Any) -> None:
    from lib_pivotal.webui import axes

    write_lora(fake_webui, "one", {"hana": 1})
    fake_webui.opts.data["sd_lora"] = "one"
    axes.register()
    p = SimpleNamespace(prompt="a")
    axis(plot, "LoRA part").apply(p, "TE", None)
    assert p.prompt == "a<lora:one:1:0>"


def test_unknown_parts_are_refused_before_the_plot(plot: Any) -> None:
    from lib_pivotal.webui import axes

    axes.register()
    axis(plot, "LoRA part").confirm(None, ["whole", "full", "x=TE", "words", "x=embeddings"])
    with pytest.raises(RuntimeError, match="'half' is none of full"):
        axis(plot, "LoRA part").confirm(None, ["whole", "half"])


@pytest.mark.parametrize(
    ("label", "value", "expected"),
    [
        ("Embedding norm", "0.5", "<lora:one:1:emb=hana*0.5~0.1:emb=kira*0.5~0> a"),
        ("Embedding norm", "kira=0.5", "<lora:one:1:emb=hana*2~0.1:emb=kira*0.5~0> a"),
        ("Embedding towards init text", "0", "<lora:one:1:emb=hana*2~0> a"),
        ("Embedding towards init text", "hana=0.25", "<lora:one:1:emb=hana*2~0.25> a"),
    ],
)
def test_embeddings_are_adjusted(fake_webui: FakeWebUI, plot: Any, label: str, value: str, expected: str) -> None:
    from lib_pivotal.webui import axes

    write_lora(fake_webui, "one", {"hana": 1, "kira": 2})
    axes.register()
    p = SimpleNamespace(prompt="<lora:one:1:emb=hana*2~0.1> a", hr_prompt="")
    axis(plot, label).confirm(p, [value])
    axis(plot, label).apply(p, value, None)
    assert p.prompt == expected


@pytest.mark.parametrize(
    ("label", "value"), [(EMBEDDING_AXES[0], "-1"), (EMBEDDING_AXES[0], "hana"), (EMBEDDING_AXES[1], "hana=1.5")]
)
def test_numbers_that_are_none_are_refused_before_the_plot(plot: Any, label: str, value: str) -> None:
    from lib_pivotal.webui import axes

    axes.register()
    with pytest.raises(RuntimeError, match=f"{label}: '{value}'"):
        axis(plot, label).confirm(None, ["0.5", value])
