"""Paths as they are pasted, and captions with the commas of other writings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.commands import datasets
from lib_pivotal.data.dataset import scan
from lib_pivotal.files import typed_path
from lib_pivotal.standalone.cli import main
from tests.conftest import write_pictures

PASTED = [
    *('"{}"', "'{}'", "  {}  ", "file://{}", "file://localhost{}", "FILE://{}"),
    *(" \u201c{}\u201d ", '"file://{}"', "{}/", "\t{}\n"),
]  # fmt: skip


@pytest.mark.parametrize("pasted", PASTED)
def test_a_pasted_path_is_read(pasted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_pictures(tmp_path / "my set", {"1": "aoi, hat"})
    written = pasted.format(str(root).replace(" ", "%20") if "ile" in pasted.lower() else root)
    assert typed_path(written) == root
    assert datasets.scan(datasets.ScanRequest(written))["pictures"] == 1
    for verb in ("scan", "plan"):
        assert main([verb, written, "--json"]) == 0
    capsys.readouterr()
    run: dict[str, Any] = {"words": [{"name": "aoi", "prune": True, "absorb": ["hat"]}]}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert main(["captions", written, str(tmp_path / "run.json"), "--write"]) == 0
    assert (root / "1.txt").read_text() == "aoi\n"
    assert main(["captions", written, "--take-back"]) == 0
    assert (root / "1.txt").read_text() == "aoi, hat"


def test_a_drive_behind_file() -> None:
    assert str(typed_path("file:///C:/sets/my%20set")) == "C:/sets/my set"
    assert str(typed_path('"D:\\sets\\mine"')) == "D:\\sets\\mine"


def test_a_folder_that_is_called_so_is_meant(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "'odd'", {"1": "aoi"})
    assert typed_path(str(root)) == root and typed_path(f'"{root}"') == root


@pytest.mark.parametrize("comma", ["\uff0c", "\u3001", "\uff64", "\u060c", " \uff0c ", "\uff0c\u3000"])
def test_commas_of_other_writings_part_tags(comma: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {f"{n}": comma.join(["1girl", "aoi", "blue hair", "smile"]) for n in range(4)}
    plain = {key: text.replace(comma, ", ") for key, text in texts.items()}
    first, second = write_pictures(tmp_path / "a" / "set", texts), write_pictures(tmp_path / "b" / "set", plain)
    assert [p.caption for p in scan(first).pictures] == [p.caption for p in scan(second).pictures]
    plans = []
    for folder in (first, second):
        assert main(["plan", str(folder), "--json"]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    assert plans[0]["words"] == plans[1]["words"] and plans[0]["words"][0]["name"] == "aoi"
    (first / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": texts["0"]}) + "\n")
    (first / "0.txt").unlink()
    assert scan(first)["0.png"].caption == plain["0"]
