"""A checkpoint's text encoders as a port: prompts to conditioning as in the web UI, differentiable in the words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lib_pivotal.errors import EmbeddingNameError, HostError
from lib_pivotal.ports import Conditioning, EmbeddingVectors, VocabularyStats
from lib_pivotal.prompts import COMMA_BACKTRACK, Layout, Tokenizer
from lib_pivotal.standalone.families import Family
from lib_pivotal.standalone.tokenizer import OpenClipTokenizer
from lib_pivotal.standalone.towers import READINGS, Plan, Tower


class StandaloneTextEncoder:
    """One or two text encoders (`model`, `second`) behind `ports.TextEncoder`; `family` decides what of them is read.

    `clip_skip` as in the web UI: 1 = the last layer; n > 1 = the n-th from the end, through the final layer norm; SD2
    and SDXL have their own layers, see `towers`. Emphasis is the web UI's "Original": outputs scaled by their weights,
    then the chunk's mean restored. Each prompt is treated as if it were encoded alone. In one call, shorter prompts are
    filled up with empty chunks. SDXL's conditioning is both encoders' side by side.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        second: nn.Module | None = None,
        family: Family = "sd1",
        clip_skip: int = 1,
        comma_backtrack: int = COMMA_BACKTRACK,
        embeddings_move: bool = True,
    ) -> None:
        models = [model] if second is None else [model, second]
        readings = READINGS[family]
        if len(models) != len(readings):
            raise HostError(f"{family} has {len(readings)} text encoder(s), {len(models)} were given")
        self.towers = tuple(
            Tower(
                each,
                tokenizer if reading.pad_id is None else OpenClipTokenizer(tokenizer),
                reading,
                index=index,
                comma_backtrack=comma_backtrack,
                embeddings_move=embeddings_move,
            )
            for index, (each, reading) in enumerate(zip(models, readings, strict=True))
        )
        self.clip_skip = clip_skip
        self._stats: tuple[VocabularyStats, ...] | None = None

    # ---- facts ----

    @property
    def models(self) -> list[nn.Module]:
        """In the order of a word's tensors."""
        return [tower.model for tower in self.towers]

    @property
    def input_requires_grad(self) -> bool:
        """Let gradients flow from the token vectors on even without words (reentrant checkpointing needs that)."""
        return self.towers[0].input_requires_grad

    @input_requires_grad.setter
    def input_requires_grad(self, wanted: bool) -> None:
        for tower in self.towers:
            tower.input_requires_grad = wanted

    @property
    def widths(self) -> tuple[int, ...]:
        """One a tower."""
        return tuple(tower.width for tower in self.towers)

    @property
    def layer_count(self) -> int:
        """Layers of the (first) transformer: the largest clip skip."""
        return self.towers[0].layer_count

    def vocabulary_stats(self) -> tuple[VocabularyStats, ...]:
        """Measured once."""
        if self._stats is None:
            self._stats = tuple(tower.vocabulary_stats() for tower in self.towers)
        return self._stats

    def token_ids(self, text: str) -> list[int]:
        """Ids of the text taken literally, by the (first) tokenizer: no emphasis, no words."""
        return self.towers[0].token_ids(text)

    def embed_text(self, text: str) -> tuple[Tensor, ...]:
        """Rows of the token tables, `(tokens, width)` fp32, copies."""
        return tuple(tower.embed_text(text) for tower in self.towers)

    def layout(self, prompt: str, embeddings: EmbeddingVectors) -> Layout:
        """The prompt in chunks, by the (first) tokenizer; what the web UI's counter would show."""
        return self.towers[0].layout(prompt, embeddings)

    # ---- encoding ----

    def encode(self, prompts: Sequence[str], embeddings: EmbeddingVectors) -> Conditioning:
        """`context` `(batch, 77·chunks, width)`, chunks = those of the longest prompt; SDXL: and `pooled`."""
        return self._encode(prompts, self._plan_all(prompts, embeddings), embeddings)

    def encode_each(self, prompts: Sequence[str], embeddings: EmbeddingVectors) -> list[Conditioning]:
        """Each prompt as a batch of one, `(1, 77·chunks, width)`, none filled up: what the web UI's sampler gets."""
        plans = self._plan_all(prompts, embeddings)
        lengths = [max(plan.chunks for plan in of_prompt) for of_prompt in plans]
        found: dict[int, Conditioning] = {}
        for chunks in sorted(set(lengths)):
            members = [index for index, length in enumerate(lengths) if length == chunks]
            together = self._encode([prompts[i] for i in members], [plans[i] for i in members], embeddings)
            for place, index in enumerate(members):
                pooled = None if together.pooled is None else together.pooled[place : place + 1]
                found[index] = Conditioning(together.context[place : place + 1], pooled)
        return [found[index] for index in range(len(plans))]

    def _plan_all(self, prompts: Sequence[str], embeddings: EmbeddingVectors) -> list[tuple[Plan, ...]]:
        """One plan a tower, for each prompt."""
        if not prompts:
            raise HostError("no prompts to encode; give at least one")
        for name, vectors in embeddings.items():
            if len(vectors) != len(self.towers):
                raise EmbeddingNameError(
                    f"embedding {name!r} has {len(vectors)} tensor(s), but this checkpoint has {len(self.towers)} text "
                    "encoder(s); it was made for another family of models"
                )
        return list(zip(*(tower.plan_all(prompts, embeddings) for tower in self.towers), strict=True))

    def _encode(
        self, prompts: Sequence[str], plans: Sequence[tuple[Plan, ...]], embeddings: EmbeddingVectors
    ) -> Conditioning:
        """Equal prompts are encoded once."""
        unique = dict(zip(prompts, plans, strict=True))
        chunks = max(plan.chunks for of_prompt in unique.values() for plan in of_prompt)
        encoded = [
            tower.encode(mine, chunks=chunks, skip=self.clip_skip, embeddings=embeddings)
            for tower, mine in zip(self.towers, zip(*unique.values(), strict=True), strict=True)
        ]
        context = encoded[0][0] if len(encoded) == 1 else torch.cat([hidden for hidden, _ in encoded], dim=-1)
        pooled = next((pooled for _, pooled in encoded if pooled is not None), None)
        if len(unique) < len(prompts):
            order = {prompt: index for index, prompt in enumerate(unique)}
            places = torch.tensor([order[prompt] for prompt in prompts], device=context.device)
            context, pooled = context[places], None if pooled is None else pooled[places]
        return Conditioning(context, pooled)
