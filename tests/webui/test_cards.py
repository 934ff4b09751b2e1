"""LoRA cards: what a click writes, what is found, and the editor's own fields."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
import pytest

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import write_lora


@pytest.fixture
def page(fake_webui: FakeWebUI) -> Any:
    from lib_pivotal.webui import cards

    cards.register()
    return fake_webui.ui_extra_networks_lora.ExtraNetworksPageLora()


def owners(webui: FakeWebUI) -> list[tuple[Any, str]]:
    editor = webui.ui_edit_user_metadata.LoraUserMetadataEditor
    names = ("create_extra_default_items_in_left_column", "create_editor", "setup_save_handler", "get_metadata_table")
    return [(webui.ui_extra_networks_lora.ExtraNetworksPageLora, "create_item"), *((editor, name) for name in names)]


def test_patched_and_taken_back(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import cards

    before = [getattr(owner, name) for owner, name in owners(fake_webui)]
    own = ["setup_save_handler" in vars(owner) for owner, _ in owners(fake_webui)]
    for _ in range(2):
        cards.register()
        assert all(getattr(o, n) is not old for (o, n), old in zip(owners(fake_webui), before, strict=True))
    cards.unregister()
    assert [getattr(owner, name) for owner, name in owners(fake_webui)] == before
    assert ["setup_save_handler" in vars(owner) for owner, _ in owners(fake_webui)] == own


def test_without_lora_nothing_is_patched(tmp_path: Any) -> None:
    from tests.webui.fake.install import installed

    with installed(tmp_path, lora=False):
        from lib_pivotal.webui import cards

        cards.register()
        cards.unregister()


def test_a_card_finds_embeddings_and_writes_weights(fake_webui: FakeWebUI, page: Any) -> None:
    path = write_lora(fake_webui, "one", {"hana": 1, "<x>": 2})
    item = page.create_item("one")
    assert set(item["search_terms"][-2:]) == {"hana", "&lt;x&gt;"}
    assert item["prompt"] == '"<lora:one:" + opts.extra_networks_default_multiplier + ">"', "as the web UI does it"
    path.with_suffix(".json").write_text(json.dumps({"preferred weight": 0.8, "activation text": "smile"}))
    assert page.create_item("one")["prompt"] == '"<lora:one:" + 0.8 + ">" + " smile"'
    path.with_suffix(".json").write_text(json.dumps({"pivotal te weight": 0.2, "activation text": 'a "b"'}))
    assert page.create_item("one")["prompt"] == '"<lora:one:0.2:1>" + " a \\"b\\""'
    path.with_suffix(".json").write_text(json.dumps({"pivotal part": "none"}))
    assert page.create_item("one")["prompt"] == '"<lora:one:0:0:words=0>"'
    assert page.create_item("nobody") is None


def editor_of(page: Any) -> Any:
    with gr.Blocks() as blocks:
        editor = page.create_user_metadata_editor(None, "txt2img")
        editor.create_ui()
    editor.blocks = blocks
    return editor


def click_of(editor: Any, button: Any, place: int = -1) -> Any:
    """The function behind a button."""
    found = [
        d
        for d in editor.blocks.dependencies
        if any(button._id == target for target in d["targets"] if isinstance(target, int))
    ]
    return editor.blocks.fns[editor.blocks.dependencies.index(found[place])], found[place]


def test_the_editor_keeps_its_fields_in_the_cards_json(fake_webui: FakeWebUI, page: Any) -> None:
    path = write_lora(fake_webui, "one", {"hana": 1})
    page.items["one"] = page.create_item("one")
    editor = editor_of(page)
    save, dependency = click_of(editor, editor.button_save)
    assert len(dependency["inputs"]) == 1 + 6 + 3
    save.fn("one", "about", "SD1", "smile", 0.8, "", "notes", "U-Net", 0.3, None)
    written = json.loads(path.with_suffix(".json").read_text())
    assert (written["pivotal part"], written["pivotal te weight"], written["activation text"]) == (
        "U-Net",
        0.3,
        "smile",
    )
    assert "pivotal unet weight" not in written
    show, _ = click_of(editor, editor.button_edit)
    assert show.fn("one") == ["U-Net", 0.3, None]
    save.fn("one", "about", "SD1", "smile", 0.8, "", "notes", "whole", None, None)
    written = json.loads(path.with_suffix(".json").read_text())
    assert not [key for key in written if key.startswith("pivotal")]


def test_an_editor_that_was_made_before_us_saves_as_ever(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import cards

    write_lora(fake_webui, "one", {"hana": 1})
    page = fake_webui.ui_extra_networks_lora.ExtraNetworksPageLora()
    cards.register()
    editor = page.create_user_metadata_editor(None, "txt2img")
    with gr.Blocks() as blocks:
        editor.edit_name_input = gr.Textbox()
        button = gr.Button()
        editor.setup_save_handler(button, lambda *_: None, [])
    assert len(blocks.dependencies[-1]["inputs"]) == 1


def test_the_table_tells_parts_and_embeddings(fake_webui: FakeWebUI, page: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1}, parts=("unet", "te"))
    page.items["one"] = page.create_item("one")
    editor = page.create_user_metadata_editor(None, "txt2img")
    table = dict(editor.get_metadata_table("one"))
    assert table["Parts:"] == "U-Net, text encoder"
    assert table["Embeddings (vectors):"] == "hana (2)"
    assert table["Filename: "] == "one.safetensors"
    page.items["two"] = {"filename": "two.safetensors"}
    assert "Parts:" not in dict(editor.get_metadata_table("two"))


def test_the_dialog_shows_the_result_card(fake_webui: FakeWebUI, page: Any) -> None:
    from lib_pivotal.bundle.card import CardEdit, DrawnPrompt
    from lib_pivotal.runs.result_card import write_files

    path = write_lora(fake_webui, "one", {"hana": 2})
    edit = CardEdit(licence="<CC0>", weights={"unet": 0.7, "te": 1.0}, cfg=5.0, prompts=[DrawnPrompt("hana, park")])
    write_files(path, edit, None)
    item = page.create_item("one")
    assert item["prompt"] == '"<lora:one:1:0.7>" + " hana"', "weights of the file, the text of the card's json"
    assert item["user_metadata"]["description"] == "hana"
    page.items["one"] = {"filename": str(path)}
    editor = fake_webui.ui_edit_user_metadata.LoraUserMetadataEditor(None, "txt2img", page)
    table = dict(editor.get_metadata_table("one"))
    assert table["Recommended:"] == "U-Net 0.7, text encoder 1, CFG 5" and table["Licence:"] == "&lt;CC0&gt;"
    assert table["Sampled with it:"] == "&lt;lora:one:1:0.7&gt; hana, park"
