"""Runs whose embeddings' names mean something elsewhere, too: every embedding learns, and learns the same as ever.

Each test makes pictures, before the run or in the middle of it, in which the names of the run stand for a bundle's
words or the embeddings folder's; then the run's file must be, to the bit, that of the run that nothing disturbed.
"""

from __future__ import annotations

import contextlib
import csv
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.config import Run, run_from_dict, run_to_dict
from tests.conftest import write_pictures
from tests.live.conftest import (
    Family,
    Installation,
    RequestFailedError,
    TinyCheckpoints,
    WebUI,
    add_probe,
    no_live_previews,
    running,
)
from tests.live.material import Material
from tests.live.situations import Situation
from tests.live.test_names import HIRES

pytestmark = [pytest.mark.webui, pytest.mark.slow]

NAMES = ("akavell", "orinth")
STEPS = 8
PAUSED_AT = 3


@pytest.fixture(scope="module")
def probed_webui(
    installation: Installation,
    checkpoint: Path,
    tiny_checkpoints: TinyCheckpoints,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[WebUI]:
    """With this extension and routes that take it back and put it in place again."""

    def prepare(data: Path) -> None:
        add_probe(data)
        tiny_checkpoints.lay_out_families(data)

    folder = tmp_path_factory.mktemp("names_training")
    with running(installation, checkpoint, folder, linked=True, prepare=prepare) as webui:
        no_live_previews(webui)
        yield webui


@pytest.fixture(scope="module")
def run(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two embeddings of one vector each, which begins as `red`'s row of the vocabulary."""
    captions = {f"{number}": f"{NAMES[number % 2]}, smile, park" for number in range(4)}
    folder = write_pictures(tmp_path_factory.mktemp(f"pictures_{family.name}"), captions)
    return run_from_dict(
        {
            "name": "undisturbed",
            "words": [{"name": name, "init_text": "red", "vectors": 1} for name in NAMES],
            "words_common": {"lr": 0.01, "control": "none"},
            "network": {"unet_rank": 2, "te_targets": "none"},
            "data": {"folder": str(folder), "resolution_px": 64, "bucketing": False},
            "schedule": {"max_steps": STEPS, "batch_size": 2},
            "saving": {"state_every_steps": 0, "dtype": "fp32"},
        }
    )


@dataclass(frozen=True, eq=False)
class Trained:
    """How a run ended."""

    view: dict[str, Any]

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """Of its file."""
        return load_file(self.view["ended"]["bundle"])

    @property
    def steps(self) -> list[dict[str, str]]:
        """Lines of steps.csv."""
        name = Path(self.view["ended"]["bundle"]).stem
        with (Path(self.view["folder"]) / f"{name}.steps.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


@dataclass(eq=False)
class Session(Situation):
    """A web UI in which runs are trained and pictures made of the runs' names."""

    files: tuple[str, ...] = ()

    def start(self, run: Run) -> str:
        return str(self.webui.call("/pivotal/v1/runs", {**run_to_dict(run), "overwrite": True})["id"])

    def wait(self, run_id: str, ready: Callable[[dict[str, Any]], bool] = lambda view: False) -> dict[str, Any]:
        """Until the run has ended, or is `ready`."""
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            view = self.webui.call(f"/pivotal/v1/runs/{run_id}")
            if view["ended"] or ready(view):
                return view  # type: ignore[no-any-return]
            time.sleep(0.1)
        raise AssertionError(f"the run did not get there: {view}\n{self.webui.log_text()[-3000:]}")

    def ended(self, run_id: str) -> Trained:
        view = self.wait(run_id)
        assert view["status"] == "finished", view["ended"]
        return Trained(view)

    def train(self, run: Run) -> Trained:
        return self.ended(self.start(run))

    @contextlib.contextmanager
    def paused(self, run_id: str) -> Iterator[None]:
        """The run waits in the middle, and goes on after."""
        self.wait(run_id, lambda view: view["step"] >= PAUSED_AT)
        self.webui.call(f"/pivotal/v1/runs/{run_id}/pause", {})
        view = self.wait(run_id, lambda view: view["status"] == "paused")
        assert PAUSED_AT <= view["step"] < STEPS, "pictures were to be made in the middle of the run"
        try:
            yield
            assert not self.webui.call(f"/pivotal/v1/runs/{run_id}")["ended"]
        except BaseException:
            self.webui.call(f"/pivotal/v1/runs/{run_id}/stop", {})
            self.wait(run_id)
            raise
        self.webui.call(f"/pivotal/v1/runs/{run_id}/resume", {})

    def tag(self, number: int = 0, kind: str = "lora") -> str:
        """Of one of two bundles that hold other words of the run's names."""
        while len(self.files) <= number:
            embeddings = {name: self.vectors(60 + 10 * len(self.files) + place) for place, name in enumerate(NAMES)}
            self.files = (*self.files, self.bundle(embeddings, parts=("unet",)))
        return f"<{kind}:{self.files[number]}{':1' if kind == 'lora' else ''}>"

    @contextlib.contextmanager
    def in_the_folder(self, *names: str) -> Iterator[None]:
        """Files of these names in the embeddings folder; a picture has the web UI read them."""
        written = [self.webui.embeddings_folder / f"{name}.safetensors" for name in names]
        try:
            for number, name in enumerate(names):
                self.embedding(self.vectors(80 + number), name)
            self.picture("a face")
            known = self.webui.call("/sdapi/v1/embeddings")["loaded"]
            assert set(names) <= set(known)
            yield
        finally:
            for path in written:
                path.unlink(missing_ok=True)
            later = time.time() + 2 + next(self.counter)
            os.utime(self.webui.embeddings_folder, (later, later))
            self.picture("a face")
            assert not set(names) & set(self.webui.call("/sdapi/v1/embeddings")["loaded"])

    def picture(self, prompt: str, **settings: Any) -> bytes:
        return self.pixels(prompt, **{"steps": 2, **settings})


@pytest.fixture(scope="module")
def shared_session(probed_webui: WebUI, family: Family, material: Material) -> Session:
    probed_webui.use(family.checkpoint.stem)
    return Session(probed_webui, material, family.checkpoint.stem)


@pytest.fixture(scope="module")
def undisturbed(shared_session: Session, run: Run) -> Trained:
    """The run before its names ever stood for anything else."""
    trained = shared_session.train(run)
    check_learned(trained, shared_session.material)
    return trained


@pytest.fixture
def s(shared_session: Session, undisturbed: Trained) -> Session:
    return shared_session


def check_learned(trained: Trained, material: Material) -> None:
    """Every embedding had a gradient in each step that had one of its pictures, and every tower of it has moved."""
    from lib_pivotal.standalone.tokenizer import clip_tokenizer

    red = clip_tokenizer()(["red"], truncation=False, add_special_tokens=False)["input_ids"][0]
    begun = [table[red].float() for table in material.vocabularies]
    embeddings = require(read_bundle(Path(trained.view["ended"]["bundle"]))).embeddings
    assert set(trained.view["images_seen"]) == set(embeddings) == set(NAMES)
    for name in NAMES:
        gradients = [float(row[f"grad word {name}"]) for row in trained.steps]
        with_pictures = [gradient for gradient in gradients if gradient > 0]
        assert len(trained.steps) == STEPS
        # two of four pictures are the embedding's, two are drawn a step: at least every other step has one
        assert len(with_pictures) >= STEPS // 2, gradients
        for tower, before in zip(embeddings[name], begun, strict=True):
            assert (tower.float() - before).abs().max() > 1e-3, name
    assert [notice for notice in trained.view["notices"] if notice["level"] == "error"] == []


def check_the_same(trained: Trained, undisturbed: Trained, material: Material) -> None:
    check_learned(trained, material)
    ours, expected = trained.tensors, undisturbed.tensors
    assert ours.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(ours[key], expected[key])] == []


# ---- ways to make pictures in which the names stand for something else


def plain(s: Session) -> None:
    s.picture(f"{s.tag()} {NAMES[0]} and {NAMES[1]}")


def embeddings_tag(s: Session) -> None:
    s.picture(f"{s.tag(kind='words')} {NAMES[0]} and {NAMES[1]}")


def negative(s: Session) -> None:
    s.picture(f"{s.tag()} a face", negative_prompt=", ".join(NAMES))


def image_to_image(s: Session) -> None:
    start = s.webui.txt2img("a face", steps=2).encoded()
    body = {"init_images": [start], "denoising_strength": 0.8, "width": 64, "height": 64, "steps": 3}
    s.webui.call("/sdapi/v1/img2img", {**body, "prompt": f"{s.tag()} {NAMES[0]}, {NAMES[1]}"})


def hires(s: Session) -> None:
    second = f"{s.tag()} {NAMES[0]}, {NAMES[1]}"
    s.picture(f"{s.tag()} {NAMES[0]}", **{**HIRES, "hr_second_pass_steps": 2, "hr_prompt": second})


def batches(s: Session) -> None:
    s.picture(f"{s.tag()} {NAMES[0]}, {NAMES[1]}", n_iter=2, batch_size=2)


def script(s: Session) -> None:
    settings = {"script_name": "prompt matrix", "script_args": [False, False, "positive", "comma", 0]}
    s.webui.ask_txt2img(f"{s.tag()} {NAMES[0]}|{NAMES[1]}", steps=2, batch_size=2, **settings)


def interrupted(s: Session) -> None:
    prompt = f"{s.tag()} {NAMES[0]}, {NAMES[1]}"
    making = threading.Thread(target=lambda: s.picture(prompt, steps=150, n_iter=8))
    making.start()
    while making.is_alive() and s.webui.call("/sdapi/v1/progress")["state"]["sampling_step"] < 2:
        time.sleep(0.02)
    assert making.is_alive(), "it was to be broken off"
    s.webui.call("/sdapi/v1/interrupt", {})
    making.join(60)


def failing(s: Session) -> None:
    """A scale beyond fp32: the web UI raises "A tensor with NaNs", long after names were settled."""
    with pytest.raises(RequestFailedError, match="NansException"):
        s.picture(f"{s.tag()} {NAMES[0]}, {NAMES[1]}", cfg_scale=1e39, steps=4)


def two_bundles(s: Session) -> None:
    s.picture(f"{s.tag(0)}{s.tag(1)} {NAMES[0]}, {NAMES[1]}@{s.files[1]}")
    s.picture(f"{s.tag(1)}{s.tag(0)} {NAMES[0]}, {NAMES[1]}")


def switched_off_after(s: Session) -> None:
    """The networks stay loaded; their words must not hold."""
    s.picture(f"{s.tag()} {NAMES[0]}, {NAMES[1]}")
    s.picture(f"{NAMES[0]}, {NAMES[1]}", disable_extra_networks=True)


def reloaded_after(s: Session) -> None:
    """As "Reload UI" does: patches taken back, and put in place anew."""
    s.picture(f"{s.tag()} {NAMES[0]}, {NAMES[1]}")
    s.webui.call("/probe/unregister")
    s.webui.call("/probe/register")


WAYS = (
    plain,
    embeddings_tag,
    negative,
    image_to_image,
    hires,
    batches,
    script,
    interrupted,
    failing,
    two_bundles,
    switched_off_after,
    reloaded_after,
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_pictures_before_a_run(s: Session, run: Run, undisturbed: Trained, way: Callable[[Session], None]) -> None:
    way(s)
    check_the_same(s.train(replace(run, name="after")), undisturbed, s.material)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_pictures_during_a_run(s: Session, run: Run, undisturbed: Trained, way: Callable[[Session], None]) -> None:
    run_id = s.start(replace(run, name="during"))
    with s.paused(run_id):
        way(s)
    check_the_same(s.ended(run_id), undisturbed, s.material)


def test_pictures_without_a_pause(s: Session, run: Run, undisturbed: Trained) -> None:
    """The run steps aside for each of them."""
    run_id = s.start(replace(run, name="aside"))
    for kind in ("lora", "words"):
        s.picture(f"{s.tag(kind=kind)} {NAMES[0]}, {NAMES[1]}")
    check_the_same(s.ended(run_id), undisturbed, s.material)


def test_trained_drawn_and_trained_again(s: Session, run: Run, undisturbed: Trained) -> None:
    """The file of the first run is what the names stand for before and while the second one trains."""
    s.train(replace(run, name="again"))
    prompt = f"<lora:again:1> {NAMES[0]}, {NAMES[1]}"
    first = s.picture(prompt)
    run_id = s.start(replace(run, name="again"))
    with s.paused(run_id):
        assert s.picture(prompt) == first
    check_the_same(s.ended(run_id), undisturbed, s.material)
    assert s.picture(prompt) == first, "the same file was trained again"


FOLDERS = {
    "the same name": (NAMES[0], NAMES[1]),
    "in capitals": (NAMES[0].upper(), NAMES[1].capitalize()),
    "longer names": (f"{NAMES[0]}, smile", f"{NAMES[1]}, smile, park"),
    "text around it": ("smile, park", "smile"),
}


@pytest.mark.parametrize("names", FOLDERS.values(), ids=FOLDERS)
def test_the_embeddings_folder(s: Session, run: Run, undisturbed: Trained, names: tuple[str, ...]) -> None:
    """What lies there before the run, and what comes while it trains."""
    with s.in_the_folder(*names):
        s.picture(f"{NAMES[0]}, smile, park and {NAMES[1]}, smile, park")
        check_the_same(s.train(replace(run, name="folder")), undisturbed, s.material)
        with s.options({"pivotal_name_priority": "the embeddings folder"}):
            plain(s)
            check_the_same(s.train(replace(run, name="folder")), undisturbed, s.material)
    run_id = s.start(replace(run, name="folder"))
    with contextlib.ExitStack() as stack:
        with s.paused(run_id):
            stack.enter_context(s.in_the_folder(*names))
        check_the_same(s.ended(run_id), undisturbed, s.material)


def test_the_live_file(s: Session, run: Run, undisturbed: Trained) -> None:
    """Its words are the run's own names, and what stands in it is as old as the last turn."""
    run_id = s.start(replace(run, name="lively"))
    s.webui.call("/pivotal/v1/live", {"on": True})
    try:
        prompt = f"<lora:pivotal-live:1> {NAMES[0]}, {NAMES[1]}"
        with s.paused(run_id):
            drawn = s.picture(prompt)
            assert drawn != s.picture(f"{NAMES[0]}, {NAMES[1]}")
            plain(s)
            assert s.picture(prompt) == drawn
            s.picture(f"{s.tag(kind='words')}{prompt}")
        check_the_same(s.ended(run_id), undisturbed, s.material)
    finally:
        s.webui.call("/pivotal/v1/live", {"on": False})


def test_samples_of_a_run_show_its_own_embeddings(s: Session, run: Run, undisturbed: Trained) -> None:
    """Whatever a prompt, a bundle or the folder says of their names: the same pictures as of the undisturbed run."""
    drawing = {"sample_every_steps": STEPS, "sample_prompts": ("{word}, smile",), "sample_embeddings": (NAMES[0],)}
    run = replace(run, name="drawn", saving=replace(run.saving, **drawing))

    def rows(trained: Trained) -> dict[str, bytes]:
        cells = trained.view["pictures"][-1]["rows"]
        return {label: Image.open(paths[0]).convert("RGB").tobytes() for label, paths in cells.items()}

    expected = rows(s.train(run))
    assert len(expected) == 4
    with s.in_the_folder(NAMES[0], f"{NAMES[0]}, smile"):
        two_bundles(s)
        run_id = s.start(run)
        with s.paused(run_id):
            plain(s)
        trained = s.ended(run_id)
    check_the_same(trained, undisturbed, s.material)
    assert rows(trained) == expected


def test_names_hold_for_their_own_pictures_only(s: Session) -> None:
    """After a picture with the tag the name is plain text again, by every way to make pictures."""
    name, other = NAMES
    without, again = s.picture(f"{name} face"), s.picture(f"{other} face", negative_prompt=name)
    for way in WAYS:
        way(s)
        assert s.picture(f"{name} face") == without, way.__name__
        assert s.picture(f"{other} face", negative_prompt=name) == again, way.__name__
    s.picture(f"{s.tag()} {name} face")
    assert s.picture(f"{name} face", disable_extra_networks=True) == s.picture(
        f"<lora:{s.files[0]}:1:words=0> {name} face"
    ), "the network stays, as the web UI has it; its words do not"
