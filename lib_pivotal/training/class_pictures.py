"""Class pictures made by the checkpoint itself, into a folder that a run can use: again and again, where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_pivotal.config import Run
from lib_pivotal.errors import ConfigError, DataError, Fault
from lib_pivotal.files import replacing
from lib_pivotal.ports import Host, SampleRequest

STEPS = 28
CFG_SCALE = 7.0


@dataclass(frozen=True)
class ClassPicture:
    """One that is wanted: what is asked for, and its file."""

    request: SampleRequest
    path: Path


def class_requests(run: Run) -> list[SampleRequest]:
    """What a run's settings ask for: its prompts (or the class) in turn, each picture with a seed of its own.

    Raises:
        ConfigError: no folder, or no prompt.
    """
    settings, size = run.regularisation, max(64, run.data.resolution_px // 64 * 64)
    prompts = settings.prompts or ((settings.class_text,) if settings.class_text else ())
    faults = []
    if not settings.folder:
        faults.append(Fault("regularisation.folder", "", "is empty", "Give a folder for the class pictures."))
    if not prompts:
        faults.append(Fault("regularisation.prompts", [], "is empty", "Write at least one prompt, e.g. `1girl`."))
    if faults:
        raise ConfigError(faults)
    template = SampleRequest(
        "", settings.negative_prompt, width_px=size, height_px=size, steps=STEPS, cfg_scale=CFG_SCALE
    )
    return [
        replace(template, prompt=prompts[number % len(prompts)], seed=run.seed + number)
        for number in range(settings.count)
    ]


def class_pictures(requests: Sequence[SampleRequest], folder: Path, *, checkpoint: str) -> list[ClassPicture]:
    """Each request with its file's name, which says all that the picture depends on: others are never taken for it."""
    return [
        ClassPicture(request, folder / f"{number:05d}-{_digest(request, checkpoint)}.png")
        for number, request in enumerate(requests)
    ]


def make_class_pictures(
    host: Host,
    requests: Sequence[SampleRequest],
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    between: Callable[[], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> int:
    """Make what is not there yet, one by one, each with its prompt as caption; returns how many are there now.

    The host's session must be open. `between` is called before each picture that is made; nothing half is left when it
    ends early, and a second call goes on.
    Raises DataError where the folder cannot be written.
    """
    wanted = class_pictures(requests, folder, checkpoint=host.info.sha256 or host.info.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for done, picture in enumerate(wanted):
            if should_stop is not None and should_stop():
                return sum(one.path.exists() for one in wanted)
            if progress is not None:
                progress(done, len(wanted))
            if picture.path.exists():
                continue
            if between is not None:
                between()
                if should_stop is not None and should_stop():
                    continue
            _write(picture, host.sample([picture.request], {})[0])
    except OSError as error:
        text = (
            f"{folder}: class pictures cannot be written ({error.strerror}). Free some space, or choose another folder."
        )
        raise DataError(text) from error
    if progress is not None:
        progress(len(wanted), len(wanted))
    return len(wanted)


def _write(picture: ClassPicture, image: Image.Image) -> None:
    """The caption first: a picture that is there is complete."""
    request, info = picture.request, PngInfo()
    settings = f"Steps: {request.steps}, CFG scale: {request.cfg_scale:g}, Seed: {request.seed}"
    negative = f"\nNegative prompt: {request.negative_prompt}" if request.negative_prompt else ""
    info.add_text("parameters", f"{request.prompt}{negative}\n{settings}, Size: {request.width_px}x{request.height_px}")
    with replacing(picture.path.with_suffix(".txt")) as temporary:
        temporary.write_text(request.prompt, encoding="utf-8")
    with replacing(picture.path) as temporary:
        image.save(temporary, format="PNG", pnginfo=info)


def _digest(request: SampleRequest, checkpoint: str) -> str:
    facts = json.dumps([asdict(request), checkpoint], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:12]
