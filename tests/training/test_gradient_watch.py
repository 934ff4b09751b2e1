"""An embedding that does not learn is told, once, and no other; also by a real run."""

from __future__ import annotations

import torch

from lib_pivotal.config import run_from_dict
from lib_pivotal.ports import TrainingBatch
from lib_pivotal.training.events import Notice, StepDone
from lib_pivotal.training.gradient_watch import PATIENCE_PICTURES, GradientWatch
from tests.conftest import write_pictures
from tests.training.runs import train
from tests.training.test_run import Recorder, plain_run, tensors_of

SILENT = {"word aoi": 0.0, "word hana": 0.5, "unet": 1.0}


def batch(*embeddings: tuple[str, ...], weights: tuple[float, ...] = ()) -> TrainingBatch:
    count = len(embeddings)
    weighed = torch.tensor(weights or (1.0,) * count)
    return TrainingBatch(torch.zeros(count, 4, 2, 2), [""] * count, None, weighed, ["k"] * count, [*embeddings])


def test_it_is_told_once_after_so_many_own_pictures() -> None:
    watch = GradientWatch(patience_pictures=4)
    both = [batch(("aoi",), ("hana",)), batch(("aoi", "hana"))]
    assert watch.after_step(both, SILENT, trained=["aoi", "hana"]) == []
    told = watch.after_step(both, SILENT, trained=["aoi", "hana"])
    assert len(told) == 1 and "'aoi'" in told[0] and "4 of its own pictures" in told[0]
    assert watch.after_step(both, SILENT, trained=["aoi", "hana"]) == []


def test_any_gradient_begins_the_count_anew() -> None:
    watch = GradientWatch(patience_pictures=2)
    for norms in (SILENT, SILENT | {"word aoi": 1e-12}, SILENT):
        assert watch.after_step([batch(("aoi",))], norms, trained=["aoi"]) == []
    assert watch.after_step([batch(("aoi",))], SILENT, trained=["aoi"])


def test_what_is_no_fault_does_not_count() -> None:
    watch = GradientWatch(patience_pictures=1)
    mine = [batch(("aoi",))]
    assert watch.after_step(mine, SILENT, trained=[]) == [], "frozen, or a phase that trains no embeddings"
    assert watch.after_step([batch(("hana",), ())], SILENT, trained=["aoi"]) == [], "none of its pictures was drawn"
    assert watch.after_step([batch(("aoi",), weights=(0.0,))], SILENT, trained=["aoi"]) == [], "they weigh nothing"
    assert watch.after_step(mine, {"unet": 1.0}, trained=["aoi"]) == [], "its gradient is not known"
    assert watch.after_step(mine, SILENT, trained=["aoi"])


def silent_run(folder, *, frozen: bool = False):
    """CLIP's tokenizer reads `'sora` as `'s` and `ora`, so that the name is not found where its captions say it."""
    write_pictures(folder, {f"{n}": f"{name}, smile" for n, name in enumerate(("'sora'", "hana") * 3)})
    plain = plain_run(folder, max_steps=12)
    plain["words"][0] |= {"name": "sora"} | ({"freeze_step": 1} if frozen else {})
    return run_from_dict(plain)


def test_a_run_says_which_embedding_does_not_learn(tiny_host, tmp_path) -> None:
    recorder = Recorder()
    ended = train(silent_run(tmp_path / "pictures"), tiny_host, output_folder=tmp_path / "out", listener=recorder)
    errors = [notice for notice in recorder.of(Notice) if notice.level == "error"]
    assert len(errors) == 1 and "'sora'" in errors[0].message and "no gradient" in errors[0].message
    seen = {event.step: event.images_seen for event in recorder.of(StepDone)}
    assert seen[errors[0].step + 1]["sora"] >= PATIENCE_PICTURES > seen[errors[0].step].get("sora", 0)
    last = recorder.of(StepDone)[-1].gradient_norms
    assert last["word sora"] == 0
    assert any(event.gradient_norms["word hana"] > 0 for event in recorder.of(StepDone))
    assert ended.reason == "finished" and "word hana 0" in tensors_of(ended.bundle)


def test_a_run_says_nothing_of_frozen_or_learning_embeddings(tiny_host, two_embeddings_folder, tmp_path) -> None:
    for run in (silent_run(tmp_path / "pictures", frozen=True), run_from_dict(plain_run(two_embeddings_folder))):
        recorder = Recorder()
        train(run, tiny_host, output_folder=tmp_path / "out", listener=recorder)
        assert [notice for notice in recorder.of(Notice) if notice.level == "error"] == []
