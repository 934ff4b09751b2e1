"""Every setting has its place on the page, with words to it, and what goes in comes out."""

import dataclasses
import json

import gradio as gr
import pytest

from lib_pivotal.config import EmbeddingConfig, LayerGroup, PartConfig, Run, run_to_dict
from lib_pivotal.config_schema import describe, walk
from lib_pivotal.networks.registry import ALGORITHMS, all_options
from lib_pivotal.ui.form import GROUPS, TABLE, Form, embedding_help, from_widget, help_text, kind_of, to_widget

OPTIONS = [f"network.options.{name}" for name in all_options()]
PATHS = [*(path for path, _, _ in walk(Run) if path != "network.options"), *OPTIONS]


def build(form):
    with gr.Blocks(analytics_enabled=False) as blocks:
        for group in GROUPS:
            form.add_group(group)
    return blocks


def busy_run():
    """A run in which no setting has its default."""

    def other(field, hint, path):
        setting, default = describe(field), field.default
        if setting.choices:
            return next(choice for choice in setting.choices if choice != default)
        if hint is bool:
            return not default
        if hint is str:
            return {"data.folder": "pictures", "name": "gekidol"}.get(path, "some text, [x] | é")
        high = setting.maximum if setting.maximum is not None else 1e6
        low = setting.minimum if setting.minimum is not None else 0.0
        value = low + (min(high, low + 900) - low) * 0.37
        return int(value) + 1 if hint is int else value

    def fill(section, prefix=""):
        changes = {}
        for path, field, hint in walk(type(section), prefix):
            if path.count(".") == prefix.count("."):
                changes[field.name] = other(field, hint, path) if hint in (int, float, str, bool) else None
        return {name: value for name, value in changes.items() if value is not None}

    run = Run()
    parts = {}
    for field in dataclasses.fields(Run):
        part = getattr(run, field.name)
        if dataclasses.is_dataclass(part):
            parts[field.name] = dataclasses.replace(part, **fill(part, f"{field.name}."))
    run = dataclasses.replace(run, **parts, **fill(run))
    return dataclasses.replace(
        run,
        embeddings=(
            EmbeddingConfig("aoi", "1girl, *[0.1,2]", vectors=6, lr_factor=0.5, prune=True),
            EmbeddingConfig("hana"),
        ),
        embeddings_common=dataclasses.replace(run.embeddings_common, editability_prompts=("{word} | [x], é",)),
        network=dataclasses.replace(
            run.network,
            algorithm="dora",
            options={"rank_stabilised": True, "factor": 8},
            groups=(LayerGroup("up|down", 8, 4.0, 0.25), LayerGroup("a|b", 2, 1.0, 1.0, "lokr")),
        ),
        regularisation=dataclasses.replace(run.regularisation, prompts=("1girl, [x] | é", "1boy")),
        data=dataclasses.replace(
            run.data,
            templates=("{word}, {caption}", "a photo of {word}"),
            word_lists=("place = park | beach", "mood = calm"),
            tag_dropout_classes=("background = 0.3", "/hat/ = 0.5"),
            caption_fields=("tags = 0.9",),
            balance_weights=("screenshot = 2.5",),
            parts=(
                PartConfig("red [a]/*", loss_weight=0.5, shuffle_tags=False, templates=("a | b",), keep_separator="||"),
                PartConfig("concept:aoi", crop="random", tag_dropout_classes=("hat = 0.5", "/x|y/ = 1"), crops=4),
            ),
        ),
        saving=dataclasses.replace(run.saving, sample_prompts=("{word}, smile",), sample_embeddings=("aoi",)),
        schedule=dataclasses.replace(
            run.schedule, warmup_steps=3, max_steps=30, embeddings_steps=10, optimizer_options=("betas = [0.9, 0.98]",)
        ),
        noise=dataclasses.replace(run.noise, timestep_min=5, timestep_max=900),
    )


def test_every_setting_stands_in_the_table_once():
    assert sorted(entry.path for entry in TABLE) == sorted(PATHS)


def test_every_group_is_known_and_every_label_is_used_once():
    assert {entry.group for entry in TABLE} == set(GROUPS)
    assert len({entry.label for entry in TABLE}) == len(TABLE)
    assert len({entry.elem_id for entry in TABLE}) == len(TABLE)


@pytest.mark.parametrize("path", PATHS)
def test_every_setting_explains_itself(path):
    text = help_text(path)
    assert len(text) > 8 and text.rstrip()[-1] in ".)`"


def test_every_setting_of_an_embedding_explains_itself():
    assert set(embedding_help()) == {field.name for field in dataclasses.fields(EmbeddingConfig)}


def test_a_page_has_a_component_for_each_setting():
    form = Form()
    build(form)
    assert len(form.components) == len(PATHS)
    assert all(component.elem_id.startswith("pivotal_") for component in form.components)


@pytest.mark.parametrize("run", [Run(embeddings=(EmbeddingConfig("aoi"),)), busy_run()], ids=["defaults", "busy"])
def test_what_goes_in_comes_out(run):
    read, faults = Form.read(Form.write(run))
    assert faults == []
    assert run_to_dict(read) == run_to_dict(run)


def test_the_busy_run_differs_everywhere():
    flat = dict(zip([entry.path for entry in TABLE], Form.write(busy_run()), strict=True))
    plain = dict(zip([entry.path for entry in TABLE], Form.write(Run()), strict=True))
    of_other_kinds = {path for path in OPTIONS if path.rpartition(".")[2] not in busy_run().network.options}
    assert [path for path in flat if flat[path] == plain[path] and path not in of_other_kinds] == []


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_kind_keeps_its_own_settings_and_no_others(name):
    """A page shows those of every kind; into the run go the chosen kind's, where they are not as usual."""
    values = Form.write(Run(embeddings=(EmbeddingConfig("aoi"),)))
    places, expected = [entry.path for entry in TABLE], {}
    values[places.index("network.algorithm")] = name
    for option_name, option in all_options().items():
        choices = option.setting.choices
        other = not option.default if option.hint is bool else choices[-1] if choices else option.default + 4
        values[places.index(f"network.options.{option_name}")] = other
        if name in option.kinds:
            expected[option_name] = other
    run, faults = Form.read(values)
    assert faults == [] and run.network.options == expected


def test_it_survives_the_browser():
    """gradio's components take the values, and give them back after JSON."""
    form, run = Form(), busy_run()
    build(form)
    shown = [c.postprocess(v) for c, v in zip(form.components, Form.write(run), strict=True)]
    back = [c.preprocess(v) for c, v in zip(form.components, json.loads(json.dumps(shown)), strict=True)]
    assert run_to_dict(Form.read(back)[0]) == run_to_dict(run)


def test_an_empty_number_is_a_fault_with_its_field():
    values = Form.write(Run(embeddings=(EmbeddingConfig("aoi"),)))
    values[[entry.path for entry in TABLE].index("schedule.max_steps")] = None
    _, faults = Form.read(values)
    assert [(fault.field, fault.problem) for fault in faults] == [("schedule.max_steps", "must be a whole number")]


def test_a_group_of_layers_that_cannot_be_read():
    values = Form.write(Run(embeddings=(EmbeddingConfig("aoi"),)))
    values[[entry.path for entry in TABLE].index("network.groups")] = "down_blocks 8"
    _, faults = Form.read(values)
    assert faults[0].field == "network.groups" and "pattern | rank" in faults[0].problem


def test_a_pattern_may_hold_a_bar():
    text = to_widget("network.groups", [{"pattern": "a|b", "rank": 8, "alpha": 4.0, "lr_factor": 1.0}])
    assert from_widget("network.groups", text)[0]["pattern"] == "a|b"


def test_kinds():
    assert kind_of("embeddings") == "embeddings" and kind_of("data.flip") == "flag" and kind_of("loss.kind") == "choice"


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ({"te_targets": "attention"}, {"te": 2e-5, "te2": 2e-5}),
        ({"te_targets": "attention", "te2_lr": 4e-5}, {"te": 2e-5, "te2": 4e-5}),
        ({"te_targets": "attention", "te2_targets": "none"}, {"te": 2e-5}),
        ({"te_targets": "none", "te2_targets": "attention+mlp", "te2_lr": 4e-5}, {"te2": 4e-5}),
        ({"te_targets": "none"}, {}),
    ],
)
def test_either_of_sdxls_text_encoders_with_a_rate_of_its_own(fields, rates):
    """From the fields of the Train page to what the trainer asks."""
    values = Form.write(Run())
    for name, value in fields.items():
        values[[entry.path for entry in TABLE].index(f"network.{name}")] = value
    run, faults = Form.read(values)
    network = run.network
    assert not [fault for fault in faults if fault.field.startswith("network")]
    assert {part: network.lr_of(part) for part in ("te", "te2") if network.trains(part)} == rates
