"""Conditionings are computed anew when what a name stands for changed, and the infotext forgets nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import write_embedding, write_lora


@pytest.fixture
def ours(fake_webui: FakeWebUI) -> FakeWebUI:
    from lib_pivotal.webui import cond_cache_patch, resolution_patch

    resolution_patch.register()
    cond_cache_patch.register()
    return fake_webui


def test_patched_and_taken_back(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import cond_cache_patch

    owner = fake_webui.processing.StableDiffusionProcessing
    before = owner.cached_params, owner.get_conds_with_caching
    for _ in range(2):
        cond_cache_patch.register()
        assert all(
            new is not old for new, old in zip((owner.cached_params, owner.get_conds_with_caching), before, strict=True)
        )
    cond_cache_patch.unregister()
    cond_cache_patch.unregister()
    assert (owner.cached_params, owner.get_conds_with_caching) == before


def test_without_lora_nothing_is_patched(tmp_path: Any) -> None:
    from tests.webui.fake.install import installed

    with installed(tmp_path, lora=False) as webui:
        from lib_pivotal.webui import cond_cache_patch

        before = webui.processing.StableDiffusionProcessing.cached_params
        cond_cache_patch.register()
        assert webui.processing.StableDiffusionProcessing.cached_params is before


def test_the_setting_for_collisions_changes_the_same_prompts_picture(ours: FakeWebUI) -> None:
    from lib_pivotal.webui import resolution_patch

    write_lora(ours, "one", {"hana": 1})
    write_embedding(ours, "hana", seed=2)
    first = ours.pixels("<lora:one:1>hana")
    ours.opts.data[resolution_patch.PRIORITY] = resolution_patch.FOLDER_FIRST
    second = ours.pixels("<lora:one:1>hana")
    ours.opts.data.pop(resolution_patch.PRIORITY)
    assert first != second
    assert ours.pixels("<lora:one:1>hana") == first


def test_conditionings_are_reused_where_nothing_changed(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"hana": 1}, parts=("unet",))
    encoder = ours.model.cond_stage_model
    calls: list[int] = []
    original = type(encoder).process_tokens
    type(encoder).process_tokens = lambda self, *rest: calls.append(1) or original(self, *rest)  # type: ignore[func-returns-value]
    try:
        for prompt in ("a face", "<lora:one:1>hana"):
            ours.pixels(prompt)
            calls.clear()
            ours.pixels(prompt)
            assert calls == [], prompt
    finally:
        type(encoder).process_tokens = original


def test_hashes_of_embeddings_stand_in_every_infotext(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"hana": 1, "kira": 2})
    texts = [ours.txt2img("<lora:one:1>hana, 0").infotexts[0] for _ in range(2)]
    digest = ours.networks.available_networks["one"].shorthash
    assert all(f"TI hashes: hana: {digest}" in text.replace('"', "") for text in texts), "the reused one's, too"
    assert "TI hashes" not in ours.txt2img("<lora:one:1>face").infotexts[0]
    ours.opts.data["lora_bundled_ti_to_infotext"] = False
    assert "TI hashes" not in ours.txt2img("<lora:one:1>hana, 5").infotexts[0]
    ours.opts.data["textual_inversion_add_hashes_to_infotext"] = False
    assert "TI hashes" not in ours.txt2img("<lora:one:1>hana, 6").infotexts[0]


def test_the_stock_web_ui_forgets_them(fake_webui: FakeWebUI) -> None:
    write_embedding(fake_webui, "hana", seed=1)
    texts = [fake_webui.txt2img("hana").infotexts[0] for _ in range(2)]
    assert ["TI hashes" in text for text in texts] == [True, False]


def test_negative_prompts_embeddings_stand_beside_the_positive_ones(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"hana": 1, "kira": 2})
    for _ in range(2):
        text = ours.txt2img("<lora:one:1>hana", negative_prompt="kira").infotexts[0].replace('"', "")
        digest = ours.networks.available_networks["one"].shorthash
        assert f"kira: {digest}" in text and f"hana: {digest}" in text


def test_emphasis_is_told_again(ours: FakeWebUI) -> None:
    ours.opts.data["emphasis"] = "No norm"
    assert all("Emphasis: No norm" in ours.txt2img("(face:1.2)").infotexts[0] for _ in range(2))


@pytest.mark.parametrize("early", [False, True])
def test_the_second_pass_has_its_own_embeddings(ours: FakeWebUI, early: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With "use first pass conds" the web UI reads the second pass' prompt with the first pass' networks."""
    write_lora(ours, "one", {"hana": 1})
    write_lora(ours, "two", {"hana": 2})
    ours.opts.data["hires_fix_use_firstpass_conds"] = early
    expected = ours.processing.prompt_parser.stacked
    made = {}

    class Watching(ours.scripts.Script):  # type: ignore[name-defined, misc]
        def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
            made["first"] = expected(p.c)
            made["second"] = expected(p.hr_c) if p.hr_c is not None else None

    sample = ours.processing.StableDiffusionProcessingTxt2Img.sample

    def sampled(p: Any, noise: Any) -> Any:
        made["early"] = p.hr_c is not None
        made["networks"] = [net.name for net in ours.networks.loaded_networks]
        return sample(p, noise)

    monkeypatch.setattr(ours.processing.StableDiffusionProcessingTxt2Img, "sample", sampled)
    ours.txt2img("<lora:two:1>hana", scripts=[Watching()])
    two = made["first"]
    ours.txt2img("<lora:one:1>hana", enable_hr=True, hr_prompt="<lora:two:1>hana", scripts=[Watching()])
    assert not made["first"].equal(two)
    assert made["early"] is early
    assert made["second"].equal(two)
    assert made["networks"] == ["one"], "the first pass' are back"
    assert [net.name for net in ours.networks.loaded_networks] == ["two"]


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("kind", ["embedding", "bundle", "negative", "words"])
def test_hashes_of_the_second_pass_stand_in_the_infotext(ours: FakeWebUI, kind: str, early: bool) -> None:
    """Of an embedding that only the second pass' prompt has; and again, where the conditioning is reused."""
    write_lora(ours, "one", {"hana": 1})
    write_embedding(ours, "kira", seed=3)
    ours.opts.data["hires_fix_use_firstpass_conds"] = early
    digest = ours.networks.available_networks["one"].shorthash
    settings = {
        "embedding": {"hr_prompt": "kira"},
        "bundle": {"hr_prompt": "<lora:one:1>hana"},
        "negative": {"hr_prompt": "<lora:one:1>face", "hr_negative_prompt": "hana"},
        "words": {"hr_prompt": "<words:one>hana"},
    }[kind]
    for prompt in ("face", "face", "a face"):
        text = ours.txt2img(prompt, enable_hr=True, **settings).infotexts[0].replace('"', "")
        told = text.partition("TI hashes: ")[2]
        assert told.startswith("kira: " if kind == "embedding" else f"hana: {digest}")
        assert told.count("kira: " if kind == "embedding" else "hana: ") == 1
        assert (f"Lora hashes: one: {digest}" in text) is (kind != "embedding")
    assert "hashes" not in ours.txt2img("face").infotexts[0]


def test_hashes_of_both_passes_stand_together(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"hana": 1})
    write_embedding(ours, "kira", seed=3)
    text = ours.txt2img("kira", enable_hr=True, hr_prompt="<lora:one:1>hana kira").infotexts[0].replace('"', "")
    told = text.partition("TI hashes: ")[2]
    assert told.count("kira: ") == told.count("hana: ") == 1


def test_lists_of_hashes_are_joined(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui.cond_cache_patch import joined_hashes

    assert joined_hashes("a: 1, b: 2", None, "b: 2, c: 3", "") == "a: 1, b: 2, c: 3"
    assert joined_hashes(None, "") == ""
