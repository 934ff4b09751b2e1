"""The command line on real files: scan, train, resume, grid, and every verb of `bundle`."""

import json

import pytest
import torch
from PIL import Image

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.commands.datasets import ScanRequest, scan
from lib_pivotal.commands.terms import both
from lib_pivotal.embeddings.slerp import adjusted_rows
from lib_pivotal.standalone.cli import main
from lib_pivotal.standalone.model import StandaloneHost


@pytest.fixture
def run_file(tmp_path, two_embeddings_folder):
    path = tmp_path / "two.json"
    path.write_text(
        json.dumps(
            {
                "words": [{"name": "aoi", "vectors": 2}, {"name": "hana", "vectors": 2}],
                "network": {"unet_rank": 2, "unet_targets": "attention"},
                "data": {"folder": str(two_embeddings_folder), "resolution_px": 64},
                "schedule": {"max_steps": 3, "batch_size": 2},
            }
        )
    )
    return path


@pytest.fixture
def bundle(run_file, checkpoint, tmp_path):
    assert main(["train", str(run_file), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]) == 0
    return tmp_path / "out" / "two.safetensors"


def test_train_writes_bundle_and_logs(bundle, capsys):
    assert set(require(read_bundle(bundle)).embeddings) == {"aoi", "hana"}
    names = {path.name for path in bundle.parent.iterdir()}
    assert {"two.safetensors", "two.run.json", "two.events.jsonl", "two.steps.csv"} <= names


@pytest.mark.parametrize(
    ("fault", "status"), [(MemoryError(), 2), (KeyboardInterrupt(), 130), (ValueError("a fault of ours"), None)]
)
def test_the_logs_end_by_the_end_of_the_run(run_file, checkpoint, tmp_path, monkeypatch, fault, status):
    """Whatever happens before the first step."""
    from lib_pivotal.training import build

    def failing(*arguments, **rest):
        raise fault

    monkeypatch.setattr(build, "make_latents", failing)
    arguments = ["train", str(run_file), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]
    if status is None:
        with pytest.raises(ValueError, match="a fault of ours"):
            main(arguments)
    else:
        assert main(arguments) == status
    last = json.loads((tmp_path / "out" / "two.events.jsonl").read_text().splitlines()[-1])
    assert last["reason"] == ("stopped" if status == 130 else "failed") and last["message"]


def test_class_pictures(checkpoint, tmp_path, capsys):
    run = {
        "words": [{"name": "aoi"}],
        "data": {"resolution_px": 64},
        "regularisation": {"folder": str(tmp_path / "class"), "prompts": ["1girl"], "count": 2},
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    arguments = ["class-pictures", str(tmp_path / "run.json"), "--checkpoint", str(checkpoint), "--device", "cpu"]
    assert main(arguments) == 0
    assert f"2 class pictures are in {tmp_path / 'class'}" in capsys.readouterr().out
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "class").iterdir()}
    assert sorted(path.suffix for path in made) == [".png", ".png", ".txt", ".txt"]
    assert main(arguments) == 0 and all(path.stat().st_mtime_ns == when for path, when in made.items())


def test_scan_as_text_and_json(two_embeddings_folder, capsys):
    assert main(["scan", str(two_embeddings_folder)]) == 0
    assert "6 pictures" in capsys.readouterr().out
    assert main(["scan", str(two_embeddings_folder), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["pictures"] == 6 and summary["tags"]["red hair"] == 0.5
    assert summary == both(scan(ScanRequest(str(two_embeddings_folder))))  # what the web API answers
    assert main(["scan", str(two_embeddings_folder), "--layout", "concepts"]) == 0
    assert "read as a folder for each concept" in capsys.readouterr().out
    assert main(["scan", str(two_embeddings_folder), "--layout", "heap"]) == 2
    assert "data.layout = 'heap': is not one of the choices" in capsys.readouterr().err


def test_grid(bundle, checkpoint, tmp_path, capsys):
    png = tmp_path / "deep" / "rows.png"
    arguments = ["grid", str(bundle), "--checkpoint", str(checkpoint), "--words", "aoi,hana", "--size", "64"]
    assert main([*arguments, "--steps", "2", "--out", str(png)]) == 0
    assert png.read_bytes().startswith(b"\x89PNG")
    written = png.read_bytes()
    assert main([*arguments, "--steps", "1", "--out", str(png)]) == 2 and png.read_bytes() == written
    assert "there is a file of this name already" in capsys.readouterr().err
    assert main([*arguments, "--steps", "1", "--out", f'"{png}"', "-f"]) == 0 and png.read_bytes() != written
    assert main(["grid", str(bundle), "--checkpoint", str(checkpoint), "--words", "kaze", "--out", str(png)]) == 2
    assert "has no embedding kaze" in capsys.readouterr().err


def test_bundle_verbs(bundle, tmp_path, capsys):
    assert main(["bundle", "list", str(bundle.parent), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {embedding["name"] for embedding in listed[0]["words"]} == {"aoi", "hana"}
    assert main(["bundle", "list", str(bundle)]) == 0
    assert "aoi (2), hana (2)" in capsys.readouterr().out
    assert main(["bundle", "show", str(bundle)]) == 0
    assert "ss_network_module" in capsys.readouterr().out
    assert main(["bundle", "verify", str(bundle)]) == 0
    renamed = tmp_path / "renamed.safetensors"
    assert main(["bundle", "rename", str(bundle), "aoi=kaze", "--out", str(renamed)]) == 0
    assert set(require(read_bundle(renamed)).embeddings) == {"kaze", "hana"}
    joined = tmp_path / "joined.safetensors"
    assert main(["bundle", "strip", str(renamed), "unet", "--out", str(tmp_path / "words.safetensors")]) == 0
    assert not require(read_bundle(tmp_path / "words.safetensors")).network
    assert main(["bundle", "split", str(bundle), "--out", str(tmp_path / "split"), "--json"]) == 0
    capsys.readouterr()
    assert (tmp_path / "split" / "aoi.safetensors").exists()
    other = tmp_path / "other.safetensors"
    assert main(["bundle", "rename", str(bundle), "aoi=umi", "hana=sora", "--out", str(other)]) == 0
    assert main(["bundle", "join", str(bundle), str(other), "--out", str(joined)]) == 0
    assert set(require(read_bundle(joined)).embeddings) == {"aoi", "hana", "umi", "sora"}


def test_embeddings_are_written_as_they_are_adjusted(bundle, checkpoint, tmp_path, capsys):
    before = require(read_bundle(bundle))
    facts = json.loads(before.metadata["pivotal.words"])
    facts["aoi"]["init_text"] = "blue hair"
    write_bundle(bundle, network=before.network, embeddings=before.embeddings, metadata=before.metadata | {
        "pivotal.words": json.dumps(facts)
    }, dtype=None)  # fmt: skip
    out, given = tmp_path / "adjusted.safetensors", ["aoi*0.5~0.2", "hana*2"]
    assert main(["bundle", "adjust", str(bundle), *given, "--out", str(out)]) == 2
    assert "load or name one" in capsys.readouterr().err and not out.exists()
    named = ["--checkpoint", str(checkpoint), "--out", str(out)]
    assert main(["bundle", "adjust", str(bundle), *given, *named]) == 0
    found, rows = require(read_bundle(out)), torch.cat(StandaloneHost.load(checkpoint).text.embed_text("blue hair"))
    assert torch.equal(
        found.embeddings["aoi"][0], adjusted_rows(before.embeddings["aoi"][0], rows, norm=0.5, init_share=0.2)
    )
    assert torch.equal(found.embeddings["hana"][0], 2 * before.embeddings["hana"][0].float())
    assert found.network.keys() == before.network.keys()
    assert main(["bundle", "adjust", str(bundle), "aoi*0.5", "--out", str(out)]) == 2, "another file is there"
    assert main(["bundle", "adjust", str(out), "aoi*0.5"]) == 0, "the file itself is changed"
    told = json.loads(require(read_bundle(out)).metadata["pivotal.words"])
    assert told["aoi"]["init_text"] == "blue hair" and told["hana"]["adjusted"] == [{"norm": 2.0, "init_share": 0.0}]
    assert told["aoi"]["adjusted"] == [{"norm": 0.5, "init_share": 0.2}, {"norm": 0.5, "init_share": 0.0}]


def test_damaged_file_is_named_with_status_1(bundle, tmp_path, capsys):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(bundle.read_bytes()[:-100])
    assert main(["bundle", "verify", str(broken)]) == 1
    assert "broken.safetensors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bundle", "rename", "{bundle}", "nonsense"], "OLD=NEW"),
        (["bundle", "rename", "{bundle}", "kaze=umi"], "kaze"),
        (["scan", "{absent}"], "does not exist"),
        (["train", "{absent}", "--checkpoint", "{absent}"], "cannot be read"),
        (["bundle", "show", "{absent}"], "absent"),
    ],
)
def test_wrong_use_is_one_readable_text(arguments, message, bundle, tmp_path, capsys):
    names = {"bundle": str(bundle), "absent": str(tmp_path / "absent")}
    assert main([argument.format(**names) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


def test_preflight_says_time_and_keeps_nothing(run_file, checkpoint, tmp_path, capsys):
    before = sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts)
    assert main(["preflight", str(run_file), "--checkpoint", str(checkpoint)]) == 0
    told = capsys.readouterr().out
    assert "one step takes" in told and "of memory" in told
    assert main(["preflight", str(run_file), "--checkpoint", str(checkpoint), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step_s"] > 0
    assert sorted(path for path in tmp_path.rglob("*") if "cache" not in path.parts) == before


def test_a_grid_of_all_embeddings_with_weights(bundle, checkpoint, tmp_path, capsys):
    few, more = tmp_path / "few.png", tmp_path / "more.png"
    arguments = ["grid", str(bundle), "--checkpoint", str(checkpoint), "--size", "64", "--steps", "1"]
    assert main([*arguments, "--words", "aoi", "--out", str(few)]) == 0
    assert main([*arguments, "--weights", "1, 0.5", "--out", str(more)]) == 0
    with Image.open(few) as one, Image.open(more) as two:
        assert two.width > one.width and two.height > one.height
        assert "Steps: 1" in one.text["parameters"]


def test_embeddings_are_taken_out_and_put_in(bundle, tmp_path, capsys):
    split, out = tmp_path / "split", tmp_path / "less.safetensors"
    assert main(["bundle", "split", str(bundle), "--out", str(split)]) == 0
    assert main(["bundle", "delete", str(bundle), "aoi", "--out", str(out)]) == 0
    assert set(require(read_bundle(out)).embeddings) == {"hana"}
    assert main(["bundle", "add", str(out), str(split / "aoi.safetensors")]) == 0
    assert set(require(read_bundle(out)).embeddings) == {"aoi", "hana"}
