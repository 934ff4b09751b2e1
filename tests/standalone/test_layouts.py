"""Every layout from the folder to a trained file by the command line: scan, plan, two steps on tiny real models."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.standalone.cli import main
from tests.conftest import write_pictures

CAPTIONS = {"aoi": "aoi, red hair, {}", "hana": "hana, blue hair, {}"}
SCENES = ("smile", "park", "night")


def _pictures(folder: Path, place: str = "{name}") -> Path:
    """Three pictures of each word below `place`."""
    texts = {
        f"{place.format(name=name)}/{number}": text.format(scene)
        for name, text in CAPTIONS.items()
        for number, scene in enumerate(SCENES)
    }
    return write_pictures(folder, texts)


def _plain(folder: Path) -> Path:
    return write_pictures(folder, {f"{n}_{i}": CAPTIONS[n].format(s) for n in CAPTIONS for i, s in enumerate(SCENES)})


def _kgrid(folder: Path) -> Path:
    _pictures(folder, "screenshots/1_character/{name}")
    (folder / "screenshots/1_character/aoi/multiply.txt").write_text("2.5")
    (folder / "emb_init.json").write_text('{"aoi": ["red hair"], "hana": ["blue hair"]}')
    return folder


def _kohya_toml(folder: Path) -> Path:
    _pictures(folder)
    subset = "[[datasets.subsets]]\nimage_dir = '{}'\ncaption_extension = '.txt'\n{}\n"
    tables = subset.format("aoi", "num_repeats = 3\nflip_aug = true") + subset.format("hana", "shuffle_caption = true")
    (folder / "set.toml").write_text(f"[[datasets]]\nresolution = 64\nbatch_size = 2\n{tables}")
    return folder / "set.toml"


def _hcp(folder: Path) -> Path:
    _pictures(folder)
    base = {"data": {"dataset1": {"batch_size": 2, "bucket": {"target_area": 4096}}}}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    erase: dict[str, Any] = {"transforms": [{"_target_": "hcpdiff.utils.caption_tools.TagShuffle"}]}
    sources = {
        "a": {"img_root": "aoi", "caption_file": "aoi", "repeat": 2, "word_names": {"pt1": "aoi"}},
        "b": {"img_root": "hana", "caption_file": "hana", "text_transforms": erase},
    }
    whole = {"_base_": ["base.yaml"], "data": {"dataset1": {"source": sources}}}
    (folder / "set.yaml").write_text(yaml.safe_dump(whole))
    return folder / "set.yaml"


def _onetrainer(folder: Path) -> Path:
    _pictures(folder)
    text = {"enable_tag_shuffling": True, "tag_dropout_enable": True, "tag_dropout_probability": 0.5}
    concepts = [
        {"path": "aoi", "enabled": True, "balancing": 2.5, "text": text, "image": {"enable_random_flip": True}},
        {"path": "hana", "enabled": True, "text": {}, "image": {"enable_crop_jitter": False}, "loss_weight": 0.5},
    ]
    (folder / "concepts.json").write_text(json.dumps(concepts))
    return folder / "concepts.json"


def _zip(folder: Path) -> Path:
    _pictures(folder / "in")
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for path in sorted((folder / "in").rglob("*.*")):
            archive.write(path, path.relative_to(folder / "in"))
    shutil.rmtree(folder / "in")
    return folder / "set.zip"


def _tar(folder: Path) -> Path:
    """As webdataset has it: key.png, key.txt."""
    _plain(folder / "in")
    (folder / "out").mkdir()
    with tarfile.open(folder / "out" / "000.tar", "w") as archive:
        for path in sorted((folder / "in").iterdir()):
            archive.add(path, path.name)
    return folder / "out"


def _metadata(folder: Path) -> Path:
    """Captions in kohya's json in place of text files."""
    _pictures(folder)
    found = {}
    for path in sorted(folder.rglob("*.txt")):
        found[f"{path.parent.name}/{path.stem}"] = {"tags": path.read_text()}
        path.unlink()
    (folder / "meta.json").write_text(json.dumps(found))
    return folder


LAYOUTS: dict[str, tuple[Callable[[Path], Path], str, float]] = {
    "plain": (_plain, "plain", 6),
    "concepts": (_pictures, "concepts", 6),
    "metadata": (_metadata, "concepts", 6),
    "kohya": (lambda folder: _pictures(folder, "2_{name}"), "kohya", 12),
    "kgrid": (_kgrid, "kgrid", 10.5),
    "kohya_toml": (_kohya_toml, "kohya_toml", 12),
    "hcp": (_hcp, "hcp", 9),
    "onetrainer": (_onetrainer, "onetrainer", 10.5),
    "zip": (_zip, "archive", 6),
    "tar": (_tar, "archive", 6),
}
"""Name -> who makes it, what it is read as, samples per epoch."""


@pytest.mark.parametrize("name", LAYOUTS)
def test_from_the_folder_to_a_trained_file(name: str, checkpoint, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PIVOTAL_CACHE", str(tmp_path / "cache"))
    make, layout, draws = LAYOUTS[name]
    place = make(tmp_path / "set")
    assert main(["scan", str(place), "--json"]) == 0
    scanned = json.loads(capsys.readouterr().out)
    assert (scanned["layout"], scanned["pictures"], scanned["draws_per_epoch"]) == (layout, 6, draws)
    assert not [problem for problem in scanned["problems"] if problem["level"] == "error"]

    file = tmp_path / "run.json"
    main(["plan", str(place), "--save", str(file)])
    run = json.loads(file.read_text())
    assert {embedding["name"] for embedding in run["embeddings"]} == {"aoi", "hana"}
    run["schedule"] |= {"max_steps": 2, "batch_size": 2, "warmup_steps": 0}
    run["data"] |= {"resolution_px": 64, "bucket_step_px": 64}
    run["network"] |= {"unet_rank": 1, "te_rank": 1, "groups": []}
    run["saving"] |= {"sample_every_steps": 0, "separation_every_steps": 0, "state_every_steps": 0}
    run["name"] = "made"
    file.write_text(json.dumps(run))
    assert main(["train", str(file), "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out")]) == 0
    assert set(require(read_bundle(tmp_path / "out" / "made.safetensors")).embeddings) == {"aoi", "hana"}
