"""A checkpoint's vocabulary off its file: what an init text begins as, without loading the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lib_pivotal.bundle.safetensors_file import read_header, read_tensors
from lib_pivotal.errors import BundleError, HostError
from lib_pivotal.ports import TokenTables
from lib_pivotal.prompts import Tokenizer, tokenize
from lib_pivotal.standalone.families import TEXT_PARTS, family_of, renamed, renaming
from lib_pivotal.standalone.tokenizer import OpenClipTokenizer, clip_tokenizer

_TABLES = {"clip": "text_model.embeddings.token_embedding.weight", "openclip": "token_embedding.weight"}
"""By the layout of a text encoder."""


@dataclass(frozen=True, eq=False)
class FileTables:
    """`ports.TokenTables`: a table `(tokens, width)` and a tokenizer for each text encoder."""

    tables: Sequence[Tensor]
    tokenizers: Sequence[Tokenizer]

    @property
    def widths(self) -> tuple[int, ...]:
        """One a tower."""
        return tuple(int(table.shape[1]) for table in self.tables)

    def embed_text(self, text: str) -> tuple[Tensor, ...]:
        """Rows `(tokens, width)` a tower, fp32, copies."""
        each = zip(self.tables, self.tokenizers, strict=True)
        return tuple(table[torch.tensor(tokenize(tok, [text])[0], dtype=torch.long)].float() for table, tok in each)


def checkpoint_tables(path: str | Path) -> TokenTables:
    """Of a .safetensors file; of a folder that diffusers saved, which is loaded for it.

    Raises:
        HostError: it is no checkpoint of a family that is known.
    """
    path = Path(path)
    if path.is_dir():
        from lib_pivotal.standalone.model import StandaloneHost  # here: a file needs no model

        return StandaloneHost.load(path).text
    try:
        header = read_header(path)
        pairs = renaming({name: entry.shape for name, entry in header.tensors.items()})
        entries = {renamed(name, pairs): entry for name, entry in header.tensors.items()}
        parts = TEXT_PARTS[family_of({name: entry.shape for name, entry in entries.items()}, path)]
        wanted = [part.prefix + _TABLES[part.layout] for part in parts]
        found = dict(read_tensors(path, replace(header, tensors={name: entries[name] for name in wanted})))
    except (BundleError, KeyError) as error:
        raise HostError(f"{path}: no vocabulary can be read from it ({error}); give a full checkpoint") from error
    tables, clip = [table for name in wanted if (table := found[name]) is not None], clip_tokenizer()
    if len(tables) < len(parts):
        raise HostError(f"{path}: this version of torch does not know the dtype of its vocabulary; save it as fp16")
    return FileTables(tables, [clip if part.layout == "clip" else OpenClipTokenizer(clip) for part in parts])
