"""The stops of the balance: what each sets, that a run tells where it is, and what shares mean."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lib_pivotal.config import EmbeddingConfig, Run, check_consistency
from lib_pivotal.errors import ConfigError
from lib_pivotal.runs.balance import (
    DEFAULT_STOP,
    STOPS,
    balance_of,
    described,
    explained,
    said_of_parts,
    said_of_shares,
    stop,
    with_balance,
)
from lib_pivotal.runs.presets import PRESETS, apply_preset


@pytest.fixture
def run() -> Run:
    embeddings = (EmbeddingConfig(name="aoi", init_text="1girl, blue hair"), EmbeddingConfig(name="inky-style"))
    plain = Run(name="two", embeddings=embeddings)
    return replace(plain, data=replace(plain.data, folder="pictures"))


@pytest.mark.parametrize("key", [one.key for one in STOPS])
def test_a_run_tells_at_which_stop_it_is(run: Run, key: str) -> None:
    turned = with_balance(run, key)
    assert balance_of(turned) == key
    assert not check_consistency(turned)
    assert balance_of(with_balance(turned, DEFAULT_STOP)) == DEFAULT_STOP, "turning further leaves nothing behind"
    by_hand = replace(turned, schedule=replace(turned.schedule, embeddings_only_share=0.11))
    assert balance_of(by_hand) == ""


def test_stops_give_the_embedding_more_and_more() -> None:
    shares = [one.settings["schedule.embeddings_only_share"] for one in STOPS]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] > 0.5
    assert len({one.label for one in STOPS}) == len(STOPS) and all(one.help.endswith(".") for one in STOPS)


def test_vectors_are_set_where_tags_describe_and_styles_keep_theirs(run: Run) -> None:
    turned = with_balance(run, "embedding", styles=["inky-style"])
    assert [e.vectors for e in turned.embeddings] == [stop("embedding").vectors, run.embeddings[1].vectors]
    assert with_balance(run, "network").embeddings == run.embeddings
    assert with_balance(run, "embedding", vectors=False).embeddings == run.embeddings


def test_what_a_stop_sets_is_said() -> None:
    assert described("embedding") == "16 vectors, embeddings-only share 0.5, norms free, 2.0x the steps"
    assert described("network") == "embeddings-only share 0, norms kept"


def test_no_such_stop(run: Run) -> None:
    with pytest.raises(ConfigError, match="balance"):
        with_balance(run, "all of it")


def test_presets_take_their_numbers_from_a_stop(run: Run) -> None:
    for preset in PRESETS:
        fitted = apply_preset(preset.key, run)
        assert not preset.balance or balance_of(fitted) == preset.balance, preset.key
    assert {p.balance for p in PRESETS if p.key in ("character", "several")} == {DEFAULT_STOP}


def test_what_parts_explain_is_of_all_embeddings_together() -> None:
    """By hand: 0.4 of 0.5 learnt with the U-Net, 0.1 with the text encoder, none by the embeddings of one."""
    aoi = {"base": 1.0, "whole": 0.6, "unet": 0.7, "te": 0.9, "words": 1.0}
    hana = {"base": 0.5, "whole": 0.4, "unet": 0.4, "te": 0.5, "words": 0.45}
    assert explained({"aoi": aoi, "hana": hana}) == pytest.approx({"unet": 0.8, "te": 0.2, "words": 0.1})
    assert explained({}) == explained({"aoi": dict.fromkeys(aoi, 0.5)}) == {}
    assert explained({"aoi": {**aoi, "whole": math.nan}}) == {}


def test_what_sits_where_is_a_sentence() -> None:
    assert said_of_parts({"hana": 0.623, "aoi": 1.3, "umi": -0.2, "ink": math.nan}) == [
        "hana: 62% of what was learnt is in the embedding.",
        "aoi: 100% of what was learnt is in the embedding.",
        "umi: 0% of what was learnt is in the embedding.",
    ]


def test_shares_say_what_to_do() -> None:
    assert said_of_shares({}) == [] == said_of_shares({"aoi": 0.6, "hana": math.nan})
    [little] = said_of_shares({"aoi": 0.6, "hana": 0.12, "umi": -0.2})
    assert little.startswith(
        "umi (0%), hana (12%): the network has learnt what the embedding should. Raise the balance"
    )
    assert "and 2 more" in said_of_shares({name: 0.1 for name in "abcde"})[0]
    assert "smaller rank" in said_of_shares({"aoi": 0.99})[0]
