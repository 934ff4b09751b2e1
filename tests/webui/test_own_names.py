"""A run's own embeddings are found before all others; ids are letters, as a tokenizer of single letters would give."""

from __future__ import annotations

import pytest

from lib_pivotal.webui.own_names import OwnNames


def ids_of(name: str) -> list[int]:
    return [ord(letter) for letter in name.lower()]


class Registry:
    """The web UI's lookup (modules/textual_inversion/textual_inversion.py:245 of v1.10.1): the longest name."""

    def __init__(self, *names: str) -> None:
        self._names = sorted(names, key=len, reverse=True)

    def find(self, tokens, offset):
        for name in self._names:
            if tokens[offset : offset + len(name)] == ids_of(name):
                return f"folder {name}", len(name)
        return None, None


def read(text: str, own: OwnNames) -> list[str]:
    """What a prompt stands for, as the web UI walks through it."""
    tokens, offset, found = ids_of(text), 0, []
    while offset < len(tokens):
        embedding, length = own.find(tokens, offset)
        if embedding is None:
            offset += 1
            continue
        found.append(embedding)
        offset += length
    return found


def made(*names: str, folder: tuple[str, ...] = (), alone: bool = False) -> OwnNames:
    others = None if alone else Registry(*folder).find
    return OwnNames({name: ids_of(name) for name in names}, {name: f"own {name}" for name in names}, others)


@pytest.mark.parametrize(
    "folder",
    [
        ("hana",),
        ("HANA",),
        ("hana red",),  # longer: the web UI takes the longest
        ("a hana",),  # begins before
        ("a hana red",),
        ("a ha",),  # ends inside
        ("ana",),  # begins inside
        ("h",),  # shorter
    ],
    ids=str,
)
def test_ours_wins_whatever_the_folder_has(folder):
    assert read("a hana red", made("hana", folder=folder)) == ["own hana"]


def test_others_are_found_where_ours_do_not_stand():
    own = made("hana", folder=("easy", "smile"))
    assert read("easy, hana, smile", own) == ["folder easy", "own hana", "folder smile"]
    assert read("hana easyhana", own) == ["own hana", "folder easy", "own hana"]
    assert read("smil", own) == []


def test_alone_nothing_else_is_found():
    assert read("easy, hana, smile", made("hana", folder=("easy", "smile"), alone=True)) == ["own hana"]


def test_the_longest_of_ours():
    own = made("hana", "hanako", alone=True)
    assert read("hanako hana", own) == ["own hanako", "own hana"]


def test_a_name_without_ids_is_never_found():
    assert read("abc", made("", "b", alone=True)) == ["own b"]
