"""The web UI's own text encoders as a port: their tokenisers, chunks, weights and clip skip, gradient in the
embeddings.

Prompts go through each encoder's `tokenize_line`, and token vectors through its `EmbeddingsWithFixes` splice
(modules/sd_hijack_clip.py, sd_hijack_open_clip.py and sd_hijack.py of v1.10.1), exactly as in txt2img. Embeddings are
`Embedding` objects whose `vec` is the leaf tensor, or for SDXL both of them by the web UI's names. txt2img encodes each
prompt by itself, one chunk at a time; here the first chunks of a batch's prompts run through the transformer together,
then their second ones. So a batch of one prompt takes the shapes that txt2img takes, and gives the same bits; larger
batches give the same numbers to rounding. Emphasis, which looks at a whole batch's mean, is applied to each prompt's
chunk alone.

Not as in txt2img: backslashes before brackets, where the setting for emphasis is "None" and the web UI takes them as
they are: captions that come here say by them what is a letter (`data/captions.py`). And SDXL's negative prompt, where
empty, is all zeros there (sd_models_xl.py:32). A caption is no negative prompt.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from modules import devices, sd_hijack, shared
from modules.textual_inversion.textual_inversion import Embedding
from torch import Tensor

from lib_pivotal.byte_cache import ByteCache
from lib_pivotal.ports import Conditioning, EmbeddingVectors, VocabularyStats
from lib_pivotal.webui.families import text_towers
from lib_pivotal.webui.own_names import OwnNames
from lib_pivotal.webui.resolution import resolver

LINES_BYTES = 64 * 2**20
"""So much is kept of captions taken apart: about 16,000 of one chunk."""
CHUNK_BYTES = 4_000
"""A chunk takes about so much: 77 token ids and multipliers in lists."""

TOWER_KEYS = ("clip_l", "clip_g")
"""How the web UI calls the two tensors of an SDXL embedding (`EmbeddingsWithFixes.textual_inversion_key`)."""

_ESCAPED = re.compile(r"\\([()\[\]\\])")

_Encoded = tuple[Tensor, Tensor | None]
"""`(prompts, 77·chunks, width)`, and of encoders that have one the pooled output `(prompts, width)`."""


class WebUITextEncoder:
    """`ports.TextEncoder` over the loaded checkpoint's text encoders; `model` gives the one that is loaded now."""

    def __init__(self, model: Callable[[], Any]) -> None:
        self._model = model
        self._embeddings: dict[str, Any] = {}
        self._lines: ByteCache[tuple[Any, ...], list[Any]] = ByteCache(LINES_BYTES)
        self._stats: tuple[VocabularyStats, ...] | None = None

    @property
    def _towers(self) -> list[Any]:
        return text_towers(self._model())

    @property
    def layer_count(self) -> int:
        """Layers of the (first) transformer: the largest clip skip."""
        return len(transformer_blocks(self._towers[0]))

    @property
    def widths(self) -> tuple[int, ...]:
        """One a tower."""
        return tuple(int(token_table(tower).weight.shape[1]) for tower in self._towers)

    def vocabulary_stats(self) -> tuple[VocabularyStats, ...]:
        """Measured once."""
        if self._stats is None:
            self._stats = tuple(VocabularyStats.of(token_table(tower).weight) for tower in self._towers)
        return self._stats

    def token_ids(self, text: str) -> list[int]:
        """Ids of the text taken literally, by the (first) tower's tokenizer."""
        return list(self._towers[0].tokenize([text])[0])

    def embed_text(self, text: str) -> tuple[Tensor, ...]:
        """Rows of the token tables, `(tokens, width)` fp32, copies."""
        found = []
        for tower in self._towers:
            weight = token_table(tower).weight
            ids = torch.tensor(list(tower.tokenize([text])[0]), dtype=torch.long, device=weight.device)
            found.append(weight.detach()[ids].float())
        return tuple(found)

    def encode(self, prompts: Sequence[str], embeddings: EmbeddingVectors) -> Conditioning:
        """`context` `(batch, 77·chunks, width)`, SDXL's towers side by side, and its `pooled` `(batch, 1280)`.

        Chunks = those of the longest prompt. Equal prompts are encoded once.
        """
        unique = list(dict.fromkeys(prompts))
        lines = [self._tokenised(tower, unique, embeddings) for tower in self._towers]
        chunks = max(len(line) for tower_lines in lines for line in tower_lines)
        encoded = [_encode(tower, mine, chunks) for tower, mine in zip(self._towers, lines, strict=True)]
        context = torch.cat([hidden for hidden, _ in encoded], dim=-1) if len(encoded) > 1 else encoded[0][0]
        pooled = next((pooled for _, pooled in encoded if pooled is not None), None)
        if len(unique) < len(prompts):
            order = {prompt: index for index, prompt in enumerate(unique)}
            places = torch.tensor([order[prompt] for prompt in prompts], device=context.device)
            context, pooled = context[places], None if pooled is None else pooled[places]
        return Conditioning(context, pooled)

    def _tokenised(self, tower: Any, prompts: Sequence[str], embeddings: EmbeddingVectors) -> list[list[Any]]:
        """Chunks by prompt, remembered: a fix points at the embedding's `Embedding`, whose `vec` is set anew each
        time."""
        self._take(embeddings)
        sizes = tuple((name, towers[0].shape[0]) for name, towers in embeddings.items())
        options = (getattr(shared.opts, "emphasis", "Original"), shared.opts.comma_padding_backtrack)
        keys = [(type(tower), prompt, sizes, options) for prompt in prompts]
        found: dict[tuple[Any, ...], list[Any]] = {}
        for key in keys:
            line = self._lines.get(key)
            if line is not None:
                found[key] = line
        if missing := [key for key in dict.fromkeys(keys) if key not in found]:
            # nothing of the embeddings folder: what a run learns must not hang on what else lies on this machine
            with registered(self._model(), {name: self._embeddings[name] for name in embeddings}, alone=True):
                for key in missing:
                    found[key] = tower.tokenize_line(_as_letters_are_read(key[1]))[0]
                    self._lines.put(key, found[key], size_bytes=len(key[1]) + CHUNK_BYTES * len(found[key]))
        return [found[key] for key in keys]

    def _take(self, embeddings: EmbeddingVectors) -> None:
        for name, towers in embeddings.items():
            known = self._embeddings.get(name)
            if known is None or known.vectors != towers[0].shape[0]:
                known = self._embeddings[name] = make_embedding(name, towers)
                self._lines.clear()
            known.vec = _vec(towers)


def token_table(tower: Any) -> Any:
    """A wrapped encoder's vocabulary, an `nn.Embedding`; never written."""
    wrapped = tower.wrapped
    if hasattr(wrapped, "transformer"):
        return wrapped.transformer.text_model.embeddings.token_embedding.wrapped
    return wrapped.model.token_embedding.wrapped


def transformer_blocks(tower: Any) -> Any:
    """A wrapped encoder's layers: transformers' for CLIP, open_clip's else."""
    wrapped = tower.wrapped
    if hasattr(wrapped, "transformer"):
        return wrapped.transformer.text_model.encoder.layers
    return wrapped.model.transformer.resblocks


def _encode(tower: Any, lines: Sequence[Sequence[Any]], count: int) -> _Encoded:
    """The first `PromptChunk` of every prompt through one tower, then the second of every prompt, and so on to `count`.

    That is the web UI's own order (sd_hijack_clip.py:216-228), which makes a prompt's chunks rows of their own: a
    product of three rows can round otherwise than one of a single row. The pooled output is the first chunk's, too.
    """
    columns = ([line[i] if i < len(line) else tower.empty_chunk() for line in lines] for i in range(count))
    encoded = [_encode_chunks(tower, rows) for rows in columns]
    return torch.hstack([hidden for hidden, _ in encoded]), encoded[0][1]


def _encode_chunks(tower: Any, rows: Sequence[Any]) -> _Encoded:
    """`PromptChunk`s, one a prompt, through one tower: what its `process_tokens` gives for each of them alone."""
    plain = [row for row in rows if all(multiplier == 1.0 for multiplier in row.multipliers)]
    together = _plain(tower, plain) if plain else ()
    by_row = {id(row): each for row, each in zip(plain, together, strict=True)}
    each = [by_row[id(row)] if id(row) in by_row else _emphasised(tower, row) for row in rows]
    pooled = [one[1] for one in each if one[1] is not None]
    return torch.stack([one[0] for one in each]), torch.stack(pooled) if pooled else None


def _plain(tower: Any, rows: Sequence[Any]) -> list[_Encoded]:
    """Without emphasis the web UI multiplies by 1 and by mean / mean: the transformer's output as it is."""
    tokens = torch.asarray([row.tokens for row in rows])
    if tower.id_end != tower.id_pad:  # OpenCLIP's (sd_hijack_clip.py:271)
        for place, row in enumerate(rows):
            tokens[place, row.tokens.index(tower.id_end) + 1 :] = tower.id_pad
    with _fixes(tower, rows):
        hidden = tower.encode_with_transformers(tokens.to(devices.device))
    pooled = getattr(hidden, "pooled", None)
    return [(row, None if pooled is None else pooled[place]) for place, row in enumerate(hidden)]


def _as_letters_are_read(caption: str) -> str:
    """With "None" every bracket is a letter, and one that is escaped would be two."""
    return _ESCAPED.sub(r"\1", caption) if getattr(shared.opts, "emphasis", "") == "None" else caption


def _emphasised(tower: Any, row: Any) -> _Encoded:
    with _fixes(tower, [row]):
        hidden = tower.process_tokens([row.tokens], [row.multipliers])
    pooled = getattr(hidden, "pooled", None)
    return hidden[0], None if pooled is None else pooled[0]


@contextmanager
def _fixes(tower: Any, rows: Sequence[Any]) -> Iterator[None]:
    tower.hijack.fixes = [row.fixes for row in rows]
    try:
        yield
    finally:
        tower.hijack.fixes = None


def _vec(towers: Sequence[Tensor]) -> Tensor | dict[str, Tensor]:
    """An embedding's tensors as the web UI keeps them."""
    return towers[0] if len(towers) == 1 else dict(zip(TOWER_KEYS, towers, strict=True))


def make_embedding(name: str, towers: Sequence[Tensor]) -> Any:
    """The web UI's `Embedding` over an embedding's vectors."""
    embedding = Embedding(_vec(towers), name)
    embedding.vectors = towers[0].shape[0]
    embedding.shape = sum(tower.shape[-1] for tower in towers)
    embedding.shorthash = None
    return embedding


@contextmanager
def registered(model: Any, embeddings: Mapping[str, Any], *, alone: bool = False) -> Iterator[None]:
    """Inside, in this thread, names stand for `embeddings` in prompts, before all others.

    `alone`: no other name stands for anything. No bundle's name holds inside, whatever a prompt activated before. The
    registry is not touched: the page may read the embeddings folder anew at any time. The place where the web UI asks
    is covered on the database itself, which holds also while our patches are taken back ("Reload UI" during a run).
    """
    database = sd_hijack.model_hijack.embedding_db
    names = list(embeddings)
    ids = dict(zip(names, model.cond_stage_model.tokenize(names) if names else [], strict=True))
    before = vars(database).get("find_embedding_at_position")
    others = database.find_embedding_at_position
    own, thread = OwnNames(ids, embeddings, None if alone else others), threading.get_ident()

    def find(tokens: Sequence[int], offset: int) -> tuple[Any, int | None]:
        answer: tuple[Any, int | None] = (own.find if threading.get_ident() == thread else others)(tokens, offset)
        return answer

    with resolver.generating(closed=True):
        database.find_embedding_at_position = find
        try:
            yield
        finally:
            if before is None:
                del database.find_embedding_at_position
            else:
                database.find_embedding_at_position = before
