"""Before the first picture: embeddings learn from the text encoder alone to say what their tags say.

An init text gives the rows of its tokens, of which some may have been left out, and random ones. A few steps without a
U-Net, each a forward and a backward of the text encoder, bring what the U-Net would read of the name near to what it
would read of the tags. Both prompts end differently early, so the outputs are compared where they can be: at the end
token, and at the padding behind both (SD's U-Nets attend to it, and it holds what the prompt says).

    L = mean over prompts and towers of ‖a − b‖² / ‖b‖²,  a: "… EMB", b: "… tags"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_pivotal.data.captions import split_tags
from lib_pivotal.embeddings.text_outputs import PLACES, TextOutputs, count, encode, literal
from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from lib_pivotal.ports import EmbeddingVectors, TextEncoder

LEADS = ("", "a photo of ", "a drawing of ")
"""What the prompts begin with, in turn."""


@dataclass(frozen=True)
class Goal:
    """A prompt with an embedding and one with its tags; `end` and `other_end` are the places of their end tokens."""

    name: str
    prompt: str
    end: int
    other: str
    other_end: int


def goals(encoder: TextEncoder, texts: Mapping[str, str], vectors: Mapping[str, int], lead: str) -> list[Goal]:
    """One for each embedding that has tags, of which the first are taken that fit a chunk."""
    before, found = count(encoder, lead), []
    for name, text in texts.items():
        chosen: list[str] = []
        for tag in split_tags(text):
            if count(encoder, f"{lead}{', '.join([*chosen, tag])}") < PLACES - 2:
                chosen.append(tag)
        if chosen and before + vectors[name] < PLACES - 2:
            other = f"{lead}{', '.join(chosen)}"
            end = 1 + before + vectors[name]
            found.append(Goal(name, f"{lead}{name}", end, literal(other), 1 + count(encoder, other)))
    return found


def distances(
    encoder: TextEncoder, found: Sequence[Goal], wanted: Sequence[TextOutputs], embeddings: EmbeddingVectors
) -> Tensor:
    """L of each goal, `(goals,)`; `wanted` are the outputs of the other prompts, one each."""
    outputs = encode(encoder, [goal.prompt for goal in found], {goal.name: embeddings[goal.name] for goal in found})
    losses = []
    for index, (goal, other) in enumerate(zip(found, wanted, strict=True)):
        behind = max(goal.end, goal.other_end) + 1
        pairs = [
            (
                torch.cat([a[index, goal.end, None], a[index, behind:]]),
                torch.cat([b[0, goal.other_end, None], b[0, behind:]]),
            )
            for a, b in zip(outputs.towers, other.towers, strict=True)
        ]
        if outputs.pooled is not None and other.pooled is not None:
            pairs.append((outputs.pooled[index], other.pooled[0]))
        losses.append(torch.stack([(a - b).square().sum() / b.square().sum() for a, b in pairs]).mean())
    return torch.stack(losses)


def warm_up(
    embeddings: TrainedEmbeddings,
    texts: Mapping[str, str],
    *,
    encoder: TextEncoder,
    steps: int,
    move: Callable[[Sequence[str], float], None],
) -> None:
    """`steps` steps on the text encoder alone, after which the embeddings count as at their start.

    `texts`: tags by embedding; those without are left as they are. `move` takes a step with the gradients of the named
    embeddings, at a factor of the learning rate that falls from 1 to 0, so that the last steps settle.
    """
    vectors = {name: towers[0].shape[0] for name, towers in embeddings.as_mapping().items()}
    by_lead = [goals(encoder, texts, vectors, lead) for lead in LEADS]
    with torch.no_grad():
        wanted = [[encode(encoder, [goal.other], {}) for goal in found] for found in by_lead]
    for step in range(steps):
        found = by_lead[step % len(by_lead)]
        if not found:
            continue
        embeddings.zero_grad(set_to_none=True)
        distances(encoder, found, wanted[step % len(by_lead)], embeddings.as_mapping()).sum().backward()
        move([goal.name for goal in found], 1 - step / steps)
    embeddings.zero_grad(set_to_none=True)
    embeddings.begin_here()
