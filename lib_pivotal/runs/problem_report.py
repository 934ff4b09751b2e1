"""A zip to attach to a problem report: versions, settings, the end of the log, the last traceback; all of it scrubbed.

Captions and pictures are not in it; names of embeddings, prompts and init texts are, since settings hold them.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_pivotal import __version__
from lib_pivotal.errors import HostError
from lib_pivotal.files import replacing, sentence_of
from lib_pivotal.plain_json import parse_json
from lib_pivotal.runs.run_log import SUFFIX, last_traceback
from lib_pivotal.runs.scrubbing import Scrubber

PACKAGES = (
    "torch", "torchvision", "xformers", "numpy", "pillow", "safetensors", "gradio", "fastapi", "pydantic",
    "transformers", "diffusers", "open_clip_torch", "pytorch_lightning", "bitsandbytes", "prodigyopt", "tensorboard",
)  # fmt: skip
"""Packages whose versions matter."""
EVENTS_END_BYTES = 200_000
LOG_END_BYTES = 100_000
READ_ME = """Made by Pivotal tuning's "Report a problem".

Folders, user names, the machine's name, tokens and addresses were taken out. Names of embeddings, prompts and init
texts are still in it. Look through it before you attach it to an issue; every file is plain text.

  versions.json   programs and packages, the GPU
  run.json        the run's settings
  events.jsonl    the end of the run's events
  log.txt         the end of what was logged
  traceback.txt   the last error's traceback
"""


@dataclass(frozen=True)
class ReportSource:
    """The folder of a run (None: no run is reported on), and folders of this process by the mark that hides them.

    `program` is what runs us, e.g. `{"web UI": "v1.10.1"}`.
    """

    run_folder: Path | None
    folders: Mapping[str, Path]
    program: Mapping[str, str]


def write_report(source: ReportSource, out: Path) -> Path:
    """Write the zip, in one step.

    Raises:
        HostError: it cannot be written.
    """
    texts = report_texts(source)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
    except OSError as error:
        raise HostError(sentence_of(error, out)) from error
    return out


def report_texts(source: ReportSource) -> dict[str, str]:
    """Every file of the report by name; those of which there is nothing are left out."""
    found = {"run.json": "", "events.jsonl": "", "log.txt": ""}
    if source.run_folder is not None:
        found["run.json"] = _end(source.run_folder, "*.run.json", LOG_END_BYTES)
        found["events.jsonl"] = _end(source.run_folder, "*.events.jsonl", EVENTS_END_BYTES)
        found["log.txt"] = _end(source.run_folder, f"*{SUFFIX}", LOG_END_BYTES)
    found["traceback.txt"] = last_traceback(found["log.txt"])
    scrubber = Scrubber(source.folders)
    scrubber.learn((*found.values(), *_texts_in(_parsed(found["run.json"]))))
    scrubbed = {
        "versions.json": json.dumps(scrubber.plain(versions(source.program)), indent=2, ensure_ascii=False),
        "run.json": _scrubbed_json(scrubber, found["run.json"]),
        "events.jsonl": "\n".join(_scrubbed_json(scrubber, line) for line in found["events.jsonl"].splitlines()),
        "log.txt": scrubber.text(found["log.txt"]),
        "traceback.txt": scrubber.text(found["traceback.txt"]),
    }
    return {"README.txt": READ_ME, **{name: text for name, text in scrubbed.items() if text}}


def versions(program: Mapping[str, str]) -> dict[str, Any]:
    """Of Python, the system, packages and the GPU; what is not installed is left out."""
    found: dict[str, Any] = {
        **program,
        "pivotal": __version__,
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"gpu": _gpus()}


def newest_run(runs_folder: Path) -> Path | None:
    """The folder of the run that was written to last; None where there is none."""
    logs = [*runs_folder.glob("*.events.jsonl"), *runs_folder.glob("*/*.events.jsonl")]
    return max(logs, key=lambda path: path.stat().st_mtime).parent if logs else None


def report_name() -> str:
    """A name for the zip, with the time."""
    return time.strftime("pivotal-report-%Y%m%d-%H%M%S.zip")


def _gpus() -> list[str]:
    import torch  # here: a page that only starts needs none

    if not torch.cuda.is_available():
        return []
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GB, CUDA {torch.version.cuda}" for gpu in found]


def _end(folder: Path, pattern: str, size_bytes: int) -> str:
    """The end of the newest file of a pattern, whole lines; empty where there is none."""
    paths = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not paths:
        return ""
    with paths[-1].open("rb") as file:
        length = file.seek(0, 2)
        file.seek(max(0, length - size_bytes))
        data = file.read()
    if length > size_bytes:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", "replace")


def _texts_in(plain: Any) -> Iterator[str]:
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, dict | list):
        for item in plain.values() if isinstance(plain, dict) else plain:
            yield from _texts_in(item)


def _parsed(text: str) -> Any:
    """JSON values; None where it is none."""
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        return None


def _scrubbed_json(scrubber: Scrubber, text: str) -> str:
    """JSON by its values; what is none, as text."""
    plain = _parsed(text)
    if plain is None:
        return scrubber.text(text)
    return json.dumps(scrubber.plain(plain), indent=2 if "\n" in text.strip() else None, ensure_ascii=False)
