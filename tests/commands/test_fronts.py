"""One rule and one sentence, whichever front is asked: where page, API and command line once differed."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lib_pivotal.bundle.embedding_files import write_embedding
from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.config import DataConfig, Run, run_from_dict
from lib_pivotal.errors import PivotalError
from lib_pivotal.standalone.cli import main
from lib_pivotal.training.state_files import new_run_folder, states_folder
from lib_pivotal.ui.compare_panel import _wanted
from lib_pivotal.ui.desk import Desk
from lib_pivotal.ui.shelf import Shelf
from lib_pivotal.ui.tab import build_tab
from tests.ui.browser import Browser
from tests.webui.test_api_paths import Site, site  # noqa: F401 (a fixture)


@pytest.fixture
def shelf(site: Site) -> Shelf:  # noqa: F811
    return Shelf(site.studio)


@pytest.fixture
def desk(site: Site) -> Desk:  # noqa: F811
    return Desk(site.manager)


@pytest.fixture
def line(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command line says: on stderr where it refuses, with status 2."""

    def call(*arguments: object) -> str:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:  # wrong use
            status = int(str(error.code))
        said = capsys.readouterr()
        return said.err if status == 2 else said.out

    return call


def refusal(act: Callable[[], Any]) -> str:
    with pytest.raises(PivotalError) as caught:
        act()
    return str(caught.value)


def detail(site: Site, path: str, body: Any) -> str:  # noqa: F811
    answer = site.post(path, body)
    assert 400 <= answer.status_code < 500, answer.text
    found = answer.json()["detail"]
    return str(found if isinstance(found, str) else found["message"])


def names(path: Path) -> set[str]:
    return {word.name for word in list_bundle(path).words}


# ---- folders ----


def test_no_folder_is_not_the_one_that_the_process_runs_in(site: Site, desk: Desk, line: Any) -> None:  # noqa: F811
    told = "Give the folder that holds the pictures"
    assert told in refusal(lambda: desk.scan(" "))
    for path in ("/scan", "/plan", "/captions", "/captions/preview", "/captions/write", "/captions/take_back"):
        assert told in detail(site, path, {"folder": " "}), path
    for verb in ("scan", "plan", "captions"):
        assert told in line(verb, ""), verb


def test_a_run_needs_a_folder(site: Site, desk: Desk, line: Any, tmp_path: Path) -> None:  # noqa: F811
    told = "Give the folder that holds the pictures"
    plain = site.run(data={"folder": ""})
    assert told in refusal(lambda: desk.start(run_from_dict(plain), []))
    assert told in detail(site, "/runs", plain) and told in detail(site, "/runs/preflight", plain)
    (tmp_path / "run.json").write_text(json.dumps(plain), encoding="utf-8")
    for verb in ("train", "preflight"):
        assert told in line(verb, tmp_path / "run.json", "--checkpoint", tmp_path / "absent")
    assert site.manager.current is None


# ---- bundles ----


@pytest.mark.parametrize("new", ["Aoi", "a.b"])
def test_a_name_that_no_embedding_may_have(site: Site, shelf: Shelf, line: Any, new: str) -> None:  # noqa: F811
    told = refusal(lambda: shelf.rename_word("one.safetensors", "aoi", new))
    assert repr(new) in told
    assert detail(site, "/bundles/rename", {"name": "one", "renames": {"aoi": new}}) == told
    assert told in line("bundle", "rename", site.lora("one"), f"aoi={new}")


def test_nothing_is_not_written_anew(site: Site, shelf: Shelf) -> None:  # noqa: F811
    before = site.tree()
    told = refusal(lambda: shelf.strip("one.safetensors", []))
    assert detail(site, "/bundles/strip", {"name": "one", "parts": []}) == told == "choose what to remove"
    told = refusal(lambda: shelf.delete_word("one.safetensors", ""))
    assert detail(site, "/bundles/delete", {"name": "one", "words": []}) == told
    assert detail(site, "/bundles/rename", {"name": "one", "renames": {}}) == told
    assert site.tree() == before


def test_a_file_is_joined_once(site: Site, shelf: Shelf, line: Any) -> None:  # noqa: F811
    one = site.lora("one")
    told = "is named twice. Name each file once"
    assert told in refusal(lambda: shelf.join("one.safetensors", ["one.safetensors"], "both"))
    assert told in detail(site, "/bundles/join", {"names": ["one", "one"], "new_name": "both"})
    assert told in line("bundle", "join", one, one, "--out", one.with_name("both.safetensors"))


def test_weights_of_files_that_are_joined(site: Site, line: Any) -> None:  # noqa: F811
    for stem, word in (("net1", "umi"), ("net2", "sora")):
        layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
        network = {f"{layer}.lora_down.weight": torch.ones(2, 8), f"{layer}.lora_up.weight": torch.ones(8, 2)}
        words = {f"bundle_emb.{word}.string_to_param.*": torch.ones(2, 768)}
        save_file({**network, **words, f"{layer}.alpha": torch.tensor(2.0)}, site.lora(stem))
    body = {"names": ["net1", "net2"], "new_name": "both"}
    assert "2 files but 1 weights" in detail(site, "/bundles/join", {**body, "weights": [0.5]})
    assert site.post("/bundles/join", {**body, "weights": "0.5"}).status_code == 422
    assert site.post("/bundles/join", {**body, "weights": [1, 0.5]}).is_success
    files, out = (site.lora("net1"), site.lora("net2")), site.lora("both2")
    line("bundle", "join", *files, "--out", out, "--weights", 1, 0.5)
    assert names(out) == names(site.lora("both")) == {"umi", "sora"}
    content = [path.read_bytes()[-64:] for path in (out, site.lora("both"))]
    assert content[0] == content[1]


def test_an_embedding_file_gives_a_name_in_lower_case(site: Site, shelf: Shelf, line: Any) -> None:  # noqa: F811
    site.cmd_opts.embeddings_dir = str(site.data / "embeddings")
    file = Path(site.cmd_opts.embeddings_dir) / "Kira.pt"
    file.parent.mkdir()
    write_embedding(file, (torch.ones(4, 768),), name="Kira", layout="a1111_pt")
    assert shelf.add_word("one.safetensors", file) == "kira was added."
    assert site.post("/bundles/add", {"name": "two", "embeddings": ["Kira"]}).is_success
    third = site.lora("three")
    line("bundle", "strip", site.lora("two"), "metadata", "--out", third)
    line("bundle", "delete", third, "kira")
    assert names(third) == {"hana"}
    line("bundle", "add", third, file)
    assert (names(site.lora("one")), names(site.lora("two")), names(third)) == (
        {"aoi", "kira"}, {"hana", "kira"}, {"hana", "kira"},
    )  # fmt: skip


@pytest.mark.parametrize("name", ["a,b", "x#y"])
def test_a_new_file_can_be_called_in_a_prompt(site: Site, shelf: Shelf, line: Any, name: str) -> None:  # noqa: F811
    before, one, out = site.tree(), site.lora("one"), site.lora(name)
    told = refusal(lambda: shelf.join("one.safetensors", ["two.safetensors"], name))
    assert detail(site, "/bundles/join", {"names": ["one", "two"], "new_name": name}) == told
    for arguments in (
        ("join", one, site.lora("two")), ("rename", one, "aoi=kaze"), ("delete", one, "aoi"), ("strip", one, "words"),
        ("convert", one, "--layout", "kohya"),
    ):  # fmt: skip
        assert told in line("bundle", *arguments, "--out", out), arguments
    assert site.tree() == before


def test_a_warning_leaves_a_file_sound(site: Site, shelf: Shelf, line: Any) -> None:  # noqa: F811
    verdict = shelf.verify("one.safetensors")
    assert verdict.sound and verdict.problems, "made by hand, it has no hashes"
    answer = site.post("/bundles/verify", {"name": "one"}).json()
    assert answer == verdict.as_dict()
    assert f"{site.lora('one')}: sound" in line("bundle", "verify", site.lora("one"))


def test_hidden_files_are_in_no_list(site: Site, shelf: Shelf, line: Any) -> None:  # noqa: F811
    site.lora("one").rename(site.lora(".one"))
    assert shelf.listing()[1] == ["two.safetensors"]
    assert ".one" not in line("bundle", "list", site.studio.lora_folder())


def test_a_file_is_shown_alike(site: Site, line: Any) -> None:  # noqa: F811
    shown = site.post("/bundles/show", {"name": "one"}).json()
    assert shown["words"][0]["name"] == "aoi" and "metadata" in shown
    assert json.loads(line("bundle", "show", site.lora("one"), "--json")) == shown


# ---- captions ----


def test_captions_are_written_as_they_were_shown(site: Site, line: Any) -> None:  # noqa: F811
    told = "have changed since the preview, so nothing was written. Show what would change again"
    browser = Browser(build_tab(site.manager))
    browser.set("pivotal_data_folder", str(site.pictures))
    browser.press("pivotal_scan")
    assert told in browser.press("pivotal_writing_write")["pivotal_writing_note"]
    body = {"folder": str(site.pictures), "digest": "0" * 64}
    assert told in detail(site, "/captions/write", body)
    told = "no captions of this folder were written from here, so there is nothing to take back"
    assert told in browser.press("pivotal_writing_back")["pivotal_writing_note"]
    assert told in detail(site, "/captions/take_back", {"folder": str(site.pictures)})
    assert told in line("captions", site.pictures, "--take-back")


# ---- runs ----


def test_a_finished_run_is_not_offered(site: Site, desk: Desk) -> None:  # noqa: F811
    from lib_pivotal.training.state import save_state

    for name, reason in (("one", "finished"), ("two", "stopped")):
        folder = site.studio.runs_folder() / name
        save_state(new_run_folder(states_folder(folder, name)), 10, {})
        (folder / f"{name}.events.jsonl").write_text(json.dumps({"event": "RunEnded", "reason": reason}) + "\n")
    assert desk.interrupted() == ["two"] == site.client.get("/pivotal/v1/runs/resumable").json()


def test_class_pictures_have_the_runs_own_clip_skip(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    made: list[int] = []

    def begin(run: Run) -> Any:
        made.append(run.clip_skip)
        raise PivotalError("seen")

    monkeypatch.setattr(site.studio, "adjusted", lambda run: replace(run, clip_skip=5))
    monkeypatch.setattr(site.manager, "make_class_pictures", begin)
    browser = Browser(build_tab(site.manager))
    browser.set("pivotal_clip_skip", 2)
    browser.press("pivotal_class_pictures")
    assert detail(site, "/runs/class_pictures", site.run(clip_skip=2)) == "seen"
    assert made == [2, 2]


def test_a_step_is_kept_by_page_and_api(site: Site, desk: Desk) -> None:  # noqa: F811
    from lib_pivotal.runs.view import RunView

    site.manager._view = view = RunView("x", "gekidol", max_steps=10, folder=site.data)
    step = {"step": 5, "bundle": str(site.lora("one"))}
    view.snapshot = lambda: {"name": "gekidol", "pictures": [step]}  # type: ignore[method-assign]
    target = site.lora("gekidol-000005")
    assert site.post("/runs/current/keep", {"step": 5}).json() == {"file": str(target)}
    assert "gekidol-000005" in desk.keep(5) and target.read_bytes() == site.lora("one").read_bytes()
    told = refusal(lambda: desk.keep(6))
    assert detail(site, "/runs/x/keep", {"step": 6}) == told
    assert site.post("/runs/nobody/keep", {"step": 5}).status_code == 404


# ---- pictures ----


@pytest.mark.parametrize(("name", "value"), [("size", 8), ("steps", 0), ("cfg", 99), ("seed", -1)])
def test_numbers_of_a_grid(site: Site, shelf: Shelf, line: Any, name: str, value: int) -> None:  # noqa: F811
    page = {"file": "one.safetensors", "words": [], "prompts": "", "negative": "", "weights": ""}
    numbers = {"size": 64, "steps": 2, "cfg": 7, "seed": 0, name: value}
    told = refusal(lambda: _wanted(shelf, {**page, **numbers}))
    assert told.startswith(name)
    assert detail(site, "/grid", {"name": "one", **numbers}) == told
    arguments = [text for key, number in numbers.items() for text in (f"--{key}", number)]
    assert told in line("grid", site.lora("one"), "--checkpoint", "absent", "--out", "x.png", *arguments)


def test_embeddings_of_a_grid(site: Site, shelf: Shelf, line: Any, tmp_path: Path) -> None:  # noqa: F811
    told = "one.safetensors has no embedding kaze; it has aoi"
    browser = Browser(build_tab(site.manager))
    browser.set("pivotal_compare_file", "one.safetensors")
    browser.set("pivotal_compare_words", ["kaze"])
    assert told in html.unescape(browser.press("pivotal_compare_draw")["pivotal_compare_said"])
    assert detail(site, "/grid", {"name": "one", "words": ["kaze"]}) == told
    arguments = ("grid", site.lora("one"), "--checkpoint", "absent", "--out", tmp_path / "x.png")
    assert told in line(*arguments, "--words", "kaze")
    assert "the limit is 200" in line(*arguments, *("--prompt", "x") * 60)
    assert "no checkpoint" in detail(
        site, "/grid", {"name": "one", "weights": [1, 0.5]}
    ), "all that it asks for is fine"


def test_what_is_planned_is_the_same(site: Site, line: Any) -> None:  # noqa: F811
    plain = site.post("/plan", {"folder": str(site.pictures), "mend": True}).json()
    own = json.loads(line("plan", site.pictures, "--fix", "--json"))
    assert plain["mended"] == own["mended"] and plain["draws"] == own["draws"]
    assert plain["run"]["data"]["folder"] == own["run"]["data"]["folder"] != DataConfig().folder
