"""The web UI's own text encoder as a port: its tokeniser, chunks, weights and clip skip, with gradient in the words.

Prompts go through `cond_stage_model.tokenize_line`, and token vectors through its `EmbeddingsWithFixes` splice
(modules/sd_hijack_clip.py and sd_hijack.py of v1.10.1), exactly as in txt2img. Words are `Embedding` objects whose
`vec` is the leaf tensor. txt2img encodes each prompt by itself; here the chunks of a batch run through the transformer
together, and emphasis, which looks at a whole batch's mean, is applied to each prompt's chunk alone: the same numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from modules import devices, sd_hijack, shared
from modules.textual_inversion.textual_inversion import Embedding
from torch import Tensor

from lib_pivotal.ports import Conditioning, VocabularyStats, WordVectors

REMEMBERED_PROMPTS = 10_000


class WebUITextEncoder:
    """`ports.TextEncoder` over `cond_stage_model` of an SD1 checkpoint; `model` gives the one that is loaded now."""

    def __init__(self, model: Callable[[], Any]) -> None:
        self._model = model
        self._embeddings: dict[str, Any] = {}
        self._lines: OrderedDict[tuple[Any, ...], list[Any]] = OrderedDict()
        self._stats: tuple[VocabularyStats, ...] | None = None

    @property
    def _clip(self) -> Any:
        return self._model().cond_stage_model

    @property
    def token_table(self) -> Any:
        """The vocabulary's vectors, an `nn.Embedding`; never written."""
        return self._clip.wrapped.transformer.text_model.embeddings.token_embedding.wrapped

    @property
    def layer_count(self) -> int:
        """Layers of the transformer: the largest clip skip."""
        return int(self._clip.wrapped.transformer.config.num_hidden_layers)

    @property
    def widths(self) -> tuple[int, ...]:
        """One tower."""
        return (int(self.token_table.weight.shape[1]),)

    def vocabulary_stats(self) -> tuple[VocabularyStats, ...]:
        """Measured once."""
        if self._stats is None:
            self._stats = (VocabularyStats.of(self.token_table.weight),)
        return self._stats

    def token_ids(self, text: str) -> list[int]:
        """Ids of the text taken literally."""
        return list(self._clip.tokenize([text])[0])

    def embed_text(self, text: str) -> tuple[Tensor, ...]:
        """Rows of the token table, `(tokens, width)` fp32, a copy."""
        weight = self.token_table.weight
        ids = torch.tensor(self.token_ids(text), dtype=torch.long, device=weight.device)
        return (weight.detach()[ids].float(),)

    def encode(self, prompts: Sequence[str], words: WordVectors) -> Conditioning:
        """`(batch, 77·chunks, width)`; chunks = those of the longest prompt. Equal prompts are encoded once."""
        unique = list(dict.fromkeys(prompts))
        lines = self._tokenised(unique, words)
        chunks = max(len(line) for line in lines)
        empty = self._clip.empty_chunk()
        rows = [line[index] if index < len(line) else empty for line in lines for index in range(chunks)]
        hidden = self._run(rows)
        hidden = hidden.reshape(len(unique), chunks * hidden.shape[1], -1)
        if len(unique) < len(prompts):
            order = {prompt: index for index, prompt in enumerate(unique)}
            hidden = hidden[torch.tensor([order[prompt] for prompt in prompts], device=hidden.device)]
        return Conditioning(hidden)

    def _run(self, rows: Sequence[Any]) -> Tensor:
        """`PromptChunk`s -> `(chunks, 77, width)`, what `process_tokens` gives for each of them alone."""
        plain = [row for row in rows if all(multiplier == 1.0 for multiplier in row.multipliers)]
        encoded = iter(self._plain(plain) if plain else ())
        known = {id(row): next(encoded) for row in plain}
        return torch.stack([known[id(row)] if id(row) in known else self._emphasised(row) for row in rows])

    def _plain(self, rows: Sequence[Any]) -> Tensor:
        """Without emphasis the web UI multiplies by 1 and by mean / mean: the transformer's output as it is."""
        tokens = torch.asarray([row.tokens for row in rows]).to(devices.device)
        with self._fixes(rows):
            return self._clip.encode_with_transformers(tokens)

    def _emphasised(self, row: Any) -> Tensor:
        with self._fixes([row]):
            return self._clip.process_tokens([row.tokens], [row.multipliers])[0]

    @contextmanager
    def _fixes(self, rows: Sequence[Any]) -> Iterator[None]:
        hijack = self._clip.hijack
        hijack.fixes = [row.fixes for row in rows]
        try:
            yield
        finally:
            hijack.fixes = None

    def _tokenised(self, prompts: Sequence[str], words: WordVectors) -> list[list[Any]]:
        """Chunks by prompt, remembered: a fix points at the word's `Embedding`, whose `vec` is set anew each time."""
        self._take(words)
        sizes = tuple((name, towers[0].shape[0]) for name, towers in words.items())
        options = (getattr(shared.opts, "emphasis", "Original"), shared.opts.comma_padding_backtrack)
        keys = [(prompt, sizes, options) for prompt in prompts]
        if missing := [key for key in keys if key not in self._lines]:
            with registered(self._model(), {name: self._embeddings[name] for name in words}):
                for key in missing:
                    self._lines[key] = self._clip.tokenize_line(key[0])[0]
        found = [self._lines[key] for key in keys]
        while len(self._lines) > REMEMBERED_PROMPTS:
            self._lines.popitem(last=False)
        return found

    def _take(self, words: WordVectors) -> None:
        for name, towers in words.items():
            known = self._embeddings.get(name)
            if known is None or known.vectors != towers[0].shape[0]:
                known = self._embeddings[name] = make_embedding(name, towers)
                self._lines.clear()
            known.vec = towers[0]


def make_embedding(name: str, towers: Sequence[Tensor]) -> Any:
    """The web UI's `Embedding` over a word's vectors (one tower)."""
    embedding = Embedding(towers[0], name)
    embedding.vectors = towers[0].shape[0]
    embedding.shape = towers[0].shape[-1]
    embedding.shorthash = None
    return embedding


@contextmanager
def registered(model: Any, embeddings: Mapping[str, Any]) -> Iterator[None]:
    """Inside, names stand for `embeddings` in prompts, before any other of that name; the registry comes back after."""
    database = sd_hijack.model_hijack.embedding_db
    ids_lookup = {first: list(entries) for first, entries in database.ids_lookup.items()}
    word_embeddings = dict(database.word_embeddings)
    lowered = {name.lower() for name in embeddings}
    try:
        for name in [known for known in word_embeddings if known.lower() in lowered]:
            database.register_embedding_by_name(None, model, name)
        for name, embedding in embeddings.items():
            database.register_embedding_by_name(embedding, model, name)
        yield
    finally:
        database.ids_lookup.clear()
        database.ids_lookup.update(ids_lookup)
        database.word_embeddings.clear()
        database.word_embeddings.update(word_embeddings)
