"""The sheet of a finished bundle, on a tiny model."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.commands.pictures import MOST_PICTURES, Comparison, compare
from lib_pivotal.errors import BundleError
from lib_pivotal.runs.manager import RunManager
from tests.runs.test_manager import TinyStudio


@pytest.fixture
def studio(tiny_host, tmp_path):
    return TinyStudio(tiny_host, tmp_path)


@pytest.fixture
def manager(studio):
    return RunManager(studio)


@pytest.fixture
def file(tiny_host, tmp_path):
    width = tiny_host.text.widths[0]
    words = {"aoi": (torch.zeros(2, width),), "hana": (torch.ones(1, width) * 0.01,)}
    return write_bundle(tmp_path / "gekidol.safetensors", network={}, words=words, metadata={})


SMALL = {"size_px": 64, "steps": 2}


def test_a_sheet_is_drawn_and_carries_its_settings(manager, studio, file):
    path = compare(manager, Comparison(file, weights=(1.0, 0.5), prompts=("{word}, smile",), seed=7, **SMALL))
    with Image.open(path) as sheet:
        assert sheet.width > 2 * 128 and sheet.height > 5 * 128
        assert "{word}, smile" in sheet.text["parameters"] and "Seed: 7" in sheet.text["parameters"]
    assert path.parent == studio.runs_folder() / "compare"


def test_the_rows_are_the_parts_and_the_weights():
    labels = [row.label for row in Comparison("x", weights=(1.0, 0.7)).rows()]
    assert labels == ["whole", "U-Net only", "text encoder only", "words only", "full at 0.7"]


def test_what_makes_no_sheet_is_said(manager, file):
    with pytest.raises(BundleError, match="has no embedding kaze"):
        compare(manager, Comparison(file, words=("kaze",), **SMALL))
    many = tuple(f"{{word}}, {number}" for number in range(MOST_PICTURES))
    with pytest.raises(BundleError, match="fewer embeddings"):
        compare(manager, Comparison(file, prompts=many, **SMALL))


def test_a_seed_gives_the_same_sheet(manager, file):
    wanted = Comparison(file, words=("aoi",), seed=3, **SMALL)
    first, again, other = (
        Image.open(compare(manager, one)).tobytes() for one in (wanted, wanted, replace(wanted, seed=4))
    )
    assert first == again and first != other
