"""One labelled sheet of a finished bundle: its parts alone and together, and the whole at several weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.config import Run
from lib_pivotal.errors import BundleError
from lib_pivotal.evaluation.parts_grid import ROWS, Row, draw_grid, parts_pictures, word_requests
from lib_pivotal.ports import SampleRequest, SessionRequest
from lib_pivotal.runs.studio import Studio

MOST_PICTURES = 200
CELL_PX = 256


@dataclass(frozen=True)
class Comparison:
    """What to draw: `prompts` may hold `{word}`; `weights` beside 1 add rows of the whole bundle at that weight."""

    file: Path
    words: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ("{word}",)
    weights: tuple[float, ...] = (1.0,)
    negative: str = ""
    size_px: int = 512
    steps: int = 20
    cfg_scale: float = 7.0
    seed: int = 0

    def rows(self) -> list[Row]:
        """The four rows, then the whole at each further weight."""
        further = [Row(f"full at {weight:g}", weight, weight) for weight in self.weights if weight != 1.0]
        return [*ROWS, *further]


def compare(studio: Studio, wanted: Comparison) -> Path:
    """Draw the sheet on the model that is loaded, and save it in the runs' folder with its settings inside.

    Raises:
        BundleError: the file cannot be read, has not these words, or too much is asked for.
        HostError: the model is not free or cannot do it.
    """
    bundle = require(read_bundle(wanted.file))
    names = wanted.words or tuple(bundle.words)
    missing = [name for name in names if name not in bundle.words]
    if missing:
        raise BundleError(f"{wanted.file.name} has no embedding {', '.join(missing)}")
    template = SampleRequest(
        "", wanted.negative, wanted.size_px, wanted.size_px, wanted.steps, wanted.cfg_scale, wanted.seed
    )
    requests = word_requests(names, wanted.prompts or ("{word}",), template, first_seed=wanted.seed)
    rows = wanted.rows()
    if not requests:
        raise BundleError(f"{wanted.file.name} has no embeddings, so there is nothing to compare")
    if len(requests) * len(rows) > MOST_PICTURES:
        count = len(requests) * len(rows)
        raise BundleError(
            f"that makes {count} pictures, the limit is {MOST_PICTURES}: choose fewer embeddings or prompts"
        )
    studio.check_ready()
    clip_skip = studio.clip_skip()
    with studio.exclusive(Run(clip_skip=clip_skip)) as host, host.session(SessionRequest(clip_skip=clip_skip)):
        from lib_pivotal.evaluation.loading import load_on_host  # here: a page that only starts needs no networks

        words, network = load_on_host(host, bundle)
        pictures = parts_pictures(host, requests, words=words, network=network, rows=rows)
        checkpoint = host.info.name
    title = f"{wanted.file.stem} on {checkpoint}"
    cell_px = min(CELL_PX, max(128, wanted.size_px))
    grid = draw_grid(pictures, [request.prompt for request in requests], title=title, cell_px=cell_px)
    return _saved(studio, wanted, grid, title)


def _saved(studio: Studio, wanted: Comparison, grid: Image.Image, title: str) -> Path:
    folder = studio.runs_folder() / "compare"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{wanted.file.stem}-{time.strftime('%Y%m%d-%H%M%S')}.png"
    grid.save(path, pnginfo=_infotext(wanted, title))
    return path


def _infotext(wanted: Comparison, title: str) -> PngInfo:
    """As the web UI writes it: prompt, then settings."""
    facts: Sequence[tuple[str, object]] = (
        ("Steps", wanted.steps), ("CFG scale", wanted.cfg_scale), ("Seed", wanted.seed),
        ("Size", f"{wanted.size_px}x{wanted.size_px}"), ("Sheet", title),
    )  # fmt: skip
    lines = (
        ["; ".join(wanted.prompts), f"Negative prompt: {wanted.negative}"] if wanted.negative else list(wanted.prompts)
    )
    info = PngInfo()
    info.add_text("parameters", "\n".join([*lines, ", ".join(f"{key}: {value}" for key, value in facts)]))
    return info
