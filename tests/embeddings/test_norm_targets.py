"""What norms are measured on: tokens in use, a vocabulary, or the start."""

import pytest
import torch

from lib_pivotal.embeddings.norm_targets import NORM_TARGETS, norm_targets, used_rows
from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from lib_pivotal.errors import EmbeddingNameError
from lib_pivotal.standalone.text import StandaloneTextEncoder
from lib_pivotal.standalone.tokenizer import clip_tokenizer
from tests.golden.tiny_text import tiny_text_model


@pytest.fixture(scope="module")
def model():
    """A text model that learnt five words: their rows have norms of 0.3 to 0.7, all others those of noise."""
    made = tiny_text_model()
    table = made.get_input_embeddings().weight
    encoder = StandaloneTextEncoder(made, clip_tokenizer())
    with torch.no_grad():
        table.mul_(0.1 / table.norm(dim=1, keepdim=True))
        for number, word in enumerate(("red", "hair", "smile", "park", "night")):
            (token,) = encoder.token_ids(word)
            table[token] *= 3 + number
    return made


@pytest.fixture(scope="module")
def encoder(model):
    return StandaloneTextEncoder(model, clip_tokenizer())


CAPTIONS = ["red hair", "smile", "park", "night", "smile"]


def test_each_token_in_use_counts_once(encoder, model):
    (rows,) = used_rows(encoder, CAPTIONS)
    ids = [encoder.token_ids(word)[0] for word in ("red", "hair", "smile", "park", "night")]
    assert torch.equal(rows, model.get_input_embeddings().weight[ids])
    assert used_rows(encoder, ["", " "]) == ()


def test_words_that_the_model_knows_have_another_norm_than_the_vocabulary(encoder):
    """The point of the default: pulled to the vocabulary's median, an embedding would have the norm of noise."""
    embeddings = TrainedEmbeddings({"aoi": (torch.ones(2, encoder.widths[0]),)})
    found = {name: norm_targets(name, encoder, CAPTIONS).norm(embeddings, "aoi", 0) for name in NORM_TARGETS}
    assert found["captions"] == pytest.approx(0.5) and found["median"] == pytest.approx(0.1)
    assert found["mean"] == pytest.approx(0.1, abs=1e-4) and found["mean"] > found["median"]
    assert torch.equal(found["initial"], torch.ones(2, encoder.widths[0]).norm(dim=1, keepdim=True))


def test_without_any_text_it_is_the_vocabulary(encoder):
    assert norm_targets("captions", encoder) == norm_targets("median", encoder)


def test_spreads(encoder):
    (rows,) = used_rows(encoder, CAPTIONS)
    embeddings = TrainedEmbeddings({"aoi": (torch.tensor([[1.0, 3.0]]),), "zero": (torch.zeros(1, 2),)})
    assert norm_targets("captions", encoder, CAPTIONS).std(embeddings, "aoi", 0) == pytest.approx(float(rows.std()))
    own = norm_targets("initial", encoder, CAPTIONS)
    assert own.std(embeddings, "aoi", 0) == pytest.approx(2**0.5)
    assert own.std(embeddings, "zero", 0) == pytest.approx(float(rows.std()))


def test_unknown_targets_are_refused(encoder):
    with pytest.raises(EmbeddingNameError, match="use one of captions, initial, median, mean"):
        norm_targets("best", encoder)
    with pytest.raises(EmbeddingNameError, match="tower 1"):
        norm_targets("median", encoder).norm(TrainedEmbeddings({}), "aoi", 1)
