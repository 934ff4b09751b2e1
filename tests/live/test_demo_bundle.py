"""The demo's own bundle in the stock web UI: the same characters as where it was trained.

Needs `out/demo/bundle.safetensors` (`python dev.py demo`), or the file that `$PIVOTAL_DEMO_BUNDLE` names.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from examples import experiment
from examples.avatars.scores import EMBEDDINGS, load_scorer
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.evaluation.parts_grid import ROWS, draw_grid

pytestmark = [pytest.mark.webui, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
SHEET = ROOT / "out" / "live" / "demo_bundle.png"
EACH = 2


@pytest.fixture(scope="module")
def demo_bundle() -> Path:
    path = Path(os.environ.get("PIVOTAL_DEMO_BUNDLE", ROOT / "out" / "demo" / "bundle.safetensors"))
    if not path.is_file():
        pytest.skip(f"{path.name} is not there: run `python dev.py demo` first, or set PIVOTAL_DEMO_BUNDLE")
    return path


def test_same_characters_as_where_it_was_trained(stock_webui, checkpoint: Path, demo_bundle: Path) -> None:
    stock_webui.use(checkpoint.stem)
    shutil.copy(demo_bundle, stock_webui.lora_folder / "demo.safetensors")
    stock_webui.reload_files()
    scorer = load_scorer()
    names = [name for name in read_bundle(demo_bundle).embeddings if name in EMBEDDINGS]
    rows, scores = {}, {}
    for row in ROWS:
        pictures = []
        for name in names:
            for number, prompt in enumerate(experiment.identity_prompts(name, EACH, seed=0, by="word")):
                tag = f"<lora:demo:{row.te:g}:{row.unet:g}>"
                made = stock_webui.txt2img(f"{tag} {prompt}", seed=1000 + number, cfg_scale=4.0, steps=16)
                pictures.append(made.image)
        rows[row.label] = pictures
        found = [scorer.identity(pictures[i * EACH : (i + 1) * EACH], name) for i, name in enumerate(names)]
        scores[row.label] = sum(found) / len(found)
    SHEET.parent.mkdir(parents=True, exist_ok=True)
    labels = [name if i == 0 else "" for name in names for i in range(EACH)]
    draw_grid(rows, labels, title="the demo's bundle in the stock web UI 1.10.1").save(SHEET)
    print(scores)
    assert scores["whole"] >= 0.75
    assert scores["U-Net only"] >= 0.9 * scores["whole"]
    assert scores["words only"] < 0.5 * scores["whole"]
