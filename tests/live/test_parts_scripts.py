"""The script "Four rows" and the axes of the X/Y/Z plot, over the API: each cell is the picture that its tag makes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.situations import Situation

pytestmark = [pytest.mark.webui, pytest.mark.slow]
ROWS = {"whole": "1:1", "U-Net": "0:1", "TE": "1:0", "words": "0:0"}


@pytest.fixture
def situation(pivotal: Situation) -> Situation:
    embeddings = {"aoi": pivotal.vectors(1, 4), "hana": pivotal.vectors(2, 3)}
    pivotal.bundle(embeddings, name="gekidol", parts=("unet", "te"))
    return pivotal


def run(s: Situation, prompt: str, script: str, arguments: list[Any]) -> Any:
    return s.webui.ask_txt2img(prompt, script_name=script, script_args=arguments)


def axis_pictures(s: Situation, prompt: str, axis: str, values: str) -> list[bytes]:
    """The pictures of an X/Y/Z plot with one axis; grids among them."""
    scripts = s.webui.call("/sdapi/v1/script-info")
    info = next(entry for entry in scripts if entry["name"] == "x/y/z plot" and not entry["is_img2img"])
    number = info["args"][0]["choices"].index(axis)
    arguments = [
        number,
        values,
        values.split(","),
        0,
        "",
        [],
        0,
        "",
        [],
        False,
        True,
        False,
        False,
        False,
        False,
        False,
        0,
        False,
    ]
    return s.webui.pictures(run(s, prompt, "x/y/z plot", arguments))


def test_four_rows(situation: Situation) -> None:
    answer = run(situation, "<lora:gekidol:1> {word}, smile", "Four rows", ["", "", 4])
    pictures = situation.webui.pictures(answer)
    assert len(pictures) == 1 + 4 * 2
    expected = [
        situation.pixels(f"<lora:gekidol:{weights}> {embedding}, smile")
        for weights in ROWS.values()
        for embedding in ("aoi", "hana")
    ]
    assert pictures[1:] == expected
    assert len(set(pictures[1:])) == 8


def test_four_rows_of_prompts(situation: Situation) -> None:
    answer = run(situation, "<lora:gekidol:1> a face", "Four rows", ["aoi", "{word}, smile\n{word}, park\n", 0])
    pictures = situation.webui.pictures(answer)
    assert len(pictures) == 1 + 4 * 2
    assert pictures[4] == situation.pixels("<lora:gekidol:0:1>aoi, park")


@pytest.mark.parametrize(
    ("axis", "values", "tags"),
    [
        ("LoRA part", "whole,U-Net,TE,words,none", ["1:1", "0:1", "1:0", "0:0", "0:0:words=0"]),
        ("LoRA U-Net weight", "0,0.5", ["1:0", "1:0.5"]),
        ("LoRA TE weight", "0,0.5", ["0:1", "0.5:1"]),
    ],
)
def test_axes(situation: Situation, axis: str, values: str, tags: list[str]) -> None:
    pictures = axis_pictures(situation, "<lora:gekidol:1> aoi, smile", axis, values)
    expected = [situation.pixels(f"<lora:gekidol:{weights}> aoi, smile") for weights in tags]
    assert [picture for picture in pictures if picture in expected] == expected
