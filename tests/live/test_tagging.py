"""Missing captions in the web UI: refused in a sentence while a model is missing, else its own interrogator's words."""

from __future__ import annotations

import base64
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.live.conftest import Installation, RequestFailedError, WebUI

pytestmark = pytest.mark.webui

MAKE_MODEL = """
import sys
sys.path.insert(0, sys.argv[1])
sys.argv = [sys.argv[0], sys.argv[2]]
import torch, types
sys.modules["modules"] = package = types.ModuleType("modules")
package.__path__ = [sys.path[0] + "/modules"]
sys.modules["modules.devices"] = package.devices = types.ModuleType("modules.devices")
from modules.deepbooru_model import DeepDanbooruModel
torch.manual_seed(0)
model = DeepDanbooruModel()
state = {key: value.half() for key, value in model.state_dict().items()}
state["tags"] = [f"tag_{n}_(x)" for n in range(9176)]
torch.save(state, sys.argv[1], _use_new_zipfile_serialization=False)  # of the new kind it knows only the older names
"""
"""Random weights in the web UI's own class, with names for its answers: a model of the real kind and size."""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(2):
        Image.new("RGB", (64, 64), (200 * number, 90, 30)).save(tmp_path / f"IMG_{number}.png")
    (tmp_path / "IMG_0.txt").write_text("aoi, hat", encoding="utf-8")
    return tmp_path


def test_a_missing_model_is_said_and_not_fetched(pivotal_webui: WebUI, pictures: Path) -> None:
    models = pivotal_webui.data / "models"
    before = sorted(models.rglob("*"))
    told = {tagger["name"]: tagger["missing"] for tagger in pivotal_webui.call("/pivotal/v1/captions")}
    assert set(told) == {"deepbooru", "blip"}
    assert f"put model-resnet_custom_v3.pt into {models / 'torch_deepdanbooru'}" in told["deepbooru"]
    assert "BLIP" in told["blip"]
    for name, sentence in told.items():
        with pytest.raises(RequestFailedError) as refusal:
            pivotal_webui.call("/pivotal/v1/captions", {"folder": str(pictures), "tagger": name})
        assert "400" in str(refusal.value) and sentence.split(":")[0] in str(refusal.value)
    with pytest.raises(RequestFailedError, match="no such tagger"):
        pivotal_webui.call("/pivotal/v1/captions", {"folder": str(pictures), "tagger": "wd14"})
    assert sorted(models.rglob("*")) == before and "Downloading" not in pivotal_webui.log_text()
    assert not (pictures / "IMG_1.txt").exists()


def written(webui: WebUI, folder: Path) -> dict:
    """The end of what writes the captions."""
    webui.call("/pivotal/v1/captions", {"folder": str(folder), "tagger": "deepbooru"})
    deadline = time.monotonic() + 300
    while (told := webui.call("/pivotal/v1/runs/current"))["ended"] is None and time.monotonic() < deadline:
        time.sleep(0.5)
    return told


def test_its_own_embeddings_are_written(pivotal_webui: WebUI, installation: Installation, pictures: Path) -> None:
    folder = pivotal_webui.data / "models" / "torch_deepdanbooru"
    folder.mkdir()
    arguments = [str(installation.python), "-c", MAKE_MODEL, str(installation.folder), str(folder / "random.pt")]
    (folder / "damaged.pt").write_bytes(b"no model")
    told = written(pivotal_webui, pictures)
    assert told["status"] == "failed" and "model cannot be loaded" in told["ended"]["message"]
    (folder / "damaged.pt").unlink()
    subprocess.run(arguments, check=True, timeout=300)
    assert pivotal_webui.call("/pivotal/v1/captions")[0]["missing"] == ""
    told = written(pivotal_webui, pictures)
    assert told["status"] == "finished" and "1 of 1 missing captions" in told["ended"]["message"], told
    image = base64.b64encode((pictures / "IMG_1.png").read_bytes()).decode()
    own = pivotal_webui.call("/sdapi/v1/interrogate", {"image": image, "model": "deepdanbooru"})["caption"]
    assert (pictures / "IMG_1.txt").read_text(encoding="utf-8") == own and len(own.split(", ")) > 10
    assert (pictures / "IMG_0.txt").read_text(encoding="utf-8") == "aoi, hat"
