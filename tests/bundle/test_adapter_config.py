"""The strength beside the tensors: peft's config, diffusers' metadata."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.bundle.adapter_config import ADAPTER_METADATA, config_for, configs_of, without_parts
from lib_pivotal.errors import BundleError


def config(**values: Any) -> Any:
    return configs_of(None, {ADAPTER_METADATA: json.dumps({f"unet.{key}": value for key, value in values.items()})})


@pytest.mark.parametrize(
    ("values", "path", "scale"),
    [
        ({"r": 8, "lora_alpha": 4}, "a.to_q", 0.5),
        ({"r": 8, "lora_alpha": 4, "alpha_pattern": {"to_q": 16}}, "a.to_q", 2.0),
        ({"r": 8, "lora_alpha": 4, "rank_pattern": {"a.to_q": 2}}, "a.to_q", 2.0),
        ({"r": 8, "lora_alpha": 4, "rank_pattern": {"o_q": 2}}, "a.to_q", 0.5),
        ({"r": 8, "lora_alpha": 4, "rank_pattern": {"^a\\.to_q$": 2}}, "a.to_q", 2.0),
        ({"r": 16, "lora_alpha": 4, "use_rslora": True}, "a", 1.0),
        ({"lora_alpha": 4}, "a", 1.0),
        ({"r": 8}, "a", None),
    ],
)
def test_scale(values: dict[str, Any], path: str, scale: float | None) -> None:
    found = config(**values)["unet"].scale(path, 4)
    assert found == scale if scale is None else math.isclose(found, scale)


def test_each_model_has_its_own() -> None:
    told = {"unet.r": 8, "unet.lora_alpha": 4, "text_encoder.r": 4, "text_encoder.lora_alpha": 8}
    found = configs_of(None, {ADAPTER_METADATA: json.dumps(told)})
    assert found["unet"].scale("x", 8) == 0.5 and found["text_encoder"].scale("x", 4) == 2.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[1]", "no table"),
        ('{"unet.lora_alpha": "much"}', "no number"),
        ('{"unet.lora_alpha": -1}', "no number"),
        ('{"unet.lora_alpha": 1e999}', "no number"),
        ('{"unet.alpha_pattern": {"(a+)+$": 2}}', "only names of layers"),
        ('{"unet.alpha_pattern": 3}', "no table"),
        ('{"unet.peft_type": "LOHA"}', "peft_type = 'LOHA'"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, reason: str) -> None:
    """A strength that is not understood would be a wrong one."""
    with pytest.raises(BundleError, match=reason):
        configs_of(None, {ADAPTER_METADATA: text})


def test_a_config_beside_another_file_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 1}')
    assert configs_of(tmp_path / "adapter_model.safetensors", {})[""].scale("x", 2) == 0.5
    assert configs_of(tmp_path / "adapter_model.bin", {})
    assert not configs_of(tmp_path / "another.safetensors", {})
    (tmp_path / "adapter_config.json").write_text("x" * 5_000_000)
    with pytest.raises(BundleError, match="larger than"):
        configs_of(tmp_path / "adapter_model.safetensors", {})


def test_parts_that_are_gone_take_their_config_along() -> None:
    told = {"unet.r": 8, "text_encoder.r": 4}
    left = without_parts({ADAPTER_METADATA: json.dumps(told), "x": "y"}, frozenset({"text_encoder"}))
    assert json.loads(left[ADAPTER_METADATA]) == {"unet.r": 8} and left["x"] == "y"
    assert without_parts({ADAPTER_METADATA: json.dumps(told)}, frozenset({"unet", "text_encoder"})) == {}


def test_the_most_frequent_values_are_the_configs_own() -> None:
    made = config_for({"a": 4, "b": 4, "c": 2}, {"a": 2.0, "b": 1.5, "c": 2.0}, dora=False)
    assert (made["r"], made["rank_pattern"]) == (4, {"c": 2})
    assert (made["lora_alpha"], made["alpha_pattern"]) == (2, {"b": 1.5})
