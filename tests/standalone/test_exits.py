"""How commands end where a file cannot be read or written: one sentence with the path, and status 2."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lib_pivotal.errors import HostError
from lib_pivotal.standalone import page
from lib_pivotal.standalone.cli import main
from lib_pivotal.standalone.exits import exit_status


def told(raising: Callable[[], int], **options: object) -> int:
    return exit_status(Namespace(run=lambda parsed: raising(), verbose=False, **options))


def fails(error: BaseException) -> Callable[[], int]:
    def run() -> int:
        raise error

    return run


def test_a_status_is_passed_on() -> None:
    assert told(lambda: 1) == 1


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (HostError("no checkpoint"), "no checkpoint"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b.json"), "a/b.json: cannot be read or written: Perm"),
        (FileExistsError(errno.EEXIST, "File exists", Path("x")), "x: cannot be read or written: File exists"),
        (OSError(errno.ENOSPC, "No space left on device"), "out/r: cannot be read or written: No space"),
        (OSError("odd"), "out/r: cannot be read or written: odd"),
        (OSError(), "out/r: cannot be read or written: OSError"),
    ],
)
def test_errors_are_one_sentence_with_the_path(error: Exception, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(fails(error), out=Path("out/r")) == 2
    captured = capsys.readouterr().err
    assert captured.startswith(says) and captured.count("\n") == 1 and "Traceback" not in captured


def test_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(fails(KeyboardInterrupt())) == 130


def test_verbose_shows_where(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    assert exit_status(Namespace(run=lambda parsed: fails(OSError("odd"))(), verbose=True)) == 2
    assert "Traceback" in caplog.text


@pytest.fixture
def files(tmp_path: Path, two_embeddings_folder: Path) -> dict[str, str]:
    run = {
        "name": "r",
        "words": [{"name": "aoi", "vectors": 2}, {"name": "hana", "vectors": 2}],
        "data": {"folder": str(two_embeddings_folder), "resolution_px": 64},
        "schedule": {"max_steps": 1, "batch_size": 2},
    }
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    (tmp_path / "afile").write_text("x", encoding="utf-8")
    toml = 'network_module = "networks.lora"\nnetwork_dim = 8\nlearning_rate = 1e-4\nmax_train_steps = 100\n'
    (tmp_path / "s.toml").write_text(f'{toml}train_data_dir = "x"\n', encoding="utf-8")
    for name in ("w", "v"):
        save_file({f"bundle_emb.{name}.string_to_param.*": torch.zeros(2, 768)}, tmp_path / f"{name}.safetensors")
    return {"tmp": str(tmp_path), "set": str(two_embeddings_folder)}


NOWHERE = "{tmp}/afile/no/such"
"""Below a file: nobody can make it, root neither."""


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "{tmp}/run.json", "--checkpoint", "{tmp}/absent", "--out", NOWHERE],
        ["train", "{tmp}/run.json", "--checkpoint", "{tmp}/absent", "--out", "{tmp}/afile"],
        ["plan", "{set}", "--family", "sd1", "--save", f"{NOWHERE}/run.json"],
        ["plan", "{set}", "--family", "sd1", "--save", "{tmp}/absent/run.json"],
        ["plan", "{set}", "--family", "sd1", "--save", "{set}"],
        ["import", "{tmp}/s.toml", "-o", f"{NOWHERE}/run.json"],
        ["import", "{tmp}/s.toml", "-o", "{set}"],
        ["captions", "{set}", "--write", "--home", NOWHERE],
        ["captions", "{set}", "--take-back", "--home", NOWHERE],
        ["bundle", "convert", "{tmp}/w.safetensors", "--layout", "kohya", "--out", f"{NOWHERE}/w.safetensors"],
        ["bundle", "convert", "{tmp}/w.safetensors", "--layout", "peft", "--out", NOWHERE],
        ["bundle", "split", "{tmp}/w.safetensors", "--out", NOWHERE],
        ["bundle", "split", "{tmp}/w.safetensors", "--out", "{tmp}/afile"],
        ["bundle", "rename", "{tmp}/w.safetensors", "w=u", "--out", f"{NOWHERE}/u.safetensors"],
        ["bundle", "join", "{tmp}/w.safetensors", "{tmp}/v.safetensors", "--out", "{tmp}/absent/j.safetensors"],
        ["bundle", "strip", "{tmp}/w.safetensors", "metadata", "--out", f"{NOWHERE}/u.safetensors"],
        ["bundle", "show", "{tmp}/afile/x"],
        ["bundle", "show", "{set}"],
        ["scan", "{tmp}/afile/x"],
        ["scan", "{tmp}/" + "n" * 300],
        ["class-pictures", "{tmp}/afile/x.json", "--checkpoint", "{tmp}/absent"],
        ["grid", "{tmp}/afile/x", "--checkpoint", "{tmp}/absent", "--words", "w", "--out", f"{NOWHERE}/g.png"],
    ],
    ids=lambda arguments: " ".join(arguments)[:60],
)
def test_every_verb(arguments: list[str], files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    status = main([argument.format(**files) for argument in arguments])
    captured = capsys.readouterr()
    assert status == 2, captured
    assert "Traceback" not in captured.err and ".tmp" not in captured.err
    assert files["tmp"] in captured.err and captured.err.count("\n") <= 3


def test_a_grid_that_cannot_be_written(
    files: dict[str, str], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp = Path(files["tmp"])
    assert main(["train", str(tmp / "run.json"), "--checkpoint", str(checkpoint), "--out", str(tmp / "o")]) == 0
    grid = ["grid", str(tmp / "o" / "r.safetensors"), "--checkpoint", str(checkpoint), "--words", "aoi"]
    capsys.readouterr()
    assert main([*grid, "--size", "64", "--steps", "1", "--out", str(tmp / "afile" / "g.png")]) == 2
    assert f"{tmp / 'afile'}: cannot be read or written" in capsys.readouterr().err


def test_the_page(files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--checkpoint", f"{files['tmp']}/w.safetensors", "--out", NOWHERE.format(**files)]
    assert page.main(arguments) == 2 and "afile" in capsys.readouterr().err
    assert page.main(["--checkpoint", f"{files['tmp']}/afile/x", "--out", files["tmp"]]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="pipes of a shell")
def test_output_that_nobody_reads_any_more() -> None:
    command = [sys.executable, "-m", "lib_pivotal", "train", "--help"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=100, check=False)
    os.close(write)
    assert b"Traceback" not in done.stderr
