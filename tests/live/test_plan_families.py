"""What the loaded checkpoint's kind says of a plan: training size, and lengths by its own tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from lib_pivotal.data.tokens import TokenCounter
from lib_pivotal.standalone.tokenizer import clip_reading
from tests.live.conftest import Family
from tests.live.situations import Situation

pytestmark = pytest.mark.webui
SIZES_PX = {"sd1": 512, "sd2": 512, "sdxl": 1024}
CAPTIONS = (
    "aoi, blue hair, park",
    r"aoi, saber \(fate\), (sea:1.2), ^_^",
    "aoi, " + ", ".join(["very long hair"] * 20),
)


def test_size_and_lengths_follow_the_checkpoint(pivotal: Situation, family: Family, tmp_path: Path) -> None:
    for number, caption in enumerate(CAPTIONS):
        Image.new("RGB", (1100, 1000), (60 * number, 90, 30)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(caption, encoding="utf-8")
    answer = pivotal.webui.call("/pivotal/v1/plan", {"folder": str(tmp_path)})
    assert answer["run"]["data"]["resolution_px"] == SIZES_PX[family.name]
    assert answer["tokens"]["counted"]
    counter = TokenCounter({embedding["name"]: embedding["vectors"] for embedding in answer["words"]}, clip_reading())
    trained = {picture["key"]: picture["trained"] for picture in answer["pictures"]}
    assert {picture["key"]: picture["tokens"] for picture in answer["pictures"]} == {
        key: counter(caption) for key, caption in trained.items()
    }
