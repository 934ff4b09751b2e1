"""A checkpoint's text encoders as a port: prompts to conditioning as in the web UI, differentiable in the embeddings.

Embeddings are spliced at token positions into the output of the token table, so the table has no gradient and no copy.
What a prompt looks like in tokens is worked out once and kept; a training step only looks up, splices and runs the
model.

What is read, as in the web UI v1.10.1 (modules/sd_hijack_clip.py, modules/sd_hijack_open_clip.py):

    SD1     CLIP-L         the last layer or, by clip skip, an earlier one, through the final layer norm
    SD2     OpenCLIP-H     the last layer but one through the final layer norm, whatever clip skip says
    SDXL    CLIP-L         the last layer but one, without the norm, whatever clip skip says
            OpenCLIP-G     the same; and pooled: the last layer, normalised, at the end token, projected
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib_pivotal.errors import EmbeddingNameError, HostError
from lib_pivotal.ports import Conditioning, EmbeddingVectors, VocabularyStats
from lib_pivotal.prompts import Layout, PromptNames, RememberingTokenizer, Tokenizer, lay_out, tokenize
from lib_pivotal.standalone.families import Family
from lib_pivotal.standalone.tokenizer import OpenClipTokenizer

PLACES = 77
ROUNDING = 1e-5
"""Means below this share of the values' size are rounding; SD1's are a tenth of it."""

REMEMBERED_PROMPTS = 10_000
REMEMBERED_TABLES = 16


@dataclass(frozen=True)
class Reading:
    """What of a text encoder a family reads.

    `skip` layers from the end (1 = the last; None = the run's clip skip); `pad_id` fills a chunk after its end token
    (None: with the end token).
    """

    skip: int | None = None
    final_norm: bool = True
    pad_id: int | None = None
    pooled: bool = False


READINGS: dict[Family, tuple[Reading, ...]] = {
    "sd1": (Reading(),),
    "sd2": (Reading(skip=1, pad_id=0),),
    "sdxl": (Reading(skip=2, final_norm=False), Reading(skip=2, final_norm=False, pad_id=0, pooled=True)),
}
"""One a tower. SD2's model has been cut: its last layer is the one that is read."""


class StandaloneTextEncoder:
    """One or two text encoders (`model`, `second`) behind `ports.TextEncoder`; `family` decides what of them is read.

    `clip_skip` as in the web UI: 1 = the last layer; n > 1 = the n-th from the end, through the final layer norm; SD2
    and SDXL have their own layers (see the module). Emphasis is the web UI's "Original": outputs scaled by their
    weights, then the chunk's mean restored. Each prompt is treated as if it were encoded alone. In one call, shorter
    prompts are filled up with empty chunks. SDXL's conditioning is both encoders' side by side.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        second: nn.Module | None = None,
        family: Family = "sd1",
        clip_skip: int = 1,
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
                embeddings_move=embeddings_move,
            )
            for index, (each, reading) in enumerate(zip(models, readings, strict=True))
        )
        self.clip_skip = clip_skip
        self._stats: tuple[VocabularyStats, ...] | None = None

    # ---- facts ----

    @property
    def models(self) -> list[nn.Module]:
        """In the order of an embedding's tensors."""
        return [tower.model for tower in self.towers]

    @property
    def input_requires_grad(self) -> bool:
        """Let gradients flow from the token vectors on even without embeddings (reentrant checkpointing needs that)."""
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
        """Ids of the text taken literally, by the (first) tokenizer: no emphasis, no embeddings."""
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


@dataclass(frozen=True, eq=False)
class _Splice:
    """Rows `rows` of an embedding go to `places` of the prompt's chunks, counted through."""

    name: str
    places: Tensor
    rows: Tensor


@dataclass(frozen=True, eq=False)
class Plan:
    """A prompt as tensors: `ids` and `multipliers` `(chunks, 77)`; no multipliers where all are 1."""

    ids: Tensor
    multipliers: Tensor | None
    splices: tuple[_Splice, ...]

    @property
    def chunks(self) -> int:
        return self.ids.shape[0]


class Tower:
    """A text encoder (transformers' `CLIPTextModel`, or with projection) and its tokenizer; `index` of its family's."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        reading: Reading,
        *,
        index: int = 0,
        embeddings_move: bool,
    ) -> None:
        self.model = model
        self.tokenizer = RememberingTokenizer(tokenizer)
        self.reading = reading
        self.index = index
        self.input_requires_grad = False
        self._embeddings_move = embeddings_move
        comma = self.token_ids(",")
        self._comma_id = comma[0] if comma else -1
        self._tables: OrderedDict[tuple[tuple[str, int], ...], PromptNames] = OrderedDict()
        self._plans: OrderedDict[tuple[PromptNames, str], Plan] = OrderedDict()

    # ---- facts ----

    @property
    def token_table(self) -> nn.Embedding:
        """The vocabulary's vectors; never written."""
        return self.model.get_input_embeddings()  # type: ignore[operator]

    @property
    def width(self) -> int:
        """Of a token's vector."""
        return int(self.token_table.weight.shape[1])

    @property
    def layer_count(self) -> int:
        """Layers of the transformer."""
        return int(self.model.config.num_hidden_layers)  # type: ignore[union-attr, arg-type]

    def vocabulary_stats(self) -> VocabularyStats:
        """Measured now."""
        return VocabularyStats.of(self.token_table.weight)

    def token_ids(self, text: str) -> list[int]:
        """Ids of the text taken literally: no emphasis, no embeddings."""
        return tokenize(self.tokenizer, [text])[0]

    def embed_text(self, text: str) -> Tensor:
        """Rows of the token table, `(tokens, width)` fp32, a copy."""
        ids = torch.tensor(self.token_ids(text), dtype=torch.long, device=self.token_table.weight.device)
        return self.token_table.weight.detach()[ids].float()

    def layout(self, prompt: str, embeddings: EmbeddingVectors) -> Layout:
        """The prompt in chunks: ids, weights, places of embeddings; what the web UI's counter would show."""
        return lay_out(
            prompt,
            self._table(embeddings),
            tokenizer=self.tokenizer,
            comma_id=self._comma_id,
            embeddings_move=self._embeddings_move,
        )

    # ---- prompts as tensors ----

    def plan_all(self, prompts: Sequence[str], embeddings: EmbeddingVectors) -> list[Plan]:
        """One a prompt, from memory where it was seen before with embeddings of these names and sizes."""
        table = self._table(embeddings)
        return [self._plan(prompt, table, embeddings) for prompt in prompts]

    def _table(self, embeddings: EmbeddingVectors) -> PromptNames:
        """How these embeddings are found; made once for these names and sizes."""
        key = tuple((name, towers[0].shape[0]) for name, towers in embeddings.items())
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = PromptNames(dict(key), self.tokenizer)
            if len(self._tables) > REMEMBERED_TABLES:
                self._tables.popitem(last=False)
        return table

    def _plan(self, prompt: str, table: PromptNames, embeddings: EmbeddingVectors) -> Plan:
        plan = self._plans.get((table, prompt))
        if plan is None:
            plan = _make_plan(self.layout(prompt, embeddings), table)
            plan = self._plans[(table, prompt)] = replace(plan, ids=self._padded(plan.ids))
            if len(self._plans) > REMEMBERED_PROMPTS:
                self._plans.popitem(last=False)
        return plan

    def _padded(self, ids: Tensor) -> Tensor:
        """`(chunks, 77)` with what follows each chunk's first end token replaced by the padding token."""
        if self.reading.pad_id is None:
            return ids
        ends = ids == self.tokenizer.eos_token_id
        after = ends.cumsum(1) - ends.long() > 0
        return torch.where(after, torch.full_like(ids, self.reading.pad_id), ids)

    def _empty(self) -> Plan:
        start, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        return Plan(self._padded(torch.tensor([[start] + [end] * (PLACES - 1)])), None, ())

    # ---- encoding ----

    def encode(
        self, plans: Sequence[Plan], *, chunks: int, skip: int, embeddings: EmbeddingVectors
    ) -> tuple[Tensor, Tensor | None]:
        """`(prompts, 77·chunks, width)`, and the pooled output `(prompts, width)` of each first chunk where it is read.

        Shorter prompts are filled up with empty chunks; `skip` is the run's clip skip.
        """
        device = self.token_table.weight.device
        empty = self._empty().ids if any(plan.chunks < chunks for plan in plans) else None
        rows = []
        for plan in plans:
            rows.append(plan.ids)
            if empty is not None and plan.chunks < chunks:
                rows.append(empty.expand(chunks - plan.chunks, -1))
        ids = torch.cat(rows).to(device, non_blocking=True)
        with self._spliced(_Positions.of(plans, chunks, embeddings, tower=self.index, device=device)):
            hidden, pooled = self._run(ids, skip if self.reading.skip is None else self.reading.skip)
        hidden = hidden.reshape(len(plans), chunks, PLACES, -1)
        if any(plan.multipliers is not None for plan in plans):
            hidden = _emphasise(hidden, _multipliers(plans, chunks).to(device))
        # the web UI takes the first chunk's, without emphasis (sd_hijack_clip.py:254, 276)
        first = None if pooled is None else pooled[::chunks]
        return hidden.reshape(len(plans), chunks * PLACES, -1), first

    def _run(self, ids: Tensor, skip: int) -> tuple[Tensor, Tensor | None]:
        """`(chunks, 77)` ids -> `(chunks, 77, width)` hidden states at the wanted depth, and `(chunks, width)`."""
        if not 1 <= skip <= self.layer_count:
            raise HostError(f"clip_skip = {skip}: this text encoder has {self.layer_count} layers; use 1 to that")
        reading = self.reading
        if skip == 1 and reading.final_norm and not reading.pooled:
            return self.model(input_ids=ids, return_dict=True).last_hidden_state, None
        outputs = self.model(input_ids=ids, output_hidden_states=True, return_dict=True)
        hidden = outputs.hidden_states[-skip]
        if reading.final_norm:
            inner: Any = getattr(self.model, "text_model", self.model)
            hidden = inner.final_layer_norm(hidden)
        return hidden, self._pool(outputs.last_hidden_state, ids) if reading.pooled else None

    def _pool(self, last: Tensor, ids: Tensor) -> Tensor:
        """At the end token, which has the highest id, through the projection."""
        projection: Any = self.model.text_projection
        at_end = last[torch.arange(len(ids), device=last.device), ids.argmax(dim=-1)]
        pooled: Tensor = projection(at_end)
        return pooled

    @contextlib.contextmanager
    def _spliced(self, positions: _Positions | None) -> Iterator[None]:
        """Inside, the token table's output has the embeddings' vectors at their places."""
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
    def of(
        cls, plans: Sequence[Plan], chunks: int, embeddings: EmbeddingVectors, *, tower: int, device: torch.device
    ) -> _Positions | None:
        """Of the embeddings that occur; others take no part in the graph, so they get no gradient at all."""
        first_row: dict[str, int] = {}
        places, rows, total = [], [], 0
        for index, plan in enumerate(plans):
            for splice in plan.splices:
                if splice.name not in first_row:
                    first_row[splice.name] = total
                    total += embeddings[splice.name][tower].shape[0]
                places.append(splice.places + index * chunks * PLACES)
                rows.append(splice.rows + first_row[splice.name])
        if not places:
            return None
        vectors = torch.cat([embeddings[name][tower].to(device) for name in first_row])
        return cls(torch.cat(places).to(device), torch.cat(rows).to(device), vectors)

    def into(self, embedded: Tensor) -> Tensor:
        """`embedded` `(chunks, 77, width)` with the vectors at their places; the table's output is left alone."""
        width = embedded.shape[-1]
        if self.vectors.shape[-1] != width:
            raise EmbeddingNameError(
                f"embeddings have width {self.vectors.shape[-1]}, but this text encoder has {width}; "
                "they were made for another family of models"
            )
        values = F.embedding(self.rows, self.vectors).to(embedded.dtype)
        return embedded.reshape(-1, width).index_copy(0, self.places, values).reshape(embedded.shape)


def _make_plan(layout: Layout, table: PromptNames) -> Plan:
    """Later embeddings win where places overlap (which only the web UI's own wrapping can bring about)."""
    owner: dict[int, tuple[str, int]] = {}
    for index, chunk in enumerate(layout.chunks):
        for place, name in chunk.embeddings:
            for row in range(min(table.sizes[name], PLACES - place)):
                owner[index * PLACES + place + row] = (name, row)
    places: dict[str, list[int]] = {}
    rows: dict[str, list[int]] = {}
    for place, (name, row) in owner.items():
        places.setdefault(name, []).append(place)
        rows.setdefault(name, []).append(row)
    multipliers = torch.tensor([chunk.multipliers for chunk in layout.chunks], dtype=torch.float32)
    return Plan(
        torch.tensor([chunk.tokens for chunk in layout.chunks]),
        None if bool((multipliers == 1).all()) else multipliers,
        tuple(_Splice(name, torch.tensor(places[name]), torch.tensor(rows[name])) for name in places),
    )


def _multipliers(plans: Sequence[Plan], chunks: int) -> Tensor:
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
