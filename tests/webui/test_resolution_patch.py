"""Words of bundles in the running web UI: what a name means while a picture is made, and nothing after."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import embedding, write_embedding, write_lora

PATCHED = (
    ("networks", "load_network"),
    ("networks", "load_networks"),
    ("sd_models", "read_state_dict"),
    ("extra_networks", "activate"),
)


@pytest.fixture
def resolution_patch(fake_webui: FakeWebUI) -> Any:
    from lib_pivotal.webui import cond_cache_patch
    from lib_pivotal.webui import resolution_patch as patched

    patched.register()
    cond_cache_patch.register()
    return patched


def places(webui: FakeWebUI) -> list[tuple[Any, str]]:
    """Every function that is replaced."""
    clip, other = webui.sd_hijack_clip, webui.sd_hijack_open_clip
    from modules.textual_inversion import textual_inversion

    return [
        *((getattr(webui, module), name) for module, name in PATCHED),
        (textual_inversion.EmbeddingDatabase, "find_embedding_at_position"),
        (clip.TextConditionalModel, "tokenize_line"),
        (clip.FrozenCLIPEmbedderWithCustomWords, "tokenize"),
        (other.FrozenOpenCLIPEmbedderWithCustomWords, "tokenize"),
        (other.FrozenOpenCLIPEmbedder2WithCustomWords, "tokenize"),
    ]


def plainly(webui: FakeWebUI, name: str, towers: tuple[torch.Tensor, ...], prompt: str) -> list[bytes]:
    """The picture with the vectors registered as an embedding of the web UI's own."""
    from lib_pivotal.webui.text import make_embedding, registered

    with registered(webui.model, {name: make_embedding(name, towers)}):
        return webui.pixels(prompt, do_not_reload_embeddings=True)


def test_patched_and_taken_back(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import resolution_patch

    before = [getattr(owner, name) for owner, name in places(fake_webui)]
    for _ in range(2):  # "Reload UI" registers anew
        resolution_patch.register()
        assert all(
            getattr(owner, name) is not old for (owner, name), old in zip(places(fake_webui), before, strict=True)
        )
        assert all(
            getattr(owner, name).__wrapped__ is old
            for (owner, name), old in zip(places(fake_webui), before, strict=True)
        )
    resolution_patch.unregister()
    resolution_patch.unregister()
    assert [getattr(owner, name) for owner, name in places(fake_webui)] == before


def test_pictures_without_a_bundle_are_the_web_uis_own(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import cond_cache_patch, resolution_patch

    prompts = ["a face, (smile:1.3), [night]", "one BREAK two", ""]
    write_embedding(fake_webui, "folded", seed=4)
    prompts.append("a folded face")
    before = [fake_webui.pixels(prompt) for prompt in prompts]
    resolution_patch.register()
    cond_cache_patch.register()
    assert [fake_webui.pixels(prompt) for prompt in prompts] == before
    write_lora(fake_webui, "one", {"hana": 1})
    fake_webui.pixels("<lora:one:1> hana")
    assert [fake_webui.pixels(prompt) for prompt in prompts] == before
    resolution_patch.unregister()
    cond_cache_patch.unregister()
    assert [fake_webui.pixels(prompt) for prompt in prompts] == before


@pytest.mark.parametrize("fake_webui", ["sd1", "sd2", "sdxl"], indirect=True)
def test_a_embedding_gives_the_picture_of_its_vectors(fake_webui: FakeWebUI, request: pytest.FixtureRequest) -> None:
    from lib_pivotal.webui import resolution_patch

    kind = request.node.callspec.params["fake_webui"]
    write_lora(fake_webui, "one", {"hana": embedding(kind, seed=3)}, kind=kind)
    stock = fake_webui.pixels("<lora:one:1> a hana face")
    fake_webui.networks.load_networks([])
    expected = plainly(fake_webui, "hana", embedding(kind, seed=3), "a hana face")
    assert stock == expected, "the stock web UI enters simple names into its registry"
    resolution_patch.register()
    assert fake_webui.pixels("<lora:one:1> a hana face") == expected
    assert fake_webui.pixels("<words:one> a HANA face") == expected
    assert fake_webui.pixels("<lora:one:1:1:words=0> a hana face") != expected
    assert "hana" not in fake_webui.hijack.embedding_db.word_embeddings, "nothing is entered into the registry"
    assert fake_webui.errors.exception_records == []


def test_names_hold_for_one_picture(fake_webui: FakeWebUI, resolution_patch: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1})
    without = fake_webui.pixels("a hana face")
    assert fake_webui.pixels("<lora:one:1> a hana face") != without
    assert fake_webui.pixels("a hana face") == without


def test_network_and_embeddings_act_together_as_in_the_stock_web_ui(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import resolution_patch

    write_lora(fake_webui, "one", {"hana": 1}, parts=("unet", "te"))
    prompts = ["<lora:one:1> hana", "<lora:one:0.5:0> hana", "<lora:one:0:0.7> hana"]
    stock = [fake_webui.pixels(prompt) for prompt in prompts]
    assert len({pixels[0] for pixels in stock}) == 3
    fake_webui.networks.load_networks([])
    resolution_patch.register()
    assert [fake_webui.pixels(prompt) for prompt in prompts] == stock


@pytest.mark.parametrize("folder_wins", [False, True])
def test_bundle_and_folder_of_one_name(fake_webui: FakeWebUI, resolution_patch: Any, folder_wins: bool) -> None:
    write_lora(fake_webui, "one", {"hana": 1})
    in_bundle = fake_webui.pixels("<lora:one:1> a hana face")
    write_embedding(fake_webui, "hana", seed=2)
    in_folder = fake_webui.pixels("a hana face")
    assert in_bundle != in_folder
    if folder_wins:
        fake_webui.opts.data[resolution_patch.PRIORITY] = resolution_patch.FOLDER_FIRST
    assert fake_webui.pixels("<lora:one:1> a hana face") == (in_folder if folder_wins else in_bundle)
    assert any("hana" in comment and "@" in comment for comment in fake_webui.comments)
    assert fake_webui.pixels("<lora:one:1> a hana@one face") == in_bundle
    if not folder_wins:
        assert fake_webui.pixels("<lora:one:1> a hana@embeddings face") == in_folder
    assert fake_webui.pixels("a hana face") == in_folder, "the registry lost nothing"


def test_the_first_bundle_of_two_wins_whatever_was_made_before(fake_webui: FakeWebUI, resolution_patch: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1})
    write_lora(fake_webui, "two", {"hana": 2})
    one, two = (fake_webui.pixels(f"<lora:{name}:1> hana") for name in ("one", "two"))
    assert one != two
    for _ in range(2):
        assert fake_webui.pixels("<lora:one:1><lora:two:1> hana") == one
        assert fake_webui.pixels("<lora:two:1><lora:one:1> hana") == two
        assert fake_webui.pixels("<lora:one:1><lora:two:1> hana@two") == two


def test_tags_that_would_cost_all_loras(fake_webui: FakeWebUI, resolution_patch: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1}, parts=("unet",))
    write_lora(fake_webui, "two", parts=("te",))
    alone = fake_webui.pixels("<lora:one:1> hana")
    assert fake_webui.pixels("<lora:one:1><lora:two:off> hana") == alone
    assert any("left out" in comment for comment in fake_webui.comments)
    resolution_patch.unregister()
    assert fake_webui.pixels("<lora:one:1><lora:two:off> hana") != alone, "the stock web UI loses both"


def test_a_file_with_an_equals_sign(fake_webui: FakeWebUI, resolution_patch: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1}, parts=("unet",))
    expected = fake_webui.pixels("<lora:one:1> hana")
    write_lora(fake_webui, "a=b", {"hana": 1}, parts=("unet",))
    assert fake_webui.pixels("<lora:a=b:1> hana") == expected
    assert [net.name for net in fake_webui.networks.loaded_networks] == ["a=b"]


def test_what_is_said_under_the_picture(fake_webui: FakeWebUI, resolution_patch: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1})
    write_lora(fake_webui, "wide", {"kira": (torch.randn(2, 20),)})
    write_lora(fake_webui, "bare", parts=("unet",))
    for prompt, said in (
        ("<lora:one:1><lora:one:0.5> hana", "twice"),
        ("<words:wide> kira", "do not fit this checkpoint (20 wide, it has 16)"),
        ("<words:nobody> kira", "no LoRA file named 'nobody'"),
        ("<words:bare> kira", "bare has no embeddings"),
    ):
        comments = fake_webui.txt2img(prompt).comments
        assert said in comments, prompt


def test_hashes_of_embeddings_tags_stand_in_the_infotext(fake_webui: FakeWebUI, resolution_patch: Any) -> None:
    write_lora(fake_webui, "one", {"hana": 1})
    text = fake_webui.txt2img("<words:one> hana").infotexts[0]
    digest = fake_webui.networks.available_networks["one"].shorthash
    assert digest and f"Lora hashes: one: {digest}" in text.replace('"', "")
    fake_webui.opts.data["lora_add_hashes_to_infotext"] = False
    assert "Lora hashes" not in fake_webui.txt2img("<words:one> hana").infotexts[0]


def test_without_the_lora_extension_nothing_is_touched(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    from tests.webui.fake.install import installed

    with installed(tmp_path, lora=False) as webui:
        from lib_pivotal.webui import resolution_patch

        before = webui.extra_networks.activate
        resolution_patch.register()
        assert webui.extra_networks.activate is before
        assert "switched off" in caplog.text
        resolution_patch.unregister()


@pytest.mark.parametrize("fake_webui", ["refiner"], indirect=True)
def test_the_refiner_takes_the_second_towers_embeddings(fake_webui: FakeWebUI, resolution_patch: Any) -> None:
    assert resolution_patch.model_widths() == (24,)
    assert resolution_patch.fits((16, 24), (24,)) and not resolution_patch.fits((16,), (24,))


def test_widths_and_ids(fake_webui: FakeWebUI, resolution_patch: Any) -> None:
    assert resolution_patch.model_widths() == (16,)
    assert list(resolution_patch.ids_of("hana")) == fake_webui.model.cond_stage_model.tokenize(["hana"])[0]
    write_embedding(fake_webui, "folded")
    fake_webui.pixels("x")
    assert resolution_patch.ids_of("folded") in resolution_patch.folder_entries()
