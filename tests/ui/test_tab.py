"""The whole page: it builds, its ids are its own, and every event answers as many values as it promised."""

import pytest

from lib_pivotal.config import Run, write_run
from lib_pivotal.runs.view import RunView
from lib_pivotal.ui.form import TABLE
from lib_pivotal.ui.tab import TabExtras, build_tab
from tests.ui.browser import Browser, element

PATHS = [entry.path for entry in TABLE]


@pytest.fixture
def blocks(manager):
    return build_tab(manager, extras=TabExtras(send_to_txt2img_js="(prompt) => prompt"))


@pytest.fixture
def browser(blocks):
    return Browser(blocks)


def test_ids_are_ours_and_used_once(blocks):
    ids = [block.elem_id for block in blocks.blocks.values() if getattr(block, "elem_id", None)]
    assert all(name.startswith("pivotal_") for name in ids)
    assert len(set(ids)) == len(ids)


def test_every_field_is_on_the_page(blocks):
    for entry in TABLE:
        assert element(blocks, entry.elem_id).label == entry.label


def test_nothing_goes_into_the_web_uis_config(blocks):
    assert all(block.do_not_save_to_config for block in blocks.blocks.values())


def test_no_event_blocks_the_queue_or_has_a_public_name(blocks):
    for dependency in blocks.dependencies:
        assert dependency["queue"] is False
        assert dependency["api_name"] in (False, None) or not dependency["backend_fn"]


def test_handlers_of_several_outputs_answer_by_component(blocks):
    for dependency, block in zip(blocks.dependencies, blocks.fns, strict=True):
        if len(dependency["outputs"]) > 1:
            assert block.fn.__annotations__["return"] == "Shown", block.fn


def test_scan_fills_the_form_and_shows_what_is_there(browser, pictures):
    browser.set("pivotal_data_folder", str(pictures))
    shown = browser.press("pivotal_scan")
    assert "9 pictures" in shown["pivotal_summary"] and shown["pivotal_gallery"].count("<figure") == 9
    run = browser.run()
    assert [embedding.name for embedding in run.embeddings] == ["aoi", "hana"] and run.data.resolution_px == 64
    assert run.name == "pictures"


def test_a_folder_that_is_not_there_changes_no_setting(browser):
    before = browser.run()
    browser.set("pivotal_data_folder", "nowhere")
    assert "does not exist" in browser.press("pivotal_scan")["pivotal_told"]
    assert browser.run().embeddings == before.embeddings


def test_faults_stand_in_words_and_by_field(browser, pictures):
    browser.set("pivotal_data_folder", str(pictures))
    browser.press("pivotal_scan")
    browser.set("pivotal_schedule_max_steps", -5)
    shown = browser.press("pivotal_check")
    assert "Steps" in shown["pivotal_feedback"] and "schedule.max_steps" in shown["pivotal_facts"]
    assert "Steps" in browser.press("pivotal_train")["pivotal_feedback"]
    assert browser.blocks is not None


def test_a_sound_run_starts_and_its_end_is_shown(browser, pictures, manager):
    browser.set("pivotal_data_folder", str(pictures))
    browser.press("pivotal_scan")
    assert "Before it starts" in browser.press("pivotal_train")["pivotal_feedback"]
    assert manager.join(20)
    browser.press("pivotal_refresh")
    assert "no checkpoint is loaded" in browser.value(element(browser.blocks, "pivotal_outcome")._id)


def test_class_pictures_from_the_page(browser, manager, tmp_path):
    answer = browser.press("pivotal_class_pictures")
    assert "regularisation.folder" in answer["pivotal_feedback"] and manager.current is None
    browser.set("pivotal_regularisation_folder", str(tmp_path / "class"))
    browser.set("pivotal_regularisation_prompts", "1girl")
    answer = browser.press("pivotal_class_pictures")
    assert "Class pictures are being made" in answer["pivotal_feedback"]
    assert manager.join(30) and "no checkpoint is loaded" in manager.current.snapshot()["ended"]["message"]


class Shouting:
    """A tagger; `reason` is why it cannot be used."""

    name, title = "shout", "Shouting: one word"

    def __init__(self, reason=""):
        self.reason = reason

    def missing(self):
        return self.reason

    def __call__(self, picture):
        return "PICTURE"


def test_missing_captions_from_the_page(backend, manager, pictures):
    backend.taggers = lambda: (Shouting(),)
    browser = Browser(build_tab(manager))
    assert element(browser.blocks, "pivotal_captions").visible
    assert "Give the folder that holds the pictures" in browser.press("pivotal_write_captions")["pivotal_captions_note"]
    browser.set("pivotal_data_folder", str(pictures))
    assert "being written" in browser.press("pivotal_write_captions")["pivotal_captions_note"]
    assert manager.join(30) and (pictures / "IMG_0001.txt").read_text() == "PICTURE"
    assert (pictures / "0.txt").read_text().startswith("aoi")
    backend.taggers = lambda: (Shouting("its model is not there: put x.pt into models"),)
    assert "put x.pt into models" in browser.press("pivotal_write_captions")["pivotal_captions_note"]


def test_without_taggers_nothing_is_offered(blocks):
    assert not element(blocks, "pivotal_captions").visible


def test_a_pulse_sends_only_what_changed(browser):
    browser.press("pivotal_refresh")
    again = browser.press("pivotal_refresh")
    sent = {name for name, value in again.items() if isinstance(value, str)}
    assert sent == {"pivotal_beat", "pivotal_send_text"}


def test_a_fresh_page_shows_the_run_that_was(browser, pictures, manager):
    browser.set("pivotal_data_folder", str(pictures))
    browser.press("pivotal_scan")
    browser.press("pivotal_train")
    manager.join(20)
    folder = manager.current.folder
    write_run(folder / "pictures.run.json", browser.run())
    other = Browser(build_tab(manager))
    other.press("pivotal_hello")
    assert other.run() == browser.run()


def test_presets_embeddings_and_commands_answer(browser, pictures, backend):
    browser.set("pivotal_data_folder", str(pictures))
    browser.press("pivotal_scan")
    browser.set("pivotal_preset", "Quick look")
    browser.press("pivotal_preset", "input")
    assert browser.run().network.unet_rank == 8
    browser.press("pivotal_add_word")
    assert len(browser.run().embeddings) == 3
    browser.set("pivotal_preset_name", "mine")
    assert "Saved" in browser.press("pivotal_preset_save")["pivotal_loaded"]
    browser.set("pivotal_preset", "mine")
    browser.press("pivotal_preset", "input")
    for name in ("stop", "pause", "save_now", "sample_now", "keep", "gallery_show", "lists", "resume_run"):
        browser.press(f"pivotal_{name}")
    browser.set("pivotal_live", True)
    browser.press("pivotal_live", "input")
    assert backend.live is True


class Upload:
    """What gradio hands over for an uploaded file."""

    def __init__(self, path):
        self.name = str(path)


def load(browser, path):
    """The server's side of the upload button, which needs a file object that JSON cannot carry."""
    target = element(browser.blocks, "pivotal_upload")._id
    dependency = next(d for d in browser.blocks.dependencies if target in d["targets"] and d["backend_fn"])
    function = browser.blocks.fns[browser.blocks.dependencies.index(dependency)].fn
    values = [browser.value(block) for block in dependency["inputs"][1:]]
    for block, value in function(Upload(path), *values).items():
        if not (isinstance(value, dict) and "__type__" in value):
            browser.values[block._id] = value
    return browser.value(element(browser.blocks, "pivotal_loaded")._id)


def test_settings_of_another_trainer_fill_the_form_and_are_reported(browser, pictures, tmp_path):
    browser.set("pivotal_data_folder", str(pictures))
    browser.press("pivotal_scan")
    embeddings = browser.run().embeddings
    path = tmp_path / "config.toml"
    path.write_text("network_dim = 12\nunet_lr = 3e-4\nresolution = 640\nfrobnicate = 1\n", encoding="utf-8")
    shown = load(browser, path)
    run = browser.run()
    assert (run.network.unet_rank, run.network.unet_alpha, run.data.resolution_px) == (12, 1.0, 640)
    assert run.embeddings == embeddings and run.data.folder == str(pictures), "what the file does not say stays"
    assert "Loaded from config.toml" in shown and "pivotal-import" in shown and "frobnicate" in shown


def test_a_file_that_is_nobodys_changes_nothing(browser, pictures, tmp_path):
    browser.set("pivotal_data_folder", str(pictures))
    before = browser.run()
    for name, text in (("x.json", '{"hello": 1}'), ("x.yaml", "a: ["), ("x.toml", "= 1"), ("x.json", "{")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        shown = load(browser, tmp_path / name)
        assert "pivotal-problems" in shown and "pivotal-import" not in shown
        assert browser.run() == before


def test_a_run_json_of_our_own_is_loaded_as_before(browser, pictures, tmp_path):
    browser.set("pivotal_data_folder", str(pictures))
    browser.press("pivotal_scan")
    run = browser.run()
    write_run(tmp_path / "a.json", run)
    browser.set("pivotal_network_unet_rank", 3)
    assert "pivotal-import" not in load(browser, tmp_path / "a.json")
    assert browser.run() == run


def test_a_run_that_waits_for_its_checkpoint_offers_to_load_it(browser, manager, tmp_path, backend):
    view = RunView("x", "gekidol", max_steps=10, folder=tmp_path)
    manager._view = view
    view.set_status("waiting", "another job has the model")
    assert not browser.press("pivotal_refresh")["pivotal_checkpoint"]["visible"]
    view.set_status("waiting", "another checkpoint is loaded now", needs_checkpoint=True)
    assert browser.press("pivotal_refresh")["pivotal_checkpoint"]["visible"]
    assert browser.press("pivotal_checkpoint")["pivotal_feedback"] == ""


def test_a_measure_without_a_model_says_why(browser, pictures):
    browser.set("pivotal_data_folder", str(pictures))
    browser.press("pivotal_scan")
    assert "no checkpoint is loaded" in browser.press("pivotal_preflight")["pivotal_feedback"]


def test_defaults_are_a_runs_defaults(browser):
    assert browser.run() == Run()


def test_memory_is_told_in_peoples_embeddings():
    from lib_pivotal.runs.preflight import Preflight
    from lib_pivotal.ui.train_panel import preflight_html

    parts = {"U-Net": 2 * 2**30, "network": 30 * 2**20}
    found = Preflight(
        step_s=1.0,
        total_s=60.0,
        memory_bytes=3 * 2**30,
        memory_free_bytes=2 * 2**30,
        memory_parts=parts,
        memory_moment="a step",
        memory_fits=False,
        remarks=("It fits with gradient checkpointing: 1.5 GB.",),
    )
    shown = preflight_html(found)
    for text in ("needs 3.0 GB", "does not fit", "2.0 GB available", "U-Net", "30.0 MB", "a step: 2.0 GB", "1.5 GB."):
        assert text in shown
    assert "one step takes" not in preflight_html(Preflight(memory_parts=parts, memory_moment="a step"))
