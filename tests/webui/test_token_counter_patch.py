"""The token counter counts a bundled word as its vectors."""

from __future__ import annotations

from typing import Any

import pytest

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import embedding, write_embedding, write_lora


@pytest.fixture
def ours(fake_webui: FakeWebUI) -> FakeWebUI:
    from lib_pivotal.webui import resolution_patch, token_counter_patch

    resolution_patch.register()
    token_counter_patch.register()
    assert fake_webui.model is not None
    return fake_webui


def count(webui: FakeWebUI, text: str, **settings: Any) -> int:
    """The number that the page shows."""
    html = webui.ui.update_token_counter(text, 20, settings.pop("styles", []), **settings)
    return int(html.split(">")[1].split("/")[0])


def test_patched_and_taken_back(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import token_counter_patch

    owner = fake_webui.sd_hijack.StableDiffusionModelHijack
    before = owner.get_prompt_lengths
    for _ in range(2):
        token_counter_patch.register()
        assert owner.get_prompt_lengths is not before
    token_counter_patch.unregister()
    assert owner.get_prompt_lengths is before


def test_a_embedding_counts_as_its_vectors_as_soon_as_its_tag_stands_there(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"mirelle-quill": embedding("sd1", 5)})
    assert count(ours, "a mirelle-quill face") == 2 + len(ours.model.cond_stage_model.tokenize(["mirelle-quill"])[0])
    assert count(ours, "<lora:one:1>a mirelle-quill face") == 7
    assert count(ours, "<words:one>a mirelle-quill face") == 7
    assert count(ours, "<lora:one:1:1:words=0>a mirelle-quill face") != 7
    assert count(ours, "a mirelle-quill face") != 7
    assert ours.networks.loaded_networks == [], "nothing is loaded for it"


def test_after_a_picture_it_is_still_the_prompt_that_counts(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"mirelle": embedding("sd1", 5)})
    ours.pixels("<lora:one:1>mirelle")
    assert count(ours, "<lora:one:1>mirelle") == 5
    assert count(ours, "mirelle") == len(ours.model.cond_stage_model.tokenize(["mirelle"])[0])


def test_the_negative_prompt_has_the_positive_ones_tags(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"mirelle": embedding("sd1", 5)})
    count(ours, "<lora:one:1>a face")
    assert count(ours, "mirelle", is_positive=False) == 5
    count(ours, "a face")
    assert count(ours, "mirelle", is_positive=False) != 5


def test_tags_of_styles_and_of_the_setting_count(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"mirelle": embedding("sd1", 5)})
    ours.shared.prompt_styles.styles["mine"] = ours.styles.PromptStyle("mine", "<lora:one:1>", "")
    assert count(ours, "mirelle", styles=["mine"]) >= 5
    ours.opts.data["sd_lora"] = "one"
    assert count(ours, "mirelle") == 5


def test_the_folders_embedding_where_it_goes_first(ours: FakeWebUI) -> None:
    from lib_pivotal.webui import resolution_patch

    write_lora(ours, "one", {"mirelle": embedding("sd1", 5)})
    write_embedding(ours, "mirelle")
    ours.pixels("x")
    assert count(ours, "<lora:one:1>mirelle") == 5
    ours.opts.data[resolution_patch.PRIORITY] = resolution_patch.FOLDER_FIRST
    assert count(ours, "<lora:one:1>mirelle") == 2


def test_embeddings_that_do_not_fit_the_checkpoint_do_not_count(ours: FakeWebUI) -> None:
    import torch

    write_lora(ours, "one", {"mirelle": (torch.randn(5, 20),)})
    assert count(ours, "<lora:one:1>mirelle") == count(ours, "mirelle")


def test_callers_that_come_by_another_way_are_left_alone(ours: FakeWebUI) -> None:
    import threading

    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(ours.hijack.get_prompt_lengths("a face")))
    thread.start()
    thread.join()
    assert found == [(2, 75)]
    ours.hijack.clip = None
    assert ours.hijack.get_prompt_lengths("a face") == ("-", "-")


def test_an_older_web_ui_is_counted_by_its_function(fake_webui: FakeWebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    """1.7 has no callback before the count, and its function no styles."""
    from lib_pivotal.webui import resolution_patch, token_counter_patch

    monkeypatch.delattr(fake_webui.script_callbacks, "on_before_token_counter")

    def older(text: str, steps: int, *, is_positive: bool = True) -> Any:
        return fake_webui.hijack.get_prompt_lengths(fake_webui.extra_networks.parse_prompt(text)[0])

    monkeypatch.setattr(fake_webui.ui, "update_token_counter", older)
    assert fake_webui.model is not None
    write_lora(fake_webui, "one", {"mirelle": embedding("sd1", 5)})
    resolution_patch.register()
    token_counter_patch.register()
    assert fake_webui.ui.update_token_counter("<lora:one:1>mirelle", 20) == (5, 75)
    token_counter_patch.unregister()
    assert fake_webui.ui.update_token_counter is older
