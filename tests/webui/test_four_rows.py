"""The script "Four rows": the same words and seeds with each part of the bundle."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import write_lora


@pytest.fixture
def script(fake_webui: FakeWebUI) -> Any:
    from lib_pivotal.webui import cond_cache_patch, four_rows, resolution_patch

    resolution_patch.register()
    cond_cache_patch.register()
    return four_rows.FourRows()


def processing(webui: FakeWebUI, prompt: str, **settings: Any) -> Any:
    return webui.processing.StableDiffusionProcessingTxt2Img(
        prompt=prompt,
        width=32,
        height=16,
        steps=2,
        seed=3,
        sampler_name="Euler",
        outpath_samples=str(webui.data / "samples"),
        outpath_grids=str(webui.data / "grids"),
        **settings,
    )


def test_rows_are_the_pictures_of_their_parts(fake_webui: FakeWebUI, script: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1, "kira": 2}, parts=("unet", "te"))
    p = processing(fake_webui, "<lora:one:0.8>a face")
    done = script.run(p, "", "", 4)
    assert len(done.images) == len(done.infotexts) == 1 + 8 and done.index_of_first_image == 1
    sizes = {"width": 32, "height": 16, "seed": 3}
    number = 1
    for tag in ("0.8:0.8", "0:0.8", "0.8:0", "0:0"):
        for embedding in ("hana", "kira"):
            expected = fake_webui.pixels(f"<lora:one:{tag}>{embedding}, a face", **sizes)
            assert [done.images[number].tobytes()] == expected, (tag, embedding)
            assert (
                f"<lora:one:{tag}>{embedding}" in done.infotexts[number]
                and "Script: Four rows" in done.infotexts[number]
            )
            number += 1
    grid = done.images[0]
    assert grid.width >= 2 * 32 and grid.height >= 4 * 16
    assert len(list((fake_webui.data / "grids").iterdir())) == 1
    assert len(list((fake_webui.data / "samples").iterdir())) == 8


def test_prompts_and_embeddings_make_columns(fake_webui: FakeWebUI, script: Any) -> None:
    from lib_pivotal.webui.four_rows import columns_of

    write_lora(fake_webui, "one", {"hana": 1, "kira": 2})
    tag = "<lora:one:1>"
    assert columns_of(f"{tag}a face", "", "") == [("hana", f"{tag}hana, a face"), ("kira", f"{tag}kira, a face")]
    assert columns_of(tag, "hana", "") == [("hana", f"{tag}hana")]
    assert columns_of(f"{tag}a", "hana, x\ny", "") == [
        *(("hana", f"{tag}hana, a"), ("x", f"{tag}x, a"), ("y", f"{tag}y, a")),
    ]
    assert columns_of(tag, "", "a cat\n\n<lora:two:1> a dog") == [
        ("a cat", f"{tag}a cat"),
        ("a dog", "<lora:two:1> a dog"),
    ]
    assert columns_of(tag, "", "one {word} face") == [
        ("hana", f"{tag}one hana face"),
        ("kira", f"{tag}one kira face"),
    ]
    assert columns_of(tag, "hana", "a cat | a {word} dog") == [
        ("hana: a cat", f"{tag}hana, a cat"),
        ("hana: a  dog", f"{tag}a hana dog"),
    ]
    assert columns_of("no tag", "", "") == []


def test_nothing_to_show_is_said(fake_webui: FakeWebUI, script: Any) -> None:
    with pytest.raises(ValueError, match="no embedding and no prompt"):
        script.run(processing(fake_webui, "a face"), "", "", 0)


def test_an_interrupt_ends_it_with_what_was_made(fake_webui: FakeWebUI, script: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1})

    class Interrupting(fake_webui.scripts.Script):  # type: ignore[name-defined, misc]
        def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
            fake_webui.shared.state.interrupt()

    p = processing(fake_webui, "<lora:one:1>a face", do_not_save_samples=True)
    p.scripts = fake_webui.scripts.ScriptRunner([Interrupting()])
    done = script.run(p, "", "", 0)
    assert len(done.images) == len(done.infotexts) == 1
    assert done.index_of_first_image == 0


def test_its_form(fake_webui: FakeWebUI, script: Any) -> None:
    assert script.title() == "Four rows"
    with gr.Blocks():
        components = script.ui(False)
    assert len(components) == 3
    assert [name for _, name in script.infotext_fields] == ["Four rows words", "Four rows prompts"]


def test_the_grid_may_stay_unsaved(fake_webui: FakeWebUI, script: Any) -> None:
    fake_webui.opts.data["grid_save"] = False
    write_lora(fake_webui, "one", {"hana": 1})
    script.run(processing(fake_webui, "<lora:one:1>a", do_not_save_samples=True), "", "", 0)
    assert not (fake_webui.data / "grids").exists()
