"""An old picture's infotext finds its LoRA files by hash, also when they were renamed."""

from __future__ import annotations

import pytest

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import write_lora


@pytest.fixture
def renamed(fake_webui: FakeWebUI) -> tuple[FakeWebUI, str]:
    """A file that was called `old` when the picture was made."""
    write_lora(fake_webui, "new", {"hana": 1})
    entry = fake_webui.networks.available_networks["new"]
    entry.read_hash()
    assert entry.shorthash
    return fake_webui, entry.shorthash


@pytest.mark.parametrize(
    "tag", ["<lora:{}:1>", "<lora:{}>", "<lyco:{}:0.5:1>", "<words:{}>", "<lora:{}:1:te=0>", "<hypernet:{}:1>"]
)
def test_every_tag_finds_its_file(renamed: tuple[FakeWebUI, str], tag: str) -> None:
    from lib_pivotal.webui import infotexts

    webui, digest = renamed
    params = {"Prompt": f"a {tag.format('old')} b", "Hires prompt": tag.format("old"), "Lora hashes": f"old: {digest}"}
    infotexts.pasted("", params)
    name = "old" if tag.startswith("<hypernet") else "new"
    assert params["Prompt"] == f"a {tag.format(name)} b"
    assert params["Hires prompt"] == tag.format(name)


def test_the_stock_web_ui_finds_one_spelling_only(renamed: tuple[FakeWebUI, str]) -> None:
    webui, digest = renamed
    params = {"Prompt": "<lora:old:1> <lora:old> <lyco:old:1>", "Lora hashes": f"old: {digest}"}
    webui.script_callbacks.infotext_pasted_callback("", params)
    assert params["Prompt"] == "<lora:new:1> <lora:old> <lyco:old:1>"


def test_names_with_signs_that_hashes_leave_out(renamed: tuple[FakeWebUI, str]) -> None:
    from lib_pivotal.webui import infotexts

    _, digest = renamed
    params = {"Prompt": "<lora:a,b>", "Lora hashes": f"ab: {digest}"}
    infotexts.pasted("", params)
    assert params["Prompt"] == "<lora:new>"


def test_what_is_right_or_unknown_stays(renamed: tuple[FakeWebUI, str]) -> None:
    from lib_pivotal.webui import infotexts

    _, digest = renamed
    for hashes in (None, "", f"new: {digest}", "old: 000000000000", "nonsense"):
        params = {"Prompt": "<lora:old:1> <lora:new:1>", "Lora hashes": hashes}
        infotexts.pasted("", params)
        assert params["Prompt"] == "<lora:old:1> <lora:new:1>", hashes
    empty: dict[str, object] = {"Lora hashes": f"old: {digest}"}
    infotexts.pasted("", empty)
    assert set(empty) == {"Lora hashes"}
