"""The records of a scan."""

from __future__ import annotations

from pathlib import Path

from lib_pivotal.data.records import Dataset, DatasetProblem, Picture


def test_a_picture_hashes_its_file_once(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"abc")
    picture = Picture(key="a.png", path=path, caption="", width_px=1, height_px=1, concept="c")
    assert picture.sha256.startswith("ba7816bf")  # FIPS 180-2, B.1
    path.unlink()
    assert picture.sha256.startswith("ba7816bf")


def test_problem_and_dataset_as_plain_data(tmp_path: Path) -> None:
    problem = DatasetProblem(level="info", code="x", message="m", keys=("a",))
    assert problem.as_dict() == {"level": "info", "code": "x", "message": "m", "keys": ["a"]}
    dataset = Dataset(folder=tmp_path, pictures=(), concepts={}, problems=(problem,))
    assert dataset.summary()["problems"] == [problem.as_dict()]


def test_every_scan_has_a_mark_of_its_own(tmp_path: Path) -> None:
    """Also one that comes to lie where another was: the page takes the mark for the scan."""
    marks = set()
    for _ in range(100):
        scan = Dataset(folder=tmp_path, pictures=(), concepts={}, problems=())
        assert scan.mark == scan.mark
        marks.add(scan.mark)
        del scan
    assert len(marks) == 100
    one, other = (Dataset(folder=tmp_path, pictures=(), concepts={}, problems=()) for _ in range(2))
    assert one.mark != other.mark and one == other
