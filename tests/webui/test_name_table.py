from __future__ import annotations

from lib_pivotal.webui.name_table import EmbeddingOrigin, build_table


def ids_of(name):
    """As a tokenizer would: one id a letter, case gone."""
    return tuple(ord(letter) for letter in name.lower())


def table(sources, folder=None, **settings):
    return build_table(
        sources, ids_of=ids_of, folder={ids_of(name): value for name, value in (folder or {}).items()}, **settings
    )


def meaning(found, name):
    matches = found.matcher.matches(name)
    return matches[0].value.embedding if matches and matches[0].stop == len(name) else None


def test_every_embedding_has_a_name_and_a_qualified_one():
    found = table([EmbeddingOrigin(("one", "one", "alias"), {"hana": "H"}, "stamp")])
    assert [meaning(found, name) for name in ("hana", "hana@one", "HANA@alias", "hana@two")] == ["H", "H", "H", None]
    assert found.collisions == ()
    assert ("hana", "stamp") in found.fingerprint


def test_the_first_bundle_wins_and_the_other_can_be_named():
    found = table([EmbeddingOrigin(("one",), {"hana": 1}), EmbeddingOrigin(("two",), {"hana": 2})])
    assert [meaning(found, name) for name in ("hana", "hana@one", "hana@two")] == [1, 1, 2]
    assert str(found.collisions[0]) == '"hana" means that of one; write hana@two for that of two'


def test_the_folder_loses_or_wins_by_setting():
    sources = [EmbeddingOrigin(("one",), {"hana": 1})]
    bundle_first, folder_first = table(sources, {"Hana": "F"}), table(sources, {"Hana": "F"}, folder_wins=True)
    assert [meaning(bundle_first, name) for name in ("hana", "hana@embeddings", "hana@one")] == [1, "F", 1]
    assert [meaning(folder_first, name) for name in ("hana", "hana@one")] == [None, 1], "the web UI finds its own"
    assert bundle_first.collisions[0].loser == "embeddings"
    assert folder_first.collisions[0].winner == "embeddings"


def test_a_collision_is_told_of_the_prompts_that_it_concerns():
    sources = [EmbeddingOrigin(("one",), {"hana": 1, "kira": 2})]
    for folder_wins in (False, True):
        found = table(sources, {"hana": "F", "kira": "F"}, folder_wins=folder_wins)
        loser = "hana@one" if folder_wins else "hana@embeddings"
        for text in ("a Hana face", f"a {loser} face"):
            assert [each.name for each in found.collisions_in([text])] == ["hana"], (text, folder_wins)
        assert found.collisions_in(["a hanako face"]) == ()


def test_two_names_of_one_file_that_differ_in_case():
    found = table([EmbeddingOrigin(("one",), {"Foo": 1, "foo": 2})])
    assert meaning(found, "foo") == 1
    assert "rename" in str(found.collisions[0])


def test_an_embedding_without_tokens_is_told():
    found = build_table([EmbeddingOrigin(("one",), {"\u200b": 1})], ids_of=lambda name: (), folder={})
    assert found.unnamed == ("\u200b",)
    assert not found


def test_ids_alone_find_the_longest():
    found = table([EmbeddingOrigin(("one",), {"hana": 1, "hanako": 2})])
    entry, length = found.find(list(ids_of("hanako!")), 0)
    assert (entry.embedding, length) == (2, 6)
    assert found.find(list(ids_of("xyz")), 0) is None
