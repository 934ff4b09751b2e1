"""Scanning again keeps what was changed by hand."""

from __future__ import annotations

from dataclasses import replace

from lib_pivotal.config import EmbeddingConfig
from lib_pivotal.runs.rescan import merged_embeddings

AOI, HANA, KAZE = (EmbeddingConfig(name=name, init_text="1girl", vectors=6) for name in ("aoi", "hana", "kaze"))


def test_what_was_changed_by_hand_stays_and_what_is_new_is_added() -> None:
    mine = replace(AOI, vectors=9)
    merged = merged_embeddings([mine, HANA], before=[AOI, HANA], proposed=[AOI, replace(HANA, vectors=7), KAZE])
    assert merged.embeddings == (mine, replace(HANA, vectors=7), KAZE)
    assert merged.kept == ("aoi",) and merged.added == ("kaze",)
    assert "aoi" in merged.remarks[0] and "kaze" in merged.remarks[1]


def test_untouched_embeddings_follow_the_folder_and_say_nothing() -> None:
    merged = merged_embeddings([AOI, HANA], before=[AOI, HANA], proposed=[HANA, KAZE])
    assert merged.embeddings == (HANA, KAZE) and merged.remarks == ()


def test_embeddings_of_ones_own_stay_and_removed_ones_stay_away() -> None:
    own = EmbeddingConfig(name="own")
    merged = merged_embeddings([own], before=[AOI], proposed=[AOI, HANA])
    assert merged.embeddings == (own, HANA) and merged.left_out == ("aoi",)
    assert any("removed" in remark for remark in merged.remarks)


def test_absorbing_is_switched_by_presets_too_and_stays_as_it_is() -> None:
    on = replace(AOI, prune=True)
    merged = merged_embeddings([on], before=[AOI], proposed=[replace(AOI, vectors=8)])
    assert merged.embeddings == (replace(AOI, vectors=8, prune=True),) and merged.kept == ()


def test_a_first_scan_takes_all_and_settings_of_before_stay() -> None:
    assert merged_embeddings([], before=[], proposed=[AOI]).embeddings == (AOI,)
    mine = replace(AOI, vectors=2)
    assert merged_embeddings([mine], before=[], proposed=[AOI]).embeddings == (mine,)
    assert merged_embeddings([AOI], before=[], proposed=[AOI]).remarks == ()
