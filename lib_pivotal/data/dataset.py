"""Scanning a folder as people have it: pictures, captions, masks, concepts, and everything that is wrong with it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from lib_pivotal.data.captions import caption_from_name, read_caption
from lib_pivotal.data.folders import Folder, natural_order
from lib_pivotal.data.pictures import PictureFacts, inspect
from lib_pivotal.data.records import Dataset, Level, Picture, Problem
from lib_pivotal.errors import DataError

__all__ = ["Dataset", "Picture", "Problem", "scan"]

MissingCaption = Literal["auto", "name", "concept", "empty"]

_SIDECARS = (".json", ".jsonl", ".csv", ".toml", ".yaml", ".yml", ".npz", ".npy", ".db", ".ini", ".md", ".safetensors")
_MANY_REPEATS = 200
_RANK = {"error": 0, "warning": 1, "info": 2}


def scan(
    folder: Path | str,
    *,
    caption_extensions: Sequence[str] = (".txt", ".caption"),
    minimum_px: int = 32,
    missing_caption: MissingCaption = "auto",
    duplicates: Literal["keep", "skip"] = "keep",
    full_check: bool = False,
    workers: int = 4,
) -> Dataset:
    """Look at every picture below `folder`; whatever cannot be used is named in `problems` and left out.

    Concepts: the sub-folders just below `folder`, kohya's `N_name` folders (N repeats, at any depth; also `folder`
    itself), else the folder's own name. A picture without a caption file takes its file name, in kohya's folders
    the folder's name (`missing_caption="auto"`). `full_check` decodes every picture instead of its header and end.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root}: {what}. Give the folder that holds the pictures.")
    scanner = _Scanner(root, caption_extensions=caption_extensions, missing_caption=missing_caption)
    files = scanner.folder.pictures()
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:  # Pillow releases the lock while it reads
        facts = list(pool.map(lambda path: _inspect(path, full=full_check), files))
    found = (scanner.picture(path, fact, minimum_px=minimum_px) for path, fact in zip(files, facts, strict=True))
    pictures = scanner.without_duplicates([p for p in found if p is not None], skip=duplicates == "skip")
    scanner.review(pictures)
    concepts: dict[str, list[str]] = defaultdict(list)
    for picture in pictures:
        concepts[picture.concept].append(picture.key)
    return Dataset(
        folder=root,
        pictures=tuple(pictures),
        concepts={name: tuple(concepts[name]) for name in sorted(concepts, key=natural_order)},
        problems=tuple(sorted(scanner.problems, key=lambda problem: _RANK[problem.level])),
    )


def _inspect(path: Path, *, full: bool) -> PictureFacts | str:
    try:
        return inspect(path, full=full)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{path.name}: cannot be opened ({error.strerror}). Mend its permissions."


class _Scanner:
    """Makes pictures of files and collects problems on the way."""

    def __init__(self, root: Path, *, caption_extensions: Sequence[str], missing_caption: MissingCaption) -> None:
        self.folder = Folder(root)
        self.problems: list[Problem] = []
        self._root = root
        self._caption_extensions = tuple(extension.lower() for extension in caption_extensions)
        self._missing_caption = missing_caption
        self._captions_from_names: list[str] = []
        self._captions_empty: list[str] = []

    def picture(self, path: Path, facts: PictureFacts | str, *, minimum_px: int) -> Picture | None:
        """A picture with its caption and mask, or None and a problem."""
        key = self.folder.key(path)
        concept, repeats, from_kohya = self.folder.concept(path)
        mask_path = self.folder.mask_file(path)
        if isinstance(facts, str):
            self._say("error", "unreadable", f"{facts} It is left out.", [key])
            return None
        if min(facts.width_px, facts.height_px) < minimum_px:
            text = f"{path.name}: {facts.width_px}x{facts.height_px} px is below the least, {minimum_px} px"
            text = f"{text}; it is left out. Find a larger original, or lower the least size."
            self._say("error", "too_small", text, [key])
            return None
        if repeats == 0:
            text = f"{path.name}: its folder says 0 repeats; it is left out. Rename the folder to use it."
            self._say("warning", "no_repeats", text, [key])
            return None
        if facts.frames > 1:
            text = f"{path.name}: {facts.frames} frames; the first one is used. Extract others if you want them."
            self._say("info", "animated", text, [key])
        return Picture(
            key=key,
            path=path,
            caption=self._caption(path, key=key, concept=concept, from_kohya=from_kohya),
            width_px=facts.width_px,
            height_px=facts.height_px,
            concept=concept,
            repeats=repeats,
            mask_path=mask_path,
            has_alpha=facts.has_alpha,
        )

    def without_duplicates(self, pictures: list[Picture], *, skip: bool) -> list[Picture]:
        """Name pictures whose files are equal byte for byte; hashes only files of equal length."""
        by_length: dict[int, list[Picture]] = defaultdict(list)
        for picture in pictures:
            by_length[picture.path.stat().st_size].append(picture)
        groups: dict[str, list[Picture]] = defaultdict(list)
        for same_length in by_length.values():
            if len(same_length) > 1:
                for picture in same_length:
                    groups[picture.sha256].append(picture)
        doubles: set[str] = set()
        for group in groups.values():
            if len(group) > 1:
                keys = [picture.key for picture in group]
                what = "only the first is used" if skip else "each is drawn, so that it counts more than others"
                text = f"{keys[0]}: {len(keys)} files are the same picture; {what}. Delete the copies, or use repeats."
                self._say("warning", "duplicate", text, keys)
                doubles.update(keys[1:])
        return [picture for picture in pictures if picture.key not in doubles] if skip else pictures

    def review(self, pictures: Sequence[Picture]) -> None:
        """What can only be said of all pictures together."""
        if not pictures:
            text = f"{self._root}: no usable picture. Give a folder with PNG, JPEG, WebP, BMP or GIF files."
            self._say("error", "no_pictures", text, [])
        if keys := self._captions_from_names:
            text = f"{len(keys)} picture(s) have no caption file; the file's or the kohya folder's name is the caption."
            self._say("info", "caption_from_name", text, keys)
        if keys := self._captions_empty:
            text = f"{len(keys)} picture(s) have no caption. Write a .txt file of the same name, or use a template."
            self._say("warning", "no_caption", text, keys)
        if keys := [picture.key for picture in pictures if picture.repeats > _MANY_REPEATS]:
            text = f"{len(keys)} picture(s) repeat more than {_MANY_REPEATS} times: their folder is called `N_name`."
            self._say("warning", "many_repeats", f"{text} Rename the folder if the number means something else.", keys)
        stems = Counter(_stem(picture) for picture in pictures)
        if keys := [picture.key for picture in pictures if stems[_stem(picture)] > 1]:
            text = f"{len(keys)} pictures differ only in their file type, so they share caption and mask."
            self._say("warning", "same_stem", f"{text} Rename one of each pair if that is not meant.", keys)
        if keys := [self.folder.key(path) for path in self.folder.orphan_masks()]:
            text = f"{len(keys)} mask(s) belong to no picture. Give a mask the name of its picture."
            self._say("warning", "mask_without_picture", text, keys)
        if keys := [self.folder.key(path) for path in self.folder.others((*self._caption_extensions, *_SIDECARS))]:
            text = f"{len(keys)} file(s) are neither pictures nor captions and are ignored."
            self._say("info", "ignored_files", text, keys)
        for error in self.folder.unreadable:
            text = f"{error.filename}: the folder cannot be read ({error.strerror}). Mend its permissions."
            self._say("error", "folder_unreadable", text, [])

    def _caption(self, path: Path, *, key: str, concept: str, from_kohya: bool) -> str:
        found = self.folder.caption_file(path, self._caption_extensions)
        if found is None:
            choice = self._missing_caption
            if choice == "auto":
                choice = "concept" if from_kohya else "name"
            caption = {"concept": concept, "name": caption_from_name(path.stem)}.get(choice, "")
            (self._captions_from_names if caption else self._captions_empty).append(key)
            return caption
        try:
            caption, remark = read_caption(found)
        except OSError as error:
            text = f"{found.name}: the caption cannot be read ({error.strerror}). Mend its permissions."
            self._say("error", "caption_unreadable", text, [key])
            return ""
        if remark:
            self._say("warning", "caption_encoding", f"{found.name} {remark}.", [key])
        if not caption:
            self._captions_empty.append(key)
        return caption

    def _say(self, level: Level, code: str, message: str, keys: Sequence[str]) -> None:
        self.problems.append(Problem(level=level, code=code, message=message, keys=tuple(keys)))


def _stem(picture: Picture) -> str:
    return picture.key.rpartition(".")[0].lower()
