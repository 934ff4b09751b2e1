"""The web UI's text encoders as a port: the numbers of txt2img, with a gradient in the words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.webui.fake.install import FakeWebUI
from tests.webui.files import embedding

PROMPTS = [
    "a hana face",
    "",
    "(hana:1.3), [kira], smile",
    "one BREAK hana two",
    "dog, " * 60 + "hana",
    "a hana face",
    "HANA's hat",
]
FAMILIES = pytest.mark.parametrize("fake_webui", ["sd1", "sd2", "sdxl"], indirect=True)


def leaves(kind: str, *names: str) -> dict[str, tuple[torch.Tensor, ...]]:
    return {
        name: tuple(tower.clone().requires_grad_() for tower in embedding(kind, 2 + number, seed=number))
        for number, name in enumerate(names)
    }


def theirs(webui: FakeWebUI, prompt: str, embeddings: Any) -> tuple[torch.Tensor, Any]:
    """What txt2img conditions on."""
    from lib_pivotal.webui.text import make_embedding, registered

    texts = webui.prompt_parser.SdConditioning([prompt], width=64, height=64)
    made = {name: make_embedding(name, tuple(t.detach() for t in towers)) for name, towers in embeddings.items()}
    with torch.no_grad(), registered(webui.model, made):
        found = webui.model.get_learned_conditioning(texts)
    return (found["crossattn"], found["vector"]) if isinstance(found, dict) else (found, None)


@FAMILIES
@pytest.mark.parametrize("clip_skip", [1, 2])
def test_conditioning_is_that_of_txt2img(fake_webui: FakeWebUI, clip_skip: int) -> None:
    from lib_pivotal.ports import SessionRequest
    from lib_pivotal.webui.model import WebUIHost

    kind = fake_webui.model.sd_checkpoint_info.name_for_extra
    fake_webui.opts.data["CLIP_stop_at_last_layers"] = clip_skip
    embeddings = leaves(kind, "hana", "kira")
    expected = {prompt: theirs(fake_webui, prompt, embeddings) for prompt in PROMPTS}
    host = WebUIHost()
    with host.session(SessionRequest(clip_skip=clip_skip)):
        batch = host.text.encode(PROMPTS, embeddings)
        for number, prompt in enumerate(PROMPTS):
            context, vector = expected[prompt]
            alone = host.text.encode([prompt], embeddings)
            torch.testing.assert_close(alone.context, context, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(
                batch.context[number : number + 1, : context.shape[1]], context, rtol=1e-5, atol=1e-5
            )
            if vector is not None:
                assert alone.pooled is not None
                torch.testing.assert_close(alone.pooled, vector[:, : alone.pooled.shape[1]], rtol=1e-5, atol=1e-5)


@FAMILIES
def test_every_embedding_of_a_prompt_gets_a_gradient_and_no_other(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.ports import SessionRequest
    from lib_pivotal.webui.model import WebUIHost

    embeddings = leaves(fake_webui.model.sd_checkpoint_info.name_for_extra, "hana", "kira")
    host = WebUIHost()
    with host.session(SessionRequest()):
        host.text.encode(["a hana face", "a hana cat"], embeddings).context.square().sum().backward()
    assert all(tower.grad is not None and bool(tower.grad.abs().sum() > 0) for tower in embeddings["hana"])
    assert all(tower.grad is None for tower in embeddings["kira"])
    assert all(parameter.grad is None for parameter in fake_webui.model.parameters())


@FAMILIES
def test_embeddings_that_moved_are_read_anew_and_prompts_are_remembered(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.ports import SessionRequest
    from lib_pivotal.webui.model import WebUIHost

    kind = fake_webui.model.sd_checkpoint_info.name_for_extra
    embeddings = leaves(kind, "hana")
    host = WebUIHost()
    with host.session(SessionRequest()), torch.no_grad():
        first = host.text.encode(["hana"], embeddings).context
        encoder, calls = type(host.text._towers[0]), []
        original = encoder.tokenize_line
        encoder.tokenize_line = lambda self, line: calls.append(line) or original(self, line)
        try:
            for tower in embeddings["hana"]:
                tower.add_(1.0)
            second = host.text.encode(["hana"], embeddings).context
            assert calls == []
            longer = leaves(kind, "x", "hana")
            host.text.encode(["hana"], {"hana": longer["hana"]})
            assert calls, "another number of vectors: other places"
        finally:
            encoder.tokenize_line = original
    assert not torch.equal(first, second)


@FAMILIES
def test_letters_of_captions_are_letters_with_and_without_emphasis(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.data.captions import as_letters, with_pairs_alone
    from lib_pivotal.ports import SessionRequest
    from lib_pivotal.webui.model import WebUIHost

    host, caption = WebUIHost(), r"face, :(, saber \(fate\), hat"
    literal = "face, :(, saber (fate), hat"
    fake_webui.opts.data["emphasis"] = "None"
    wanted = theirs(fake_webui, literal, {})[0]
    with host.session(SessionRequest(clip_skip=1)):
        for setting in ("None", "No norm", "Original"):
            fake_webui.opts.data["emphasis"] = setting
            for written in (with_pairs_alone(caption), as_letters(caption)):
                found = host.text.encode([written], {}).context
                torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_facts_of_the_encoder(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui.model import WebUIHost

    text = WebUIHost().text
    kind = fake_webui.model.sd_checkpoint_info.name_for_extra
    assert text.widths == {"sd1": (16,), "sd2": (24,), "sdxl": (16, 24)}[kind]
    assert text.layer_count == 3
    assert len(text.vocabulary_stats()) == len(text.widths)
    assert text.vocabulary_stats()[0].median_norm > 0
    ids = text.token_ids("a face")
    rows = text.embed_text("a face")
    assert [tuple(tower.shape) for tower in rows] == [(len(ids), width) for width in text.widths]
    rows[0].add_(1.0)
    assert not torch.equal(text.embed_text("a face")[0], rows[0]), "a copy"


@FAMILIES
def test_the_registry_is_as_before(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui.text import make_embedding, registered

    kind = fake_webui.model.sd_checkpoint_info.name_for_extra
    database = fake_webui.hijack.embedding_db
    old = make_embedding("Hana", embedding(kind, seed=5))
    database.register_embedding(old, fake_webui.model)
    before = dict(database.word_embeddings), {k: list(v) for k, v in database.ids_lookup.items()}
    new = make_embedding("hana", embedding(kind, seed=6))
    ids = fake_webui.model.cond_stage_model.tokenize(["hana"])[0]
    with pytest.raises(KeyError), registered(fake_webui.model, {"hana": new}):
        assert database.find_embedding_at_position(ids, 0) == (new, len(ids))
        raise KeyError
    assert (database.word_embeddings, database.ids_lookup) == before
    assert database.find_embedding_at_position(ids, 0) == (old, len(ids))


def test_a_run_whose_embedding_a_bundle_had_still_gets_its_own(fake_webui: FakeWebUI) -> None:
    """A run's own embedding wins in its captions, whatever a prompt said before."""
    from lib_pivotal.ports import SessionRequest
    from lib_pivotal.webui import cond_cache_patch, resolution_patch
    from lib_pivotal.webui.model import WebUIHost
    from tests.webui.files import write_lora

    resolution_patch.register()
    cond_cache_patch.register()
    write_lora(fake_webui, "one", {"hana": 1})
    embeddings = leaves("sd1", "hana")
    for prompt in ("hana", "<lora:one:1>hana", "<words:one>hana"):
        fake_webui.pixels(prompt)
        host = WebUIHost()
        with host.session(SessionRequest()):
            host.text.encode(["a hana face"], embeddings).context.square().sum().backward()
        tower = embeddings["hana"][0]
        assert tower.grad is not None and bool(tower.grad.abs().sum() > 0), prompt
        tower.grad = None
