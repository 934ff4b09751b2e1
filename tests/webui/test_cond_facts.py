"""Facts of a conditioning are found again for it alone, and neither keeps the other."""

from __future__ import annotations

import gc
import weakref
from collections import namedtuple

import pytest
import torch

from lib_pivotal.webui.cond_facts import Facts, FactsOf, first_tensor

Scheduled = namedtuple("Scheduled", ["end_at_step", "cond"])
"""The web UI's `ScheduledPromptConditioning` (prompt_parser.py:136 of v1.10.1), which takes no weak reference."""


class Composable:
    """Its `ComposableScheduledPromptConditioning`."""

    def __init__(self, schedules, weight=1.0):
        self.schedules, self.weight = schedules, weight


class Multicond:
    """Its `MulticondLearnedConditioning`."""

    def __init__(self, shape, batch):
        self.shape, self.batch = shape, batch


def negative():
    return [[Scheduled(20, torch.zeros(2, 3))]]


def positive():
    return Multicond((1,), [[Composable([Scheduled(20, torch.zeros(2, 3))])]])


def of_sdxl():
    return Multicond((1,), [[Composable([Scheduled(20, {"crossattn": torch.zeros(2, 3), "vector": torch.zeros(3)})])]])


@pytest.mark.parametrize("make", [negative, positive, of_sdxl])
def test_facts_belong_to_this_very_conditioning(make):
    held, one, other = FactsOf(), make(), make()
    held.put(one, Facts({"Emphasis": "None"}, (("hana", "ab"),)))
    assert held.get(one) == Facts({"Emphasis": "None"}, (("hana", "ab"),))
    assert held.get(other) is None
    held.put(one, Facts({}, ()))
    assert held.get(one) == Facts({}, ()) and len(held) == 1


@pytest.mark.parametrize("make", [negative, positive, of_sdxl])
def test_a_conditioning_that_the_web_ui_lets_go_of_is_gone(make):
    held, kept = FactsOf(), make()
    tensors = []
    for _ in range(50):
        made = make()
        tensors.append(weakref.ref(first_tensor(made)))
        held.put(made, Facts({}, ()))
        del made
    held.put(kept, Facts({"kept": 1}, ()))
    gc.collect()
    assert all(tensor() is None for tensor in tensors)
    assert len(held) == 1 and held.get(kept) == Facts({"kept": 1}, ())


def test_what_holds_no_tensor_has_no_facts():
    held = FactsOf()
    held.put([[]], Facts({}, ()))
    assert len(held) == 0 and held.get([[]]) is None and first_tensor("text") is None
