"""Captions as they are trained: shown, written, taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.commands import captions
from lib_pivotal.commands.datasets import FolderRequest
from lib_pivotal.errors import DataError
from lib_pivotal.runs.presets import run_settings
from lib_pivotal.ui.tab import build_tab
from tests.commands.fronts import detail
from tests.ui.browser import Browser
from tests.webui.test_api_paths import Site


def _texts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.txt"))}


def test_captions_are_shown_written_and_taken_back(two_embeddings_folder: Path, tmp_path: Path) -> None:
    before = _texts(two_embeddings_folder)
    run = run_settings({"words": [{"name": "aoi", "prune": True, "absorb": ["blue hair", "smile", "park"]}]})
    request = FolderRequest(two_embeddings_folder, run)
    found = captions.preview(request)
    shown = captions.preview_as_dict(found)
    home = tmp_path / "home"
    assert _texts(two_embeddings_folder) == before and shown["changes"]
    with pytest.raises(DataError, match="changed since the preview"):
        captions.write(found, two_embeddings_folder, home=home, digest="0" * 64)
    done = captions.write(found, two_embeddings_folder, home=home, digest=shown["digest"]).as_dict()
    assert done["written"] == len(shown["changes"]) and done["left"] == [] and Path(done["record"]).is_file()
    after = _texts(two_embeddings_folder)
    for change in shown["changes"]:
        assert after[Path(change["file"]).name].decode().strip() == change["after"] != change["before"]
    assert captions.write(captions.preview(request), two_embeddings_folder, home=home).as_dict() == {
        "written": 0,
        "left": [],
    }
    assert captions.take_back(two_embeddings_folder, home=home).written == done["written"]
    assert _texts(two_embeddings_folder) == before
    with pytest.raises(DataError, match="nothing to take back"):
        captions.take_back(two_embeddings_folder, home=home)


def test_captions_are_written_as_they_were_shown(site: Site, line: Any) -> None:
    told = "have changed since the preview, so nothing was written. Show what would change again"
    browser = Browser(build_tab(site.manager))
    browser.set("pivotal_data_folder", str(site.pictures))
    browser.press("pivotal_scan")
    assert told in browser.press("pivotal_writing_write")["pivotal_writing_note"]
    body = {"folder": str(site.pictures), "digest": "0" * 64}
    assert told in detail(site, "/captions/write", body)
    told = "no captions of this folder were written from here, so there is nothing to take back"
    assert told in browser.press("pivotal_writing_back")["pivotal_writing_note"]
    assert told in detail(site, "/captions/take_back", {"folder": str(site.pictures)})
    assert told in line("captions", site.pictures, "--take-back")
