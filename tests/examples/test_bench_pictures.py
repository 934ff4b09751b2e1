"""The pictures of the bench: what it measures is a dataset as people have it."""

from __future__ import annotations

from pathlib import Path

from examples.bench_pictures import _write_some
from lib_pivotal.data.dataset import scan


def test_written_pictures_scan_without_a_fault_and_stay(tmp_path: Path) -> None:
    _write_some(tmp_path, 8, 1, 0)
    files = sorted(tmp_path.rglob("*.*"))
    assert [path.suffix for path in files].count(".png") == 5 and not list(tmp_path.rglob("*.part"))
    dataset = scan(tmp_path, use_cache=False)
    assert len(dataset) == 9 and all(len(picture.caption.split(", ")) > 10 for picture in dataset.pictures)
    (near,) = (problem.keys for problem in dataset.problems if problem.code == "near_double")
    assert [Path(key).name for key in near] == ["00000.jpg", "00000b.png"]
    assert all(problem.level != "error" for problem in dataset.problems)
    times = [path.stat().st_mtime_ns for path in files]
    _write_some(tmp_path, 8, 1, 0)
    assert [path.stat().st_mtime_ns for path in files] == times
