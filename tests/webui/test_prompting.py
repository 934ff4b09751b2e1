"""Names found where the web UI takes a prompt apart, and vectors that stay in place."""

from __future__ import annotations

from typing import Any

import pytest

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import embedding, write_embedding, write_lora

FULL = "dog " * 60
"""Sixty tokens: a comma after it, and a chunk's end comes soon."""


@pytest.fixture
def ours(fake_webui: FakeWebUI) -> FakeWebUI:
    from lib_pivotal.webui import cond_cache_patch, resolution_patch

    resolution_patch.register()
    cond_cache_patch.register()
    return fake_webui


def like(webui: FakeWebUI, prompt: str, seed: int = 1, rows: int = 2) -> list[bytes]:
    """The picture of the prompt where `ref` is an embedding of the folder."""
    from lib_pivotal.webui.text import make_embedding

    made = make_embedding("ref", embedding("sd1", rows, seed=seed))
    webui.hijack.embedding_db.register_embedding(made, webui.model)
    try:
        return webui.pixels(prompt, do_not_reload_embeddings=True)
    finally:
        webui.hijack.embedding_db.register_embedding_by_name(None, webui.model, "ref")


@pytest.mark.parametrize(
    "prompt",
    ["a {} face", "({}:1.3), smile", "[{}]", "{}'s hat", "{}, {} BREAK {}", "({})", "a ({}:0.7)({}:1.2)"],
)
def test_a_name_stands_for_its_vectors_wherever_it_is_written(ours: FakeWebUI, prompt: str) -> None:
    write_lora(ours, "one", {"hana": 1})
    assert ours.pixels(f"<lora:one:1>{prompt.replace('{}', 'hana')}") == like(ours, prompt.replace("{}", "ref"))


def test_not_inside_another_embedding(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"hana": 1})
    for prompt in ("hanako", "mihana"):
        assert ours.pixels(f"<lora:one:1>{prompt}") == ours.pixels(prompt), prompt
    write_lora(ours, "two", {"v1": 1})
    assert ours.pixels("<lora:two:1>v12") == ours.pixels("v12")
    assert ours.pixels("<lora:two:1>v1, 2") != ours.pixels("v1, 2")


def test_a_name_that_the_tokenizer_melts_into_its_neighbours(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"<hana>": 1})
    assert ours.pixels("<words:one>a <hana>, b") == like(ours, "a ref , b")


def test_a_longer_name_of_the_folder_goes_first(ours: FakeWebUI) -> None:
    write_lora(ours, "one", {"hana": 1})
    write_embedding(ours, "hana ko", seed=2)
    in_folder = ours.pixels("a hana ko face")
    assert ours.pixels("<lora:one:1>a hana ko face") == in_folder
    assert ours.pixels("<lora:one:1>a hana, ko face") != ours.pixels("a hana, ko face")


@pytest.mark.parametrize("room", range(8, 16))
def test_vectors_move_with_what_follows_the_comma(ours: FakeWebUI, room: int) -> None:
    """v1.10.1 moves ids and not embeddings: the stock web UI's picture differs from ours there, and only there."""
    from lib_pivotal.webui import resolution_patch

    text = f"{FULL}, {'cat ' * (room - 6)}hana {'sky ' * 6}"
    write_lora(ours, "one", {"hana": 1})
    chunks = places(ours, f"<lora:one:1>{text}")
    assert chunks, "the embedding is somewhere"
    for tokens, offsets in chunks:
        for offset in offsets:
            assert tokens[1:][offset : offset + 2] == [0, 0], "vectors stand where their place was kept"
    resolution_patch.unregister()


def places(webui: FakeWebUI, prompt: str) -> list[tuple[list[int], list[int]]]:
    """Tokens of every chunk with embeddings, and where these are, as the text encoder gets them."""
    encoder, seen = webui.model.cond_stage_model, []
    original = type(encoder).process_tokens

    def watching(self: Any, tokens: Any, multipliers: Any) -> Any:
        seen.extend((row, [fix.offset for fix in fixes]) for row, fixes in zip(tokens, self.hijack.fixes, strict=True))
        return original(self, tokens, multipliers)

    type(encoder).process_tokens = watching
    try:
        webui.pixels(prompt)
    finally:
        type(encoder).process_tokens = original
    return [(tokens, offsets) for tokens, offsets in seen if offsets]


def test_the_stock_web_ui_does_lose_them(fake_webui: FakeWebUI) -> None:
    """Else the test above would prove nothing."""
    write_lora(fake_webui, "one", {"hana": 1})
    lost = [
        tokens[1:][offset : offset + 2] != [0, 0]
        for room in range(8, 16)
        for tokens, offsets in places(fake_webui, f"<lora:one:1>{FULL}, {'cat ' * (room - 6)}hana {'sky ' * 6}")
        for offset in offsets
    ]
    assert any(lost)


def test_callers_that_know_ids_alone_find_the_longest(ours: FakeWebUI) -> None:
    """Another extension may ask the registry itself, in the middle of a picture."""
    write_lora(ours, "one", {"hana": 1, "hana kiri": 2})
    found: list[Any] = []

    class Asking(ours.scripts.Script):  # type: ignore[name-defined, misc]
        def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
            database, encoder = ours.hijack.embedding_db, ours.model.cond_stage_model
            for text in ("hana kiri face", "hana face", "face"):
                embedding, taken = database.find_embedding_at_position(encoder.tokenize([text])[0], 0)
                found.append((getattr(embedding, "name", None), taken))

    ours.txt2img("<lora:one:1> x", scripts=[Asking()])
    assert [name for name, _ in found] == ["hana kiri", "hana", None]
    database = ours.hijack.embedding_db
    tokens = ours.model.cond_stage_model.tokenize(["hana"])[0]
    ours.txt2img("x")
    assert database.find_embedding_at_position(tokens, 0) == (None, None)
