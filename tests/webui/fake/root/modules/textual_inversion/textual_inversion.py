"""Embeddings, and the registry that finds them by their name's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from modules import devices, errors, hashes, shared


class Embedding:
    def __init__(self, vec: Any, name: str, step: int | None = None) -> None:
        self.vec = vec
        self.name = name
        self.step = step
        self.shape: int | None = None
        self.vectors = 0
        self.filename: str | None = None
        self.hash: str | None = None
        self.shorthash: str | None = None

    def set_hash(self, value: str) -> None:
        self.hash, self.shorthash = value, value[:12]


class DirWithTextualInversionEmbeddings:
    def __init__(self, path: str) -> None:
        self.path = path
        self.mtime: float | None = None

    def has_changed(self) -> bool:
        folder = Path(self.path)
        return folder.is_dir() and (self.mtime is None or folder.stat().st_mtime > self.mtime)

    def update(self) -> None:
        if Path(self.path).is_dir():
            self.mtime = Path(self.path).stat().st_mtime


class EmbeddingDatabase:
    """`ids_lookup`: by the first token id, longest name first; `word_embeddings`: by name."""

    def __init__(self) -> None:
        self.ids_lookup: dict[int, list[tuple[list[int], Embedding]]] = {}
        self.word_embeddings: dict[str, Embedding] = {}
        self.skipped_embeddings: dict[str, Embedding] = {}
        self.expected_shape = -1
        self.embedding_dirs: dict[str, DirWithTextualInversionEmbeddings] = {}

    def add_embedding_dir(self, path: str) -> None:
        self.embedding_dirs[path] = DirWithTextualInversionEmbeddings(path)

    def register_embedding(self, embedding: Embedding, model: Any) -> Embedding | None:
        return self.register_embedding_by_name(embedding, model, embedding.name)

    def register_embedding_by_name(self, embedding: Embedding | None, model: Any, name: str) -> Embedding | None:
        """None takes the name out."""
        ids = model.cond_stage_model.tokenize([name])[0]
        found = self.ids_lookup.get(ids[0], [])
        if name in self.word_embeddings:
            found = [entry for entry in found if entry[1].name != name]
        if embedding is not None:
            found = [*found, (ids, embedding)]
        self.ids_lookup[ids[0]] = sorted(found, key=lambda entry: len(entry[0]), reverse=True)
        if embedding is not None:
            self.word_embeddings[name] = embedding
            return embedding
        self.word_embeddings.pop(name, None)
        if not self.ids_lookup[ids[0]]:
            del self.ids_lookup[ids[0]]
        return None

    def get_expected_shape(self) -> int:
        return shared.sd_model.cond_stage_model.encode_embedding_init_text(",", 1).shape[1]

    def load_from_file(self, path: str, filename: str) -> None:
        name, suffix = Path(filename).stem, Path(filename).suffix.upper()
        if suffix in (".BIN", ".PT"):
            data = torch.load(path, map_location="cpu")
        elif suffix == ".SAFETENSORS":
            data = safetensors.torch.load_file(path, device="cpu")
        else:
            return
        if data is None:  # refused
            return
        embedding = create_embedding_from_data(data, name, filename=filename, filepath=path)
        if self.expected_shape in (-1, embedding.shape):
            self.register_embedding(embedding, shared.sd_model)
        else:
            self.skipped_embeddings[name] = embedding

    def load_textual_inversion_embeddings(self, force_reload: bool = False) -> None:
        folders = self.embedding_dirs.values()
        if not force_reload and not any(folder.has_changed() for folder in folders):
            return
        for table in (self.ids_lookup, self.word_embeddings, self.skipped_embeddings):
            table.clear()
        self.expected_shape = self.get_expected_shape()
        for folder in folders:
            for path in sorted(Path(folder.path).rglob("*")) if Path(folder.path).is_dir() else ():
                try:
                    if path.is_file() and path.stat().st_size:
                        self.load_from_file(str(path), path.name)
                except Exception:
                    errors.report(f"Error loading embedding {path.name}", exc_info=True)
            folder.update()
        ordered = sorted(self.word_embeddings.values(), key=lambda embedding: embedding.name.lower())
        self.word_embeddings.clear()
        self.word_embeddings.update({embedding.name: embedding for embedding in ordered})

    def find_embedding_at_position(self, tokens: list[int], offset: int) -> tuple[Embedding | None, int | None]:
        for ids, embedding in self.ids_lookup.get(tokens[offset], ()):
            if tokens[offset : offset + len(ids)] == ids:
                return embedding, len(ids)
        return None, None


def create_embedding_from_data(
    data: Any, name: str, filename: str = "unknown embedding file", filepath: str | None = None
) -> Embedding:
    def ready(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(devices.device, dtype=torch.float32)

    vec: Any
    if "string_to_param" in data:
        params = data["string_to_param"]
        params = getattr(params, "_parameters", params)
        assert len(params) == 1, "embedding file has multiple terms in it"
        vec = ready(next(iter(params.values())))
        shape, vectors = vec.shape[-1], vec.shape[0]
    elif type(data) is dict and "clip_g" in data and "clip_l" in data:
        vec = {key: ready(tensor) for key, tensor in data.items()}
        shape, vectors = data["clip_g"].shape[-1] + data["clip_l"].shape[-1], data["clip_g"].shape[0]
    elif type(data) is dict and type(next(iter(data.values()))) is torch.Tensor:
        assert len(data) == 1, "embedding file has multiple terms in it"
        vec = ready(next(iter(data.values())))
        vec = vec.unsqueeze(0) if vec.dim() == 1 else vec
        shape, vectors = vec.shape[-1], vec.shape[0]
    else:
        raise Exception(f"Couldn't identify {filename} as neither textual inversion embedding nor diffuser concept.")
    embedding = Embedding(vec, name)
    embedding.step = data.get("step")
    embedding.vectors, embedding.shape = vectors, shape
    if filepath:
        embedding.filename = filepath
        embedding.set_hash(hashes.sha256(filepath, f"textual_inversion/{name}") or "")
    return embedding
