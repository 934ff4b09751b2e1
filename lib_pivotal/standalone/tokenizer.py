"""CLIP's tokenizer without the network: made from the merges that open_clip ships, identical to SD1's.

open_clip itself is not imported (it wants torchvision); only its `bpe_simple_vocab_16e6.txt.gz` is read. The vocabulary
follows from the merges as in `SimpleTokenizer.__init__` of openai/CLIP, clip/simple_tokenizer.py.
"""

from __future__ import annotations

import gzip
import html
import importlib.util
import json
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from transformers import CLIPTokenizer

from lib_pivotal.errors import HostError
from lib_pivotal.prompts import PromptReading, RememberingTokenizer, Tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY_SIZE = 49_408
MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = slice(1, 49_152 - 256 - 2 + 1)


def merges_path() -> Path:
    """Where the installed open_clip keeps CLIP's merges."""
    spec = importlib.util.find_spec("open_clip")
    path = Path(spec.origin).parent / MERGES_FILE if spec and spec.origin else None
    if path is None or not path.is_file():
        raise HostError(f"CLIP's merges ({MERGES_FILE}) were not found in open_clip; install open_clip_torch 2.20.0")
    return path


def _byte_signs() -> list[str]:
    """The printable sign that stands for each byte, in the order of the vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(256 - len(printable))]


def write_tokenizer(folder: Path) -> Path:
    """Write `vocab.json`, `merges.txt` and `tokenizer_config.json` as transformers (and so the web UI) reads them."""
    lines = gzip.decompress(merges_path().read_bytes()).decode("utf-8").split("\n")[_MERGES]
    signs = _byte_signs()
    vocabulary = [*signs, *(sign + "</w>" for sign in signs), *("".join(line.split()) for line in lines), START, END]
    if len(vocabulary) != VOCABULARY_SIZE:
        found = f"{len(vocabulary)} tokens, not {VOCABULARY_SIZE}"
        raise HostError(f"{merges_path()} gives {found}; reinstall open_clip_torch")
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: index for index, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "do_lower_case": True,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return folder


@lru_cache(maxsize=1)
def clip_tokenizer() -> CLIPTokenizer:
    """SD1's tokenizer: 77 places, padded with the end token. One object for all who ask; do not add tokens to it."""
    with tempfile.TemporaryDirectory() as folder:
        return CLIPTokenizer.from_pretrained(str(write_tokenizer(Path(folder))), local_files_only=True)


@lru_cache(maxsize=1)
def clip_reading() -> PromptReading:
    """Prompts by that tokenizer, as the standalone host reads them; it is made when the first text is asked for."""
    return PromptReading(_first_ids)


def _first_ids(text: str) -> list[int]:
    return _remembering().ids(text)


@lru_cache(maxsize=1)
def _remembering() -> RememberingTokenizer:
    return RememberingTokenizer(clip_tokenizer())


class OpenClipTokenizer:
    """A CLIP tokenizer as OpenCLIP uses it: the same tokens, but HTML's entities are resolved first, twice over.

    open_clip v2.20.0, tokenizer.py, `basic_clean`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.bos_token_id = tokenizer.bos_token_id
        self.eos_token_id = tokenizer.eos_token_id

    def __call__(self, text: list[str], *, truncation: bool, add_special_tokens: bool) -> Mapping[str, list[list[int]]]:
        """As the tokenizer."""
        plain = [html.unescape(html.unescape(one)) for one in text]
        return self._tokenizer(plain, truncation=truncation, add_special_tokens=add_special_tokens)
