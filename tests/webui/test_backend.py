"""Whose turn it is, where files go, what is known of names: and runs through it, on a tiny real checkpoint."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.config import DataConfig, Run, run_from_dict
from lib_pivotal.errors import HostError
from lib_pivotal.runs.manager import RunManager
from tests.conftest import write_pictures
from tests.webui.fake.install import FakeWebUI
from tests.webui.files import write_embedding, write_lora


@pytest.fixture
def backend(fake_webui: FakeWebUI) -> Any:
    fake_webui.load_extension()
    from lib_pivotal.webui.backend import WebUIBackend

    return WebUIBackend()


@pytest.fixture
def manager(backend: Any) -> Iterator[RunManager]:
    made = RunManager(backend)
    yield made
    made.stop()
    assert made.join(60)


@pytest.fixture
def run(fake_webui: FakeWebUI) -> Run:
    pictures = write_pictures(fake_webui.data / "pictures", {"aoi_1": "aoi, red", "aoi_2": "aoi, park"})
    return run_from_dict(
        {
            "name": "two",
            "words": [{"name": "aoi", "vectors": 2}],
            "network": {"unet_rank": 2, "unet_lr": 1e-3},
            "data": {"folder": str(pictures), "resolution_px": 64},
            "schedule": {"max_steps": 3, "batch_size": 1},
            "saving": {"state_every_steps": 0, "dtype": "fp32"},
        }
    )


def endless(run: Run) -> Run:
    return replace(run, schedule=replace(run.schedule, max_steps=100_000))


def wait_for(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def test_nothing_is_loaded_to_be_asked(fake_webui: FakeWebUI, backend: Any) -> None:
    assert backend.checkpoint() == ""
    assert backend.model_info() is None
    assert list(backend.token_ids("hana")) == []
    assert backend.prompts() is None
    backend.check_ready()
    assert fake_webui.sd_models.model_data.sd_model is None
    assert fake_webui.model is not None
    assert backend.checkpoint() == fake_webui.model.sd_checkpoint_info.title
    assert backend.model_info().family == "sd1"
    assert list(backend.token_ids("hana")) == fake_webui.model.cond_stage_model.tokenize(["hana"])[0]
    backend.check_ready()
    fake_webui.shared.cmd_opts.lowvram = True
    with pytest.raises(HostError, match="medvram"):
        backend.check_ready()


def test_prompts_are_read_by_the_loaded_checkpoint(fake_webui: FakeWebUI, backend: Any) -> None:
    assert fake_webui.model is not None
    reading = backend.prompts()
    assert list(reading.token_ids("a hana face")) == fake_webui.model.cond_stage_model.tokenize(["a hana face"])[0]
    fake_webui.opts.data["emphasis"] = "None"
    fake_webui.opts.data["comma_padding_backtrack"] = 5
    rules = backend.prompts().rules
    assert not rules.emphasis


def test_the_vocabulary_is_the_loaded_checkpoints(fake_webui: FakeWebUI, backend: Any) -> None:
    assert backend.token_tables() is None
    model = fake_webui.model
    [rows] = backend.token_tables().embed_text("red hair")
    [table] = [weight for name, weight in model.named_parameters() if name.endswith("token_embedding.wrapped.weight")]
    assert rows.equal(table[list(backend.token_ids("red hair"))])


def test_folders_and_names(fake_webui: FakeWebUI, backend: Any) -> None:
    assert backend.lora_folder() == fake_webui.lora_folder
    assert backend.runs_folder() == fake_webui.data / "pivotal_runs"
    fake_webui.opts.data["pivotal_runs_folder"] = "/elsewhere"
    assert backend.runs_folder() == Path("/elsewhere")
    write_lora(fake_webui, "one", {"Hana": 1})
    write_embedding(fake_webui, "Kira")
    assert backend.taken_names() == {"hana": "one.safetensors", "kira": "embeddings folder"}
    assert backend.clip_skip() == 1
    assert [tagger.name for tagger in backend.taggers()] == ["deepbooru", "blip"]


def test_choices_for_all_runs(fake_webui: FakeWebUI, backend: Any, run: Run) -> None:
    adjusted = backend.adjusted(run)
    assert (adjusted.saving.dtype, adjusted.clip_skip) == ("fp16", 1)
    fake_webui.opts.data |= {
        "pivotal_precision": "bf16",
        "pivotal_preview_every_steps": 50,
        "CLIP_stop_at_last_layers": 2,
    }
    adjusted = backend.adjusted(run)
    assert (adjusted.saving.dtype, adjusted.saving.sample_every_steps, adjusted.clip_skip) == ("bf16", 50, 2)


def test_file_names_are_read_by_the_web_uis_setting(
    fake_webui: FakeWebUI, backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data = DataConfig(folder="x")
    assert backend.scanned_as(data) == data
    fake_webui.opts.data |= {"dataset_filename_word_regex": r"[a-z]+", "dataset_filename_join_string": "_"}
    assert (backend.scanned_as(data).name_words, backend.scanned_as(data).name_join) == (r"[a-z]+", "_")
    own = replace(data, name_words=r"\d+")
    assert backend.scanned_as(own) == own
    fake_webui.opts.data["dataset_filename_word_regex"] = "["
    with caplog.at_level(logging.WARNING):
        assert backend.scanned_as(data) == data
    assert "not a regular expression" in caplog.text


def test_a_run_from_start_to_a_file_that_draws(fake_webui: FakeWebUI, manager: RunManager, run: Run) -> None:
    before = fake_webui.pixels("aoi")
    weights = {name: tensor.clone() for name, tensor in fake_webui.model.state_dict().items()}
    view = manager.start(run)
    assert manager.join(120)
    shown = view.snapshot()
    assert (shown["status"], shown["step"]) == ("finished", 3), shown["notices"]
    path = fake_webui.lora_folder / "two.safetensors"
    assert set(require(read_bundle(path)).embeddings) == {"aoi"}
    assert all(tensor.equal(weights[name]) for name, tensor in fake_webui.model.state_dict().items())
    assert "two" in fake_webui.networks.available_networks
    assert fake_webui.pixels("<lora:two:1>aoi") != before == fake_webui.pixels("aoi")
    assert not fake_webui.call_queue.queue_lock._lock.locked()


def test_a_picture_during_a_run(fake_webui: FakeWebUI, manager: RunManager, run: Run) -> None:
    """Whoever waits for the queue lock gets it, with the model as before; the live network is in the list."""
    expected = fake_webui.pixels("a face")
    manager.backend.set_live(True)
    view = manager.start(endless(run))
    wait_for(lambda: view.snapshot()["step"] >= 1)
    with fake_webui.call_queue.queue_lock:
        assert fake_webui.pixels("a face") == expected
        live = fake_webui.pixels(f"<lora:{manager.backend.live_name()}:1>aoi")
        assert live != fake_webui.pixels("aoi")
    step = view.snapshot()["step"]
    wait_for(lambda: view.snapshot()["step"] > step)
    manager.stop()
    assert manager.join(60)
    assert not (fake_webui.lora_folder / "pivotal-live.safetensors").exists()
    assert manager.backend.farewell() == ""


def test_another_checkpoint_during_a_run_waits_for_the_runs(
    fake_webui: FakeWebUI, manager: RunManager, run: Run
) -> None:
    fake_webui.add_checkpoint("sd1-second")
    assert fake_webui.model is not None
    view = manager.start(endless(run))
    wait_for(lambda: view.snapshot()["step"] >= 1)
    with fake_webui.call_queue.queue_lock:
        fake_webui.choose("sd1-second")
    wait_for(lambda: any("another checkpoint is loaded now" in note["message"] for note in view.snapshot()["notices"]))
    step = view.snapshot()["step"]
    manager.backend.load_checkpoint()
    assert fake_webui.model.sd_checkpoint_info.name_for_extra == "sd1"
    wait_for(lambda: view.snapshot()["step"] > step)
    manager.stop()
    assert manager.join(60)


def test_a_checkpoint_that_is_not_listed_any_more(fake_webui: FakeWebUI, manager: RunManager, run: Run) -> None:
    with pytest.raises(HostError, match="no run has the model"):
        manager.backend.load_checkpoint()
    view = manager.start(endless(run))
    wait_for(lambda: view.snapshot()["step"] >= 1)
    for table in (fake_webui.sd_models.checkpoints_list, fake_webui.sd_models.checkpoint_aliases):
        table.clear()
    with pytest.raises(HostError, match="not listed any more"):
        manager.backend.load_checkpoint()
    manager.stop()
    assert manager.join(60)


def test_a_live_network_that_cannot_be_written_holds_nobody_up(backend: Any, caplog: pytest.LogCaptureFixture) -> None:
    def failing(path: Path) -> Path:
        raise OSError("disk full")

    backend.write_live(failing)
    assert caplog.text == "", "it is not wanted"
    backend.set_live(True)
    backend.write_live(failing)
    assert "could not be written" in caplog.text
    backend.set_live(False)


def test_what_cannot_be_trained_leaves_the_lock_free(fake_webui: FakeWebUI, backend: Any, run: Run) -> None:
    fake_webui.shared.cmd_opts.lowvram = True
    with pytest.raises(HostError), backend.exclusive(run):
        raise AssertionError("not reached")
    taken = fake_webui.call_queue.queue_lock.acquire(blocking=False)
    assert taken
    fake_webui.call_queue.queue_lock.release()
    assert threading.active_count() >= 1


def test_problems_of_a_file_with_this_checkpoint(fake_webui: FakeWebUI, backend: Any) -> None:
    assert fake_webui.model is not None
    path = write_lora(fake_webui, "one", {"ha.na": 1}, parts=("unet",))
    assert any("other names" in str(each) or "refuses" in str(each) for each in backend.loader_problems(path))
    sound = write_lora(fake_webui, "two", {"hana": 1}, parts=("unet",))
    assert backend.loader_problems(sound) == []
    assert backend.unet_shape(sound) is not None
