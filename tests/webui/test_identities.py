"""One thing is never taken for another that lay where it is."""

from __future__ import annotations

import gc

from torch import nn

from lib_pivotal.webui.identities import Forgotten, mark_of_layers


class Model(nn.Module):
    """A checkpoint with the mapping that the Lora extension puts on it (Lora/networks.py:141 of v1.10.1)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.network_layer_mapping = {"layer": self.layer}


def test_layers_of_a_checkpoint_that_is_gone_are_never_those_of_another():
    marks = set()
    for _ in range(200):
        model = Model()
        mark = mark_of_layers(model)
        assert mark is mark_of_layers(model)
        assert mark not in marks
        marks.add(mark)
        del model  # gone at once: nothing refers to it in a circle


def test_a_new_mapping_of_the_same_checkpoint_has_a_new_mark():
    model = Model()
    first = mark_of_layers(model)
    model.network_layer_mapping = dict(model.network_layer_mapping)
    assert first is not None and mark_of_layers(model) is not first
    assert mark_of_layers(None) is None and mark_of_layers(nn.Linear(1, 1)) is None


def test_the_mark_keeps_no_layer_in_memory():
    model = Model()
    mark = mark_of_layers(model)
    assert not any(isinstance(held, nn.Module | dict) for held in gc.get_referents(mark))


def test_each_declaration_gives_a_file_a_number_that_it_never_had():
    forgotten = Forgotten(most=3)
    had: dict[str, set[int]] = {}
    for turn in range(40):
        path = f"file {turn % 5}"
        before = forgotten.number(path)
        had.setdefault(path, set()).add(before)
        forgotten.add(path)
        assert forgotten.number(path) not in had[path]
        assert forgotten.number(path) == forgotten.number(path)


def test_only_so_many_files_are_remembered_and_the_others_count_as_declared():
    forgotten = Forgotten(most=100)
    unknown = forgotten.number("never")
    for number in range(10_000):
        forgotten.add(f"file {number}")
    assert len(forgotten._last) == 100
    assert forgotten.number("file 3") != 4, "its own number is gone"
    assert forgotten.number("never") != unknown, "so it is read again rather than not when it changed"
