"""Names and paths by the API of a real web UI: what is accepted can be called, what is refused has written nothing."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_pictures
from tests.hostile_names import GOOD, HOSTILE
from tests.live.conftest import Installation, WebUI, running

pytestmark = [pytest.mark.webui, pytest.mark.slow]


@pytest.fixture(scope="module")
def own(installation: Installation, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    """A web UI whose API may use its own folders only."""
    data = tmp_path_factory.mktemp("confined") / "data"

    def prepare(data: Path) -> None:
        (data / "config.json").unlink()
        write_pictures(data / "pictures", {"1": "aoi, hana, pose 1", "2": "aoi, hana, pose 2"})

    with running(installation, checkpoint, data, linked=True, prepare=prepare) as webui:
        yield webui


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "private", {"aoi_1": "aoi, secret"})


def answer(webui: WebUI, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and content, also of a refusal."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(webui.url + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as got:
            return got.status, json.load(got)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def run(webui: WebUI, name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "embeddings": [{"name": "aoi", "vectors": 2}],
        "data": {"folder": str(webui.data / "pictures"), "resolution_px": 64},
        "schedule": {"max_steps": 1, "batch_size": 2},
        "network": {"unet_rank": 4},
        **changes,
    }


def trained(webui: WebUI, body: dict[str, Any]) -> dict[str, Any]:
    status, started = answer(webui, "/pivotal/v1/runs", body)
    assert status == 200, started
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        view: dict[str, Any] = answer(webui, f"/pivotal/v1/runs/{urllib.parse.quote(started['id'], safe='')}")[1]
        if view["ended"]:
            assert view["status"] == "finished", view["ended"]
            return view
        time.sleep(0.3)
    raise AssertionError(webui.log_text()[-2000:])


def files(webui: WebUI) -> dict[str, bytes]:
    """All that work on files may write, and which runs there are (the last one may draw its plots still)."""
    places = [webui.lora_folder, webui.data / "pivotal_exports", webui.data / "pictures"]
    found = {str(path): path.read_bytes() for place in places for path in place.rglob("*") if path.is_file()}
    return found | {str(path): b"" for place in (webui.data.parent, webui.data / "pivotal_runs") for path in _in(place)}


def _in(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def test_hostile_names_are_refused(own: WebUI) -> None:
    before = files(own)
    for name, reason in HOSTILE:
        status, told = answer(own, "/pivotal/v1/runs", run(own, name))
        assert status == 422 and reason in told["detail"]["message"], (name, told)
    assert files(own) == before
    status, _ = answer(own, "/pivotal/v1/runs/current")
    assert status == 404


@pytest.mark.parametrize("name", [name for name in GOOD if name in ("My LoRA v1.5", "a-b_c+d (2)", "[x]", "n" * 200)])
def test_what_is_accepted_can_be_called(own: WebUI, name: str) -> None:
    trained(own, run(own, name))
    assert (own.lora_folder / f"{name}.safetensors").is_file()
    made = own.txt2img(f"<lora:{name}:1> aoi", steps=1)
    assert f'"{name}: ' in made.infotext.replace("Lora hashes: ", "") or name in made.infotext
    assert "Lora hashes" in made.infotext and "not found" not in own.log_text()


def test_a_second_run_of_a_name_is_told_or_asked(own: WebUI) -> None:
    trained(own, run(own, "twice"))
    path = own.lora_folder / "twice.safetensors"
    before = files(own)
    status, told = answer(own, "/pivotal/v1/runs", run(own, "twice"))
    assert status == 400 and "there is a file of this name" in told["detail"]
    assert files(own) == before
    trained(own, run(own, "twice", seed=7, overwrite=True))
    assert path.read_bytes() != before[str(path)]


def test_new_files_of_hostile_or_taken_names(own: WebUI) -> None:
    for name in ("one", "other"):
        if not (own.lora_folder / f"{name}.safetensors").exists():
            trained(own, run(own, name, embeddings=[{"name": {"one": "aoi", "other": "hana"}[name], "vectors": 2}]))
    before = files(own)
    for name, reason in (*HOSTILE, ("other", "there is a file of this name")):
        body = {"names": ["one", "other"], "new_name": name}
        status, told = answer(own, "/pivotal/v1/bundles/join", body)
        assert status == 400 and reason in told["detail"], (name, told)
    status, told = answer(own, "/pivotal/v1/bundles/convert", {"name": "one", "layout": "../../../evil"})
    assert status == 400 and "no layout" in told["detail"]
    assert files(own) == before


def test_run_ids_are_no_paths(own: WebUI) -> None:
    before = files(own)
    for run_id in ("../../evil", "..", "/etc", "a\nb", "x"):
        quoted = urllib.parse.quote(run_id, safe="")
        assert answer(own, f"/pivotal/v1/runs/{quoted}/continue", {})[0] in (404, 405)
    assert files(own) == before


def test_folders_outside(own: WebUI, outside: Path) -> None:
    (own.data / "link").symlink_to(outside)
    for folder in (outside, own.data / "link", own.data / ".." / outside.relative_to(outside.parents[1])):
        for route in ("scan", "plan", "captions/preview", "captions/write", "captions/take_back", "captions"):
            status, told = answer(own, f"/pivotal/v1/{route}", {"folder": str(folder)})
            assert status == 403 and "pivotal_api_folders" in told["detail"], (route, told)
    (own.data / "link").unlink()
    status, told = answer(own, "/pivotal/v1/runs", run(own, "x", data={"folder": str(outside), "resolution_px": 64}))
    assert status == 403, told
    assert answer(own, "/pivotal/v1/scan", {"folder": str(own.data / "pictures")})[0] == 200


def test_the_setting_is_not_the_apis_to_change(own: WebUI, outside: Path) -> None:
    for key, value in (("pivotal_api_folders", str(outside)), ("pivotal_runs_folder", str(outside))):
        answer(own, "/sdapi/v1/options", {key: value})
    assert answer(own, "/pivotal/v1/scan", {"folder": str(outside)})[0] == 403
