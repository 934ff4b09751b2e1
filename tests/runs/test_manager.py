"""Runs in a process that goes on, on tiny real models: started, watched, paused, stopped, gone on with."""

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from PIL import ImageStat

from lib_pivotal.commands.datasets import scan_pictures
from lib_pivotal.config import DataConfig, run_from_dict
from lib_pivotal.data.dataset import scan
from lib_pivotal.errors import ConfigError, HostError
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.runs.plan import make_plan
from lib_pivotal.runs.run_log import last_traceback
from lib_pivotal.training.step import MicroStep
from tests.training.runs import contents


class TinyBackend:
    """A process with one lock around one tiny model."""

    def __init__(self, host, folder):
        self._host = host
        self._folder = folder
        self._lock = threading.Lock()
        self.saved = []
        self.visits = 0
        self.visitor = None
        self.refusal = ""
        self.writers = ()

    def checkpoint(self):
        return "tiny"

    def lora_folder(self):
        return self._folder / "lora"

    def runs_folder(self):
        return self._folder / "runs"

    def taken_names(self):
        return {}

    def token_ids(self, text):
        return []

    def loader_problems(self, path):
        return []

    def token_tables(self):
        return None

    def unet_shape(self, path):
        return None

    def clip_skip(self):
        return 1

    def set_live(self, on):
        pass

    def live_name(self):
        return ""

    @contextmanager
    def exclusive(self, run):
        with self._lock:
            yield self._host

    def model_yield(self):
        return self

    def wanted(self):
        return self.visitor is not None

    def serve(self, terms):
        self.visits += 1
        if self.visitor is not None:
            visitor, self.visitor = self.visitor, None
            visitor()
        terms.wait()

    def adjusted(self, run):
        return run

    def model_info(self):
        return None

    def scanned_as(self, data):
        return data

    def check_ready(self):
        if self.refusal:
            raise HostError(self.refusal)

    def load_checkpoint(self):
        pass

    def farewell(self):
        return "all is well"

    def bundle_saved(self, path):
        self.saved.append(path)

    def taggers(self):
        return self.writers


@pytest.fixture
def backend(tiny_host, tmp_path):
    return TinyBackend(tiny_host, tmp_path)


@pytest.fixture
def manager(backend):
    made = RunManager(backend)
    yield made
    made.stop()
    assert made.join(60)


@pytest.fixture
def run(two_embeddings_folder):
    return run_from_dict(
        {
            "name": "two",
            "words": [{"name": "aoi", "vectors": 2}, {"name": "hana", "vectors": 2}],
            "network": {"unet_rank": 2, "unet_lr": 1e-3},
            "data": {"folder": str(two_embeddings_folder), "resolution_px": 64},
            "schedule": {"max_steps": 6, "batch_size": 2},
            "saving": {"state_every_steps": 0, "dtype": "fp32"},
        }
    )


def endless(run):
    return replace(run, schedule=replace(run.schedule, max_steps=100_000))


def wait_for(condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def test_run_from_start_to_file(manager, backend, run):
    view = manager.start(run)
    assert manager.join(120)
    shown = view.snapshot()
    assert shown["status"] == "finished" and shown["step"] == 6
    assert shown["loss"]["steps"] == [1, 2, 3, 4, 5, 6]
    assert set(shown["embedding_norms"]) == {"aoi", "hana"}
    assert backend.saved == [backend.lora_folder() / "two.safetensors"] and backend.saved[0].is_file()
    assert shown["notices"][-1]["message"] == "all is well"
    assert (view.folder / "two.run.json").is_file() and (view.folder / "two.events.jsonl").is_file()
    json.dumps(shown, allow_nan=False)
    assert manager.view("current") is manager.view(view.run_id) is view


def test_one_run_at_a_time(manager, run):
    manager.start(endless(run))
    with pytest.raises(HostError, match="in progress already"):
        manager.start(run)
    with pytest.raises(HostError, match="run is in progress"):
        manager.preflight(run)


def test_faults_before_anything_starts(manager, run):
    with pytest.raises(ConfigError, match="warmup"):
        manager.start(replace(run, schedule=replace(run.schedule, warmup_steps=60)))
    assert manager.current is None
    with pytest.raises(HostError, match="no run"):
        manager.view("current")


def test_what_cannot_be_trained_is_refused_at_once(manager, backend, run):
    backend.refusal = "this is an inpainting checkpoint"
    for attempt in (manager.start, manager.preflight):
        with pytest.raises(HostError, match="inpainting"):
            attempt(run)
    assert manager.current is None


def test_folder_without_pictures_is_told(manager, run, tmp_path):
    view = manager.start(replace(run, data=replace(run.data, folder=str(tmp_path / "nowhere"))))
    assert manager.join(60)
    shown = view.snapshot()
    assert shown["status"] == "failed" and "does not exist" in shown["ended"]["message"]
    assert (
        last_traceback((view.folder / "two.log").read_text())
        .splitlines()[-1]
        .startswith("lib_pivotal.errors.DataError")
    )


def test_pause_stop_and_go_on_equal_an_undisturbed_run(manager, backend, run):
    from safetensors.torch import load_file

    run = replace(run, schedule=replace(run.schedule, max_steps=40))
    manager.start(run)
    assert manager.join(120)
    undisturbed = load_file(backend.saved[-1])
    view = manager.start(run, overwrite=True)
    wait_for(lambda: view.step >= 3)
    manager.pause()
    wait_for(lambda: view.snapshot()["status"] == "paused")
    step = view.step
    time.sleep(0.2)
    assert view.step == step
    manager.resume()
    wait_for(lambda: view.step > step)
    manager.stop()
    assert manager.join(60) and view.snapshot()["status"] == "stopped"
    assert manager.resumable()[0] == view.folder
    again = manager.resume_folder(view.folder)
    assert manager.join(120) and again.snapshot()["status"] == "finished"
    resumed = load_file(backend.saved[-1])
    assert all(torch.equal(undisturbed[key], resumed[key]) for key in undisturbed)


def test_visitor_finds_the_model_bare(manager, backend, run, tiny_host):
    unet = tiny_host.denoiser.unet
    view = manager.start(endless(run))
    wait_for(lambda: view.step >= 2)
    seen = []
    backend.visitor = lambda: seen.append(sum(len(module._forward_hooks) for module in unet.modules()))
    wait_for(lambda: seen)
    assert seen == [0]
    wait_for(lambda: view.step >= 5)


def test_exception_in_a_step_is_told_and_saved(manager, backend, run, monkeypatch):
    original = MicroStep.losses

    def losses(micro_step, *arguments, seeds, **rest):
        if seeds[1] == 3:
            raise RuntimeError("a fault for the test")
        return original(micro_step, *arguments, seeds=seeds, **rest)

    monkeypatch.setattr(MicroStep, "losses", losses)
    view = manager.start(run)
    assert manager.join(60)
    shown = view.snapshot()
    assert shown["status"] == "failed" and "a fault for the test" in shown["ended"]["message"]
    assert backend.saved and backend.saved[0].is_file()
    told = last_traceback((view.folder / "two.log").read_text()).splitlines()
    assert told[-1] == "RuntimeError: a fault for the test" and any("in losses" in line for line in told)


def test_preflight_tells_time_and_draws(manager, backend, run):
    found = manager.preflight(run)
    assert found.step_s > 0 and found.total_s == pytest.approx(6 * found.step_s)
    assert found.memory_bytes == sum(found.memory_parts.values()) and found.memory_fits is not False
    assert {"U-Net", "text encoder", "network", "embeddings"} <= set(found.memory_parts)
    assert sum(found.samples.values()) >= 12
    plan = make_plan(scan(run.data.folder), run)
    assert found.samples == pytest.approx({embedding.name: embedding.samples for embedding in plan.embeddings})
    few = [warning.text for warning in plan.warnings if warning.kind == "few_draws"]
    assert few and all(text in found.remarks for text in few)
    assert not backend.saved and not backend.runs_folder().exists()
    nameless = replace(run, embeddings=(replace(run.embeddings[0], name="nobody"),))
    assert manager.preflight(nameless).faults[0].field == "embeddings.0.name"


def test_preflight_takes_class_pictures_along(manager, run, two_embeddings_folder):
    kept = with_class(run, two_embeddings_folder, target="prior", preservation=0.5)
    alone, beside = manager.preflight(run), manager.preflight(replace(kept, data=replace(kept.data, flip=True)))
    assert alone.faults == beside.faults == () and beside.step_s > alone.step_s


def with_class(run, folder, **settings):
    return replace(run, regularisation=replace(run.regularisation, folder=str(folder), **settings))


def test_class_pictures_are_made_beside_whoever_wants_the_model(manager, backend, run, tmp_path):
    wanted = with_class(run, tmp_path / "class", prompts=("1girl", "1boy"), count=3)
    visits = []
    backend.visitor = lambda: visits.append(manager.running)
    view = manager.make_class_pictures(wanted)
    with pytest.raises(HostError, match="a run is in progress"):
        manager.start(run)
    assert manager.join(60) and visits == [True] and backend.visits == 1
    told = view.snapshot()
    assert told["status"] == "finished" and told["ended"]["message"].startswith("3 of 3 class pictures are in")
    assert len(list((tmp_path / "class").glob("*.png"))) == 3 and told["step"] == told["max_steps"] == 3
    assert backend.saved == [] and manager.resumable() == []
    trained = manager.start(wanted)
    assert manager.join(120) and trained.snapshot()["status"] == "finished"


def test_class_pictures_can_be_stopped_and_gone_on_with(manager, run, tmp_path):
    wanted = with_class(run, tmp_path / "class", prompts=("1girl",), count=400)
    view = manager.make_class_pictures(wanted)
    wait_for(lambda: any((tmp_path / "class").glob("*.png")))
    manager.stop()
    assert manager.join(60) and view.snapshot()["status"] == "stopped"
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "class").glob("*.png")}
    assert 0 < len(made) < 400
    again = manager.make_class_pictures(with_class(run, tmp_path / "class", prompts=("1girl",), count=len(made) + 1))
    assert manager.join(60) and again.snapshot()["status"] == "finished"
    assert all(path.stat().st_mtime_ns == when for path, when in made.items())


def test_class_pictures_without_folder_or_prompts(manager, backend, run, tmp_path):
    with pytest.raises(ConfigError, match=r"regularisation\.folder"):
        manager.make_class_pictures(run)
    (tmp_path / "file").write_text("x")
    with pytest.raises(HostError, match="cannot be made"):
        manager.make_class_pictures(with_class(run, tmp_path / "file" / "below", prompts=("1girl",)))
    backend.refusal = "SD3 cannot be trained"
    with pytest.raises(HostError, match="SD3"):
        manager.make_class_pictures(with_class(run, tmp_path / "class", prompts=("1girl",)))


class Colours:
    """A tagger that says which channel of a picture is the strongest."""

    name, title = "colours", "Colours: the strongest channel"

    def missing(self):
        return ""

    def __call__(self, picture):
        means = ImageStat.Stat(picture).mean
        return ("red", "green", "blue")[means.index(max(means))]


def test_missing_captions_are_written(manager, backend, run, two_embeddings_folder):
    (two_embeddings_folder / "aoi_1.txt").unlink()
    backend.writers = (Colours(),)
    view = manager.write_captions(DataConfig(folder=str(two_embeddings_folder)), "colours")
    assert manager.join(60)
    told = view.snapshot()
    assert told["status"] == "finished" and told["ended"]["message"].startswith("1 of 1 missing captions")
    assert (two_embeddings_folder / "aoi_1.txt").read_text() in ("red", "green", "blue")
    with pytest.raises(HostError, match="no such tagger. There is colours"):
        manager.write_captions(DataConfig(folder=str(two_embeddings_folder)), "blip")
    backend.writers = ()
    with pytest.raises(HostError, match="only in the web UI"):
        manager.write_captions(DataConfig(folder=str(two_embeddings_folder)), "colours")


def test_names_of_files_are_captions_as_the_process_says(manager, backend, run, two_embeddings_folder, monkeypatch):
    monkeypatch.setattr(backend, "scanned_as", lambda data: replace(data, name_words="[a-z]+", name_join=" + "))
    (two_embeddings_folder / "aoi_1.txt").unlink()
    (two_embeddings_folder / "aoi_1.png").rename(two_embeddings_folder / "aoi_red_1.png")
    view = manager.start(run)
    assert manager.join(60) and view.snapshot()["status"] == "finished"
    kept = run_from_dict(json.loads(next(view.folder.glob("*.run.json")).read_text()))
    assert (kept.data.name_words, kept.data.name_join) == ("[a-z]+", " + ")
    assert scan_pictures(kept.data)["aoi_red_1.png"].caption == "aoi + red"


def interrupted(manager, run):
    view = manager.start(endless(run))
    wait_for(lambda: view.step >= 3)
    manager.stop()
    assert manager.join(60)
    return view.folder


def test_a_run_that_cannot_be_continued_leaves_its_folder_as_it_is(manager, run, tiny_host):
    """Neither its record nor its logs, plots and states are touched; and it does not start over."""
    folder = interrupted(manager, run)
    record = folder / "two.run.json"
    plain = json.loads(record.read_text())
    plain["network"]["unet_lr"] = 0.5
    record.write_text(json.dumps(plain))
    before = contents(folder)
    view = manager.resume_folder(folder)
    assert manager.join(60)
    shown = view.snapshot()
    assert shown["status"] == "failed" and "network.unet_lr was 0.001, is 0.5" in shown["ended"]["message"]
    assert shown["step"] == 0 and contents(folder) == before


def test_a_folder_without_states_is_not_started_over(manager, run):
    folder = interrupted(manager, run)
    for state in folder.glob("two.state/*/*"):
        state.unlink()
    assert folder not in manager.resumable()
    before = contents(folder)
    view = manager.resume_folder(folder)
    assert manager.join(60) and "no saved state" in view.snapshot()["ended"]["message"]
    assert contents(folder) == before


@pytest.mark.parametrize("place", ["farewell", "exclusive", "model_yield"])
def test_whatever_fails_around_a_run_it_ends_by_an_event(place, manager, backend, run, monkeypatch):
    def failing(*arguments):
        raise ValueError("a fault for the test")

    monkeypatch.setattr(backend, place, failing)
    view = manager.start(run)
    assert manager.join(60)
    shown = view.snapshot()
    assert shown["ended"] and (shown["status"] == "finished" or "a fault for the test" in shown["ended"]["message"])


def test_logs_that_cannot_be_begun_do_not_end_the_run(manager, run, monkeypatch):
    from lib_pivotal.training import logs

    def failing(folder, name):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logs, "default_logs", failing)
    view = manager.start(run)
    assert manager.join(60)
    shown = view.snapshot()
    assert shown["status"] == "finished" and any("no logs" in notice["message"] for notice in shown["notices"])
