"""A run that cannot be continued never starts over: it is refused with what differs, and nothing is touched."""

import dataclasses
import json
import os

import pytest
import torch
from PIL import Image

from lib_pivotal.config import run_from_dict, run_to_dict
from lib_pivotal.errors import FileNameError, StateError
from lib_pivotal.training.continuation import _old_fingerprint
from lib_pivotal.training.events import Commands, RunStarted, StepDone
from lib_pivotal.training.prepare import prepare_pictures
from lib_pivotal.training.state import load_latest_state, save_state
from lib_pivotal.training.state_files import latest_run_folder, list_states
from tests.faults.material import same_size
from tests.training.runs import (
    Recorder,
    assert_same,
    compiled,
    contents,
    make_run,
    plain_run,
    stopping_at,
    tensors_of,
    train,
)


def stopped_run(host, pictures, out, *, at=4, **schedule):
    commands = Commands()
    run = make_run(pictures, **schedule)
    ended = train(run, host, output_folder=out, listener=stopping_at(at, commands), commands=commands)
    assert ended.reason == "stopped" and ended.step == at
    return run


def refused(run, host, out, match):
    before = contents(out)
    listener = Recorder()
    with pytest.raises(StateError, match=match):
        train(run, host, output_folder=out, listener=listener, resume=True)
    assert contents(out) == before and not listener.of(StepDone)


def changed(pictures, **sections):
    plain = plain_run(pictures)
    for section, values in sections.items():
        plain[section].update(values) if isinstance(values, dict) else plain.__setitem__(section, values)
    return run_from_dict(plain)


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"network": {"unet_lr": 2e-3}}, r"network\.unet_lr was 0\.001, is 0\.002"),
        ({"seed": 4}, "seed was 3, is 4"),
        ({"schedule": {"batch_size": 4}}, r"schedule\.batch_size was 2, is 4"),
        ({"schedule": {"optimizer": "lion", "rate": "constant"}}, r'optimizer was "adamw", is "lion"'),
        ({"words": [{"name": "aoi", "init_text": "blue", "vectors": 3}, {"name": "hana", "vectors": 2}]}, "red hair"),
    ],
)
def test_other_settings_are_named_with_both_values(sections, told, tiny_host, two_embeddings_folder, tmp_path):
    stopped_run(tiny_host, two_embeddings_folder, tmp_path / "out")
    refused(changed(two_embeddings_folder, **sections), tiny_host, tmp_path / "out", told)


def test_other_captions_and_pictures_are_named(tiny_host, two_embeddings_folder, tmp_path):
    run = stopped_run(tiny_host, two_embeddings_folder, tmp_path / "out")
    caption = sorted(two_embeddings_folder.glob("*.txt"))[0]
    old = caption.read_text()
    caption.write_text(old + ", hat")
    refused(run, tiny_host, tmp_path / "out", rf"1 pictures or captions differ \({caption.stem}")
    caption.write_text(old)
    assert train(run, tiny_host, output_folder=tmp_path / "out", listener=Recorder(), resume=True).reason == "finished"


def test_a_picture_that_was_painted_over_is_named_whatever_its_size(tiny_host, two_embeddings_folder, tmp_path):
    """As long as before, as wide and as high: a picture is told by what is in it."""
    run = stopped_run(tiny_host, two_embeddings_folder, tmp_path / "out")
    picture = sorted(two_embeddings_folder.glob("*.png"))[0]
    old, times = picture.read_bytes(), (picture.stat().st_atime, picture.stat().st_mtime)
    same_size(picture)
    os.utime(picture, times)
    assert picture.stat().st_size == len(old)
    refused(run, tiny_host, tmp_path / "out", rf"1 pictures or captions differ \({picture.stem}")
    picture.write_bytes(old)
    assert train(run, tiny_host, output_folder=tmp_path / "out", listener=Recorder(), resume=True).reason == "finished"


def test_a_mask_that_was_painted_over_is_named(tiny_host, two_embeddings_folder, tmp_path):
    mask = two_embeddings_folder / "masks" / "aoi_1.png"
    mask.parent.mkdir()
    Image.new("L", (64, 64), 255).save(mask)
    run = stopped_run(tiny_host, two_embeddings_folder, tmp_path / "out")
    if not any(picture.mask_path for picture in prepare_pictures(run).pictures):
        pytest.fail("the mask is not read: the test would show nothing")
    Image.new("L", (64, 64), 100).save(mask)
    refused(run, tiny_host, tmp_path / "out", "1 pictures or captions differ")


def test_another_checkpoint_is_named(tiny_host, two_embeddings_folder, tmp_path):
    run = stopped_run(tiny_host, two_embeddings_folder, tmp_path / "out")
    state = list_states(latest_run_folder(tmp_path / "out" / "two.state"))[0]
    content = load_latest_state(state.path.parent).content
    content["basis"]["checkpoint"] |= {"name": "other", "sha256": "ab" * 32}
    del content["format_version"]
    save_state(state.path.parent, content.pop("step"), content)
    refused(run, tiny_host, tmp_path / "out", "the checkpoint was other")


def test_nothing_to_continue_is_refused(tiny_host, two_embeddings_folder, tmp_path):
    (tmp_path / "out").mkdir()
    refused(make_run(two_embeddings_folder), tiny_host, tmp_path / "out", "no saved state")
    assert not list((tmp_path / "out").iterdir())


def test_only_damaged_states_are_refused(tiny_host, two_embeddings_folder, tmp_path):
    run = stopped_run(tiny_host, two_embeddings_folder, tmp_path / "out")
    for state in list_states(latest_run_folder(tmp_path / "out" / "two.state")):
        state.path.write_bytes(state.path.read_bytes()[:-7])
    refused(run, tiny_host, tmp_path / "out", "none of the saved states can be read")


def test_a_damaged_newest_state_is_told_and_the_one_before_taken(tiny_host, two_embeddings_folder, tmp_path):
    run = make_run(two_embeddings_folder, saving={"state_every_steps": 2})
    whole = train(run, tiny_host, output_folder=tmp_path / "whole", listener=Recorder())
    commands = Commands()
    train(run, tiny_host, output_folder=tmp_path / "out", listener=stopping_at(5, commands), commands=commands)
    newest = list_states(latest_run_folder(tmp_path / "out" / "two.state"))[0]
    newest.path.write_bytes(newest.path.read_bytes()[:-7])
    rest = Recorder()
    ended = train(run, tiny_host, output_folder=tmp_path / "out", listener=rest, resume=True)
    assert rest.of(StepDone)[0].step == 5 and any(newest.path.name in told for told in rest.told)
    assert_same(tensors_of(whole.bundle), tensors_of(ended.bundle))


def test_a_run_can_be_made_longer(tiny_host, two_embeddings_folder, tmp_path):
    """With a constant rate the longer run is the one that was never stopped; the record follows."""
    out = tmp_path / "out"
    short = make_run(two_embeddings_folder, max_steps=4, rate="constant", warmup_steps=0, final_factor=1.0)
    short = dataclasses.replace(short, saving=dataclasses.replace(short.saving, state_every_steps=2))
    train(short, tiny_host, output_folder=out, listener=Recorder())
    longer = dataclasses.replace(short, schedule=dataclasses.replace(short.schedule, max_steps=8))
    rest = Recorder()
    ended = train(longer, tiny_host, output_folder=out, listener=rest, resume=True)
    assert rest.of(RunStarted)[0].first_step == 4 and ended.step == 8
    assert any("from 4 to 8 steps" in told for told in rest.told)
    whole = train(longer, tiny_host, output_folder=tmp_path / "whole", listener=Recorder())
    assert_same(tensors_of(whole.bundle), tensors_of(ended.bundle))
    assert json.loads((out / "two.run.json").read_text())["schedule"]["max_steps"] == 8


def test_a_finished_run_that_is_continued_and_stopped_keeps_its_file(tiny_host, two_embeddings_folder, tmp_path):
    """It went on from its last state, and the stop put that earlier step in the place of the finished file."""
    run = make_run(two_embeddings_folder, saving={"state_every_steps": 3})
    ended = train(run, tiny_host, output_folder=tmp_path, listener=Recorder())
    finished = tensors_of(ended.bundle)
    commands = Commands()
    at_once = Recorder(lambda event: commands.stop() if isinstance(event, RunStarted) else None)
    again = train(run, tiny_host, output_folder=tmp_path, listener=at_once, resume=True, commands=commands)
    assert again.step == 8
    assert_same(finished, tensors_of(again.bundle))


def test_a_file_of_its_name_that_is_anothers_is_not_written_over(tiny_host, two_embeddings_folder, tmp_path):
    run = stopped_run(tiny_host, two_embeddings_folder, tmp_path / "out")
    other = dataclasses.replace(run, seed=9)
    train(other, tiny_host, output_folder=tmp_path / "other", listener=Recorder())
    (tmp_path / "other" / "two.safetensors").replace(tmp_path / "out" / "two.safetensors")
    before = contents(tmp_path / "out")
    with pytest.raises(FileNameError, match="there is a file of this name"):
        train(run, tiny_host, output_folder=tmp_path / "out", listener=Recorder(), resume=True)
    assert contents(tmp_path / "out") == before
    ended = train(run, tiny_host, output_folder=tmp_path / "out", listener=Recorder(), resume=True, overwrite=True)
    assert ended.reason == "finished"


def test_fewer_steps_than_were_done_are_refused(tiny_host, two_embeddings_folder, tmp_path):
    stopped_run(tiny_host, two_embeddings_folder, tmp_path / "out", rate="constant")
    refused(make_run(two_embeddings_folder, max_steps=3, rate="constant"), tiny_host, tmp_path / "out", "after step 4")


def test_what_does_not_change_the_result_may_differ(tiny_host, two_embeddings_folder, tmp_path):
    stopped_run(tiny_host, two_embeddings_folder, tmp_path / "out")
    plain = plain_run(two_embeddings_folder)
    plain["saving"] |= {"keep_states": 5, "every_steps": 3}
    plain["memory"] = {"gradient_checkpointing": True, "latents_mb": 1}
    moved = two_embeddings_folder.rename(tmp_path / "moved")
    plain["data"]["folder"] = str(moved)
    rest = Recorder()
    ended = train(run_from_dict(plain), tiny_host, output_folder=tmp_path / "out", listener=rest, resume=True)
    assert ended.reason == "finished" and rest.of(StepDone)[0].step == 5


def test_a_new_run_does_not_meet_the_states_of_an_older_one(tiny_host, two_embeddings_folder, tmp_path):
    """They had higher numbers, and the new run's first states were deleted as the oldest."""
    out = tmp_path / "out"
    run = make_run(two_embeddings_folder, saving={"state_every_steps": 2, "keep_states": 1})
    train(run, tiny_host, output_folder=out, listener=Recorder())
    other = dataclasses.replace(run, seed=9)
    commands = Commands()
    train(other, tiny_host, output_folder=out, listener=stopping_at(3, commands), commands=commands)
    rest = Recorder()
    ended = train(other, tiny_host, output_folder=out, listener=rest, resume=True)
    assert rest.of(StepDone)[0].step == 4
    whole = train(other, tiny_host, output_folder=tmp_path / "whole", listener=Recorder())
    assert_same(tensors_of(whole.bundle), tensors_of(ended.bundle))


# ---- states of version 0.1 ----


def old_state(host, run, out, *, fingerprint):
    """The state of a stopped run as version 0.1 wrote it: torch.save, one hash, straight in the folder."""
    states = out / "two.state"
    folder = latest_run_folder(states)
    content = load_latest_state(folder).content
    for field in ("basis", "guard", "format_version"):
        content.pop(field)
    step = content["step"]
    torch.save({"format_version": 1, **content, "fingerprint": fingerprint}, states / f"state-{step:08d}.pt")
    for state in list_states(folder):
        state.path.unlink()
    folder.rmdir()


def test_an_old_state_is_continued_and_equals_the_undisturbed_run(tiny_host, two_embeddings_folder, tmp_path):
    run = stopped_run(tiny_host, two_embeddings_folder, tmp_path / "out")
    old_state(tiny_host, run, tmp_path / "out", fingerprint=_old_fingerprint(compiled(run), tiny_host))
    rest = Recorder()
    ended = train(run, tiny_host, output_folder=tmp_path / "out", listener=rest, resume=True)
    assert rest.of(StepDone)[0].step == 5
    whole = train(run, tiny_host, output_folder=tmp_path / "whole", listener=Recorder())
    assert_same(tensors_of(whole.bundle), tensors_of(ended.bundle))


def test_an_old_state_of_other_settings_is_refused_by_its_record(tiny_host, two_embeddings_folder, tmp_path):
    run = stopped_run(tiny_host, two_embeddings_folder, tmp_path / "out")
    old_state(tiny_host, run, tmp_path / "out", fingerprint="0" * 64)
    refused(changed(two_embeddings_folder, seed=4), tiny_host, tmp_path / "out", "seed was 3, is 4")
    longer = make_run(two_embeddings_folder, max_steps=9)
    rest = Recorder()
    assert train(longer, tiny_host, output_folder=tmp_path / "out", listener=rest, resume=True).step == 9
    assert any("older version" in told for told in rest.told)


def test_an_old_state_without_a_record_is_refused(tiny_host, two_embeddings_folder, tmp_path):
    run = stopped_run(tiny_host, two_embeddings_folder, tmp_path / "out")
    old_state(tiny_host, run, tmp_path / "out", fingerprint="0" * 64)
    (tmp_path / "out" / "two.run.json").unlink()
    refused(run, tiny_host, tmp_path / "out", "no run.json beside it")


def test_settings_of_later_versions_have_their_default_in_older_records(two_embeddings_folder):
    from lib_pivotal.training.continuation import flat_settings

    plain = run_to_dict(make_run(two_embeddings_folder))
    del plain["schedule"]["ema_decay"]
    assert flat_settings(plain)["schedule.ema_decay"] == 0.0
