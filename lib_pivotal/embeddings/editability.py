"""Keeping embeddings editable: what stands beside an embedding in a prompt must mean what it meant.

Two rules, each a distance between outputs of the frozen text encoder for a prompt with the embedding and for one with
its class, on the embedding alone:

* `class_diffusion`: the end token of "EMB class" should be near that of "class" (ClassDiffusion's semantic preservation
  loss, arXiv 2405.17532, utils/semantic_preservation_loss.py, 1 - cosine);
* `core`: in a prompt such as "EMB, in a park", the outputs of the *other* tokens and of the end should be what they are
  with the class in the embedding's place (CoRe's context embedding regularisation, arXiv 2408.15914; its part on
  attention maps is left out). Measured by 1 - cosine as well, so that a weight means the same for every checkpoint.

Tokens before the embedding do not see it and are no part. An embedding of many vectors moves those behind it to later
places than its class does: the least distance is above zero then.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lib_pivotal.embeddings.text_outputs import PLACES, TextOutputs, count, encode, literal
from lib_pivotal.errors import EmbeddingNameError
from lib_pivotal.ports import EmbeddingVectors, TextEncoder

NAME = "{word}"
"""What stands for the embedding in a context."""
CONTEXTS = (
    "{word}, in a park",
    "{word}, at night",
    "{word}, on a beach",
    "{word}, sitting, smile",
    "{word}, from behind, city",
    "{word}, white background",
    "a photo of {word} in the snow",
    "a painting of {word} with a hat",
)
"""Prompts that `core` takes in turn where a run has none of its own."""


@dataclass(frozen=True)
class ComparedPrompts:
    """Two prompts whose outputs are compared: from `start` on those of `prompt`, from `other_start` on those of
    `other`, `places` of them; with `pooled` also the pooled outputs, where there are any."""

    prompt: str
    start: int
    other: str
    other_start: int
    places: int
    pooled: bool = False


def class_pairs(
    encoder: TextEncoder, name: str, *, vectors: int, class_text: str, contexts: Sequence[str]
) -> list[ComparedPrompts]:
    """ClassDiffusion's: "EMB class" and "class" at their end tokens."""
    tokens, text = count(encoder, class_text), literal(class_text)
    return [ComparedPrompts(f"{name} {text}", 1 + vectors + tokens, text, 1 + tokens, 1, pooled=True)]


def context_pairs(
    encoder: TextEncoder, name: str, *, vectors: int, class_text: str, contexts: Sequence[str]
) -> list[ComparedPrompts]:
    """CoRe's: each context that fits a chunk, with the embedding and with the class, from behind them to the end."""
    pairs = []
    for context in contexts:
        before, _, after = context.partition(NAME)
        behind = count(encoder, after)
        start = 1 + count(encoder, before) + vectors
        end = 1 + count(encoder, f"{before}{class_text}{after}")
        if max(start + behind, end) < PLACES:
            prompt = f"{literal(before)}{{}}{literal(after)}"
            pairs.append(
                ComparedPrompts(
                    prompt.format(name), start, prompt.format(literal(class_text)), end - behind, behind + 1
                )
            )
    return pairs


MakePairs = Callable[..., list[ComparedPrompts]]
EDITABILITY: dict[str, MakePairs | None] = {"none": None, "class_diffusion": class_pairs, "core": context_pairs}


def editability_names() -> tuple[str, ...]:
    """Choices of `embeddings_common.editability`."""
    return tuple(EDITABILITY)


class Editability:
    """A rule's distance of each embedding; 0 = the other tokens say just what they say beside the class."""

    def __init__(
        self,
        rule: str,
        encoder: TextEncoder,
        *,
        classes: Mapping[str, str],
        vectors: Mapping[str, int],
        contexts: Sequence[str] = (),
    ) -> None:
        """`classes`: what each embedding is one of, in the model's own words; `vectors`: how many each has."""
        make = EDITABILITY.get(rule)
        if make is None:
            raise EmbeddingNameError(f"editability = {rule!r}: no rule; use one of {', '.join(EDITABILITY)}")
        self._encoder = encoder
        make = partial(make, encoder, contexts=tuple(contexts) or CONTEXTS)
        self._pairs = {name: make(name, vectors=vectors[name], class_text=text) for name, text in classes.items()}
        self._kept: dict[ComparedPrompts, tuple[Tensor, ...]] = {}
        for name, pairs in self._pairs.items():
            if not classes[name].strip() or not pairs or pairs[0].start >= PLACES:
                raise EmbeddingNameError(
                    f"editability = {rule!r}: embedding {name!r} has no class, or does not fit a prompt of one chunk "
                    f"beside it ({classes[name]!r}). Give it a class, or fewer vectors"
                )

    def __call__(self, embeddings: EmbeddingVectors, names: Sequence[str], *, seeds: tuple[int, int]) -> Tensor:
        """`(names,)`, differentiable in `embeddings`; which context is compared depends on `seeds` and the name."""
        pairs = [self._choose(name, seeds) for name in names]
        found = encode(self._encoder, [pair.prompt for pair in pairs], {name: embeddings[name] for name in names})
        distances = []
        for index, pair in enumerate(pairs):
            here = _at(found, index, pair.start, pair)
            parts = zip(here, self._wanted(pair), strict=True)
            distances.append(torch.stack([1 - F.cosine_similarity(a, b, dim=-1).mean() for a, b in parts]).mean())
        return torch.stack(distances)

    def _choose(self, name: str, seeds: tuple[int, int]) -> ComparedPrompts:
        pairs = self._pairs[name]
        return pairs[random.Random(f"editability {seeds[0]} {seeds[1]} {name}").randrange(len(pairs))]

    def _wanted(self, pair: ComparedPrompts) -> tuple[Tensor, ...]:
        """What the checkpoint makes of the class: encoded once and alone, so that it does not hang on its company."""
        if pair not in self._kept:
            with torch.no_grad():
                self._kept[pair] = _at(encode(self._encoder, [pair.other], {}), 0, pair.other_start, pair)
        return self._kept[pair]


def _at(found: TextOutputs, index: int, start: int, pair: ComparedPrompts) -> tuple[Tensor, ...]:
    """The outputs to compare, `(places, width)` each."""
    towers = tuple(tower[index, start : start + pair.places] for tower in found.towers)
    return (*towers, found.pooled[index, None]) if pair.pooled and found.pooled is not None else towers
