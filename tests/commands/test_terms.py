"""Answers hold the field's terms and those of version 1."""

from lib_pivotal.commands.datasets import fix
from lib_pivotal.commands.terms import both


def test_each_entry_is_under_both_names():
    answer = {"words": [{"name": "aoi", "draws": 3}], "findings": [{"remedies": ()}], "other": 1}
    found = both(answer)
    assert found["words"] == found["embeddings"] == [{"name": "aoi", "draws": 3, "samples": 3}]
    assert found["findings"] == found["warnings"] == [{"remedies": [], "fixes": []}] and found["other"] == 1
    assert answer == {"words": [{"name": "aoi", "draws": 3}], "findings": [{"remedies": ()}], "other": 1}


def test_the_names_of_version_1_are_added_to_todays():
    found = both({"embeddings": [{"samples": 3}], "warnings": [{"fixes": ()}], "embedding_norms": {"samples": 1.0}})
    assert found["words"] == found["embeddings"] == [{"samples": 3, "draws": 3}]
    assert found["findings"] == [{"fixes": [], "remedies": []}] and "remarks" not in found
    assert found["word_norms"] == {"samples": 1.0}, "an embedding of that name"
    assert both({"remarks": ["long"]}) == {"remarks": ["long"], "warnings": ["long"]}


def test_what_is_there_already_stays():
    assert both({"words": 1, "embeddings": 2}) == {"words": 1, "embeddings": 2}


def test_settings_and_names_of_the_users_are_left_alone():
    run = {"words": [], "rates": 1}
    assert both({"run": run})["run"] == run
    assert both({"word_norms": {"words": 1.0}}) == {"word_norms": {"words": 1.0}, "embedding_norms": {"words": 1.0}}
    assert both({"concepts": {"word": {"draws": 2}}}) == {"concepts": {"word": {"draws": 2, "samples": 2}}}


def test_a_fix_names_its_embedding_by_either():
    run = {"embeddings": [{"name": "aoi"}, {"name": "hana"}]}
    for key in ("embedding", "word"):
        fixed = fix(run, {"id": "remove_word", "arguments": {key: "aoi"}})
        assert [embedding["name"] for embedding in fixed["embeddings"]] == ["hana"]
