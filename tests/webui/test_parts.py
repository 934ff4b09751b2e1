"""The script "LoRA parts": what happens to tags before the web UI reads them."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import write_lora


@pytest.fixture
def script(fake_webui: FakeWebUI) -> Any:
    from lib_pivotal.webui import cond_cache_patch, parts, resolution_patch

    resolution_patch.register()
    cond_cache_patch.register()
    return parts.LoraParts()


def test_it_stands_in_both_tabs(fake_webui: FakeWebUI, script: Any) -> None:
    assert script.title() == "LoRA parts"
    assert script.show(False) is script.show(True) is fake_webui.scripts.AlwaysVisible
    with gr.Blocks() as blocks:
        assert script.ui(False) == script.ui(True) == [], "nothing of it is an argument"
    assert len(blocks.blocks) > 1


def test_a_batch_that_names_different_files_is_made_one_by_one(fake_webui: FakeWebUI, script: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1})
    write_lora(fake_webui, "two", {"hana": 2})
    prompts = ["<lora:one:1>hana", "<lora:two:1>hana"]
    alone = [fake_webui.pixels(prompt)[0] for prompt in prompts]
    seeds = {"seed": [1, 1], "batch_size": 2}
    assert fake_webui.pixels(prompts, **seeds) != alone, "the stock web UI activates the first one's tags for all"
    done = fake_webui.txt2img(prompts, scripts=[script], **seeds)
    assert [image.tobytes() for image in done.images] == alone
    assert "made one by one" in done.comments


@pytest.mark.parametrize(
    ("prompts", "settings"),
    [
        (["<lora:one:1>hana", "<lora:one:1>kira"], {}),
        (["<lora:bare:1>hana", "<lora:other:1>hana"], {}),
        (["<lora:one:1>hana", "<lora:two:1>hana"], {"disable_extra_networks": True}),
    ],
)
def test_other_batches_stay_as_they_are(fake_webui: FakeWebUI, script: Any, prompts: Any, settings: Any) -> None:
    for name, embeddings in (("one", {"hana": 1}), ("two", {"hana": 2}), ("bare", {}), ("other", {})):
        write_lora(fake_webui, name, embeddings, parts=("unet",))
    sizes: list[int] = []

    class Watching(fake_webui.scripts.Script):  # type: ignore[name-defined, misc]
        def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
            sizes.append(p.batch_size)

    fake_webui.txt2img(prompts, seed=[1, 1], batch_size=2, scripts=[script, Watching()], **settings)
    assert sizes == [2]


def test_a_text_encoders_weight_alone_is_written_out(fake_webui: FakeWebUI, script: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1}, parts=("unet", "te"))
    expected = fake_webui.pixels("<lora:one:0:1>hana")
    assert fake_webui.pixels("<lora:one:1:te=0>hana") != expected, "the web UI takes it for both"
    done = fake_webui.txt2img("<lora:one:1:te=0>hana", scripts=[script])
    assert [image.tobytes() for image in done.images] == expected
    assert done.infotexts[0].startswith("<lora:one:0:1>hana")
    assert "written out" in done.comments


def test_of_other_files_it_is_said(fake_webui: FakeWebUI, script: Any) -> None:
    write_lora(fake_webui, "bare", parts=("unet", "te"))
    expected = fake_webui.pixels("<lora:bare:1:te=0>hana")
    done = fake_webui.txt2img("<lora:bare:1:te=0>hana", scripts=[script])
    assert [image.tobytes() for image in done.images] == expected
    assert "te=… alone sets the U-Net's weight too" in done.comments
    assert done.infotexts[0].startswith("<lora:bare:1:te=0>hana")


def test_the_second_pass_prompts_are_written_out_too(fake_webui: FakeWebUI, script: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1})
    seen: list[Any] = []

    class Watching(fake_webui.scripts.Script):  # type: ignore[name-defined, misc]
        def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
            seen.append(list(p.all_hr_prompts))

    fake_webui.txt2img("<lora:one:1>x", enable_hr=True, hr_prompt="<lora:one:1:te=0>hana", scripts=[script, Watching()])
    assert seen == [["<lora:one:0:1>hana"]]


def test_networks_that_stay_where_extra_networks_are_off_are_told(fake_webui: FakeWebUI, script: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1}, parts=("unet",))
    fake_webui.pixels("<lora:one:1>x")
    done = fake_webui.txt2img("x", disable_extra_networks=True, scripts=[script])
    assert "those of the one before stay: one" in done.comments
    fake_webui.pixels("x")
    assert "stay" not in fake_webui.txt2img("x", disable_extra_networks=True, scripts=[script]).comments


def test_the_setting_add_network_to_prompt(fake_webui: FakeWebUI, script: Any) -> None:
    from lib_pivotal.webui import parts

    write_lora(fake_webui, "one", {"hana": 1})
    assert parts.with_added_network("x") == "x"
    fake_webui.opts.data["sd_lora"] = "one"
    assert parts.with_added_network("x") == "x<lora:one:1.0>"
    assert parts.with_added_network("<lora:one:0.5>x") == "<lora:one:0.5>x"
    fake_webui.opts.data["sd_lora"] = "gone"
    assert parts.with_added_network("x") == "x"
