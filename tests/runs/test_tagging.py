"""Missing captions: written where there is none, never over one that is there."""

from __future__ import annotations

import pytest
from PIL import Image, ImageStat

from lib_pivotal.commands.datasets import scan_pictures
from lib_pivotal.config import DataConfig
from lib_pivotal.data.dataset import scan
from lib_pivotal.errors import HostError
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


def missing(folder, **settings):
    return without_caption(scan_pictures(DataConfig(folder=str(folder), **settings)))


def test_only_missing_captions_are_written(folder):
    assert [p.path.stem for p in without_caption(scan(folder))] == ["hat", "IMG_1", "IMG_2"]
    told = []
    assert write_captions(missing(folder), Brightness(), progress=lambda *p: told.append(p)) == (3, 3)
    assert told == [(0, 3), (1, 3), (2, 3)]
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (folder / "a").glob("*.txt")}
    assert texts == {"done": "aoi, smile", "IMG_1": "dark", "IMG_2": "light", "hat": "dark"}
    again = Brightness()
    assert write_captions(missing(folder), again) == (0, 0) and again.asked == 0
    assert without_caption(scan(folder)) == []


def test_stopping_and_going_on(folder):
    tagger = Brightness()
    assert write_captions(missing(folder), tagger, should_stop=lambda: tagger.asked >= 1) == (1, 3)
    assert write_captions(missing(folder), tagger) == (2, 2)


def test_damage_is_passed_over_and_other_faults_are_said(folder, monkeypatch):
    path = folder / "a" / "hat.png"
    path.write_bytes(path.read_bytes()[:60])
    assert write_captions(missing(folder), Brightness())[0] == 2


def test_choosing():
    usable, broken = Brightness(), Brightness("its model is not there: put x.pt into models.")
    assert chosen([usable], "brightness") is usable
    with pytest.raises(HostError, match="put x.pt into models"):
        chosen([broken], "brightness")
    with pytest.raises(HostError, match="no such tagger. There is brightness"):
        chosen([usable], "blip")
    with pytest.raises(HostError, match="only in the web UI"):
        chosen([], "blip")


def test_captions_go_where_the_runs_layout_reads_them(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("L", (64, 64), 10).save(pictures / "IMG_1.png")
    dataset = tmp_path / "dataset.toml"
    dataset.write_text(
        f"[[datasets]]\n[[datasets.subsets]]\nimage_dir = {str(pictures)!r}\ncaption_extension = '.caption'\n"
    )
    found = missing(dataset, layout="kohya_toml")
    assert [picture.path.name for picture in found] == ["IMG_1.png"]
    assert write_captions(found, Brightness()) == (1, 1)
    assert (pictures / "IMG_1.caption").read_text() == "dark" and not (pictures / "IMG_1.txt").exists()
    assert missing(dataset, layout="kohya_toml") == []


def test_a_kohya_folders_name_is_no_missing_caption_of_the_plain_layout(tmp_path):
    (tmp_path / "3_aoi").mkdir()
    Image.new("L", (64, 64), 10).save(tmp_path / "3_aoi" / "IMG_1.png")
    (tmp_path / "3_aoi" / "IMG_1.json").write_text('{"caption": "aoi, hat"}')
    assert missing(tmp_path) == [] and len(missing(tmp_path, captions_from="files")) == 1
