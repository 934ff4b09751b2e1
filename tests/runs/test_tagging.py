"""Missing captions: written where there is none, never over one that is there."""

from __future__ import annotations

import pytest
from PIL import Image, ImageStat

from lib_pivotal.data.dataset import scan
from lib_pivotal.errors import DataError, HostError
from lib_pivotal.runs.tagging import chosen, without_caption, write_captions


class Brightness:
    """Says how bright a picture is; `reason` is why it cannot."""

    name, title = "brightness", "Brightness: dark or light"

    def __init__(self, reason=""):
        self.reason = reason
        self.asked = 0

    def missing(self):
        return self.reason

    def __call__(self, picture):
        self.asked += 1
        assert picture.mode == "RGB"
        return "light" if ImageStat.Stat(picture.convert("L")).mean[0] > 127 else "dark"


@pytest.fixture
def folder(tmp_path):
    for name, grey in (("IMG_1", 10), ("IMG_2", 250), ("hat", 10), ("done", 250)):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.new("L", (64, 64), grey).save(tmp_path / "a" / f"{name}.png")
    (tmp_path / "a" / "done.txt").write_text("aoi, smile", encoding="utf-8")
    (tmp_path / "a" / "IMG_2.txt").write_text("  \n", encoding="utf-8")
    return tmp_path


def test_only_missing_captions_are_written(folder):
    assert [p.path.stem for p in without_caption(scan(folder))] == ["hat", "IMG_1", "IMG_2"]
    told = []
    assert write_captions(folder, Brightness(), progress=lambda *p: told.append(p)) == (3, 3)
    assert told == [(0, 3), (1, 3), (2, 3)]
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (folder / "a").glob("*.txt")}
    assert texts == {"done": "aoi, smile", "IMG_1": "dark", "IMG_2": "light", "hat": "dark"}
    again = Brightness()
    assert write_captions(folder, again) == (0, 0) and again.asked == 0
    assert without_caption(scan(folder)) == []


def test_stopping_and_going_on(folder):
    tagger = Brightness()
    assert write_captions(folder, tagger, should_stop=lambda: tagger.asked >= 1) == (1, 3)
    assert write_captions(folder, tagger) == (2, 2)


def test_damage_is_passed_over_and_other_faults_are_said(folder, monkeypatch):
    path = folder / "a" / "hat.png"
    path.write_bytes(path.read_bytes()[:60])
    assert write_captions(folder, Brightness())[0] == 2
    with pytest.raises(DataError, match="does not exist"):
        write_captions(folder / "nowhere", Brightness())


def test_choosing():
    usable, broken = Brightness(), Brightness("its model is not there: put x.pt into models.")
    assert chosen([usable], "brightness") is usable
    with pytest.raises(HostError, match="put x.pt into models"):
        chosen([broken], "brightness")
    with pytest.raises(HostError, match="no such tagger. There is brightness"):
        chosen([usable], "blip")
    with pytest.raises(HostError, match="only in the web UI"):
        chosen([], "blip")
