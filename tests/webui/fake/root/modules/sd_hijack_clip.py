"""Prompts as chunks of 75 tokens with weights and embeddings in place, and their way through the text encoder."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import torch
from modules import devices, prompt_parser, sd_emphasis, sd_hijack
from modules.shared import opts
from torch import Tensor, nn


class PromptChunk:
    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.multipliers: list[float] = []
        self.fixes: list[Any] = []


PromptChunkFix = namedtuple("PromptChunkFix", ["offset", "embedding"])


class _Writer:
    """Fills chunks; `last_comma` is the length of the open chunk where its last comma stood."""

    def __init__(self, encoder: TextConditionalModel) -> None:
        self.encoder = encoder
        self.chunks: list[PromptChunk] = []
        self.open = PromptChunk()
        self.count = 0
        self.last_comma = -1

    def close(self, *, last: bool = False) -> None:
        encoder, chunk = self.encoder, self.open
        self.count += len(chunk.tokens) if last else encoder.chunk_length
        padding = encoder.chunk_length - len(chunk.tokens)
        chunk.tokens = [encoder.id_start, *chunk.tokens, *[encoder.id_end] * padding, encoder.id_end]
        chunk.multipliers = [1.0, *chunk.multipliers, *[1.0] * padding, 1.0]
        self.chunks.append(chunk)
        self.open, self.last_comma = PromptChunk(), -1

    def move_behind_comma(self) -> None:
        """What follows the last comma goes into the next chunk: ids and weights, the embeddings' places do not."""
        cut = self.last_comma + 1
        tokens, multipliers = self.open.tokens[cut:], self.open.multipliers[cut:]
        del self.open.tokens[cut:], self.open.multipliers[cut:]
        self.close()
        self.open.tokens, self.open.multipliers = tokens, multipliers


class TextConditionalModel(nn.Module):
    """What all text encoders have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.hijack = sd_hijack.model_hijack
        self.chunk_length = 75
        self.is_trainable = False
        self.input_key = "txt"
        self.return_pooled = False
        self.comma_token: int | None = None
        self.id_start = self.id_end = self.id_pad = 0

    def empty_chunk(self) -> PromptChunk:
        chunk = PromptChunk()
        chunk.tokens = [self.id_start] + [self.id_end] * (self.chunk_length + 1)
        chunk.multipliers = [1.0] * (self.chunk_length + 2)
        return chunk

    def get_target_prompt_token_count(self, token_count: int) -> int:
        return math.ceil(max(token_count, 1) / self.chunk_length) * self.chunk_length

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        raise NotImplementedError

    def encode_with_transformers(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError

    def encode_embedding_init_text(self, init_text: str, nvpt: int) -> Tensor:
        raise NotImplementedError

    def tokenize_line(self, line: str) -> tuple[list[PromptChunk], int]:
        """The chunks of a prompt, and how many tokens it has."""
        parsed = prompt_parser.parse_prompt_attention(line) if opts.emphasis != "None" else [[line, 1.0]]
        writer = _Writer(self)
        for tokens, (text, weight) in zip(self.tokenize([text for text, _ in parsed]), parsed, strict=True):
            if text == "BREAK" and weight == -1:
                writer.close()
                continue
            position = 0
            while position < len(tokens):
                position += self._place(writer, tokens, position, weight)
        if writer.open.tokens or not writer.chunks:
            writer.close(last=True)
        return writer.chunks, writer.count

    def _place(self, writer: _Writer, tokens: list[int], position: int, weight: float) -> int:
        """Put a token, or the embedding that begins there, into the open chunk; returns how many tokens are taken."""
        token, full, backtrack = tokens[position], self.chunk_length, opts.comma_padding_backtrack
        if token == self.comma_token:
            writer.last_comma = len(writer.open.tokens)
        elif (
            backtrack != 0
            and len(writer.open.tokens) == full
            and writer.last_comma != -1
            and full - writer.last_comma <= backtrack
        ):
            writer.move_behind_comma()
        if len(writer.open.tokens) == full:
            writer.close()
        embedding, taken = self.hijack.embedding_db.find_embedding_at_position(tokens, position)
        if embedding is None:
            writer.open.tokens.append(token)
            writer.open.multipliers.append(weight)
            return 1
        vectors = int(embedding.vectors)
        if len(writer.open.tokens) + vectors > full:
            writer.close()
        writer.open.fixes.append(PromptChunkFix(len(writer.open.tokens), embedding))
        writer.open.tokens += [0] * vectors
        writer.open.multipliers += [weight] * vectors
        return taken

    def process_texts(self, texts: Sequence[str]) -> tuple[list[list[PromptChunk]], int]:
        known: dict[str, tuple[list[PromptChunk], int]] = {}
        for text in texts:
            if text not in known:
                known[text] = self.tokenize_line(text)
        return [known[text][0] for text in texts], max((count for _, count in known.values()), default=0)

    def forward(self, texts: Sequence[str]) -> Any:
        lines, _ = self.process_texts(texts)
        used: dict[str, Any] = {}
        outputs = []
        for number in range(max(len(line) for line in lines)):
            row = [line[number] if number < len(line) else self.empty_chunk() for line in lines]
            self.hijack.fixes = [chunk.fixes for chunk in row]
            used |= {fix.embedding.name: fix.embedding for chunk in row for fix in chunk.fixes}
            outputs.append(self.process_tokens([chunk.tokens for chunk in row], [chunk.multipliers for chunk in row]))
        self._note(texts, used)
        hidden = torch.hstack(outputs)
        return (hidden, outputs[0].pooled) if self.return_pooled else hidden

    def _note(self, texts: Sequence[str], used: dict[str, Any]) -> None:
        """For the infotext."""
        parameters = self.hijack.extra_generation_params
        if opts.textual_inversion_add_hashes_to_infotext:
            named = [(name.replace(":", "").replace(",", ""), each.shorthash) for name, each in used.items()]
            hashes = [f"{name}: {digest}" for name, digest in named if digest]
            if hashes:
                hashes += [parameters["TI hashes"]] if parameters.get("TI hashes") else []
                parameters["TI hashes"] = ", ".join(hashes)
        if any("(" in text or "[" in text for text in texts) and opts.emphasis != "Original":
            parameters["Emphasis"] = opts.emphasis

    def process_tokens(self, remade_batch_tokens: list[list[int]], batch_multipliers: list[list[float]]) -> Tensor:
        tokens = torch.asarray(remade_batch_tokens).to(devices.device)
        if self.id_end != self.id_pad:
            for place, row in enumerate(remade_batch_tokens):
                tokens[place, row.index(self.id_end) + 1 :] = self.id_pad
        z = self.encode_with_transformers(tokens)
        pooled = getattr(z, "pooled", None)
        emphasis = sd_emphasis.get_current_option(opts.emphasis)()
        emphasis.tokens, emphasis.z = remade_batch_tokens, z
        emphasis.multipliers = torch.asarray(batch_multipliers).to(devices.device)
        emphasis.after_transformers()
        if pooled is not None:
            emphasis.z.pooled = pooled  # type: ignore[attr-defined]
        return emphasis.z


class FrozenCLIPEmbedderWithCustomWordsBase(TextConditionalModel):
    def __init__(self, wrapped: Any, hijack: Any) -> None:
        super().__init__()
        self.hijack = hijack
        self.wrapped = wrapped
        self.is_trainable = getattr(wrapped, "is_trainable", False)
        self.input_key = getattr(wrapped, "input_key", "txt")
        self.return_pooled = getattr(wrapped, "return_pooled", False)


class FrozenCLIPEmbedderWithCustomWords(FrozenCLIPEmbedderWithCustomWordsBase):
    """SD1's."""

    def __init__(self, wrapped: Any, hijack: Any) -> None:
        super().__init__(wrapped, hijack)
        self.tokenizer = wrapped.tokenizer
        self.comma_token = self.tokenizer.get_vocab().get(",</w>")
        self.id_start, self.id_end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        self.id_pad = self.id_end

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return self.wrapped.tokenizer(texts, truncation=False, add_special_tokens=False)["input_ids"]

    def encode_with_transformers(self, tokens: Tensor) -> Tensor:
        skip = opts.CLIP_stop_at_last_layers
        outputs = self.wrapped.transformer(input_ids=tokens, output_hidden_states=True)
        if skip > 1:
            return self.wrapped.transformer.text_model.final_layer_norm(outputs.hidden_states[-skip])
        return outputs.last_hidden_state

    def encode_embedding_init_text(self, init_text: str, nvpt: int) -> Tensor:
        table = self.wrapped.transformer.text_model.embeddings.token_embedding.wrapped
        ids = self.wrapped.tokenizer(init_text, max_length=nvpt, return_tensors="pt", add_special_tokens=False)
        return table(ids["input_ids"].to(table.weight.device)).squeeze(0)


class FrozenCLIPEmbedderForSDXLWithCustomWords(FrozenCLIPEmbedderWithCustomWords):
    """SDXL's first: the state of its own layer, without the final norm."""

    def encode_with_transformers(self, tokens: Tensor) -> Tensor:
        outputs = self.wrapped.transformer(input_ids=tokens, output_hidden_states=self.wrapped.layer == "hidden")
        if opts.sdxl_clip_l_skip is True:
            return outputs.hidden_states[-opts.CLIP_stop_at_last_layers]
        if self.wrapped.layer == "last":
            return outputs.last_hidden_state
        return outputs.hidden_states[self.wrapped.layer_idx]
