"""The text path: what the web UI's own files compute, gradients into words only, names that do not matter."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from lib_pivotal.errors import EmbeddingNameError, HostError
from lib_pivotal.standalone.text import StandaloneTextEncoder
from lib_pivotal.standalone.tokenizer import clip_tokenizer
from tests.golden.tiny_text import WIDTH, tiny_embeddings, tiny_text_model

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDS = json.loads((GOLDEN / "prompts.json").read_text(encoding="utf-8"))
ENCODED = load_file(GOLDEN / "prompts.safetensors")


@pytest.fixture(scope="module")
def model():
    return tiny_text_model().requires_grad_(False)


@pytest.fixture
def encoder(model):
    return StandaloneTextEncoder(model, clip_tokenizer())


@pytest.fixture
def embeddings():
    return tiny_embeddings(RECORDS["words"])


@pytest.mark.parametrize("key", sorted(ENCODED))
def test_same_as_web_ui(key, model, embeddings):
    index, skip = key.split(".skip")
    encoder = StandaloneTextEncoder(model, clip_tokenizer(), clip_skip=int(skip), embeddings_move=False)
    prompt = RECORDS["prompts"][int(index)]["prompt"]
    ours = encoder.encode([prompt], embeddings).context[0]
    assert ours.shape == ENCODED[key].shape
    torch.testing.assert_close(ours, ENCODED[key], rtol=2e-5, atol=2e-6)


def test_batch_and_alone_are_the_same(encoder, embeddings):
    prompts = ["aoi, (blue:1.3)", "plain", "aoi, (blue:1.3)", "[ren] and mika-chan"]
    together = encoder.encode(prompts, embeddings).context
    for prompt, row in zip(prompts, together, strict=True):
        torch.testing.assert_close(encoder.encode([prompt], embeddings).context[0], row, rtol=1e-5, atol=1e-6)


def test_shorter_prompts_are_filled_with_empty_chunks(encoder, embeddings):
    long = "word, " * 50 + "aoi"
    context = encoder.encode(["short", long], embeddings).context
    assert context.shape == (2, 154, WIDTH)
    torch.testing.assert_close(context[0, 77:], encoder.encode([""], embeddings).context[0])
    each = encoder.encode_each(["short", long, ""], embeddings)
    assert [one.context.shape[:2] for one in each] == [(1, 77), (1, 154), (1, 77)]
    torch.testing.assert_close(each[1].context[0], context[1])


def test_renaming_changes_no_bit(encoder):
    vectors = tiny_embeddings({"aoi": 4, "ren": 3})
    text = "photo of {a} and ({b}:1.2), " + "tags, " * 30 + "{a}"
    one = encoder.encode([text.format(a="aoi", b="ren")], vectors).context
    renamed = {"somethingelse": vectors["aoi"], "zz-zz": vectors["ren"]}
    other = encoder.encode([text.format(a="somethingelse", b="zz-zz")], renamed).context
    assert torch.equal(one, other)


def test_gradients_reach_the_embeddings_in_the_prompts_only(encoder, model):
    embeddings = TrainedEmbeddings(tiny_embeddings({"aoi": 2, "cat": 1, "ren": 3}))
    encoder.encode(["aoi and a (cat:1.2)"], embeddings.as_mapping()).context.square().sum().backward()
    mapping = embeddings.as_mapping()
    assert mapping["aoi"][0].grad.abs().sum() > 0 and mapping["cat"][0].grad.abs().sum() > 0
    assert mapping["ren"][0].grad is None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradient_against_finite_differences():
    model = tiny_text_model().double().requires_grad_(False)
    encoder = StandaloneTextEncoder(model, clip_tokenizer(), clip_skip=2)
    aoi, ren = (tensor.double().requires_grad_() for (tensor,) in tiny_embeddings({"aoi": 2, "ren": 1}).values())

    def loss(aoi, ren):
        context = encoder.encode(["(aoi:1.3), ren, aoi", "ren"], {"aoi": (aoi,), "ren": (ren,)}).context
        return (context * torch.linspace(-1, 1, context.numel(), dtype=torch.float64).view_as(context)).sum()

    assert torch.autograd.gradcheck(loss, (aoi, ren), eps=1e-6, atol=1e-6, rtol=1e-5)


def test_emphasis_without_a_mean_is_finite():
    model = tiny_text_model().requires_grad_(False)
    torch.nn.init.ones_(model.text_model.final_layer_norm.weight)
    torch.nn.init.zeros_(model.text_model.final_layer_norm.bias)
    embeddings = TrainedEmbeddings(tiny_embeddings({"aoi": 2}))
    context = StandaloneTextEncoder(model, clip_tokenizer()).encode(["(aoi:1.2), x"], embeddings.as_mapping()).context
    context.square().sum().backward()
    assert context.abs().max() < 10 and torch.isfinite(embeddings.parameters_of("aoi")[0].grad).all()


def test_a_vector_of_an_existing_token_is_that_token(encoder, model):
    vectors = {"cat": encoder.embed_text("dog")}
    assert torch.equal(encoder.encode(["a cat, here"], vectors).context, encoder.encode(["a dog, here"], {}).context)
    assert torch.equal(encoder.embed_text("dog")[0], model.get_input_embeddings().weight[encoder.token_ids("dog")])


def test_sixteen_embeddings_in_one_prompt(encoder):
    embeddings = TrainedEmbeddings(tiny_embeddings({f"{letter}zq": 4 for letter in "abcdefghijklmnop"}))
    context = encoder.encode([", ".join(embeddings.names())], embeddings.as_mapping()).context
    context.square().sum().backward()
    assert context.shape[1] == 154
    assert all(tensor.grad.abs().sum() > 0 for (tensor,) in embeddings.as_mapping().values())


def test_changed_vectors_are_seen_although_prompts_are_remembered(encoder):
    embeddings = TrainedEmbeddings(tiny_embeddings({"aoi": 2}))
    before = encoder.encode(["aoi"], embeddings.as_mapping()).context
    with torch.no_grad():
        embeddings.as_mapping()["aoi"][0].add_(1)
    assert not torch.equal(before, encoder.encode(["aoi"], embeddings.as_mapping()).context)
    plain = encoder.encode(["aoi"], {}).context
    assert torch.equal(plain, encoder.encode(["aoi"], {"ren": embeddings.as_mapping()["aoi"]}).context)


def test_number_of_vectors_may_change(encoder):
    contexts = [encoder.encode(["aoi x"], tiny_embeddings({"aoi": count})).context for count in (1, 2, 1)]
    assert torch.equal(contexts[0], contexts[2]) and not torch.equal(contexts[0], contexts[1])


def test_table_is_untouched_and_no_hook_is_left(encoder, model, embeddings):
    before = model.get_input_embeddings().weight.clone()
    encoder.encode(["aoi"], embeddings)
    with pytest.raises(EmbeddingNameError, match="width 5"):
        encoder.encode(["aoi"], {"aoi": (torch.zeros(2, 5),)})
    assert torch.equal(before, model.get_input_embeddings().weight)
    assert not model.get_input_embeddings()._forward_hooks


def test_vocabulary_stats(encoder, model):
    (stats,) = encoder.vocabulary_stats()
    rows = model.get_input_embeddings().weight
    assert stats.median_norm == pytest.approx(float(rows.norm(dim=1).median()))
    assert stats.std == pytest.approx(float(rows.std()))
    assert encoder.widths == (WIDTH,)


def test_refusals(model):
    encoder = StandaloneTextEncoder(model, clip_tokenizer(), clip_skip=4)
    with pytest.raises(HostError, match="clip_skip = 4"):
        encoder.encode(["x"], {})
    with pytest.raises(HostError, match="no prompts"):
        encoder.encode([], {})
