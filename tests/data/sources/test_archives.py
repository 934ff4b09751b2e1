"""Archives: read without a trace among the user's files, and whatever is in them stays in its place."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lib_pivotal.data.dataset import scan
from lib_pivotal.data.sources import archives
from lib_pivotal.data.sources.archives import unpacked
from lib_pivotal.errors import DataError

Add = Callable[..., Path]


@pytest.fixture
def png(add: Add) -> bytes:
    return add("source/x.png").read_bytes()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def inside(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_zip_of_a_folder(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "user").mkdir()
    path = zipped(tmp_path / "user/set.zip", {"10_hana/a.png": png, "10_hana/a.txt": b"hat", "readme.docx": b"x"})
    dataset = scan(path, cache=tmp_path / "cache")
    assert dataset.layout == "archive" and dataset["10_hana/a.png"].repeats == 10
    assert dataset["10_hana/a.png"].caption == "hat"
    assert [path.name for path in (tmp_path / "user").iterdir()] == ["set.zip"]
    told = {problem.code: problem.message for problem in dataset.problems}
    assert "readme.docx" in told["left_out_of_archive"] and "Read as set.zip" in told["layout"]
    assert scan(path, cache=tmp_path / "cache") == dataset
    assert len(list((tmp_path / "cache/archives").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "mode"), [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.tgz", "w:gz"), ("s.tar.xz", "w:xz")]
)
def test_webdatasets_key_by_key(tmp_path: Path, png: bytes, name: str, mode: str) -> None:
    files = {"000.png": png, "000.txt": b"from txt", "001.png": png[:-1] + b"\x82", "001.json": b'{"caption": "one"}'}
    dataset = scan(tarred(tmp_path / name, files, mode), cache=tmp_path / "cache")
    assert {picture.key: picture.caption for picture in dataset.pictures} == {"000.png": "from txt", "001.png": "one"}


def test_a_folder_of_shards(tmp_path: Path, png: bytes) -> None:
    for number in range(2):
        tarred(tmp_path / f"d{number}.tar", {"0.png": png, "0.txt": b"hat"})
    (tmp_path / "d").mkdir()
    for number in range(2):
        (tmp_path / f"d{number}.tar").rename(tmp_path / "d" / f"shard{number}.tar")
    assert [picture.key for picture in scan(tmp_path / "d", cache=tmp_path / "c").pictures] == [
        "shard0/0.png",
        "shard1/0.png",
    ]


BAD_NAMES = ("../out.png", "a/../../out.png", "/etc/out.png", "C:/out.png", "..\\out.png", ".hidden/a.png", "a\n.png")


@pytest.mark.parametrize("make", [zipped, tarred])
def test_names_that_lead_out(tmp_path: Path, png: bytes, make: Callable[..., Path]) -> None:
    path = make(tmp_path / f"a.{'zip' if make is zipped else 'tar'}", {"ok.png": png, **dict.fromkeys(BAD_NAMES, png)})
    folder, told = unpacked(path, tmp_path / "cache")
    assert inside(folder) == {"ok.png"} and len(told[0].keys) == len(BAD_NAMES)
    assert not list(tmp_path.rglob("out.png"))


def test_links_and_devices(tmp_path: Path, png: bytes) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("link.png", tarfile.SYMTYPE),
            ("hard.png", tarfile.LNKTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("ok.png")
        info.size = len(png)
        archive.addfile(info, io.BytesIO(png))
    folder, told = unpacked(path, tmp_path / "cache")
    assert inside(folder) == {"ok.png"} and set(told[0].keys) == {"link.png", "hard.png", "pipe.png"}
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as packed:
        packed.writestr(link, "/etc/passwd")
    assert inside(unpacked(tmp_path / "b.zip", tmp_path / "cache")[0]) == set()


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Path]) -> None:
    monkeypatch.setattr(archives, "MOST_BYTES", 2**16)
    path = make(tmp_path / f"a.{'zip' if make is zipped else 'tar'}", {"a.png": bytes(2**20)})
    with pytest.raises(DataError, match="more than such a file should hold"):
        unpacked(path, tmp_path / "cache")
    assert list((tmp_path / "cache/archives").iterdir()) == []


def test_a_bomb_by_its_ratio_and_by_its_number_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="should hold"):
        unpacked(zipped(tmp_path / "a.zip", {"a.png": bytes(2**23)}), tmp_path / "cache")
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    with pytest.raises(DataError, match="more than 3 files"):
        unpacked(zipped(tmp_path / "b.zip", {f"{n}.png": b"" for n in range(4)}), tmp_path / "cache")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_a_broken_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive at all")
    with pytest.raises(DataError, match=f"{name}: cannot be unpacked"):
        scan(tmp_path / name, cache=tmp_path / "cache")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_archives(tmp_path: Path, data: st.DataObject) -> None:
    ending = data.draw(st.sampled_from(["zip", "tar"]))
    whole = (zipped if ending == "zip" else tarred)(tmp_path / f"w.{ending}", {"a.txt": b"hat", "b/c.txt": b"x" * 50})
    content = bytearray(whole.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    broken = tmp_path / f"broken.{ending}"
    broken.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        folder, _ = unpacked(broken, tmp_path / "cache")
    except DataError:
        return
    assert all((tmp_path / "cache") in path.resolve().parents for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("あおい", "cp932"), ("Jürgen", "cp437"), ("Bär", "utf-8"), ("蒼イ", "cp932"), ("小蓝", "gbk")],
)
def test_names_in_the_code_page_of_their_maker(name: str, encoding: str, tmp_path: Path) -> None:
    """Old programs write names without the mark of UTF-8."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 64)).save(picture, "PNG")
    mangled = name.encode(encoding).decode("cp437")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for ending, content in ((".png", picture.getvalue()), (".txt", b"aoi, hat")):
            info = zipfile.ZipInfo("x" * len(name.encode(encoding)) + f"/1{ending}")
            archive.writestr(info, content)
    data = (tmp_path / "a.zip").read_bytes()
    raw = name.encode(encoding)
    (tmp_path / "a.zip").write_bytes(data.replace(b"x" * len(raw) + b"/", raw + b"/"))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist()[0] == f"{mangled}/1.png"
    found = scan(tmp_path / "a.zip", cache=tmp_path / "cache")
    assert list(found.concepts) == [name] and found.pictures[0].caption == "aoi, hat"
