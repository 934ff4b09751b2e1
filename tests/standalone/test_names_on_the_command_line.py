"""Names that come by the command line: refused with the core's sentence, nothing outside, nothing written over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.standalone.cli import main
from tests.hostile_names import HOSTILE

ROOT = Path(__file__).resolve().parents[2]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def run_file(folder: Path, pictures: Path, *, file: str = "run.json", **changes: object) -> Path:
    plain = {
        "name": "two",
        "embeddings": [{"name": "aoi", "vectors": 2}, {"name": "hana", "vectors": 2}],
        "network": {"unet_rank": 2, "unet_targets": "attention"},
        "data": {"folder": str(pictures), "resolution_px": 64},
        "schedule": {"max_steps": 2, "batch_size": 2},
        **changes,
    }
    (folder / file).write_text(json.dumps(plain), encoding="utf-8")
    return folder / file


@pytest.fixture
def embeddings(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    for path, name in ((first, "aoi"), (second, "hana")):
        save_file({f"bundle_emb.{name}.string_to_param.*": torch.ones(2, 768)}, path)
    return first, second


@pytest.mark.parametrize(("name", "reason"), HOSTILE)
def test_a_run_of_a_hostile_name(
    two_embeddings_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    path = run_file(tmp_path, two_embeddings_folder, name=name)
    before = tree(tmp_path)
    out = tmp_path / "x" / "y" / "out"
    out.mkdir(parents=True)
    assert main(["train", str(path), "--checkpoint", str(tmp_path / "absent"), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert reason in told and "Traceback" not in told
    assert tree(tmp_path) == before


def test_the_name_of_the_run_file_is_asked_too(
    two_embeddings_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_file(tmp_path, two_embeddings_folder, file="a,b.json", name="")
    assert main(["train", str(path), "--checkpoint", str(tmp_path / "absent")]) == 2
    assert "list of hashes" in capsys.readouterr().err


@pytest.mark.slow
def test_every_process_of_torchrun_says_it_and_ends(two_embeddings_folder: Path, tmp_path: Path) -> None:
    path = run_file(tmp_path, two_embeddings_folder, name="../evil")
    before = tree(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "lib_pivotal"]
    command += ["train", str(path), "--checkpoint", str(tmp_path / "absent"), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, timeout=300, check=False)
    assert done.returncode != 0 and b"has '/', which no file's name may have" in done.stderr
    assert {name: data for name, data in tree(tmp_path).items() if "__pycache__" not in name} == before


def test_a_run_does_not_take_anothers_file(
    two_embeddings_folder: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = [
        "train",
        str(run_file(tmp_path, two_embeddings_folder)),
        "--checkpoint",
        str(checkpoint),
        "--out",
        str(out),
    ]
    assert main(arguments) == 0
    before = tree(out)
    assert main(arguments) == 2
    assert "two.safetensors" in capsys.readouterr().err and tree(out) == before
    longer = run_file(tmp_path, two_embeddings_folder, schedule={"max_steps": 3, "batch_size": 2})
    assert main([*arguments, "-f"]) == 0 and tree(out) != before
    other = run_file(tmp_path, two_embeddings_folder, embeddings=[{"name": "aoi"}])
    before = tree(out)
    assert longer == other and main([*arguments, "--resume"]) == 2
    assert "cannot be continued" in capsys.readouterr().err and tree(out) == before


def test_work_on_files_takes_no_others_place(
    embeddings: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = map(str, embeddings)
    folder = tmp_path / "parts"
    assert main(["bundle", "split", one, "--out", str(folder)]) == 0
    before = tree(tmp_path)
    verbs = {
        "rename": ["rename", one, "aoi=kaze", "--out", two],
        "join": ["join", one, two, "--out", two],
        "strip": ["strip", one, "metadata", "--out", two],
        "split": ["split", one, "--out", str(folder)],
        "convert": ["convert", one, "--layout", "kohya", "--out", two],
    }
    for arguments in verbs.values():
        assert main(["bundle", *arguments]) == 2
        assert "there is a file of this name already" in capsys.readouterr().err
    assert tree(tmp_path) == before
    assert main(["bundle", *verbs["split"], "--overwrite"]) == 0
    assert main(["bundle", *verbs["join"], "-f"]) == 0
    assert {embedding.name for embedding in list_bundle(two).embeddings} == {"aoi", "hana"}
    assert main(["bundle", "rename", one, "aoi=kaze"]) == 0, "the file itself was named"
    assert [embedding.name for embedding in list_bundle(one).embeddings] == ["kaze"]
    assert main(["bundle", "convert", one, "--layout", "../x", "--out", str(tmp_path / "new")]) == 2
    assert "there is no layout" in capsys.readouterr().err and not (tmp_path / "new").exists()
    assert main(["bundle", "split", one, "--format", "x", "--out", str(tmp_path / "new")]) == 2
