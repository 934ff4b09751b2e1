"""The sheet of a finished bundle, on a tiny model."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.commands.grid import MOST_PICTURES, Comparison, compare
from lib_pivotal.errors import BundleError
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.ui.bundle_controller import BundleController
from lib_pivotal.ui.compare_panel import _wanted
from lib_pivotal.ui.tab import build_tab
from tests.commands.fronts import detail, refusal
from tests.runs.test_manager import TinyBackend
from tests.ui.browser import Browser
from tests.webui.test_api_paths import Site


@pytest.fixture
def backend(tiny_host, tmp_path):
    return TinyBackend(tiny_host, tmp_path)


@pytest.fixture
def manager(backend):
    return RunManager(backend)


@pytest.fixture
def file(tiny_host, tmp_path):
    width = tiny_host.text.widths[0]
    embeddings = {"aoi": (torch.zeros(2, width),), "hana": (torch.ones(1, width) * 0.01,)}
    return write_bundle(tmp_path / "gekidol.safetensors", network={}, embeddings=embeddings, metadata={})


SMALL = {"size_px": 64, "steps": 2}


def test_a_sheet_is_drawn_and_carries_its_settings(manager, backend, file):
    path = compare(manager, Comparison(file, weights=(1.0, 0.5), prompts=("{word}, smile",), seed=7, **SMALL))
    with Image.open(path) as sheet:
        assert sheet.width > 2 * 128 and sheet.height > 5 * 128
        assert "{word}, smile" in sheet.text["parameters"] and "Seed: 7" in sheet.text["parameters"]
    assert path.parent == backend.runs_folder() / "compare"


def test_the_rows_are_the_parts_and_the_weights():
    labels = [row.label for row in Comparison("x", weights=(1.0, 0.7)).rows()]
    assert labels == ["whole", "U-Net only", "text encoder only", "words only", "full at 0.7"]


def test_what_makes_no_sheet_is_said(manager, file):
    with pytest.raises(BundleError, match="has no embedding kaze"):
        compare(manager, Comparison(file, embeddings=("kaze",), **SMALL))
    many = tuple(f"{{word}}, {number}" for number in range(MOST_PICTURES))
    with pytest.raises(BundleError, match="fewer embeddings"):
        compare(manager, Comparison(file, prompts=many, **SMALL))


def test_a_seed_gives_the_same_sheet(manager, file):
    wanted = Comparison(file, embeddings=("aoi",), seed=3, **SMALL)
    first, again, other = (
        Image.open(compare(manager, one)).tobytes() for one in (wanted, wanted, replace(wanted, seed=4))
    )
    assert first == again and first != other


@pytest.mark.parametrize(("name", "value"), [("size", 8), ("steps", 0), ("cfg", 99), ("seed", -1)])
def test_numbers_of_a_grid(site: Site, page_bundles: BundleController, line: Any, name: str, value: int) -> None:
    page = {"file": "one.safetensors", "words": [], "prompts": "", "negative": "", "weights": ""}
    numbers = {"size": 64, "steps": 2, "cfg": 7, "seed": 0, name: value}
    told = refusal(lambda: _wanted(page_bundles, {**page, **numbers}))
    assert told.startswith(name)
    assert detail(site, "/grid", {"name": "one", **numbers}) == told
    arguments = [text for key, number in numbers.items() for text in (f"--{key}", number)]
    assert told in line("grid", site.lora("one"), "--checkpoint", "absent", "--out", "x.png", *arguments)


def test_embeddings_of_a_grid(site: Site, page_bundles: BundleController, line: Any, tmp_path: Path) -> None:
    told = "one.safetensors has no embedding kaze; it has aoi"
    browser = Browser(build_tab(site.manager))
    browser.set("pivotal_compare_file", "one.safetensors")
    browser.set("pivotal_compare_words", ["kaze"])
    assert told in html.unescape(browser.press("pivotal_compare_draw")["pivotal_compare_said"])
    assert detail(site, "/grid", {"name": "one", "words": ["kaze"]}) == told
    arguments = ("grid", site.lora("one"), "--checkpoint", "absent", "--out", tmp_path / "x.png")
    assert told in line(*arguments, "--words", "kaze")
    assert "the limit is 200" in line(*arguments, *("--prompt", "x") * 60)
    assert "no checkpoint" in detail(
        site, "/grid", {"name": "one", "weights": [1, 0.5]}
    ), "all that it asks for is fine"
