"""Scanning a folder as people have it: pictures, captions, masks, concepts, and everything that is wrong with it."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from lib_pivotal.data.captioning import Captioner, MissingCaption
from lib_pivotal.data.folders import Folder, natural_order
from lib_pivotal.data.image_probes import Duplicates, ProbedImage, find_doubles, look_at
from lib_pivotal.data.records import Dataset, Picture, ProblemList
from lib_pivotal.data.scan_cache import ScanCache
from lib_pivotal.data.sources.layout import TITLES, read_layout
from lib_pivotal.data.sources.source import CaptionsFrom, DatasetFile, Lines, PictureSource, SourceReading, Tree
from lib_pivotal.data.sources.trees import MULTIPLY, FolderMeaning, place_of, read_multiply, tree_of, whole
from lib_pivotal.errors import DataError
from lib_pivotal.files import cache_home, typed_path

__all__ = ["Dataset", "Picture", "scan"]

_SIDECARS = (".json", ".jsonl", ".csv", ".toml", ".yaml", ".yml", ".npz", ".npy", ".db", ".ini", ".md", ".safetensors")
_OF_LAYOUTS = frozenset({MULTIPLY, "wildcard.txt"})
_MANY_REPEATS = 200
_RANK = {"error": 0, "warning": 1, "info": 2}


def scan(
    folder: Path | str,
    *,
    layout: str = "auto",
    caption_extensions: Sequence[str] = (".txt", ".caption"),
    captions_from: CaptionsFrom = "auto",
    caption_lines: Lines = "join",
    minimum_px: int = 32,
    missing_caption: MissingCaption = "auto",
    names: tuple[str, str] = ("", " "),
    duplicates: Duplicates = "keep",
    workers: int = 0,
    cache: Path | None = None,
    use_cache: bool = True,
    files: Sequence[DatasetFile] = (),
) -> Dataset:
    """Look at every picture of `folder`; whatever cannot be used is named in `problems` and left out.

    What the folder is, is found out, or said by `layout` (see `sources.layout`); of dataset files those of the kinds
    `files` are understood (`importing.datasets` has those of other trainers). Every picture is looked at
    once, in `workers` threads (0: as many as the processor likes), and what was seen is kept in `cache` (None: the
    user's cache), so that the next scan looks only at files that changed.

    `names`: which words of a file's name are its caption where it has no other, and what joins them.

    Raises:
        DataError: there is no such folder, or it is not of that layout.
    """
    reading = read_layout(typed_path(folder), layout, files=files, cache=cache)
    problems = ProblemList(list(reading.problems))
    captioner = Captioner(
        problems,
        extensions=[extension.lower() for extension in caption_extensions],
        captions_from=captions_from,
        lines=caption_lines,
        missing=missing_caption,
        names=names,
    )
    place = (cache or cache_home()) if use_cache else None
    count = workers or min(8, 2 + (os.cpu_count() or 1))
    pictures: list[Picture] = []
    seen: dict[str, ProbedImage] = {}
    caches: list[ScanCache] = []
    trees: list[Tree] = []
    for source in reading.sources:
        scanner = _Scanner(source, captioner, problems, minimum_px=minimum_px)
        trees.append(scanner.tree)
        caches.append(ScanCache(source.root, place))
        for picture, look in scanner.pictures(caches[-1], workers=count):
            pictures.append(picture)
            seen[picture.key] = look
        scanner.review()
    left_out = find_doubles(pictures, seen, problems, duplicates, workers=count)
    for kept in caches:
        kept.save()
    pictures = [picture for picture in pictures if picture.key not in left_out]
    if not pictures:
        text = f"{reading.folder}: no usable picture. Give a folder with PNG, JPEG, WebP, BMP or GIF files."
        problems.say("error", "no_pictures", text, [])
    captioner.review()
    _review(pictures, problems)
    name, title = _named(reading, trees)
    if name not in ("plain", "concepts"):
        problems.say("info", "layout", f"Read as {title}. Set the layout, if that is not what it is.", [])
    concepts: dict[str, list[str]] = defaultdict(list)
    for picture in pictures:
        concepts[picture.concept].append(picture.key)
    return Dataset(
        folder=reading.folder,
        pictures=tuple(pictures),
        concepts={name: tuple(concepts[name]) for name in sorted(concepts, key=natural_order)},
        problems=tuple(sorted(problems.found, key=lambda problem: _RANK[problem.level])),
        layout=name,
        title=title,
        sources=tuple(source.as_dict() for source in reading.sources),
        settings=dict(reading.settings),
    )


def _named(reading: SourceReading, trees: Sequence[Tree]) -> tuple[str, str]:
    """Layout and title; of a folder that was given without a layout those of its tree."""
    if reading.layout != "auto":
        return reading.layout, reading.title
    return trees[0], TITLES[trees[0]]


class _Scanner:
    """Makes pictures of one source's files."""

    def __init__(self, source: PictureSource, captioner: Captioner, problems: ProblemList, *, minimum_px: int) -> None:
        self.folder = Folder(source.root, below=source.below)
        self._source, self._captioner, self._problems = source, captioner, problems
        self._minimum_px = minimum_px
        self._files = self.folder.pictures()
        self._multiply = self._read_multiply()
        folders = {self.folder.key(path).rpartition("/")[0] or "." for path in self._files}
        multiply = bool(self._multiply)
        self.tree: Tree = source.tree
        if source.tree == "auto":
            self.tree = tree_of(folders, root_name=self.folder.name, multiply=multiply)
        self._places: dict[str, FolderMeaning] = {}
        self._masks = {} if source.masks_folder is None else Folder(source.masks_folder, below=False).by_stem()
        captioner.begin(source, self.folder, [self.folder.key(path) for path in self._files])

    def pictures(self, cache: ScanCache, *, workers: int) -> Iterable[tuple[Picture, ProbedImage]]:
        """Every usable picture with the look at it; the others become problems."""
        keys = [self.folder.key(path) for path in self._files]
        for seen in look_at(self._files, keys, cache, workers=workers):
            if (picture := self._picture(seen)) is not None:
                yield picture, seen

    def review(self) -> None:
        """What can only be said of all files together."""
        key, say = self._key, self._problems.say
        if keys := [key(self.folder.key(path)) for path in self.folder.orphan_masks()]:
            text = f"{len(keys)} mask(s) belong to no picture. Give a mask the name of its picture."
            say("warning", "mask_without_picture", text, keys)
        others = self.folder.others((*self._captioner.known_endings(), *_SIDECARS))
        if keys := [key(self.folder.key(path)) for path in others if path.name.lower() not in _OF_LAYOUTS]:
            text = f"{len(keys)} file(s) are neither pictures nor captions and are ignored."
            say("info", "ignored_files", text, keys)
        if names := self.folder.unnamed:
            text = f"{len(names)} file(s) or folder(s) have names that are no text here: {', '.join(names[:3])}."
            say("error", "name_unreadable", f"{text} They are left out; rename them.", [])
        for error in self.folder.unreadable:
            text = f"{error.filename}: the folder cannot be read ({error.strerror}). Fix its permissions."
            say("error", "folder_unreadable", text, [])

    def _picture(self, seen: ProbedImage) -> Picture | None:
        """A picture with its caption and mask, or None and a problem."""
        path, key = seen.path, seen.key
        shown, say = self._key(key), self._problems.say
        place = self._place(key)
        mask_path = self.folder.mask_file(path) or self._masks.get(path.stem.lower())
        if isinstance(seen.look, str):
            say("error", "unreadable", f"{seen.look} It is left out.", [shown])
            return None
        facts = seen.look.facts
        if min(facts.width_px, facts.height_px) < self._minimum_px:
            text = f"{path.name}: {facts.width_px}x{facts.height_px} px is below the least, {self._minimum_px} px"
            text = f"{text}; it is left out. Find a larger original, or lower the least size."
            say("error", "too_small", text, [shown])
            return None
        if place.repeats == 0:
            text = f"{path.name}: its folder says 0 repeats; it is left out. Rename the folder to use it."
            say("warning", "no_repeats", text, [shown])
            return None
        if facts.frames > 1:
            text = f"{path.name}: {facts.frames} frames; the first one is used. Extract others if you want them."
            say("info", "animated", text, [shown])
        found = self._captioner.caption(path, key=key, shown=shown, place=place)
        return Picture(
            key=shown,
            path=path,
            caption=found.captions[0] if found.captions else "",
            width_px=facts.width_px,
            height_px=facts.height_px,
            concept=place.concept,
            repeats=place.repeats,
            mask_path=mask_path,
            has_alpha=facts.has_alpha,
            alternatives=found.captions[1:],
            image_type=place.image_type or found.image_type,
            fields=found.fields,
            text_place=self._captioner.text_place(path),
        )

    def _key(self, key: str) -> str:
        return f"{self._source.label}/{key}" if self._source.label else key

    def _place(self, key: str) -> FolderMeaning:
        """What a picture's folder says, and what its source says over it."""
        below = key.rpartition("/")[0]
        if below not in self._places:
            folders = below.split("/") if below else []
            found = place_of(folders, root_name=self.folder.name, tree=self.tree)
            repeats = self._multiply.get(below, 1.0) if self.tree == "kgrid" else found.repeats
            self._places[below] = FolderMeaning(
                self._source.concept or found.concept,
                whole(repeats * self._source.repeats),
                found.named,
                found.image_type,
            )
        return self._places[below]

    def _read_multiply(self) -> dict[str, float]:
        """kgrid's repeats by folder."""
        if self._source.tree not in ("auto", "kgrid"):
            return {}
        found: dict[str, float] = {}
        for where in self.folder.folders():
            path = self.folder.file(where, MULTIPLY)
            if path is None:
                continue
            below = self.folder.key(path).rpartition("/")[0]
            try:
                found[below] = read_multiply(path)
            except (DataError, OSError) as error:
                found[below] = 1.0
                self._problems.say("warning", "repeats_unreadable", f"{below}/{error} 1 is taken.", [])
        return found


def _review(pictures: Sequence[Picture], problems: ProblemList) -> None:
    """What can only be said of all pictures together."""
    if keys := [picture.key for picture in pictures if picture.repeats > _MANY_REPEATS]:
        text = f"{len(keys)} picture(s) repeat more than {_MANY_REPEATS} times: their folder is called `N_name`."
        problems.say("warning", "many_repeats", f"{text} Rename the folder if the number means something else.", keys)
    stems = Counter(_stem(picture) for picture in pictures)
    if keys := [picture.key for picture in pictures if stems[_stem(picture)] > 1]:
        text = f"{len(keys)} pictures differ only in their file type, so they share caption and mask."
        problems.say("warning", "same_stem", f"{text} Rename one of each pair if that is not meant.", keys)


def _stem(picture: Picture) -> str:
    return picture.key.rpartition(".")[0].lower()
