"""Disks that take no more, listeners that fail, memory that ends: nothing that was trained is lost, and every run ends
by an event. The disk's refusals are the operating system's own (tests/disk.py)."""

import contextlib
import dataclasses
import gc
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.data.latents import LatentFiles
from lib_pivotal.errors import HostError, StateError
from lib_pivotal.evaluation import in_run
from lib_pivotal.training import keeping, loop, outputs, state
from lib_pivotal.training.events import Commands, FileSaved, Notice, PicturesMade, RunEnded, RunStarted, StepDone
from lib_pivotal.training.state_files import has_states
from lib_pivotal.training.step import MicroStep
from lib_pivotal.training.trainable import Trainable
from tests.disk import small_files_only, without_privileges
from tests.training.runs import Recorder, assert_same, contents, make_run, tensors_of, train

TOO_SMALL = 8000
"""Less than a bundle, a state or a picture of these runs; the logs and run.json fit."""


def kinds(recorder, kind="bundle"):
    return [event.step for event in recorder.of(FileSaved) if event.kind == kind]


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The system's temporary folder."""
    folder = tmp_path / "system's"
    folder.mkdir()
    monkeypatch.setattr(outputs.tempfile, "tempdir", str(folder))
    return folder


def whole_run(host, pictures, folder, **settings):
    return tensors_of(train(make_run(pictures, **settings), host, output_folder=folder, listener=Recorder()).bundle)


def test_a_disk_that_is_full_on_the_way_ends_nothing(tiny_host, two_embeddings_folder, tmp_path):
    """Bundles, states and pictures of steps 2 to 5 fail; the run goes on, tries again, and its result is the same."""
    saving = {"state_every_steps": 1, "every_steps": 2, "preview_every_steps": 2, "keep_previewed": True}
    full = contextlib.ExitStack()

    def disk(event):
        if isinstance(event, StepDone) and event.step == 2:
            full.enter_context(small_files_only(TOO_SMALL))
        if isinstance(event, StepDone) and event.step == 6:
            full.close()

    recorder = Recorder(disk)
    with full:
        run = make_run(two_embeddings_folder, saving=saving)
        ended = train(run, tiny_host, output_folder=tmp_path / "out", listener=recorder)
    assert ended.reason == "finished"
    assert kinds(recorder) == [6, 8] and kinds(recorder, "state") == [1, 6, 7, 8]
    assert [event.step for event in recorder.of(PicturesMade)] == [6, 8]
    errors = [event.step for event in recorder.of(Notice) if event.level == "error"]
    assert sorted(errors) == [2, 2, 2, 3, 4, 4, 4, 5]
    assert_same(whole_run(tiny_host, two_embeddings_folder, tmp_path / "whole"), tensors_of(ended.bundle))
    assert not list((tmp_path / "out").rglob("*.tmp*"))


def test_a_result_that_the_folder_does_not_take_is_in_the_temporary_one(
    tiny_host, two_embeddings_folder, tmp_path, temporary, monkeypatch
):
    out = tmp_path / "out"
    original = outputs.write_bundle

    def write(path, **content):
        if out in Path(path).parents:
            with small_files_only(TOO_SMALL):
                return original(path, **content)
        return original(path, **content)

    monkeypatch.setattr(outputs, "write_bundle", write)
    recorder = Recorder()
    ended = train(make_run(two_embeddings_folder), tiny_host, output_folder=out, listener=recorder)
    assert ended.reason == "finished" and temporary in ended.bundle.parents
    assert any(str(ended.bundle) in told and "move it from there" in told for told in recorder.told)
    monkeypatch.setattr(outputs, "write_bundle", original)
    assert_same(whole_run(tiny_host, two_embeddings_folder, tmp_path / "whole"), tensors_of(ended.bundle))


def test_a_result_that_nothing_takes_is_a_failure(tiny_host, two_embeddings_folder, tmp_path, temporary):
    full = contextlib.ExitStack()

    def disk(event):
        if isinstance(event, StepDone) and event.step == 8:
            full.enter_context(small_files_only(TOO_SMALL))

    recorder = Recorder(disk)
    with full:
        ended = train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path / "out", listener=recorder)
    assert ended.reason == "failed" and ended.bundle is None and "saved anywhere" in ended.message
    assert recorder.events[-1] is ended


def test_where_only_the_bundle_fails_the_state_keeps_what_was_trained(
    tiny_host, two_embeddings_folder, tmp_path, temporary, monkeypatch
):
    def broken(path, **content):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(outputs, "write_bundle", broken)
        ended = train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path / "out", listener=Recorder())
        assert ended.reason == "failed" and "continue the run" in ended.message
    again = train(
        make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path / "out", listener=Recorder(), resume=True
    )
    assert again.reason == "finished"
    assert_same(whole_run(tiny_host, two_embeddings_folder, tmp_path / "whole"), tensors_of(again.bundle))


def test_a_result_is_published_from_the_runs_folder(tiny_host, two_embeddings_folder, tmp_path):
    loras, log = tmp_path / "loras", tmp_path / "log"
    run = make_run(two_embeddings_folder, saving={"every_steps": 4})
    ended = train(run, tiny_host, output_folder=loras, log_folder=log, listener=Recorder())
    assert ended.bundle == loras / "two.safetensors"
    for name in ("two.safetensors", "two-000004.safetensors"):
        assert (loras / name).read_bytes() == (log / name).read_bytes()


def test_a_foreign_file_that_appears_under_the_name_stays(tiny_host, two_embeddings_folder, tmp_path):
    loras = tmp_path / "loras"

    def another(event):
        if isinstance(event, StepDone) and event.step == 4:
            (loras / "two.safetensors").write_bytes(b"somebody else's")

    recorder = Recorder(another)
    folders = {"output_folder": loras, "log_folder": tmp_path / "log"}
    ended = train(make_run(two_embeddings_folder), tiny_host, listener=recorder, **folders)
    assert ended.reason == "finished" and ended.bundle == tmp_path / "log" / "two.safetensors"
    assert (loras / "two.safetensors").read_bytes() == b"somebody else's"
    assert any("not this run's" in told for told in recorder.told)
    ended = train(make_run(two_embeddings_folder), tiny_host, listener=Recorder(), overwrite=True, **folders)
    assert ended.bundle == loras / "two.safetensors" and require(read_bundle(ended.bundle))


def test_a_place_that_is_gone_leaves_the_result_in_the_runs_folder(tiny_host, two_embeddings_folder, tmp_path):
    """A share that was lost while the run went on: no folder can be made below a file, by root neither."""
    (tmp_path / "share").write_text("no folder any more")
    recorder = Recorder()
    ended = train(
        make_run(two_embeddings_folder),
        tiny_host,
        output_folder=tmp_path / "share" / "loras",
        log_folder=tmp_path / "log",
        listener=recorder,
    )
    assert ended.reason == "finished" and ended.bundle == tmp_path / "log" / "two.safetensors"
    assert any("move it from there" in told for told in recorder.told)


def test_no_folder_at_all_is_refused_before_anything_starts(tiny_host, two_embeddings_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot be made"):
        train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path / "file" / "out", listener=Recorder())


def test_a_listener_that_fails_ends_nothing(tiny_host, two_embeddings_folder, tmp_path):
    heard = []

    def failing(event):
        heard.append(event)
        raise ValueError("no browser")

    ended = train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path, listener=failing)
    assert ended.reason == "finished" and heard[-1] is ended


@pytest.mark.parametrize("fault", [RuntimeError("boom"), MemoryError(), OSError(28, "No space left on device")])
@pytest.mark.parametrize(
    ("place", "name"),
    [
        (MicroStep, "losses"),
        (Trainable, "update"),
        (outputs, "write_bundle"),
        (keeping, "save_state"),
        (in_run, "parts_pictures"),
        (state, "save_file"),
    ],
)
def test_every_run_ends_by_an_event(place, name, fault, tiny_host, two_embeddings_folder, tmp_path, monkeypatch):
    """Whatever fails from the third call on: an end with a reason, and a file or a state with what was trained."""
    original, calls = getattr(place, name), []

    def failing(*arguments, **rest):
        calls.append(1)
        if len(calls) >= 3:
            raise fault
        return original(*arguments, **rest)

    saving = {"state_every_steps": 1, "every_steps": 2, "preview_every_steps": 2, "keep_previewed": False}
    monkeypatch.setattr(place, name, failing)
    recorder = Recorder()
    ended = train(make_run(two_embeddings_folder, saving=saving), tiny_host, output_folder=tmp_path, listener=recorder)
    assert len(calls) >= 3 and recorder.events[-1] is ended and isinstance(ended, RunEnded)
    assert ended.reason in ("finished", "failed") and (ended.message or ended.reason == "finished")
    kept = ended.bundle or next(iter(tmp_path.rglob("state-*.safetensors")))
    assert kept.exists()
    if ended.bundle is not None:
        require(read_bundle(ended.bundle))


def test_the_memory_of_a_failed_attempt_is_free_before_the_next(
    tiny_host, two_embeddings_folder, tmp_path, monkeypatch
):
    """The exception's traceback held the failed step's tensors while memory was being given back."""
    held, alive = [], []
    original, release = MicroStep.losses, loop.release_memory

    def hungry(self, batch, *arguments, **rest):
        if batch.latents.shape[0] > 1:
            large = torch.ones(1000)
            held.append(weakref.ref(large))
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, batch, *arguments, **rest)

    def releasing():
        alive.append(sum(reference() is not None for reference in held))
        release()

    monkeypatch.setattr(MicroStep, "losses", hungry)
    monkeypatch.setattr(loop, "release_memory", releasing)
    gc.disable()
    try:
        run = make_run(two_embeddings_folder, batch_size=4, max_steps=2)
        ended = train(run, tiny_host, output_folder=tmp_path, listener=Recorder())
    finally:
        gc.enable()
    assert ended.reason == "finished" and len(held) == 2 and alive == [0, 0]


def test_the_memory_of_a_run_that_failed_is_free_at_its_end(tiny_host, two_embeddings_folder, tmp_path, monkeypatch):
    held, alive = [], []

    def hungry(self, *arguments, **rest):
        large = torch.ones(1000)
        held.append(weakref.ref(large))
        raise MemoryError

    monkeypatch.setattr(MicroStep, "losses", hungry)
    monkeypatch.setattr(
        loop, "release_memory", lambda: alive.append(sum(reference() is not None for reference in held))
    )
    gc.disable()
    try:
        ended = train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path, listener=Recorder())
    finally:
        gc.enable()
    assert ended.reason == "failed" and "gradient checkpointing" in ended.message and set(alive) == {0}


def test_a_roll_back_after_a_resume_is_that_of_the_undisturbed_run(
    tiny_host, two_embeddings_folder, tmp_path, monkeypatch
):
    """The snapshot that a roll-back returns to is part of what a resume brings back."""
    original = MicroStep.losses

    def poisoned(self, *arguments, seeds, **rest):
        losses = original(self, *arguments, seeds=seeds, **rest)
        return losses * float("nan") if 4 <= seeds[1] <= 6 else losses

    monkeypatch.setattr(MicroStep, "losses", poisoned)
    run = make_run(two_embeddings_folder, saving={"state_every_steps": 2}, max_steps=10)
    whole = train(run, tiny_host, output_folder=tmp_path / "whole", listener=Recorder())
    commands = Commands()
    stop = Recorder(lambda event: commands.stop() if isinstance(event, StepDone) and event.step == 6 else None)
    train(run, tiny_host, output_folder=tmp_path / "parts", listener=stop, commands=commands)
    resumed = train(run, tiny_host, output_folder=tmp_path / "parts", listener=Recorder(), resume=True)
    assert_same(tensors_of(whole.bundle), tensors_of(resumed.bundle))


def test_a_latent_cache_that_the_disk_does_not_take_stays_in_memory(
    tiny_host, two_embeddings_folder, tmp_path, monkeypatch
):
    run = make_run(two_embeddings_folder)
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, cache_folder=str(tmp_path / "cache")))
    write = LatentFiles.write

    def on_a_full_disk(self, *arguments):
        with small_files_only(200):
            return write(self, *arguments)

    monkeypatch.setattr(LatentFiles, "write", on_a_full_disk)
    recorder = Recorder()
    ended = train(run, tiny_host, output_folder=tmp_path / "out", listener=recorder)
    assert ended.reason == "finished" and sum("stay in memory" in told for told in recorder.told) == 1
    assert_same(whole_run(tiny_host, two_embeddings_folder, tmp_path / "whole"), tensors_of(ended.bundle))
    assert not contents(tmp_path / "cache")


def tear_update(patched, at_step, fault):
    """The optimiser moves the first groups only, then fails: what lack of memory in the midst of it leaves behind."""
    original, calls = Trainable.update, []

    def update(trainable, *arguments, **rest):
        calls.append(1)
        if len(calls) != at_step:
            return original(trainable, *arguments, **rest)
        groups, step = trainable.optimizer.param_groups, trainable.optimizer.step

        def torn_step():
            trainable.optimizer.param_groups = groups[:2]
            step()
            trainable.optimizer.param_groups = groups
            raise fault

        trainable.optimizer.step = torn_step
        return original(trainable, *arguments, **rest)

    patched.setattr(Trainable, "update", update)


@pytest.mark.parametrize("fault", [MemoryError(), KeyboardInterrupt()])
@pytest.mark.parametrize(("at_step", "goes_on_from"), [(1, None), (2, 1), (4, 2), (6, 4), (8, 6)])
def test_a_torn_step_is_in_the_file_and_the_state_is_the_one_before(
    tiny_host, two_embeddings_folder, tmp_path, monkeypatch, at_step, goes_on_from, fault
):
    run, out = make_run(two_embeddings_folder, saving={"state_every_steps": 2}), tmp_path / "out"
    with monkeypatch.context() as patched:
        tear_update(patched, at_step, fault)
        ended = train(run, tiny_host, output_folder=out, listener=Recorder())
    assert ended.reason == ("failed" if isinstance(fault, MemoryError) else "stopped") and ended.step == at_step - 1
    assert (ended.bundle is not None) == (at_step > 1)
    if goes_on_from is None:
        assert not list(out.rglob("state-*"))
        return
    assert f"continued from step {goes_on_from}" in ended.message
    recorder = Recorder()
    again = train(run, tiny_host, output_folder=out, listener=recorder, resume=True)
    assert again.reason == "finished" and recorder.of(RunStarted)[0].first_step == goes_on_from
    assert_same(whole_run(tiny_host, two_embeddings_folder, tmp_path / "whole"), tensors_of(again.bundle))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("at_step", [4, 7, 8])
def test_what_is_not_finite_is_never_saved(
    tiny_host, two_embeddings_folder, tmp_path, monkeypatch, at_step, value, averaged
):
    """The optimiser's step itself may go beyond all numbers, with finite losses and gradients, right before a state or
    the last file is due: what was good until then is neither lost nor overwritten."""
    original, calls = Trainable.update, []

    def update(trainable, *arguments, **rest):
        calls.append(1)
        done = original(trainable, *arguments, **rest)
        if len(calls) == at_step:
            place = trainable.ema.averages if averaged else trainable.parameters
            with torch.no_grad():
                place[-1].view(-1)[0] = value
        return done

    schedule = {"ema_decay": 0.9} if averaged else {}
    run, out = make_run(two_embeddings_folder, saving={"state_every_steps": 2}, **schedule), tmp_path / "out"
    recorder = Recorder()
    with monkeypatch.context() as patched:
        patched.setattr(Trainable, "update", update)
        ended = train(run, tiny_host, output_folder=out, listener=recorder)
    for path in (ended.bundle, *out.rglob("state-*")):
        assert all(bool(tensor.isfinite().all()) for tensor in load_file(path).values()), path
    assert recorder.events[-1] is ended
    if at_step == 4 and not averaged:  # the next losses tell, and there is time to go back
        assert ended.reason == "finished" and any("back to the last good state" in told for told in recorder.told)
        return
    assert ended.step == (2 if at_step == 4 else 6)
    assert ended.reason == "failed" and "last good state" in ended.message
    again = train(run, tiny_host, output_folder=out, listener=Recorder(), resume=True)
    assert again.reason == "finished"
    whole = train(run, tiny_host, output_folder=tmp_path / "whole", listener=Recorder())
    assert_same(tensors_of(whole.bundle), tensors_of(again.bundle))


@pytest.mark.parametrize("first", [1, 2])
def test_no_memory_for_one_picture_is_told_in_a_sentence(
    tiny_host, two_embeddings_folder, tmp_path, monkeypatch, first
):
    """Raised outside the handler: the failed attempt's tensors are free by then."""
    original, calls, held = tiny_host.codec.encode, [], []

    def encode(pixels):
        calls.append(1)
        if len(calls) < first:
            return original(pixels)
        held.append(weakref.ref(pixels))
        return torch.empty(2**50, dtype=torch.uint8)  # the allocator's own words

    monkeypatch.setattr(tiny_host.codec, "encode", encode)
    with pytest.raises(HostError, match="memory does not suffice to begin") as caught:
        train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path, listener=Recorder())
    assert caught.value.__context__ is None and held and all(reference() is None for reference in held)
    monkeypatch.undo()
    ended = train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path, listener=Recorder())
    assert ended.reason == "finished"


@pytest.mark.parametrize("mode", [0o000, 0o555])
@pytest.mark.parametrize("at_step", [0, 5])
@pytest.mark.parametrize("place", ["loras", "states"])
def test_a_folder_without_permission_loses_nothing(tiny_host, two_embeddings_folder, tmp_path, place, at_step, mode):
    """Neither writing there nor looking what is there ends the run."""
    loras, log = tmp_path / "loras", tmp_path / "log"
    closed = {"loras": loras, "states": log / "two.state" / "run-0001"}[place]
    closed.mkdir(parents=True)
    recorder = Recorder(lambda event: closed.chmod(mode) if isinstance(event, StepDone) and event.step == 5 else None)
    run = make_run(two_embeddings_folder, saving={"state_every_steps": 2, "every_steps": 3})
    if at_step == 0:
        closed.chmod(mode)
    try:
        ended = without_privileges(
            lambda: train(run, tiny_host, output_folder=loras, log_folder=log, listener=recorder)
        )
    finally:
        closed.chmod(0o755)
    assert ended.reason == "finished" and recorder.events[-1] is ended
    assert_same(whole_run(tiny_host, two_embeddings_folder, tmp_path / "whole"), tensors_of(ended.bundle))
    assert (place == "loras") == any("cannot be written" in told and str(loras) in told for told in recorder.told)


@pytest.mark.parametrize("folder", ["two.state", "two.state/run-0001"])
def test_states_that_may_not_be_looked_at_are_a_refusal(tiny_host, two_embeddings_folder, tmp_path, folder):
    commands = Commands()
    stop = Recorder(lambda event: commands.stop() if isinstance(event, StepDone) and event.step == 3 else None)
    run, out = make_run(two_embeddings_folder), tmp_path / "out"
    train(run, tiny_host, output_folder=out, listener=stop, commands=commands)
    (out / folder).chmod(0o000)
    try:
        with pytest.raises(StateError, match="cannot be looked at"):
            without_privileges(lambda: train(run, tiny_host, output_folder=out, listener=Recorder(), resume=True))
        assert not without_privileges(lambda: has_states(out / "two.state"))
    finally:
        (out / folder).chmod(0o755)
    assert train(run, tiny_host, output_folder=out, listener=Recorder(), resume=True).reason == "finished"


def test_an_interrupt_while_the_result_is_saved_is_a_stop(tiny_host, two_embeddings_folder, tmp_path, monkeypatch):
    def interrupted(path, **content):
        raise KeyboardInterrupt

    run, out, recorder = make_run(two_embeddings_folder, saving={"state_every_steps": 2}), tmp_path / "out", Recorder()
    with monkeypatch.context() as patched:
        patched.setattr(outputs, "write_bundle", interrupted)
        ended = train(run, tiny_host, output_folder=out, listener=recorder)
    assert ended.reason == "stopped" and ended.bundle is None and "was saved" in ended.message
    assert recorder.events[-1] is ended
    again = train(run, tiny_host, output_folder=out, listener=Recorder(), resume=True)
    assert_same(whole_run(tiny_host, two_embeddings_folder, tmp_path / "whole"), tensors_of(again.bundle))
