"""The text encoder as a port: prompts to conditioning as the web UI makes it, differentiable in the words.

Words are spliced at token positions into the output of the token table, so the table has no gradient and no copy. What
a prompt looks like in tokens is worked out once and kept; a training step only looks up, splices and runs the model.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib_pivotal.errors import HostError, WordError
from lib_pivotal.ports import Conditioning, VocabularyStats, WordVectors
from lib_pivotal.standalone.prompts import (
    COMMA_BACKTRACK,
    Layout,
    RememberingTokenizer,
    Tokenizer,
    WordTable,
    lay_out,
    tokenize,
)

PLACES = 77
ROUNDING = 1e-5
"""Means below this share of the values' size are rounding; SD1's are a tenth of it."""

REMEMBERED_PROMPTS = 10_000
REMEMBERED_TABLES = 16


@dataclass(frozen=True, eq=False)
class _Splice:
    """Rows `rows` of a word go to `places` of the prompt's chunks, counted through."""

    name: str
    places: Tensor
    rows: Tensor


@dataclass(frozen=True, eq=False)
class _Plan:
    """A prompt as tensors: `ids` and `multipliers` `(chunks, 77)`; no multipliers where all are 1."""

    ids: Tensor
    multipliers: Tensor | None
    splices: tuple[_Splice, ...]

    @property
    def chunks(self) -> int:
        return self.ids.shape[0]


class StandaloneTextEncoder:
    """CLIP (transformers' `CLIPTextModel`) behind `ports.TextEncoder`.

    `clip_skip` as in the web UI: 1 = the last layer; n > 1 = the n-th from the end, through the final layer norm.
    Emphasis is the web UI's "Original": outputs scaled by their weights, then the chunk's mean restored. Each prompt
    is treated as if it were encoded alone. In one call, shorter prompts are filled up with empty chunks.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        clip_skip: int = 1,
        comma_backtrack: int = COMMA_BACKTRACK,
        words_move: bool = True,
    ) -> None:
        self.model = model
        self.tokenizer = RememberingTokenizer(tokenizer)
        self.clip_skip = clip_skip
        self.input_requires_grad = False
        """Let gradients flow from the token vectors on even without words (reentrant checkpointing needs that)."""
        self._comma_backtrack = comma_backtrack
        self._words_move = words_move
        comma = self.token_ids(",")
        self._comma_id = comma[0] if comma else -1
        self._tables: OrderedDict[tuple[tuple[str, int], ...], WordTable] = OrderedDict()
        self._plans: OrderedDict[tuple[WordTable, str], _Plan] = OrderedDict()
        self._stats: tuple[VocabularyStats, ...] | None = None

    # ---- facts ----

    @property
    def token_table(self) -> nn.Embedding:
        """The vocabulary's vectors; never written."""
        return self.model.get_input_embeddings()  # type: ignore[operator]

    @property
    def widths(self) -> tuple[int, ...]:
        """One tower."""
        return (self.token_table.weight.shape[1],)

    @property
    def layer_count(self) -> int:
        """Layers of the transformer: the largest clip skip."""
        return int(self.model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]

    def vocabulary_stats(self) -> tuple[VocabularyStats, ...]:
        """Measured once."""
        if self._stats is None:
            self._stats = (VocabularyStats.of(self.token_table.weight),)
        return self._stats

    def token_ids(self, text: str) -> list[int]:
        """Ids of the text taken literally: no emphasis, no words."""
        return tokenize(self.tokenizer, [text])[0]

    def embed_text(self, text: str) -> tuple[Tensor, ...]:
        """Rows of the token table, `(tokens, width)` fp32, a copy."""
        ids = torch.tensor(self.token_ids(text), dtype=torch.long, device=self.token_table.weight.device)
        return (self.token_table.weight.detach()[ids].float(),)

    def layout(self, prompt: str, words: WordVectors) -> Layout:
        """The prompt in chunks: ids, weights, places of words; what the web UI's counter would show."""
        return lay_out(
            prompt,
            self._table(words),
            tokenizer=self.tokenizer,
            comma_id=self._comma_id,
            comma_backtrack=self._comma_backtrack,
            words_move=self._words_move,
        )

    # ---- encoding ----

    def encode(self, prompts: Sequence[str], words: WordVectors) -> Conditioning:
        """`(batch, 77·chunks, width)`; chunks = those of the longest prompt."""
        return Conditioning(self._encode(self._plan_all(prompts, words), words))

    def encode_each(self, prompts: Sequence[str], words: WordVectors) -> list[Tensor]:
        """One `(77·chunks, width)` a prompt, none filled up: what the web UI's sampler gets."""
        plans = self._plan_all(prompts, words)
        found: dict[int, Tensor] = {}
        for chunks in sorted({plan.chunks for plan in plans}):
            members = [index for index, plan in enumerate(plans) if plan.chunks == chunks]
            found.update(zip(members, self._encode([plans[i] for i in members], words), strict=True))
        return [found[index] for index in range(len(plans))]

    def _plan_all(self, prompts: Sequence[str], words: WordVectors) -> list[_Plan]:
        table = self._table(words)
        return [self._plan(prompt, table, words) for prompt in prompts]

    def _table(self, words: WordVectors) -> WordTable:
        """How these words are found; made once for these names and sizes."""
        key = tuple((name, towers[0].shape[0]) for name, towers in words.items())
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = WordTable(dict(key), self.tokenizer)
            if len(self._tables) > REMEMBERED_TABLES:
                self._tables.popitem(last=False)
        return table

    def _plan(self, prompt: str, table: WordTable, words: WordVectors) -> _Plan:
        plan = self._plans.get((table, prompt))
        if plan is None:
            plan = self._plans[(table, prompt)] = _make_plan(self.layout(prompt, words), table)
            if len(self._plans) > REMEMBERED_PROMPTS:
                self._plans.popitem(last=False)
        return plan

    def _empty(self) -> _Plan:
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return _Plan(torch.tensor([[start] + [end] * (PLACES - 1)]), None, ())

    def _encode(self, plans: Sequence[_Plan], words: WordVectors) -> Tensor:
        """Equal prompts are encoded once."""
        if not plans:
            raise HostError("no prompts to encode; give at least one")
        unique = list(dict.fromkeys(plans))
        chunks = max(plan.chunks for plan in unique)
        encoded = self._encode_unique(unique, chunks, words)
        if len(unique) == len(plans):
            return encoded
        order = {plan: index for index, plan in enumerate(unique)}
        return encoded[torch.tensor([order[plan] for plan in plans], device=encoded.device)]

    def _encode_unique(self, plans: Sequence[_Plan], chunks: int, words: WordVectors) -> Tensor:
        device = self.token_table.weight.device
        empty = self._empty().ids if any(plan.chunks < chunks for plan in plans) else None
        rows = []
        for plan in plans:
            rows.append(plan.ids)
            if empty is not None and plan.chunks < chunks:
                rows.append(empty.expand(chunks - plan.chunks, -1))
        ids = torch.cat(rows).to(device, non_blocking=True)
        with self._spliced(_Positions.of(plans, chunks, words, device=device)):
            hidden = self._run(ids)
        hidden = hidden.reshape(len(plans), chunks, PLACES, -1)
        if any(plan.multipliers is not None for plan in plans):
            hidden = _emphasise(hidden, _multipliers(plans, chunks).to(device))
        return hidden.reshape(len(plans), chunks * PLACES, -1)

    def _run(self, ids: Tensor) -> Tensor:
        """`(chunks, 77)` ids -> `(chunks, 77, width)` hidden states at the wanted depth."""
        skip = self.clip_skip
        if not 1 <= skip <= self.layer_count:
            raise HostError(f"clip_skip = {skip}: this text encoder has {self.layer_count} layers; use 1 to that")
        if skip == 1:
            return self.model(input_ids=ids, return_dict=True).last_hidden_state
        outputs = self.model(input_ids=ids, output_hidden_states=True, return_dict=True)
        inner: Any = getattr(self.model, "text_model", self.model)
        return inner.final_layer_norm(outputs.hidden_states[-skip])

    @contextlib.contextmanager
    def _spliced(self, positions: _Positions | None) -> Iterator[None]:
        """Inside, the token table's output has the words' vectors at their places."""
        wants_grad = self.input_requires_grad and torch.is_grad_enabled()
        if positions is None and not wants_grad:
            yield
            return

        def splice(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
            spliced = output if positions is None else positions.into(output)
            return spliced if spliced.requires_grad or not wants_grad else spliced.requires_grad_()

        handle = self.token_table.register_forward_hook(splice)
        try:
            yield
        finally:
            handle.remove()


@dataclass(frozen=True, eq=False)
class _Positions:
    """Where the rows of `vectors` go in a batch of chunks, counted through."""

    places: Tensor
    rows: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, plans: Sequence[_Plan], chunks: int, words: WordVectors, *, device: torch.device) -> _Positions | None:
        """Of the words that occur; others take no part in the graph, so they get no gradient at all."""
        first_row: dict[str, int] = {}
        places, rows, total = [], [], 0
        for index, plan in enumerate(plans):
            for splice in plan.splices:
                if splice.name not in first_row:
                    first_row[splice.name] = total
                    total += words[splice.name][0].shape[0]
                places.append(splice.places + index * chunks * PLACES)
                rows.append(splice.rows + first_row[splice.name])
        if not places:
            return None
        vectors = torch.cat([words[name][0].to(device) for name in first_row])
        return cls(torch.cat(places).to(device), torch.cat(rows).to(device), vectors)

    def into(self, embedded: Tensor) -> Tensor:
        """`embedded` `(chunks, 77, width)` with the vectors at their places; the table's output is left alone."""
        width = embedded.shape[-1]
        if self.vectors.shape[-1] != width:
            raise WordError(
                f"words have width {self.vectors.shape[-1]}, but this text encoder has {width}; "
                "they were made for another family of models"
            )
        values = F.embedding(self.rows, self.vectors).to(embedded.dtype)
        return embedded.reshape(-1, width).index_copy(0, self.places, values).reshape(embedded.shape)


def _make_plan(layout: Layout, table: WordTable) -> _Plan:
    """Later words win where places overlap (which only the web UI's own wrapping can bring about)."""
    owner: dict[int, tuple[str, int]] = {}
    for index, chunk in enumerate(layout.chunks):
        for place, name in chunk.words:
            for row in range(min(table.sizes[name], PLACES - place)):
                owner[index * PLACES + place + row] = (name, row)
    places: dict[str, list[int]] = {}
    rows: dict[str, list[int]] = {}
    for place, (name, row) in owner.items():
        places.setdefault(name, []).append(place)
        rows.setdefault(name, []).append(row)
    multipliers = torch.tensor([chunk.multipliers for chunk in layout.chunks], dtype=torch.float32)
    return _Plan(
        torch.tensor([chunk.tokens for chunk in layout.chunks]),
        None if bool((multipliers == 1).all()) else multipliers,
        tuple(_Splice(name, torch.tensor(places[name]), torch.tensor(rows[name])) for name in places),
    )


def _multipliers(plans: Sequence[_Plan], chunks: int) -> Tensor:
    """`(prompts, chunks, 77)`, 1 where nothing is emphasised."""
    result = torch.ones(len(plans), chunks, PLACES)
    for index, plan in enumerate(plans):
        if plan.multipliers is not None:
            result[index, : plan.chunks] = plan.multipliers
    return result


def _emphasise(hidden: Tensor, multipliers: Tensor) -> Tensor:
    """Scale `(prompts, chunks, 77, width)` by the weights and restore each chunk's mean (web UI: "Original").

    Where a chunk's mean is nothing but rounding (a text model whose last layer norm was never trained), the web UI
    multiplies by noise or by 0/0; there, the mean is left alone.
    """
    mean = hidden.mean(dim=(2, 3), keepdim=True)
    scaled = hidden * multipliers.unsqueeze(-1).to(hidden.dtype)
    size = hidden.detach().square().mean(dim=(2, 3), keepdim=True).sqrt()
    real = mean.detach().abs() > ROUNDING * size
    ones = torch.ones_like(mean)
    new_mean = torch.where(real, scaled.mean(dim=(2, 3), keepdim=True), ones)
    return scaled * torch.where(real, mean / new_mean, ones)
