"""The parts grid of a finished bundle: its parts alone and together, and the whole at several weights, on one sheet."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_pivotal.bundle.reader import Bundle, read_bundle, require
from lib_pivotal.config import Run
from lib_pivotal.errors import BundleError, HostError
from lib_pivotal.evaluation.parts_grid import ROWS, Row, draw_grid, embedding_requests, parts_pictures
from lib_pivotal.file_names import refuse_taken
from lib_pivotal.files import replacing
from lib_pivotal.ports import Host, SampleRequest, SessionRequest
from lib_pivotal.runs.backend import TrainerBackend
from lib_pivotal.runs.manager import RunManager

MOST_PICTURES = 200
CELL_PX = 256
LIMITS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"size": (64, 2048), "steps": (1, 150), "cfg": (1, 30), "seed": (0, 2**31 - 1)}
)
SIZE_STEP_PX = 8


@dataclass(frozen=True)
class Comparison:
    """What to draw: `embeddings` (none: all of the file), `prompts` that may hold `{word}`; `weights` beside 1 add rows
    of the whole bundle at that weight."""

    file: Path
    embeddings: tuple[str, ...] = ()
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


def comparison(
    file: Path,
    *,
    embeddings: Sequence[str] = (),
    prompts: Sequence[str] = (),
    weights: str = "",
    negative: str = "",
    size: float | None = 512,
    steps: float | None = 20,
    cfg: float | None = 7.0,
    seed: float | None = 0,
) -> Comparison:
    """What is to be drawn, from what people type: numbers within `LIMITS`, a size of whole latents, prompts not empty.

    Raises:
        BundleError: a value makes no sense; says which.
    """
    for name, value in (("size", size), ("steps", steps), ("cfg", cfg), ("seed", seed)):
        low, high = LIMITS[name]
        if value is None or not low <= value <= high:
            raise BundleError(f"{name} must be from {low} to {high}")
    return Comparison(
        file=file,
        embeddings=tuple(embeddings),
        prompts=tuple(line.strip() for line in prompts if line.strip()) or ("{word}",),
        weights=weights_of(weights),
        negative=negative,
        size_px=int(size or 0) // SIZE_STEP_PX * SIZE_STEP_PX,
        steps=int(steps or 0),
        cfg_scale=float(cfg or 0),
        seed=int(seed or 0),
    )


def weights_of(text: str) -> tuple[float, ...]:
    """Weights as they are typed.

    Raises:
        BundleError: they are not numbers.

    >>> weights_of("1, 0.7; 0.4"), weights_of("")
    ((1.0, 0.7, 0.4), (1.0,))
    """
    try:
        return tuple(float(part) for part in text.replace(";", ",").split(",") if part.strip()) or (1.0,)
    except ValueError as error:
        raise BundleError(f"weights: {text!r} are not numbers; write 1, 0.7, 0.4") from error


def compare(manager: RunManager, wanted: Comparison) -> Path:
    """Draw the sheet on the model that is loaded, and save it in the runs' folder with its settings inside.

    Raises:
        BundleError: the file cannot be read, has not these embeddings, or too much is asked for.
        HostError: a run is going on, or the model cannot do it.
    """
    backend = manager.backend
    if manager.running:
        raise HostError("a run is in progress: its own samples show how it does; compare when it has finished")
    bundle, requests = _asked(wanted)
    backend.check_ready()
    grid, title = _drawn(wanted, bundle, requests, lambda: _lent(backend))
    folder = backend.runs_folder() / "compare"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{wanted.file.stem}-{time.strftime('%Y%m%d-%H%M%S')}.png"
    return _saved(path, grid, wanted, title)


def grid(
    wanted: Comparison, out: Path, *, lend: Callable[[], AbstractContextManager[Host]], overwrite: bool = False
) -> Path:
    """Draw the sheet on the model that `lend` loads, and save it as `out`.

    Raises:
        BundleError: see `compare`.
        FileNameError: there is a file of this name.
    """
    bundle, requests = _asked(wanted)
    refuse_taken([out], overwrite=overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)  # before minutes are spent on the checkpoint
    sheet, title = _drawn(wanted, bundle, requests, lend)
    return _saved(out, sheet, wanted, title)


def _asked(wanted: Comparison) -> tuple[Bundle, list[SampleRequest]]:
    """The bundle, and a request for each embedding and prompt."""
    bundle = require(read_bundle(wanted.file))
    names = wanted.embeddings or tuple(bundle.embeddings)
    missing = [name for name in names if name not in bundle.embeddings]
    if missing:
        there = ", ".join(bundle.embeddings) or "none"
        raise BundleError(f"{wanted.file.name} has no embedding {', '.join(missing)}; it has {there}")
    template = SampleRequest(
        "", wanted.negative, wanted.size_px, wanted.size_px, wanted.steps, wanted.cfg_scale, wanted.seed
    )
    requests = embedding_requests(names, wanted.prompts or ("{word}",), template, first_seed=wanted.seed)
    if not requests:
        raise BundleError(f"{wanted.file.name} has no embeddings, so there is nothing to compare")
    count = len(requests) * len(wanted.rows())
    if count > MOST_PICTURES:
        raise BundleError(
            f"that makes {count} pictures, the limit is {MOST_PICTURES}: choose fewer embeddings or prompts"
        )
    return bundle, requests


def _drawn(
    wanted: Comparison,
    bundle: Bundle,
    requests: Sequence[SampleRequest],
    lend: Callable[[], AbstractContextManager[Host]],
) -> tuple[Image.Image, str]:
    """The sheet and its title."""
    from lib_pivotal.evaluation.loading import load_on_host  # here: a page that only starts needs no networks

    with lend() as host:
        embeddings, network = load_on_host(host, bundle)
        pictures = parts_pictures(host, requests, embeddings=embeddings, network=network, rows=wanted.rows())
        checkpoint = host.info.name
    title = f"{wanted.file.stem} on {checkpoint}"
    cell_px = min(CELL_PX, max(128, wanted.size_px))
    return draw_grid(pictures, [request.prompt for request in requests], title=title, cell_px=cell_px), title


@contextlib.contextmanager
def _lent(backend: TrainerBackend) -> Iterator[Host]:
    clip_skip = backend.clip_skip()
    with backend.exclusive(Run(clip_skip=clip_skip)) as host, host.session(SessionRequest(clip_skip=clip_skip)):
        yield host


def _saved(path: Path, sheet: Image.Image, wanted: Comparison, title: str) -> Path:
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", pnginfo=_infotext(wanted, title))
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
