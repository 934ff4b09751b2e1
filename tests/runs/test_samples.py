"""Samples of a run, read from its events."""

import json
import shutil

from lib_pivotal.runs.samples import run_events, run_samples


def write_run(folder, steps=(50, 100), columns=("aoi", "hana")):
    """A run's folder with pictures and events, as a run leaves it."""
    from PIL import Image

    from lib_pivotal.evaluation.parts_grid import ROWS

    folder.mkdir(parents=True)
    lines = [{"event": "RunStarted", "name": "two"}]
    for step in steps:
        cells = {}
        for number, row in enumerate(ROWS):
            place = folder / "pictures" / f"{step:06d}"
            place.mkdir(parents=True, exist_ok=True)
            paths = [place / f"{number}-{column:03d}.png" for column in range(len(columns))]
            for path in paths:
                Image.new("RGB", (64, 64), (step, 40 * number, 0)).save(path)
            cells[row.label] = [str(path) for path in paths]
        grid, bundle = folder / f"two-{step:06d}.png", folder / "steps" / f"two-{step:06d}.safetensors"
        bundle.parent.mkdir(exist_ok=True)
        bundle.write_bytes(b"x")
        Image.new("RGB", (64, 64)).save(grid)
        lines.append(
            {"event": "PicturesMade", "step": step, "path": str(grid), "columns": columns, "cells": cells,
             "bundle": str(bundle)}
        )  # fmt: skip
    (folder / "two.events.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n{half a li")
    (folder / "two.run.json").write_text(json.dumps({"version": 3, "name": "two", "saving": {"sample_prompts": ["a"]}}))
    return folder


def test_by_step_with_files_that_moved(tmp_path):
    folder = write_run(tmp_path / "run")
    assert [event["event"] for event in run_events(folder)] == ["RunStarted", "PicturesMade", "PicturesMade"]
    found = run_samples(folder)
    assert [one.step for one in found] == [50, 100] and found[0].columns == ("aoi", "hana")
    moved = tmp_path / "elsewhere" / "run"
    moved.parent.mkdir()
    shutil.move(folder, moved)
    again = run_samples(moved)
    assert all(path.is_file() for one in again for paths in one.cells.values() for path in paths)
    assert all(one.grid.is_file() and one.bundle.is_file() and moved in one.bundle.parents for one in again)


def test_of_a_step_that_came_twice_the_last_counts(tmp_path):
    folder = write_run(tmp_path / "run", steps=(50,))
    log = folder / "two.events.jsonl"
    log.write_text(
        log.read_text() + "\n" + json.dumps({"event": "PicturesMade", "step": 50, "columns": ["kaze"]}) + "\n"
    )
    assert [one.columns for one in run_samples(folder)] == [("kaze",)]
    assert run_samples(tmp_path) == []
