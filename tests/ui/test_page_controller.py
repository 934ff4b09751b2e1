"""The controller: scanning, proposing, checking, keeping a step, settings of before."""

import json

import pytest
from PIL import Image

from lib_pivotal.bundle.format import META_RUN
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.config import DataConfig, EmbeddingConfig, Run, run_to_dict, write_run
from lib_pivotal.errors import BundleError, ConfigError, DataError, HostError
from lib_pivotal.ports import ModelInfo
from lib_pivotal.runs.defaults import fitted_run
from lib_pivotal.runs.host_defaults import host_defaults_of
from lib_pivotal.runs.view import RunView
from lib_pivotal.training.events import PicturesMade
from lib_pivotal.training.state import save_state
from lib_pivotal.training.state_files import new_run_folder, states_folder
from lib_pivotal.ui.page import facts_of
from lib_pivotal.ui.page_controller import SCANS_KEPT, PageController


@pytest.fixture
def controller(manager):
    return PageController(manager)


def run_of(pictures, **changes):
    return Run(name="gekidol", embeddings=(EmbeddingConfig("aoi"),), data=DataConfig(folder=str(pictures)), **changes)


def test_a_folder_proposes_a_run(controller, pictures):
    found = controller.propose(Run(data=DataConfig(folder=str(pictures))))
    run, key, remarks = found.run, found.preset, found.remarks
    assert [embedding.name for embedding in run.embeddings] == ["aoi", "hana"]
    assert (run.name, run.data.resolution_px, key, remarks) == ("pictures", 64, "several", ())
    assert controller.check(run, []).faults == ()


def test_the_checkpoints_kind_decides_the_size_and_is_explained(controller, pictures):
    for number, path in enumerate(sorted(pictures.rglob("*.png"))):
        Image.new("RGB", (1100, 1000), (number, 9, 9)).save(path)
    assert controller.propose(Run(data=DataConfig(folder=str(pictures)))).run.data.resolution_px == 512
    controller.manager.backend.model = ModelInfo("big", "sdxl")
    assert controller.propose(Run(data=DataConfig(folder=str(pictures)))).run.data.resolution_px == 1024
    (remark,) = controller.check(run_of(pictures), []).remarks
    assert "512" in remark and "big (SDXL) is made for 1024" in remark


def test_fields_of_a_second_text_encoder_are_dimmed_where_there_is_none(controller, pictures):
    for family, idle in (("sd1", True), ("sd2", True), ("sdxl", False)):
        controller.manager.backend.model = ModelInfo("a", family)
        facts = facts_of(controller.check(run_of(pictures), []))
        assert ("network.te2_targets" in facts and "network.te2_lr" in facts) == idle, family


def test_the_desk_proposes_what_the_command_line_does(controller, pictures):
    run = Run(data=DataConfig(folder=str(pictures)))
    found = controller.propose(run).run
    around = host_defaults_of(controller.manager.backend)
    assert found == fitted_run(controller.dataset(str(pictures)), run, circumstances=around).run
    assert found == fitted_run(controller.dataset(str(pictures)), run).run  # nothing is loaded, and nothing chosen


def test_a_name_that_was_given_stays(controller, pictures):
    assert controller.propose(run_of(pictures)).run.name == "gekidol"


@pytest.mark.parametrize(("folder", "error"), [("", ConfigError), ("nowhere", DataError)])
def test_a_folder_that_is_not_there(controller, folder, error):
    with pytest.raises(error):
        controller.propose(Run(data=DataConfig(folder=folder)))


def test_only_the_last_scans_are_kept(controller, pictures, tmp_path):
    for number in range(SCANS_KEPT + 1):
        (tmp_path / str(number)).mkdir()
        controller.scan(str(tmp_path / str(number)))
    assert controller.dataset(str(tmp_path / "0")) is None and controller.dataset(str(tmp_path / "1")) is not None


def test_findings_speak_of_pictures_and_embeddings(controller, pictures):
    run = run_of(pictures)
    controller.scan(run.data.folder)
    found = controller.warnings(run)
    assert any(warning.kind == "no_word" and len(warning.keys) == 4 for warning in found)
    levels = [warning.severity for warning in found]
    assert levels == sorted(levels, key=["error", "warning", "info"].index)


def test_names_are_checked_once_and_again_after_a_scan(controller, pictures, monkeypatch):
    from lib_pivotal.runs import naming

    asked, ask = [], naming.name_issues
    monkeypatch.setattr(naming, "name_issues", lambda *given, **more: asked.append(given) or ask(*given, **more))
    run = run_of(pictures)
    controller.scan(run.data.folder)
    first = controller.warnings(run)
    assert controller.warnings(run) == first and len(asked) == 1
    controller.scan(run.data.folder)
    assert controller.warnings(run) == first and len(asked) == 2


def test_a_plan_that_cannot_be_made_leaves_what_files_say(controller, pictures):
    run = run_of(pictures)
    controller.scan(run.data.folder)
    assert controller.plan(run).samples == 6000
    bad = Run(embeddings=run.embeddings, data=DataConfig(folder=str(pictures), resolution_px=16, bucket_step_px=64))
    with pytest.raises(DataError):
        controller.plan(bad)
    assert controller.warnings(bad) and controller.samples(bad)["aoi"] > 0


def test_draws_follow_the_scan(controller, pictures):
    run = run_of(pictures)
    assert controller.check(run, []).samples == {"aoi": 0.0}
    controller.scan(run.data.folder)
    assert controller.check(run, []).samples["aoi"] == pytest.approx(1500 * 4 * 5 / 9)


@pytest.mark.parametrize(
    ("name", "level"), [("gekidol", "ok"), ("", "warning"), ("a/b", "error"), ("a,b", "error"), (".x", "error")]
)
def test_names_of_files(controller, name, level):
    assert controller.name_note(name)[0] == level


def test_a_file_that_is_there_is_told(controller, backend):
    (backend.lora_folder() / "gekidol.safetensors").write_bytes(b"")
    level, text = controller.name_note("gekidol")
    assert level == "warning" and "replaced" in text


def test_no_run_starts_with_a_fault(controller, pictures):
    with pytest.raises(ConfigError) as caught:
        controller.start(Run(name="a:b", embeddings=(EmbeddingConfig("aoi"),)), [])
    assert {fault.field for fault in caught.value.faults} == {"name", "data.folder"}
    assert controller.manager.current is None


def test_a_run_without_a_model_fails_in_words(controller, pictures):
    controller.start(run_of(pictures), [])
    assert controller.manager.join(20)
    shown = controller.snapshot()
    assert shown["status"] == "failed" and "no checkpoint is loaded" in shown["ended"]["message"]


def with_step(controller, tmp_path, bundle):
    view = RunView("x", "gekidol", max_steps=10, folder=tmp_path)
    view.listen(PicturesMade(5, None, None, ("aoi",), {}, bundle))
    controller.manager._view = view


def test_a_step_is_kept_as_a_file(controller, backend, tmp_path):
    bundle = tmp_path / "gekidol-000005.safetensors"
    bundle.write_bytes(b"bundle")
    with_step(controller, tmp_path, bundle)
    assert "<lora:gekidol-000005:1>" in controller.keep(5)
    target = backend.lora_folder() / "gekidol-000005.safetensors"
    assert target.read_bytes() == b"bundle" and backend.saved == [target]


def test_a_step_without_a_file_says_so(controller, tmp_path):
    with_step(controller, tmp_path, None)
    for step in (5, 6):
        with pytest.raises(HostError, match="no file to keep"):
            controller.keep(step)


def test_settings_of_a_run_json_and_of_a_bundle(controller, pictures, tmp_path):
    import torch

    run = run_of(pictures)
    write_run(tmp_path / "a.run.json", run)
    assert controller.settings_of(tmp_path / "a.run.json") == run
    embeddings = {"aoi": (torch.zeros(2, 8),)}
    metadata = {META_RUN: json.dumps(run_to_dict(run))}
    path = write_bundle(tmp_path / "a.safetensors", network={}, embeddings=embeddings, metadata=metadata)
    assert controller.settings_of(path) == run
    bare = write_bundle(tmp_path / "b.safetensors", network={}, embeddings=embeddings, metadata={})
    with pytest.raises(BundleError, match="carries no settings"):
        controller.settings_of(bare)


def test_the_last_runs_settings_are_remembered(controller, backend, pictures):
    assert controller.remembered() is None
    for name in ("20260101-000000-a", "20260102-000000-b"):
        folder = backend.runs_folder() / name
        folder.mkdir()
        write_run(folder / f"{name[-1]}.run.json", Run(name=name[-1], embeddings=(EmbeddingConfig("aoi"),)))
    assert controller.remembered().name == "b"


def test_finished_runs_are_not_offered_to_go_on(controller, backend):
    for name, reason in (("one", "finished"), ("two", "stopped")):
        folder = backend.runs_folder() / name
        save_state(new_run_folder(states_folder(folder, name)), 10, {})
        (folder / f"{name}.events.jsonl").write_text(
            json.dumps({"event": "RunStarted"}) + "\n" + json.dumps({"event": "RunEnded", "reason": reason}) + "\n"
        )
    assert controller.interrupted() == ["two"]


def test_another_caption_brings_its_other_lines(manager, pictures):
    """One that had alternatives keeps none that its file no longer holds."""
    controller = PageController(manager)
    dataset = controller.scan(str(pictures))
    key = dataset.pictures[0].key

    def found():
        picture = controller.dataset(str(pictures))[key]
        return picture.caption, picture.alternatives

    controller.recaption(str(pictures), key, ("aoi, sun", "aoi, rain"))
    assert found() == ("aoi, sun", ("aoi, rain",))
    controller.recaption(str(pictures), key, ("aoi, snow",))
    assert found() == ("aoi, snow", ())
    controller.recaption(str(pictures), key, ())
    assert found() == ("", ())
