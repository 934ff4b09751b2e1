"""The plan by the web UI's API: the same as the command line's, its remedies, and captions written and taken back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lib_pivotal.commands.datasets import FolderRequest, plan
from lib_pivotal.commands.terms import both
from lib_pivotal.data.tokens import TokenCounter
from lib_pivotal.runs.host_defaults import HostDefaults
from lib_pivotal.standalone.tokenizer import clip_reading
from tests.live.conftest import RequestFailedError, WebUI

pytestmark = pytest.mark.webui


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(8):
        name, hair = (("aoi", "blue hair"), ("hana", "green hair"))[number % 2]
        Image.new("RGB", (64, 64), (20 * number, 90, 30)).save(tmp_path / f"{number}.png")
        text = f"{name}, {hair}, {('park', 'sky', 'sea', 'city')[number // 2]}"
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    return tmp_path


def test_the_plan_is_the_command_lines(pivotal_webui: WebUI, pictures: Path) -> None:
    answer = pivotal_webui.call("/pivotal/v1/plan", {"folder": str(pictures)})
    own = json.loads(
        json.dumps(plan(FolderRequest(pictures, circumstances=HostDefaults(prompts=clip_reading()))).as_dict())
    )
    own["run"]["saving"], own["run"]["clip_skip"] = answer["run"]["saving"], answer["run"]["clip_skip"]  # its settings
    assert answer == both(own) and answer["tokens"]["counted"]
    assert [embedding["name"] for embedding in answer["words"]] == ["aoi", "hana"]


def test_captions_are_counted_by_the_loaded_checkpoints_tokenizer(pivotal_webui: WebUI, pictures: Path) -> None:
    tail = ["heterochromia", r"saber \(fate\)", "serafuku"]
    text = ", ".join(["aoi", *(f"tag{chr(97 + n)}" for n in range(26)), *tail])
    (pictures / "0.txt").write_text(text, encoding="utf-8")
    run = {"words": [{"name": "aoi", "vectors": 8}], "data": {"resolution_px": 64}}
    answer = pivotal_webui.call("/pivotal/v1/plan", {"folder": str(pictures), "run": run})
    picture = next(found for found in answer["pictures"] if found["key"] == "0.png")
    counter = TokenCounter({"aoi": 8}, clip_reading())
    assert picture["tokens"] == counter(text) > 75 and picture["behind"] == counter.behind(text) != []


def test_a_finding_is_mended_by_its_remedy(pivotal_webui: WebUI, pictures: Path) -> None:
    run = {"words": [{"name": "aoi"}, {"name": "hana"}, {"name": "kaze"}], "data": {"resolution_px": 64}}
    answer = pivotal_webui.call("/pivotal/v1/plan", {"folder": str(pictures), "run": run})
    finding = next(found for found in answer["findings"] if found["kind"] == "word_never")
    body = {"run": answer["run"], "remedy": finding["remedies"][0]}
    mended = pivotal_webui.call("/pivotal/v1/plan/remedy", body)
    assert [embedding["name"] for embedding in mended["embeddings"]] == ["aoi", "hana"]
    with pytest.raises(RequestFailedError, match="is unknown"):
        pivotal_webui.call("/pivotal/v1/plan/remedy", {"run": run, "remedy": {"id": "dance"}})
    with pytest.raises(RequestFailedError, match="422"):
        pivotal_webui.call("/pivotal/v1/plan", {"folder": str(pictures), "run": {"schedule": {"max_steps": -1}}})
    with pytest.raises(RequestFailedError, match="does not exist"):
        pivotal_webui.call("/pivotal/v1/plan", {"folder": str(pictures / "nowhere")})


def test_captions_are_written_only_when_asked(pivotal_webui: WebUI, pictures: Path) -> None:
    before = {path: path.read_bytes() for path in pictures.glob("*.txt")}
    body = {"folder": str(pictures), "run": {"words": [{"name": "aoi", "prune": True}]}}
    shown = pivotal_webui.call("/pivotal/v1/captions/preview", body)
    assert len(shown["changes"]) == 4 and {path: path.read_bytes() for path in before} == before
    with pytest.raises(RequestFailedError, match="changed since the preview"):
        pivotal_webui.call("/pivotal/v1/captions/write", {**body, "digest": "0" * 64})
    done = pivotal_webui.call("/pivotal/v1/captions/write", {**body, "digest": shown["digest"]})
    assert done["written"] == 4 and (pictures / "0.txt").read_text(encoding="utf-8") == "aoi, park\n"
    assert pivotal_webui.call("/pivotal/v1/captions/take_back", {"folder": str(pictures)})["written"] == 4
    assert {path: path.read_bytes() for path in before} == before


def test_file_names_are_captions_by_the_web_uis_settings(pivotal_webui: WebUI, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (20, 90, 30)).save(tmp_path / "0012-blue hair_red hat.png")
    folder = {"folder": str(tmp_path)}
    assert pivotal_webui.call("/pivotal/v1/scan", folder)["tags"] == {"blue hair red hat": 1.0}
    options = {"dataset_filename_word_regex": "[^_]+", "dataset_filename_join_string": ", "}
    pivotal_webui.call("/sdapi/v1/options", options)
    try:
        assert pivotal_webui.call("/pivotal/v1/scan", folder)["tags"] == {"blue hair": 1.0, "red hat": 1.0}
        planned = pivotal_webui.call("/pivotal/v1/plan", folder)["run"]["data"]
        assert (planned["name_words"], planned["name_join"]) == ("[^_]+", ", ")
    finally:
        pivotal_webui.call(
            "/sdapi/v1/options", {"dataset_filename_word_regex": "", "dataset_filename_join_string": " "}
        )
