"""Files that a run would write over: asked before it starts, on real files of real runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_pivotal.bundle.format import META_RUN
from lib_pivotal.config import Run, run_from_dict, run_to_dict
from lib_pivotal.errors import FileNameError
from lib_pivotal.training.results import Results, refuse_taken_results


@pytest.fixture
def run() -> Run:
    return run_from_dict(
        {
            "name": "two",
            "words": [{"name": "aoi"}, {"name": "hana"}],
            "data": {"folder": "pictures"},
            "schedule": {"max_steps": 6},
        }
    )


def bundle_of(run: Run, path: Path) -> Path:
    import json

    save_file({"x": torch.zeros(1)}, path, metadata={META_RUN: json.dumps(run_to_dict(run))})
    return path


def test_an_empty_or_absent_folder_is_free(run: Run, tmp_path: Path) -> None:
    refuse_taken_results(run, tmp_path)
    refuse_taken_results(run, tmp_path / "absent")


@pytest.mark.parametrize("taken", ["two.safetensors", "two-000500.safetensors", "two-10000000.safetensors"])
def test_a_fresh_run_replaces_nothing_unless_told(run: Run, tmp_path: Path, taken: str) -> None:
    bundle_of(run, tmp_path / taken)
    with pytest.raises(FileNameError, match=rf"{taken}: there is a file.*overwrite"):
        refuse_taken_results(run, tmp_path)
    refuse_taken_results(run, tmp_path, overwrite=True)
    refuse_taken_results(replace(run, name="three"), tmp_path)


def test_other_names_that_begin_alike_are_free(run: Run, tmp_path: Path) -> None:
    for name in ("two-2.safetensors", "two-000500b.safetensors", "two.run.json", "twofold.safetensors"):
        (tmp_path / name).write_bytes(b"")
    assert Results.of(run).files_there(tmp_path) == []


def test_names_with_signs_of_patterns_mean_themselves(run: Run, tmp_path: Path) -> None:
    (tmp_path / "aXb-000500.safetensors").write_bytes(b"")
    assert Results.of(replace(run, name="a.b")).files_there(tmp_path) == []
    (tmp_path / "a[1]-000500.safetensors").write_bytes(b"")
    assert Results.of(replace(run, name="a[1]")).files_there(tmp_path) == [tmp_path / "a[1]-000500.safetensors"]


def test_files_of_embeddings_where_they_are_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "aoi.safetensors").write_bytes(b"")
    refuse_taken_results(run, tmp_path)
    with pytest.raises(FileNameError, match="aoi"):
        refuse_taken_results(replace(run, saving=replace(run.saving, embedding_files=True)), tmp_path)


def test_a_run_that_goes_on_replaces_its_own_files_only(run: Run, tmp_path: Path) -> None:
    bundle_of(run, tmp_path / "two.safetensors")
    bundle_of(run, tmp_path / "two-000002.safetensors")
    longer = replace(run, schedule=replace(run.schedule, max_steps=12))
    refuse_taken_results(longer, tmp_path, resume=True)
    moved = replace(run, data=replace(run.data, folder="b"))
    refuse_taken_results(moved, tmp_path, resume=True)
    for other in (replace(run, seed=1), replace(run, embeddings=run.embeddings[:1])):
        bundle_of(other, tmp_path / "two.safetensors")
        assert not Results.of(run).has(tmp_path / "two.safetensors")
        with pytest.raises(FileNameError, match="two.safetensors: there is"):
            refuse_taken_results(longer, tmp_path, resume=True)
        refuse_taken_results(longer, tmp_path, resume=True, overwrite=True)


@pytest.mark.parametrize("content", [b"", b"not a bundle", None])
def test_a_file_that_says_nothing_is_not_its_own(run: Run, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "two.safetensors"
    if content is None:
        save_file({"x": torch.zeros(1)}, path, metadata={META_RUN: "[" * 100_000})
    else:
        path.write_bytes(content)
    with pytest.raises(FileNameError):
        refuse_taken_results(run, tmp_path, resume=True)


def test_embeddings_files_are_its_own_where_the_last_file_is(run: Run, tmp_path: Path) -> None:
    run = replace(run, saving=replace(run.saving, embedding_files=True))
    (tmp_path / "aoi.safetensors").write_bytes(b"")
    with pytest.raises(FileNameError, match="aoi"):
        refuse_taken_results(run, tmp_path, resume=True)
    bundle_of(run, tmp_path / "two.safetensors")
    refuse_taken_results(run, tmp_path, resume=True)
