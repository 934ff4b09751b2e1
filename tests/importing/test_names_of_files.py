"""Names of files in other trainers' settings: what comes out is a name that a run may have, or none."""

from __future__ import annotations

import json

import pytest

from lib_pivotal.file_names import name_reasons
from lib_pivotal.importing.settings import import_text
from tests.hostile_names import EMPTY, GOOD, HOSTILE

NAMES = [*(name for name, _ in HOSTILE), *EMPTY, *GOOD]


def of_kohya(name: str) -> str:
    plain = {"network_module": "networks.lora", "network_dim": 4, "output_name": name}
    return import_text(json.dumps(plain).encode(), "config.json").run.name


def of_onetrainer(name: str) -> str:
    plain = {"training_method": "LORA", "model_type": "STABLE_DIFFUSION_15", "lora_rank": 8, "epochs": 1}
    plain |= {"output_model_destination": f"{name}.safetensors"}
    return import_text(json.dumps(plain).encode(), "config.json").run.name


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_out_is_legal(name: str) -> None:
    for found in (of_kohya(name), of_onetrainer(name)):
        assert found == "" or name_reasons(found) == []


@pytest.mark.parametrize("name", [name for name in GOOD if "  " not in name])
def test_a_good_name_stays(name: str) -> None:
    assert of_kohya(name) == name


@pytest.mark.parametrize(
    ("name", "ours"),
    [("my/lora", "my_lora"), ("a,b", "a_b"), ("../../evil", "_.._evil"), ("CON", "_CON"), ("a\tb", "a b"), ("???", "")],
)
def test_the_nearest_name_is_taken_and_told(name: str, ours: str) -> None:
    assert of_kohya(name) == ours


def test_the_report_says_it() -> None:
    plain = {"network_module": "networks.lora", "network_dim": 4, "output_name": "a/b"}
    found = import_text(json.dumps(plain).encode(), "config.json")
    lines = [line for line in found.report.to_plain()["lines"] if line["key"] == "output_name"]
    assert lines[0]["fate"] == "translated" and "cannot be called" in lines[0]["why"]
