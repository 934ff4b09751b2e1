"""A mark between tags that no setting names is told, with what to set; nothing else is taken for one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.commands import datasets
from lib_pivotal.data.captions import Cut
from lib_pivotal.data.records import Picture
from lib_pivotal.data.separators import UNNAMED_MARK, unnamed_mark
from lib_pivotal.standalone.cli import main
from tests.conftest import write_pictures

MARKS = ["##", "||", "~~", "%%", "||||", "->", "--", "::", "//", "&&", "**", "==", "=>"]
TAGS = ["smile, red hair", "hat, red hair", "park", "red hair, bench, sky"]


def pictures(*captions: str, cut: Cut | None = None) -> list[Picture]:
    return [
        Picture(f"{n}.png", Path(f"{n}.png"), caption, 64, 64, "", cut=cut or Cut())
        for n, caption in enumerate(captions)
    ]


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_is_found(mark: str) -> None:
    assert unnamed_mark(pictures(*(f"aoi {mark} {tags}" for tags in TAGS))) == mark
    assert unnamed_mark(pictures(*(f"aoi {mark} {tags} {mark} best quality" for tags in TAGS))) == mark
    nearly = [f"aoi {mark} {tags}" for tags in TAGS * 5] + ["aoi, park"]
    assert unnamed_mark(pictures(*nearly)) == mark


@pytest.mark.parametrize(
    "captions",
    [
        [f"aoi ## {tags}" for tags in TAGS[:2]],  # chance
        [f"aoi ## {tags}" for tags in TAGS] + ["aoi, hat"] * 2,  # not in nearly every one
        [f"aoi ## {tags}" for tags in TAGS] + ["aoi ## c##, hat"],  # it is of a tag
        [f"aoi ## {tags}, ##" for tags in TAGS[:3]] + ["aoi ## x, ##, y"],  # a tag by itself
        [f"aoi, {tags}, :|" for tags in TAGS],
        [f"aoi :-| {tags}" for tags in TAGS],  # faces
        [f"aoi =^ {tags}" for tags in TAGS],
        [f"aoi ^_^ {tags}" for tags in TAGS],
        [f"a girl (aoi) ... {tags}" for tags in TAGS],
        [f"aoi - {tags}" for tags in TAGS],  # one sign
        [f"aoi ## ## ## {tags}" for tags in TAGS],  # more than three parts
        [f"aoi ||| {tags}" for tags in TAGS],  # known
        ["", "", "", ""],
    ],
)
def test_what_is_no_mark(captions: list[str]) -> None:
    assert unnamed_mark(pictures(*captions)) == ""


def test_a_mark_that_is_set_is_not_told() -> None:
    captions = [f"aoi ## {tags}" for tags in TAGS]
    assert unnamed_mark(pictures(*captions, cut=Cut("##"))) == ""


def _plan(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["plan", *arguments, "--family", "sd1", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_scan_and_plan_say_it_and_the_remedy_makes_it_as_with_commas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pictures(tmp_path / "a" / "set", {f"aoi_{n}": f"aoi ~~ {tags}" for n, tags in enumerate(TAGS)})
    commas = write_pictures(tmp_path / "b" / "set", {f"aoi_{n}": f"aoi, {tags}" for n, tags in enumerate(TAGS)})
    assert main(["scan", str(root)]) == 0
    assert '--keep-separator "~~"' in capsys.readouterr().out
    assert main(["scan", str(root), "--keep-separator", "~~"]) == 0
    assert "keep-separator" not in capsys.readouterr().out
    run = {"name": "x", "words": [{"name": "aoi"}], "data": {"folder": str(root)}}
    file = tmp_path / "run.json"
    file.write_text(json.dumps(run))
    plain = _plan([str(root), str(file)], capsys)
    (finding,) = [one for one in plain["findings"] if one["kind"] == UNNAMED_MARK]
    assert finding["severity"] == "info" and plain["run"]["data"]["keep_separator"] == "|||", "nothing is guessed"
    assert _plan([str(root), str(file), "--mend"], capsys)["run"]["data"]["keep_separator"] == "|||"
    mended = datasets.fix(plain["run"], finding["remedies"][0])
    file.write_text(json.dumps(mended.get("run", mended)))
    after = _plan([str(root), str(file)], capsys)
    file.write_text(json.dumps(run | {"data": {"folder": str(commas)}}))
    same = _plan([str(commas), str(file)], capsys)
    assert after["run"]["data"]["keep_separator"] == "~~"
    assert after["words"] == same["words"] and after["findings"] == same["findings"]
