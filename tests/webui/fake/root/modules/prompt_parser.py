"""Emphasis and BREAK. Prompt editing (`[a:b:0.5]`) and AND are not in the fake: such prompts are read as one text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

re_attention = re.compile(r"\\.|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|\]|[^\\()\[\]:]+|:")
re_break = re.compile(r"\s*\bBREAK\b\s*")


class ScheduledPromptConditioning(NamedTuple):
    end_at_step: int
    cond: Any


class SdConditioning(list):
    """Prompts, and for SDXL the size of the picture."""

    def __init__(
        self,
        prompts: Sequence[str],
        is_negative_prompt: bool = False,
        width: int | None = None,
        height: int | None = None,
        copy_from: Any = None,
    ) -> None:
        super().__init__(prompts)
        source = prompts if copy_from is None else copy_from
        self.is_negative_prompt = is_negative_prompt or getattr(source, "is_negative_prompt", False)
        self.width = width or getattr(source, "width", None)
        self.height = height or getattr(source, "height", None)


def get_learned_conditioning(
    model: Any, prompts: SdConditioning, steps: int, hires_steps: int | None = None, use_old_scheduling: bool = False
) -> list[list[ScheduledPromptConditioning]]:
    """Every prompt by itself, each once."""
    known: dict[str, list[ScheduledPromptConditioning]] = {}
    for prompt in prompts:
        if prompt not in known:
            conds = model.get_learned_conditioning(SdConditioning([prompt], copy_from=prompts))
            cond = {key: value[0] for key, value in conds.items()} if isinstance(conds, dict) else conds[0]
            known[prompt] = [ScheduledPromptConditioning(steps, cond)]
    return [known[prompt] for prompt in prompts]


get_multicond_learned_conditioning = get_learned_conditioning


def stacked(conds: list[list[ScheduledPromptConditioning]]) -> Tensor | dict[str, Tensor]:
    """Conditionings of a batch as one; a shorter one repeats its last token row, as `stack_conds`."""
    import torch

    found = [schedule[-1].cond for schedule in conds]
    if isinstance(found[0], dict):
        return {key: _stacked([one[key] for one in found]) for key in found[0]}
    assert torch.is_tensor(found[0])
    return _stacked(found)


def _stacked(tensors: list[Tensor]) -> Tensor:
    import torch

    longest = max(tensor.shape[0] for tensor in tensors)
    if tensors[0].dim() == 1:
        return torch.stack(tensors)
    return torch.stack([torch.vstack([t, t[-1:].repeat(longest - t.shape[0], 1)]) for t in tensors])


def parse_prompt_attention(text: str) -> list[list[Any]]:
    """Texts and their weights: `(a)` 1.1, `(a:1.3)`, `[a]` 1/1.1; BREAK is a text of weight -1."""
    found: list[list[Any]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def weigh(start: int, factor: float) -> None:
        for piece in found[start:]:
            piece[1] *= factor

    for match in re_attention.finditer(text):
        sign, weight = match.group(0), match.group(1)
        if sign.startswith("\\"):
            found.append([sign[1:] if len(sign) > 1 and sign[1] in "()[]\\" else sign[1:], 1.0])
        elif sign in opened:
            opened[sign].append(len(found))
        elif weight is not None and opened["("]:
            weigh(opened["("].pop(), float(weight))
        elif sign == ")" and opened["("]:
            weigh(opened["("].pop(), 1.1)
        elif sign == "]" and opened["["]:
            weigh(opened["["].pop(), 1 / 1.1)
        else:
            for number, piece in enumerate(re.split(re_break, sign)):
                if number:
                    found.append(["BREAK", -1])
                found.append([piece, 1.0])
    for start in opened["("]:
        weigh(start, 1.1)
    for start in opened["["]:
        weigh(start, 1 / 1.1)
    found = found or [["", 1.0]]
    merged = [found[0]]
    for piece in found[1:]:
        if piece[1] == merged[-1][1]:
            merged[-1][0] += piece[0]
        else:
            merged.append(piece)
    return merged
