from __future__ import annotations

import types

import pytest

from lib_pivotal.webui.patches import Patches


def module():
    made = types.ModuleType("made")
    made.answer = lambda number: number
    return made


def test_wrapped_and_taken_back():
    made, patches = module(), Patches()
    before = made.answer
    patches.wrap(made, "answer", lambda original, number: original(number) + 1)
    assert made.answer(1) == 2
    with pytest.raises(RuntimeError, match="already"):
        patches.wrap(made, "answer", lambda original, number: 0)
    patches.undo()
    patches.undo()
    assert made.answer is before


def test_somebody_wrapped_it_after_us():
    """Theirs stays; ours hands through."""
    made, patches = module(), Patches()
    patches.wrap(made, "answer", lambda original, number: original(number) + 1)
    ours = made.answer
    made.answer = lambda number: ours(number) * 10
    patches.undo()
    assert made.answer(3) == 30


def test_a_method_that_a_class_inherits():
    class Base:
        def answer(self):
            return 1

    class Child(Base):
        pass

    patches = Patches()
    patches.wrap(Child, "answer", lambda original, child: original(child) + 1)
    assert (Child().answer(), Base().answer()) == (2, 1)
    patches.undo()
    assert "answer" not in vars(Child)
