"""Work on the files of the LoRA folder, as the page asks for it: each action says in a sentence what it did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from lib_pivotal.bundle import workshop
from lib_pivotal.bundle.embedding_files import EmbeddingFormat, read_embedding
from lib_pivotal.bundle.format import check_word_name
from lib_pivotal.bundle.listing import BundleSummary, list_bundle, list_folder
from lib_pivotal.bundle.verify import verify
from lib_pivotal.embeddings.names import NameIssue
from lib_pivotal.errors import BundleError
from lib_pivotal.file_names import checked_name
from lib_pivotal.runs.naming import name_issues
from lib_pivotal.runs.studio import Studio


class Shelf:
    """The LoRA folder of a studio; after each change the studio is told."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def listing(self) -> tuple[list[BundleSummary], list[str]]:
        """Every file, and its name below the folder."""
        folder = self._studio.lora_folder()
        summaries = [item for item in list_folder(folder) if not item.path.name.startswith(".")]
        return summaries, [item.path.relative_to(folder).as_posix() for item in summaries]

    def summary(self, name: str) -> BundleSummary:
        """Of one file."""
        return list_bundle(self.path(name))

    def path(self, name: str) -> Path:
        """Where a file of the list lies.

        Raises:
            BundleError: no file of the list has this name.
        """
        given = PurePath(name)  # a link that the user has put into the folder is of the list
        path = self._studio.lora_folder().absolute() / given
        if not name or given.is_absolute() or given.drive or ".." in given.parts or "\0" in name or not path.is_file():
            raise BundleError(f"{name or 'no file'}: choose a file from the list")
        return path

    def verify(self, name: str) -> list[str]:
        """All problems of a file, read in full, and read by the process's own loader where it has one."""
        path = self.path(name)
        return [str(problem) for problem in (*verify(path), *self._studio.loader_problems(path))]

    def name_issues(self, name: str, word: str, new: str) -> list[NameIssue]:
        """What is to be known of a word's new name."""
        summary = self.summary(name)
        vectors = next((one.vectors for one in summary.words if one.name == word), 0)
        siblings = {one.name: "this file" for one in summary.words if one.name != word}
        return name_issues(self._studio, new, vectors=vectors, file=summary.path.name, siblings=siblings)

    def rename_word(self, name: str, word: str, new: str) -> str:
        """Give a word another name."""
        if reasons := check_word_name(new):
            raise BundleError(f"{new!r} {'; '.join(reasons)}")
        self._changed(workshop.rename_words(self.path(name), {self._word(word): new}))
        return f"{word} is now called {new}."

    def delete_word(self, name: str, word: str) -> str:
        """Take a word out."""
        self._changed(workshop.delete_words(self.path(name), [self._word(word)]))
        return f"{word} was removed."

    def add_word(self, name: str, file: Path) -> str:
        """Put an embedding file's word into a bundle."""
        found = read_embedding(file)
        self._changed(workshop.add_words(self.path(name), {found.name: found.vectors}))
        return f"{found.name} was added."

    def strip(self, name: str, parts: Sequence[str]) -> str:
        """Take parts away, into a file of its own beside the old one."""
        path = self.path(name)
        if not parts:
            raise BundleError("choose what to remove")
        out = _free(path.with_name(f"{path.stem}-without-{'-'.join(sorted(parts))}.safetensors"))
        self._changed(workshop.strip(path, parts, out=out))  # type: ignore[arg-type]
        return f"Written: {out.name}. The old file stays as it was."

    def split(self, name: str, layout: EmbeddingFormat = "a1111") -> str:
        """Network and words as files of their own, in a folder where no list finds them by accident."""
        path = self.path(name)
        folder = _free(self._folder(path))
        written = workshop.split(path, folder, layout=layout)
        words = "are for HCP-Diffusion" if layout == "hcp" else "go into the embeddings folder"
        return f"{len(written)} files are in {folder}: embedding files {words}."

    def convert(self, name: str, layout: workshop.Layout) -> str:
        """The network without its words in another program's layout, in the same folder."""
        path = self.path(name)
        folder = self._folder(path)
        folder.mkdir(parents=True, exist_ok=True)
        out = _free(folder / f"{path.stem}-{layout}{'' if layout == 'peft' else '.safetensors'}")
        written = workshop.convert(path, out, layout=layout, shape=self._studio.unet_shape(path))
        return f"Written: {written}. It holds the network; Split writes its embeddings."

    def _folder(self, path: Path) -> Path:
        return self._studio.runs_folder() / "split" / path.stem

    def join(self, name: str, others: Sequence[str], out: str, weights: Sequence[float] | None = None) -> str:
        """Several bundles as one."""
        paths = [self.path(one) for one in dict.fromkeys([name, *others])]
        name = checked_name(out.strip().removesuffix(".safetensors"), "the new file")
        target = paths[0].with_name(f"{name}.safetensors")
        self._changed(workshop.join(paths, target, weights=weights))
        return f"Written: {target.name}, of {len(paths)} files."

    def _word(self, word: str) -> str:
        if not word:
            raise BundleError("choose an embedding")
        return word

    def _changed(self, path: Path) -> None:
        self._studio.bundle_saved(path)


def _free(path: Path) -> Path:
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found
