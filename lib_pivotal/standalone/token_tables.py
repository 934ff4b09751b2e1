"""A checkpoint's vocabulary off its file: what an init text begins as, without loading the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lib_pivotal.bundle.safetensors_file import read_header
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
        names = read_header(path).tensors
        pairs = renaming({name: entry.shape for name, entry in names.items()})
        now = {renamed(name, pairs): name for name in names}
        parts = TEXT_PARTS[family_of({new: names[old].shape for new, old in now.items()}, path)]
        with safe_open(str(path), framework="pt") as file:
            tables = [file.get_tensor(now[part.prefix + _TABLES[part.layout]]) for part in parts]
    except (BundleError, OSError, KeyError, SafetensorError) as error:
        raise HostError(f"{path}: no vocabulary can be read from it ({error}); give a full checkpoint") from error
    clip = clip_tokenizer()
    return FileTables(tables, [clip if part.layout == "clip" else OpenClipTokenizer(clip) for part in parts])
