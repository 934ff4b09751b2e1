"""What every LoRA file offers, from headers alone, read once while unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from lib_pivotal.commands.terms import both
from tests.webui.fake.install import FakeWebUI
from tests.webui.files import write_lora

RECOMMENDED = {"pivotal.recommended": json.dumps({"te": 0.5, "unet": 0.75})}


@pytest.fixture
def catalog(fake_webui: FakeWebUI) -> Any:
    from lib_pivotal.webui import catalog

    return catalog


def entry(webui: FakeWebUI, name: str) -> Any:
    return webui.networks.available_networks[name]


def test_a_file_is_described(fake_webui: FakeWebUI, catalog: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1, "kira": 2}, parts=("unet", "te"), metadata={"ss_output_name": "Alias"})
    found = catalog.describe(entry(fake_webui, "one"))
    assert (found["name"], found["alias"], found["tag"]) == ("one", "Alias", "<lora:Alias:1>")
    assert [(embedding["name"], embedding["vectors"], embedding["widths"]) for embedding in found["words"]] == [
        ("hana", 2, [16]),
        ("kira", 2, [16]),
    ]
    assert found["parts"] == ["unet", "te"]


def test_init_texts_are_told_where_they_say_a_direction(fake_webui: FakeWebUI, catalog: Any) -> None:
    texts = {"hana": {"init_text": "red hair", "vectors": 2}, "kira": {"init_text": "random"}, "mio": {"init_text": 3}}
    metadata = {"pivotal.words": json.dumps({**texts, "odd": "text"}), "ss_tag_frequency": "{}"}
    write_lora(fake_webui, "one", {name: 1 for name in (*texts, "odd", "bare")}, metadata=metadata)
    described = catalog.describe(entry(fake_webui, "one"))["words"]
    assert {embedding["name"]: embedding["init_text"] for embedding in described} == {
        "hana": "red hair",
        **dict.fromkeys(("kira", "mio", "odd", "bare"), ""),
    }
    assert "ss_tag_frequency" not in catalog.catalog.look(entry(fake_webui, "one").filename).metadata


def test_pickles_and_broken_files_are_told(fake_webui: FakeWebUI, catalog: Any) -> None:
    torch.save({"x": torch.zeros(1)}, fake_webui.lora_folder / "old.pt")
    (fake_webui.lora_folder / "cut.safetensors").write_bytes(b'\x08\0\0\0\0\0\0\0{"a":1')
    fake_webui.networks.list_available_networks()
    assert "pickle" in catalog.describe(entry(fake_webui, "old"))["problems"][0]
    assert "cut.safetensors" in catalog.describe(entry(fake_webui, "cut"))["problems"][0]
    assert catalog.describe(entry(fake_webui, "cut"))["words"] == []
    assert catalog.brings_embeddings("old") is False


def test_a_file_that_is_not_listed_yet_is_looked_for(fake_webui: FakeWebUI, catalog: Any) -> None:
    write_lora(fake_webui, "late", {"hana": 1}, listed=False)
    assert catalog.find_on_disk("late").name == "late"
    assert catalog.brings_embeddings("late")
    assert catalog.find_on_disk("nobody") is None
    assert not catalog.brings_embeddings("nobody")


def test_an_alias_of_two_files_names_none(fake_webui: FakeWebUI, catalog: Any) -> None:
    for name in ("one", "two"):
        write_lora(fake_webui, name, {"hana": 1}, metadata={"ss_output_name": "same"})
    assert catalog.find_on_disk("same") is None
    assert catalog.find_on_disk("one").name == "one"


def test_what_changed_is_read_again(fake_webui: FakeWebUI, catalog: Any) -> None:
    path = write_lora(fake_webui, "one", {"hana": 1})
    first = catalog.catalog.look(path)
    assert catalog.catalog.look(path) is first
    text = catalog.everything_as_json()
    assert json.loads(text) == both(catalog.everything())
    write_lora(fake_webui, "one", {"kira": 1}, listed=False)
    assert [embedding.name for embedding in catalog.catalog.look(path).embeddings] == ["kira"]
    assert json.loads(catalog.everything_as_json()) == both(catalog.everything()) != json.loads(text)
    assert catalog.embeddings_by_name() == {"kira": "one.safetensors"}


@pytest.mark.parametrize(
    ("metadata", "user", "tag"),
    [
        ({}, {}, "<lora:one:1>"),
        ({}, {"preferred weight": 0.8}, "<lora:one:0.8:0.8>"),
        ({}, {"preferred weight": 0}, "<lora:one:1>"),
        ({}, {"pivotal te weight": 0.3}, "<lora:one:0.3:1>"),
        ({}, {"pivotal unet weight": 0.3, "preferred weight": 0.8}, "<lora:one:0.8:0.3>"),
        ({}, {"pivotal part": "words"}, "<lora:one:0:0>"),
        ({}, {"pivotal part": "none"}, "<lora:one:0:0:words=0>"),
        ({}, {"pivotal part": "TE", "preferred weight": 0.8}, "<lora:one:0.8:0>"),
        ({}, {"pivotal part": "nonsense"}, "<lora:one:1>"),
        (RECOMMENDED, {}, "<lora:one:0.5:0.75>"),
        (RECOMMENDED, {"preferred weight": 0.8}, "<lora:one:0.8:0.8>"),
        (RECOMMENDED, {"pivotal part": "U-Net"}, "<lora:one:0:0.75>"),
    ],
)
def test_a_click_writes(fake_webui: FakeWebUI, catalog: Any, metadata: Any, user: Any, tag: str) -> None:
    path = write_lora(fake_webui, "one", {"hana": 1}, metadata=metadata or None)
    path.with_suffix(".json").write_text(json.dumps(user))
    assert catalog.tag_of(entry(fake_webui, "one")) == tag
    assert json.loads(catalog.everything_as_json())[0]["tag"] == tag


def test_the_users_default_multiplier(fake_webui: FakeWebUI, catalog: Any) -> None:
    path = write_lora(fake_webui, "one", {"hana": 1})
    fake_webui.opts.data["extra_networks_default_multiplier"] = 0.6
    assert catalog.tag_of(entry(fake_webui, "one")) == "<lora:one:0.6>"
    path.with_suffix(".json").write_text("[1]")
    assert catalog.user_metadata(entry(fake_webui, "one")) == {}


def test_without_lora_there_is_nothing(tmp_path: Any) -> None:
    from tests.webui.fake.install import installed

    with installed(tmp_path, lora=False):
        from lib_pivotal.webui import catalog

        assert catalog.everything() == []
        assert catalog.everything_as_json() == "[]"
        assert catalog.embeddings_by_name() == {}
