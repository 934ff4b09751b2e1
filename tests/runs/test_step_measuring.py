"""Kept steps of a real tiny run, measured on its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_pivotal.commands import steps
from lib_pivotal.commands.runs import train
from lib_pivotal.config import run_from_dict
from lib_pivotal.errors import DataError, HostError
from lib_pivotal.runs.step_measuring import PICTURES, _chosen, measure_steps
from lib_pivotal.runs.step_records import step_records
from lib_pivotal.training.logs import JsonLinesLog


@pytest.fixture
def run(two_embeddings_folder):
    plain = {
        "name": "two",
        "embeddings": [{"name": "aoi"}, {"name": "hana"}],
        "network": {"unet_rank": 2, "unet_lr": 0.01},
        "data": {"folder": str(two_embeddings_folder), "resolution_px": 64},
        "schedule": {"max_steps": 4, "batch_size": 1},
        "saving": {"state_every_steps": 0, "dtype": "fp32", "every_steps": 2},
    }
    return run_from_dict(plain)


@pytest.fixture
def folder(run, tiny_host, tmp_path):
    made = tmp_path / "run"
    from lib_pivotal.training.events import FileSaved

    log, saved = JsonLinesLog(made / "two.events.jsonl"), []

    def listen(event):
        log(event)
        if isinstance(event, FileSaved):
            saved.append(event.path)

    made.mkdir()
    ended = train(run, tiny_host, output_folder=made, listener=listen)
    assert ended.reason == "finished" and len(saved) >= 2, ended.message
    return made


def weights(host):
    return {key: value.clone() for key, value in host.denoiser.unet.state_dict().items()}


def test_figures_of_each_step_are_kept_and_rank(run, folder, tiny_host):
    before = weights(tiny_host)
    records = step_records(folder)
    assert [one.step for one in records] == [2, 4]
    counted = []
    found = measure_steps(run, records, tiny_host, folder, progress=lambda done, total: counted.append((done, total)))
    assert counted == [(0, 2), (1, 2), (2, 2)]
    assert all(set(figures) == {"drift", "obedience", "diversity"} for figures in found.values())
    assert 0 < found[2]["drift"] < found[4]["drift"], "the network moves on"
    assert measure_steps(run, records, tiny_host, folder) == found, "fixed noise, pictures and seeds"
    assert json.loads((folder / "two.figures.json").read_text()) == {str(step): value for step, value in found.items()}
    ranking = steps.rank_steps(folder)
    assert set(ranking.figures) == {"drift", "obedience", "diversity"} and ranking.steps[0].score > 0
    after = weights(tiny_host)
    assert all(torch.equal(before[key], after[key]) for key in before), "the checkpoint is as it was"


def test_a_network_that_does_nothing_has_no_drift(run, folder, tiny_host):
    records = step_records(folder)
    tensors = load_file(records[0].file)
    silent = {key: value * 0 if "lora_up" in key else value for key, value in tensors.items()}
    save_file(silent, records[0].file)
    assert measure_steps(run, records[:1], tiny_host, folder)[2]["drift"] == 0.0


def test_a_few_pictures_of_each_embedding(run):
    chosen = _chosen(run, ())
    assert 2 <= len(chosen.latents.pictures) <= PICTURES
    first, second = (picture.caption.split(",")[0] for picture in chosen.latents.pictures[:2])
    assert {first, second} == {"aoi", "hana"}


def test_what_cannot_be_measured_is_told(run, folder, tiny_host, tmp_path):
    with pytest.raises(HostError, match="no step was kept"):
        steps.measure(tmp_path, tiny_host)
    for picture in Path(run.data.folder).iterdir():
        picture.unlink()
    with pytest.raises(DataError):
        steps.measure(folder, tiny_host)
