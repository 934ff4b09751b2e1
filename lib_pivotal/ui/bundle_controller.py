"""The files of the LoRA folder as the page names them: each action says in a sentence what it did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from lib_pivotal.bundle.edits import Layout
from lib_pivotal.bundle.embedding_files import EmbeddingFormat
from lib_pivotal.bundle.listing import BundleSummary
from lib_pivotal.bundle.low_rank import RankCut
from lib_pivotal.commands import bundles, cards
from lib_pivotal.embeddings.adjustment import read_adjustments
from lib_pivotal.embeddings.names import NameIssue
from lib_pivotal.errors import BundleError
from lib_pivotal.files import typed_path
from lib_pivotal.runs.backend import TrainerBackend
from lib_pivotal.runs.naming import name_issues


class BundleController:
    """The LoRA folder of a backend: `commands.bundles` on files of its list."""

    def __init__(self, backend: TrainerBackend) -> None:
        self._backend = backend

    def listing(self) -> tuple[list[BundleSummary], list[str]]:
        """Every file, and its name below the folder."""
        folder = self._backend.lora_folder()
        summaries = bundles.listed([folder])
        return summaries, [item.path.relative_to(folder).as_posix() for item in summaries]

    def summary(self, name: str) -> BundleSummary:
        """Of one file."""
        return bundles.show(self.path(name)).summary

    def path(self, name: str) -> Path:
        """Where a file of the list lies.

        Raises:
            BundleError: no file of the list has this name.
        """
        given = PurePath(name)  # a link that the user has put into the folder is of the list
        path = self._backend.lora_folder().absolute() / given
        if not name or given.is_absolute() or given.drive or ".." in given.parts or "\0" in name or not path.is_file():
            raise BundleError(f"{name or 'no file'}: choose a file from the list")
        return path

    def verify(self, name: str) -> bundles.Verdict:
        """All problems of a file, read in full, and read by the process's own loader where it has one."""
        return bundles.verify(self.path(name), self._backend)

    def name_issues(self, name: str, embedding: str, new: str) -> list[NameIssue]:
        """What is to be known of an embedding's new name."""
        summary = self.summary(name)
        vectors = next((one.vectors for one in summary.embeddings if one.name == embedding), 0)
        siblings = {one.name: "this file" for one in summary.embeddings if one.name != embedding}
        return name_issues(self._backend, new, vectors=vectors, file=summary.path.name, siblings=siblings)

    def rename_embedding(self, name: str, embedding: str, new: str) -> str:
        """Give an embedding another name."""
        return bundles.rename(bundles.Rename(self.path(name), {embedding: new}), self._backend).said

    def delete_embedding(self, name: str, embedding: str) -> str:
        """Take an embedding out."""
        return bundles.delete(bundles.Delete(self.path(name), [embedding]), self._backend).said

    def add_word(self, name: str, file: Path) -> str:
        """Put an embedding file into a bundle."""
        return bundles.add(bundles.Add(self.path(name), [file]), self._backend).said

    def adjust(self, name: str, text: str) -> str:
        """Embeddings as `text` says (`hana*0.5~0.2`, or a prompt's tag), in a file of its own beside the old one."""
        path, found = self.path(name), read_adjustments(text) if text.strip() else {}
        out = bundles.free(path.with_name(f"{path.stem}-adjusted{path.suffix}"))
        return bundles.adjust(bundles.Adjust(path, found, out=out), self._backend).said

    def strip(self, name: str, parts: Sequence[str]) -> str:
        """Take parts away, into a file of its own beside the old one."""
        path = self.path(name)
        return bundles.strip(bundles.Strip(path, parts, out=bundles.copy_without(path, parts)), self._backend).said

    def split(self, name: str, layout: EmbeddingFormat = "a1111") -> str:
        """Network and embeddings as files of their own, in a folder where no list finds them by accident."""
        path = self.path(name)
        return bundles.split(bundles.Split(path, bundles.free(self._folder(path)), layout=layout)).said

    def convert(self, name: str, layout: Layout) -> str:
        """The network without its embeddings in another program's layout, in the same folder."""
        path = self.path(name)
        out = bundles.free(bundles.converted(path, layout, folder=self._folder(path)))
        return bundles.convert(bundles.Convert(path, out, layout=layout), self._backend).said

    def join(self, name: str, others: Sequence[str], out: str) -> str:
        """Several bundles as one, in a new file beside the first."""
        paths = [self.path(one) for one in (name, *others)]
        return bundles.join(bundles.Join(paths, bundles.beside(paths[0], out.strip())), self._backend).said

    def cut(self, name: str, rank: int) -> str:
        """A DyLoRA's first ranks, in a new file beside it that says how many."""
        path = self.path(name)
        return bundles.cut(bundles.CutRanks(path, bundles.copy_of_rank(path, rank), rank=rank), self._backend).said

    def extract(self, tuned: str, base: str, out: str, cut: RankCut) -> str:
        """A checkpoint minus its base as a LoRA, in a new file of the folder."""
        after, before = self._checkpoint(tuned, "the checkpoint"), self._checkpoint(base, "its base")
        target = bundles.beside(self._backend.lora_folder() / "any", out.strip())
        return bundles.extract(bundles.Extract(after, before, target, cut=cut), self._backend).said

    def resize(self, name: str, out: str, cut: RankCut) -> str:
        """A LoRA at a lower rank, in a new file beside it."""
        path = self.path(name)
        return bundles.resize(bundles.Resize(path, bundles.beside(path, out.strip()), cut=cut), self._backend).said

    def to_lora(self, name: str, out: str, cut: RankCut, base: str = "") -> str:
        """A network of any kind as a LoRA, in a new file beside it; `base` is its checkpoint, empty: none is needed."""
        path = self.path(name)
        checkpoint = self._checkpoint(base, "its base") if base.strip() else None
        request = bundles.ToLora(path, bundles.beside(path, out.strip()), cut=cut, base=checkpoint)
        return bundles.to_lora(request, self._backend).said

    def describe(
        self, name: str, description: str, licence: str, unet: float | None, te: float | None, cfg: float | None
    ) -> str:
        """Write the result card, as the fields say; a number that is empty or 0 stays as it is."""
        request = cards.Describe(
            self.path(name), description=description, licence=licence, unet=unet or None, te=te or None, cfg=cfg or None
        )
        return cards.describe(request, self._backend, runs_folder=self._backend.runs_folder()).said

    def export(self, name: str) -> str:
        """Write the model page; an older one of this file is replaced: it is made from the card."""
        path = self.path(name)
        request = cards.Export(path, self._backend.runs_folder() / "pages" / path.stem, overwrite=True)
        return cards.export(request, runs_folder=self._backend.runs_folder()).said

    def _checkpoint(self, given: str, what: str) -> Path:
        if not given.strip():
            raise BundleError(f"{what}: give the path of its file")
        return typed_path(given)

    def _folder(self, path: Path) -> Path:
        return self._backend.runs_folder() / "split" / path.stem
