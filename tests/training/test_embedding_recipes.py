"""Recipes for embeddings in whole runs: each acts, is continued bit for bit, and holds over accumulation and many
embeddings."""

import dataclasses

import pytest
import torch

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.config import check_run, run_from_dict
from lib_pivotal.embeddings import text_outputs
from lib_pivotal.embeddings.editability import Editability
from lib_pivotal.embeddings.norm_targets import norm_targets
from lib_pivotal.embeddings.text_warm_up import distances, goals
from lib_pivotal.training.events import Commands, StepDone
from lib_pivotal.training.state import load_latest_state
from lib_pivotal.training.state_files import latest_run_folder, states_folder
from tests.conftest import write_pictures
from tests.training.runs import Recorder, assert_same, plain_run, stopping_at, tensors_of, train


def recipe(folder, *, common=None, data=None, embeddings=None, **schedule):
    plain = plain_run(folder, **schedule)
    plain["embeddings_common"] = {"lr": 0.02, **(common or {})}
    plain["data"] |= data or {}
    plain["words"] = embeddings or plain["words"]
    return run_from_dict(plain)


def trained(run, host, folder, **more):
    recorder = Recorder()
    ended = train(run, host, output_folder=folder, listener=recorder, **more)
    assert ended.reason == "finished", ended.message
    return recorder, require(read_bundle(ended.bundle)).embeddings


def starts(run, host, folder):
    """What the embeddings of a run begin with, as its state keeps it."""
    short = dataclasses.replace(run, schedule=dataclasses.replace(run.schedule, max_steps=1))
    short = dataclasses.replace(short, saving=dataclasses.replace(short.saving, state_every_steps=1))
    trained(short, host, folder)
    content = load_latest_state(latest_run_folder(states_folder(folder, short.name))).content
    words = content["trainable"]["words"]["_extra_state"]
    return dict(zip(words["names"], words["starts"], strict=True))


CLASSES = {
    "embeddings": [
        {"name": "aoi", "init_text": "red hair, *[0.1,1]", "vectors": 3, "class_text": "1girl"},
        {"name": "hana", "init_text": "blue hair", "vectors": 2},
    ]
}
TWO_PHASES = {"phases": "two_phase", "words_steps": 3, "continued_words_factor": 0.5}
RECIPES = {
    "bare captions": {"data": {"bare_caption": 0.5, "bare_caption_class": True}},
    "own norms": {"common": {"control": "preserve_norm", "norm_target": "initial"}},
    "norms of captions": {"common": {"control": "clip_ti_decay", "norm_target": "captions"}},
    "direction": {"common": {"control": "direction", "norm_target": "initial"}},
    "direction, lion, averages": {"common": {"control": "direction"}, "optimizer": "lion", "ema_decay": 0.9},
    "cross_init": {"common": {"start": "cross_init", "start_weight": 1e-3, "norm_target": "initial"}},
    "text warm-up": {"common": {"text_steps": 5, "control": "preserve_norm", "norm_target": "initial"}},
    "text warm-up, direction": {"common": {"text_steps": 5, "control": "direction"}},
    "class_diffusion": {"common": {"editability": "class_diffusion"}, **CLASSES, "accumulation": 2},
    "core": {"common": {"editability": "core", "start_weight": 1e-3}, **CLASSES, **TWO_PHASES},
    "everything": {
        "common": {
            "control": "direction",
            "norm_target": "initial",
            "start": "cross_init",
            "start_weight": 1e-3,
            "text_steps": 3,
            "editability": "core",
            "whole_tags": True,
        },
        "data": {"bare_caption": 0.3, "bare_caption_class": True},
        **CLASSES,
        "accumulation": 2,
        "ema_decay": 0.9,
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_continued_run_equals_the_undisturbed_one(name, tiny_host, two_embeddings_folder, tmp_path):
    run = recipe(two_embeddings_folder, **RECIPES[name])
    whole = train(run, tiny_host, output_folder=tmp_path / "whole", listener=Recorder())
    commands = Commands()
    listener = stopping_at(3, commands)
    train(run, tiny_host, output_folder=tmp_path / "parts", listener=listener, commands=commands)
    rest = Recorder()
    resumed = train(run, tiny_host, output_folder=tmp_path / "parts", listener=rest, resume=True)
    assert rest.of(StepDone)[0].step == 4 and resumed.reason == "finished"
    assert_same(tensors_of(whole.bundle), tensors_of(resumed.bundle))


ALL_TOGETHER = {
    "embeddings_common": {"lr": 0.1, "editability": "core", "start_weight": 1e-3},
    "network": {"module_dropout": 0.3, "l1": 0.03, "lr_ramp": "exponential", "lr_ramp_start": 0.2},
    "loss": {"dco_beta": 1000.0},
    "data": {"bare_caption": 0.3, "bare_caption_class": True},
    "saving": {"separation_every_steps": 3},
}
FIRST_PHASE = {
    "phases": "two_phase",
    "embeddings_steps": 8,
    "embeddings_look_steps": 2,
    "embeddings_patience": 1,
    "continued_embedding_lr_factor": 0.5,
}


@pytest.mark.parametrize("stop", [1, 3, 5, 8])
def test_all_recipes_together_are_continued_bit_for_bit(stop, tiny_host, tmp_path):
    """Of embeddings and of a starved network, with a share of the steps for embeddings alone, in a run whose first
    phase ends by itself: stopped before that, around it, and later."""
    names = {f"{name}_{number}": f"{name}, red hair, tag{number}" for name in ("aoi", "hana") for number in range(6)}
    folder = write_pictures(tmp_path / "pictures", names)
    plain = plain_run(folder, max_steps=12, accumulation=2, embeddings_only_share=0.5, **FIRST_PHASE)
    plain["schedule"]["embedding_gradient_factor"] = 0.2
    plain["words"] = CLASSES["embeddings"]
    for section, values in ALL_TOGETHER.items():
        plain[section] = {**plain.get(section, {}), **values}
    run = run_from_dict(plain)
    told, rest, commands = Recorder(), Recorder(), Commands()
    whole = train(run, tiny_host, output_folder=tmp_path / "whole", listener=told)
    phases = [event.phase for event in told.of(StepDone)]
    assert phases.count("words") in (2, 4, 6), "the first phase is to end by itself"
    train(run, tiny_host, output_folder=tmp_path / "parts", listener=stopping_at(stop, commands), commands=commands)
    resumed = train(run, tiny_host, output_folder=tmp_path / "parts", listener=rest, resume=True)
    assert [event.phase for event in rest.of(StepDone)] == phases[stop:] and resumed.reason == "finished"
    assert_same(tensors_of(whole.bundle), tensors_of(resumed.bundle))
    assert rest.losses == told.losses[stop:]


def test_own_norms_stay_while_directions_move(tiny_host, two_embeddings_folder, tmp_path):
    for control in ("preserve_norm", "direction"):
        run = recipe(two_embeddings_folder, common={"control": control, "norm_target": "initial"})
        begun = starts(run, tiny_host, tmp_path / f"{control} start")
        _, ended = trained(run, tiny_host, tmp_path / control)
        for name, (rows,) in ended.items():
            torch.testing.assert_close(rows.norm(dim=1), begun[name][0].norm(dim=1))
            assert torch.cosine_similarity(rows, begun[name][0], dim=1).max() < 0.9999


def test_direction_steps_are_as_long_as_the_rate_says(tiny_host, two_embeddings_folder, tmp_path):
    """One step at 0.03: every vector of every embedding in it turns by atan 0.03, over accumulation as well."""
    common = {"control": "direction", "norm_target": "initial", "lr": 0.03}
    run = recipe(two_embeddings_folder, common=common, max_steps=1, accumulation=2, rate="constant")
    begun = starts(run, tiny_host, tmp_path / "start")
    _, ended = trained(run, tiny_host, tmp_path / "out")
    for name, (rows,) in ended.items():
        turned = torch.cosine_similarity(rows.double(), begun[name][0].double(), dim=1).acos()
        torch.testing.assert_close(turned, torch.full_like(turned, 0.03).atan(), rtol=1e-3, atol=0)


def test_norms_go_to_those_of_the_captions(tiny_host, two_embeddings_folder, tmp_path):
    run = recipe(two_embeddings_folder, common={"control": "preserve_norm"})
    _, ended = trained(run, tiny_host, tmp_path)
    tags = ["red hair", "blue hair", "smile", "park", "night", "sky", "close-up"]
    wanted = norm_targets("captions", tiny_host.text, tags).norms[0]
    assert wanted != norm_targets("median", tiny_host.text).norms[0]
    for (rows,) in ended.values():
        torch.testing.assert_close(rows.norm(dim=1), torch.full((len(rows),), wanted))


def test_a_run_of_an_older_file_is_the_same_to_the_bit(tiny_host, two_embeddings_folder, tmp_path):
    plain = {**plain_run(two_embeddings_folder), "version": 1}
    explicit = {**plain_run(two_embeddings_folder), "embeddings_common": {"norm_target": "median"}}
    old, new = (run_from_dict(body) for body in (plain, explicit))
    assert old == new
    (_, first), (_, second) = (trained(run, tiny_host, tmp_path / str(i)) for i, run in enumerate((old, new)))
    assert_same({n: t[0] for n, t in first.items()}, {n: t[0] for n, t in second.items()})


def test_bare_captions_reach_the_batches(tiny_host, two_embeddings_folder, tmp_path):
    run = recipe(
        two_embeddings_folder,
        data={"bare_caption": 1.0, "bare_caption_class": True},
        embeddings=[{"name": "aoi", "class_text": "1girl"}, {"name": "hana"}],
    )
    seen = set()
    original = tiny_host.text.encode
    tiny_host.text.encode = lambda prompts, embeddings: seen.update(prompts) or original(prompts, embeddings)
    trained(run, tiny_host, tmp_path)
    assert {"aoi, 1girl", "hana"} <= seen and not any("hair" in prompt for prompt in seen)


# ---- where embeddings start ----


def test_cross_init_is_where_a_run_starts(tiny_host, two_embeddings_folder, tmp_path):
    common = {"start": "cross_init", "norm_target": "initial"}
    embeddings = [{"name": "aoi", "init_text": "red hair", "vectors": 2}, {"name": "hana", "init_text": "random"}]
    run = recipe(two_embeddings_folder, common=common, embeddings=embeddings)
    begun = starts(run, tiny_host, tmp_path)
    with torch.no_grad():
        wanted = tiny_host.text.encode(["red hair"], {}).context[0, 1:3]
    torch.testing.assert_close(begun["aoi"][0], wanted)
    assert begun["hana"][0].norm(dim=1).mean() < 0.1 * begun["aoi"][0].norm(dim=1).mean()  # of the token table


def test_a_weight_holds_embeddings_near_to_their_start(tiny_host, two_embeddings_folder, tmp_path):
    moved = []
    for weight in (0.0, 100.0):
        common = {"start_weight": weight, "control": "none"}
        run = recipe(two_embeddings_folder, common=common, max_steps=20)
        begun = starts(run, tiny_host, tmp_path / f"{weight} start")
        told, ended = trained(run, tiny_host, tmp_path / str(weight))
        moved.append(sum(float((ended[n][0] - begun[n][0]).norm()) for n in ended))
        assert ("start distance" in told.of(StepDone)[-1].losses) == (weight > 0)
    assert moved[1] < 0.5 * moved[0]


def test_the_text_warm_up_brings_names_to_their_tags_before_the_first_step(tiny_host, two_embeddings_folder, tmp_path):
    """Its loss falls for an embedding with tags; one without is where it was."""
    embeddings = [{"name": "aoi", "init_text": "*[1,4], red hair", "vectors": 4}, {"name": "hana"}]
    begun = []
    for steps in (0, 60):
        common = {"text_steps": steps, "control": "none"}
        run = recipe(two_embeddings_folder, common=common, embeddings=embeddings)
        begun.append(starts(run, tiny_host, tmp_path / str(steps)))
    found = goals(tiny_host.text, {"aoi": "red hair"}, {"aoi": 4}, "")
    with torch.no_grad():
        wanted = [text_outputs.encode(tiny_host.text, [goal.other], {}) for goal in found]
        before, after = (distances(tiny_host.text, found, wanted, {"aoi": tuple(one["aoi"])}) for one in begun)
    assert float(after) < 0.7 * float(before) and torch.equal(begun[0]["hana"][0], begun[1]["hana"][0])


# ---- editability ----


@pytest.mark.parametrize("rule", ["class_diffusion", "core"])
def test_embeddings_stay_editable(rule, tiny_host, two_embeddings_folder, tmp_path):
    """With the term its distance ends lower than without; it is reported with each step."""
    ended = []
    for weight in (1e-9, 5.0):
        common = {"editability": rule, "editability_weight": weight, "control": "none"}
        told, _ = trained(
            recipe(two_embeddings_folder, common=common, max_steps=30, **CLASSES), tiny_host, tmp_path / f"{weight}"
        )
        seen = [event.losses["editability"] / weight for event in told.of(StepDone)]
        ended.append(sum(seen[-8:]) / 8)
    assert ended[1] < 0.7 * ended[0]


def test_terms_leave_embeddings_alone_that_no_sample_names(tiny_host, two_embeddings_folder, tmp_path):
    """One sample a step: the term of the step moves its embedding alone."""
    common = {"editability": "core", "start_weight": 1.0, "editability_weight": 5.0, "control": "none"}
    run = recipe(two_embeddings_folder, common=common, max_steps=1, batch_size=1, **CLASSES)
    begun = starts(run, tiny_host, tmp_path / "start")
    told, ended = trained(run, tiny_host, tmp_path / "out")
    (seen,) = told.of(StepDone)[-1].images_seen
    assert {name for name in ended if not torch.equal(ended[name][0], begun[name][0])} == {seen}


def test_terms_are_frozen_with_the_embeddings(tiny_host, two_embeddings_folder, tmp_path):
    """In the second phase of two the embeddings stay, and nothing is lost on them."""
    common = {"editability": "core", "control": "none"}
    run = recipe(two_embeddings_folder, common=common, phases="two_phase", words_steps=3, **CLASSES)
    told, _ = trained(run, tiny_host, tmp_path)
    seen = [event.losses["editability"] for event in told.of(StepDone)]
    assert seen[2] > 0 and seen[3:] == [0.0] * 5  # at its start an embedding may be its class


def test_terms_see_the_checkpoints_own_text_encoder(tiny_host, two_embeddings_folder, tmp_path):
    """A network on the text encoder is off for them: the same embeddings have the same distance at any step."""
    common = {"editability": "class_diffusion", "editability_weight": 1.0, "control": "none", "lr": 1e-9}
    run = recipe(two_embeddings_folder, common=common, rate="constant", **CLASSES)
    begun = starts(run, tiny_host, tmp_path / "start")
    told, _ = trained(run, tiny_host, tmp_path / "out")
    classes, vectors = {"aoi": "1girl", "hana": "blue hair"}, {"aoi": 3, "hana": 2}
    rule = Editability("class_diffusion", tiny_host.text, classes=classes, vectors=vectors)
    with torch.no_grad():
        each = {n: float(rule({n: tuple(begun[n])}, [n], seeds=(0, 0))) for n in begun}
    seen_before = {"aoi": 0, "hana": 0}
    for event in told.of(StepDone):
        counts = {name: event.images_seen.get(name, 0) - seen_before[name] for name in each}
        assert event.losses["editability"] == pytest.approx(sum(counts[n] * each[n] for n in each) / 2, rel=1e-3)
        seen_before = {name: event.images_seen.get(name, 0) for name in each}


@pytest.mark.parametrize(
    ("common", "embeddings", "field"),
    [
        ({"start": "cross_init"}, [{"name": "aoi"}], "embeddings_common.norm_target"),
        ({"start": "cross_init", "control": "direction"}, [{"name": "aoi"}], "embeddings_common.norm_target"),
        ({"editability": "core"}, [{"name": "aoi", "init_text": "random"}], "embeddings.0.class_text"),
        ({"editability_prompts": ["in a park"]}, [{"name": "aoi"}], "embeddings_common.editability_prompts"),
    ],
)
def test_what_cannot_work_is_refused(common, embeddings, field):
    _, faults = check_run({"embeddings": embeddings, "embeddings_common": common})
    assert [fault.field for fault in faults] == [field]
