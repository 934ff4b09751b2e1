"""Embeddings adjusted by their file's tag: the picture of the adjusted vectors, for this generation and file alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from lib_pivotal.embeddings.slerp import adjusted_rows
from tests.webui.fake.install import FakeWebUI
from tests.webui.files import embedding, write_lora

TEXTS = {"pivotal.words": json.dumps({"hana": {"init_text": "red hair, girl"}, "kira": {"init_text": "random"}})}


@pytest.fixture
def ours(fake_webui: FakeWebUI) -> FakeWebUI:
    from lib_pivotal.webui import cond_cache_patch, resolution_patch

    resolution_patch.register()
    cond_cache_patch.register()
    return fake_webui


def changed(kind: str, towers: Any, *, norm: float, share: float) -> Any:
    """The vectors by hand: towards the rows of "red", "hair" and "girl" in the checkpoint's own tables."""
    from lib_pivotal.webui.adjusting import token_tables

    tables = [torch.cat(tower) for tower in zip(*map(token_tables().embed_text, ("red hair", "girl")), strict=True)]
    assert len(tables) == (2 if kind == "sdxl" else 1)
    return tuple(
        adjusted_rows(tower, table, norm=norm, init_share=share) for tower, table in zip(towers, tables, strict=True)
    )


@pytest.mark.parametrize("fake_webui", ["sd1", "sd2", "sdxl"], indirect=True)
@pytest.mark.parametrize("tag", ["<lora:one:1:emb=hana*0.5~0.2>", "<words:one:emb=HANA*0.5~0.2>"])
def test_the_picture_is_that_of_the_adjusted_vectors(ours: FakeWebUI, request: pytest.FixtureRequest, tag: str) -> None:
    kind = request.node.callspec.params["fake_webui"]
    towers = embedding(kind, 3, seed=3)
    write_lora(ours, "one", {"hana": towers}, kind=kind, metadata=TEXTS)
    write_lora(ours, "two", {"hana": changed(kind, towers, norm=0.5, share=0.2)}, kind=kind)
    plain = ours.pixels("<lora:one:1> a hana face")
    assert ours.pixels("<lora:one:1:emb=hana*1~0> a hana face") == plain
    done = ours.pixels(f"{tag} a hana face")
    assert done == ours.pixels("<lora:two:1> a hana face") != plain
    assert ours.pixels("<lora:one:1> a hana face") == plain, "the file's embedding is what it was"
    assert ours.errors.exception_records == []


def test_only_what_is_named_is_adjusted(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"hana": 1, "kira": 2}, metadata=TEXTS)
    write_lora(ours, "two", {"hana": 1}, metadata=TEXTS)
    kira, other = ours.pixels("<lora:one:1> kira"), ours.pixels("<lora:one:1><lora:two:1> hana@two")
    assert ours.pixels("<lora:one:1:emb=hana*0.5~0.5> kira") == kira
    assert ours.pixels("<lora:one:1:emb=hana*0.5~0.5><lora:two:1> hana@two") == other
    both = ours.pixels("<lora:one:1:emb=hana*0.5~0:emb=kira*2~0> hana kira")
    assert both != ours.pixels("<lora:one:1:emb=hana*0.5~0> hana kira") != ours.pixels("<lora:one:1> hana kira")


def test_a_cached_conditioning_knows_of_it(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"hana": 1}, metadata=TEXTS)
    prompts = [f"<lora:one:1:emb=hana*{norm}~{share}> hana" for norm, share in ((1, 0), (0.5, 0), (0.5, 0.3), (1, 0.3))]
    first = [ours.pixels(prompt) for prompt in prompts]
    assert len({pixels[0] for pixels in first}) == len(prompts)
    assert [ours.pixels(prompt) for prompt in prompts] == first


def test_it_holds_in_and_parts_of_a_prompt_and_in_the_negative_one(ours: FakeWebUI) -> None:
    towers = embedding("sd1", seed=1)
    write_lora(ours, "one", {"hana": towers}, metadata=TEXTS)
    write_lora(ours, "two", {"hana": changed("sd1", towers, norm=0.5, share=0.2)})
    for prompt in ("hana AND a face", "[hana:a face:0.5]", "a face BREAK (hana:1.2)"):
        assert ours.pixels(f"<lora:one:1:emb=hana*0.5~0.2>{prompt}") == ours.pixels(f"<lora:two:1>{prompt}")
    negative = {"negative_prompt": "hana"}
    assert ours.pixels("<lora:one:1:emb=hana*0.5~0.2>a", **negative) == ours.pixels("<lora:two:1>a", **negative)


def test_it_holds_in_the_second_pass(ours: FakeWebUI) -> None:
    from lib_pivotal.webui.cond_facts import first_tensor

    towers = embedding("sd1", seed=1)
    write_lora(ours, "one", {"hana": towers}, metadata=TEXTS)
    write_lora(ours, "two", {"hana": changed("sd1", towers, norm=0.5, share=0.2)})
    made: list[torch.Tensor] = []

    class Watching(ours.scripts.Script):  # type: ignore[name-defined, misc]
        def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
            made.append(first_tensor(p.hr_c).clone())

    for tag in ("<lora:one:1>", "<lora:one:1:emb=hana*0.5~0.2>", "<lora:two:1>"):
        ours.txt2img("<lora:one:1>hana", enable_hr=True, hr_prompt=f"{tag}hana", scripts=[Watching()])
    plain, adjusted, written = made
    assert torch.equal(adjusted, written) and not torch.equal(adjusted, plain)


def test_prompts_of_a_batch_that_adjust_differently_are_made_one_by_one(ours: FakeWebUI) -> None:
    from lib_pivotal.webui import parts

    write_lora(ours, "one", {"hana": 1}, metadata=TEXTS)
    batch = ["<lora:one:1:emb=hana*0.5~0.2>hana", "<lora:one:1>hana"]
    alone = [ours.pixels(prompt)[0] for prompt in batch]
    done = ours.txt2img(batch, scripts=[parts.LoraParts()], seed=[1, 1], batch_size=2)
    assert [image.tobytes() for image in done.images] == alone
    assert alone[0] != alone[1]


def test_what_cannot_be_done_is_said_and_the_rest_is_done(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"hana": 1, "kira": 2}, metadata=TEXTS)
    half = ours.pixels("<lora:one:1:emb=kira*0.5~0> kira")
    done = ours.txt2img("<lora:one:1:emb=kira*0.5~0.5:emb=mio*2:emb=hana> kira")
    assert [image.tobytes() for image in done.images] == half
    assert "one: the file keeps no init text of kira, so its direction stays" in done.comments
    assert "one: has no embedding 'mio' to adjust; there are hana, kira" in done.comments
    assert "'hana' is not NAME*NORM~SHARE" in done.comments


def test_the_same_again_is_not_made_again(ours: FakeWebUI) -> None:
    from lib_pivotal.webui.resolution import resolver

    write_lora(ours, "one", {"hana": 1}, metadata=TEXTS)
    for _ in range(2):
        ours.pixels("<lora:one:1:emb=hana*0.5~0.2> hana")
        table = resolver.built[1] if resolver.built else None
    ours.pixels("<lora:one:1:emb=hana*0.5~0.2> hana", seed=2)
    assert resolver.built is not None and resolver.built[1] is table
    assert len(resolver.adjusted) == 1


def test_the_stock_web_ui_passes_over_it(fake_webui: FakeWebUI) -> None:
    write_lora(fake_webui, "one", {"hana": 1}, parts=("unet", "te"), metadata=TEXTS)
    plain = fake_webui.pixels("<lora:one:0.5:0.8> hana")
    assert fake_webui.pixels("<lora:one:0.5:0.8:emb=hana*0.5~0.2:emb=kira*2~0> hana") == plain
    assert fake_webui.errors.exception_records == []


def test_infotext_keeps_the_tag(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"hana": 1}, metadata=TEXTS)
    done = ours.txt2img("<lora:one:1:emb=hana*0.5~0.2> hana")
    assert done.infotexts[0].startswith("<lora:one:1:emb=hana*0.5~0.2> hana")
