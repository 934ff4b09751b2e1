"""Which parts of a run are trained, with which learning rate and how many parameters: said before the first step.

A run that trains less than was meant looks like any other until its end (bmaltais/kohya_ss#3388: the U-Net alone, not a
word about it). So what is not trained is said, too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lib_pivotal.parameter_groups import ParameterGroup

TITLES = {"unet": "the U-Net", "te": "the text encoder", "te2": "the second text encoder"}


@dataclass(frozen=True)
class TrainedPart:
    """One part (`embeddings`, `unet`, `te`, `te2`): its groups that move, their parameters, lowest and highest LR."""

    part: str
    groups: int
    parameters: int
    lrs: tuple[float, float]

    def said(self) -> str:
        """`3 embeddings (13,824 parameters, LR 0.005)`."""
        many = f"{self.groups} embedding{'s' if self.groups != 1 else ''}"
        title = many if self.part == "embeddings" else TITLES[self.part]
        low, high = self.lrs
        rate = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        return f"{title} ({self.parameters:,} parameters, LR {rate})"


def trained_parts(groups: Sequence[ParameterGroup], *, frozen: Collection[str] = ()) -> tuple[TrainedPart, ...]:
    """The parts that move at all, in the order of their groups; `frozen` are embeddings that never do."""
    found: dict[str, list[ParameterGroup]] = {}
    for group in groups:
        held = group.part == "embeddings" and group.name.removeprefix("word ") in frozen
        if group.lr * group.lr_factor > 0 and not held:
            found.setdefault(group.part, []).append(group)
    return tuple(
        TrainedPart(
            part,
            len(mine),
            sum(parameter.numel() for group in mine for parameter in group.parameters),
            (min(g.lr * g.lr_factor for g in mine), max(g.lr * g.lr_factor for g in mine)),
        )
        for part, mine in found.items()
    )


def said_of_trained(parts: Sequence[TrainedPart]) -> str:
    """The line that a run begins with."""
    trained = [part.said() for part in parts]
    names = {part.part for part in parts}
    left = [] if "embeddings" in names else ["embeddings"]
    left += [] if "unet" in names else [TITLES["unet"]]
    left += [] if names & {"te", "te2"} else [TITLES["te"]]
    text = f"Trains {_listed(trained, 'and')}" if trained else "Trains nothing"
    return f"{text}; not {_listed(left, 'or')}." if left else f"{text}."


def _listed(texts: Sequence[str], word: str) -> str:
    return f"{', '.join(texts[:-1])} {word} {texts[-1]}" if len(texts) > 1 else "".join(texts)
