"""Hostile files through the project's own readers: an answer or an error of ours, nothing else.

No crash, no code that is executed, no file outside, no hang. Files are read in forked processes, some hundred in each,
under a limit on memory and on time, so that a reader that dies or hangs costs one file. An audit hook sees every file
that is written and every program that is started.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import types
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_pivotal.bundle.edits import convert, join, rename_embeddings, split, strip
from lib_pivotal.bundle.embedding_files import read_embedding, write_embedding
from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.bundle.quick_header import glance
from lib_pivotal.bundle.reader import read_bundle, read_embeddings
from lib_pivotal.bundle.verify import verify
from lib_pivotal.config import Run, read_run, write_run
from lib_pivotal.errors import PivotalError
from lib_pivotal.importing.settings import import_file, import_text, looks_foreign
from lib_pivotal.runs.presets import load_preset
from lib_pivotal.training.state import load_latest_state
from tests.faults.mutations import MARKER, mutate

LONGEST_S = 10.0
MEMORY_BYTES = 3 * 2**30
CHUNK = 250
LAYOUTS = ("kohya", "diffusers")
STARTS_A_PROGRAM = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect")
WRITES = ("os.rename", "os.remove", "os.mkdir", "os.link", "os.symlink", "os.rmdir", "os.truncate", "os.chmod")

Reader = Callable[[Path, Path], Any]
"""Called with a file and a folder in which it may write."""


@dataclass(frozen=True)
class Sort:
    """One sort of files: good ones to begin with, and everything that the project does with such a file."""

    name: str
    samples: tuple[tuple[str, bytes], ...]
    readers: tuple[Reader, ...]


@dataclass(frozen=True)
class Finding:
    """A file that did what no file may."""

    number: int
    sort: str
    what: str


@dataclass
class Count:
    """Of one sort."""

    files: int = 0
    answered: int = 0
    """The first of its readers gave an answer: the damage was none to it."""
    seconds: float = 0.0
    longest_s: float = 0.0


@dataclass
class Report:
    """What became of all files."""

    counts: dict[str, Count] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.findings


class _TookTooLongError(BaseException):
    """No reader catches it."""


# ---- what the project does with files ----


def _work(path: Path, out: Path) -> None:
    """Every verb of the workshop, each with its own refusal."""
    verbs: tuple[Callable[[], Any], ...] = (
        lambda: strip(path, ["unet"], out=out / "stripped.safetensors", drop_broken=True),
        lambda: rename_embeddings(
            path, {name: f"{name}x" for name in read_bundle(path).embeddings}, out=out / "renamed.safetensors"
        ),
        *(lambda layout=layout: convert(path, out / f"{layout}.safetensors", layout=layout) for layout in LAYOUTS),
        lambda: join([path, path], out / "joined.safetensors"),
    )
    for verb in verbs:
        with contextlib.suppress(PivotalError):
            verb()


def _embedding(path: Path, out: Path) -> None:
    found = read_embedding(path)
    write_embedding(out / "embedding.safetensors", found.vectors, name=found.name or "x")


def _run(path: Path, out: Path) -> None:
    run = read_run(path)
    write_run(out / f"{run.name or 'run'}.run.json", run)


def _preset(path: Path, out: Path) -> None:
    load_preset(path, Run())


def _state(path: Path, out: Path) -> None:
    folder = path.parent / "run-0001"
    folder.mkdir()
    ending = "-0001.safetensors" if path.suffix == ".safetensors" else ".pt"
    shutil.copyfile(path, folder / f"state-00000004{ending}")
    load_latest_state(folder)


def _upload(path: Path, out: Path) -> None:
    """As the page does it: no place on this computer."""
    looks_foreign(path.read_bytes(), path.name)
    import_text(path.read_bytes(), path.name).to_plain()


def _import(path: Path, out: Path) -> None:
    import_file(path).over(Run())


def _plain(reader: Callable[[Path], Any]) -> Reader:
    return lambda path, out: reader(path)


BUNDLE = (*map(_plain, (read_bundle, read_embeddings, list_bundle, verify, glance)), split, _work)
EMBEDDING = (_embedding, _plain(verify), _plain(list_bundle))


def make_sorts(samples: dict[str, list[tuple[str, bytes]]]) -> tuple[Sort, ...]:
    """All sorts over the files of `samples.py`."""
    readers: dict[str, tuple[Reader, ...]] = {
        "bundles": BUNDLE,
        "embeddings": EMBEDDING,
        "states": (_state,),
        "run.json": (_run, _preset, _upload),
        "settings of other trainers": (_upload, _import),
    }
    return tuple(Sort(name, tuple(samples[name]), found) for name, found in readers.items())


# ---- one file ----


class Watch:
    """Sees in its process what is written and started; `allowed` is where files may be made."""

    def __init__(self) -> None:
        self.allowed = ""
        self.seen: list[str] = []
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.allowed:
            return
        if event in STARTS_A_PROGRAM:
            self.seen.append(f"{event}{arguments!r:.200}")
        if event in WRITES or (event == "open" and _writes(arguments)):
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                if isinstance(path, str | bytes) and not _below(os.fsdecode(path), self.allowed):
                    self.seen.append(f"{event} {os.fsdecode(path)!r:.200}")


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


def _below(path: str, folder: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep) or path == "/dev/null"


class Reading:
    """Makes file after file of a seed and reads it, in a process of its own."""

    def __init__(self, sorts: tuple[Sort, ...], seed: int, place: Path) -> None:
        self._sorts, self._seed, self._place = sorts, seed, place

    def file(self, number: int) -> tuple[Sort, str, bytes]:
        """The file of this number: sorts take turns."""
        rng = random.Random(f"hostile {self._seed} {number}")
        sort = self._sorts[number % len(self._sorts)]
        suffix, content = rng.choice(sort.samples)
        others = [other for _, other in sort.samples]
        return sort, suffix, mutate(content, suffix, rng, others)

    def read(self, number: int, watch: Watch) -> tuple[Sort, list[str], bool, float]:
        """What no file may do, whether there was an answer, and seconds."""
        sort, suffix, content = self.file(number)
        folder = Path(tempfile.mkdtemp(dir=self._place))
        out = folder / "out"
        out.mkdir()
        path = folder / f"file{suffix}"
        path.write_bytes(content)
        os.chdir(out)
        faults, answered, started = list[str](), False, time.perf_counter()
        for reader in sort.readers:
            watch.allowed, watch.seen = str(folder), []
            signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
            try:
                reader(path, out)
                answered |= reader is sort.readers[0]
            except PivotalError:
                pass
            except _TookTooLongError:
                faults.append(f"{_name(reader)}: more than {LONGEST_S:.0f} s")
            except BaseException as error:
                faults.append(f"{_name(reader)}: {type(error).__name__}: {error!s:.200} {_where(error)}")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                watch.allowed = ""
            faults += [f"{_name(reader)}: {seen}" for seen in watch.seen]
        seconds = time.perf_counter() - started
        if list(folder.rglob(MARKER)):
            faults.append("its code was executed")
        os.chdir(self._place)
        shutil.rmtree(folder, ignore_errors=True)
        return sort, faults, answered, seconds


def _name(reader: Any) -> str:
    inner = next((cell.cell_contents for cell in getattr(reader, "__closure__", None) or ()), reader)
    return getattr(inner, "__name__", str(inner)).lstrip("_")


def _where(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "lib_pivotal" in frame.filename]
    return f"({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


# ---- many files ----


def read_hostile(
    count: int, *, seed: int, sorts: tuple[Sort, ...], first: int = 0, told: Callable[[int], None] = lambda done: None
) -> Report:
    """Read `count` files; a process that dies is one finding, and the next goes on behind its file."""
    report = Report({sort.name: Count() for sort in sorts})
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        place = Path(folder) / "inner" / "place"
        place.mkdir(parents=True)
        reading = Reading(sorts, seed, place)
        number, end = first, first + count
        while number < end:
            number = _chunk(reading, number, min(end, number + CHUNK), report, Path(folder))
            told(number - first)
        left = sorted(str(path) for path in Path(folder).iterdir() if path.name not in ("inner", "notes"))
        if left:
            report.findings.append(Finding(-1, "all", f"files outside: {left}"))
    return report


def _chunk(reading: Reading, first: int, end: int, report: Report, folder: Path) -> int:
    """Read from `first` on, up to `end`; returns the number to go on with."""
    from tests.faults.material import read_note, write_note

    note, shared = folder / "notes", mmap.mmap(-1, 8)
    pid = os.fork()
    if pid == 0:
        _in_child(reading, first, end, shared, lambda lines: write_note(note, lines))
    _, status = os.waitpid(pid, 0)
    lines = read_note(note) or []
    for number, sort, faults, answered, seconds in lines:
        count = report.counts[sort]
        count.files += 1
        count.answered += answered
        count.seconds += seconds
        count.longest_s = max(count.longest_s, seconds)
        report.findings += [Finding(number, sort, fault) for fault in faults]
    note.unlink(missing_ok=True)
    if status == 0:
        return end
    died_at = struct.unpack("=q", shared[:8])[0]
    sort = reading.file(died_at)[0].name
    report.counts[sort].files += 1
    report.findings.append(Finding(died_at, sort, f"the process died (status {status})"))
    return died_at + 1


def _in_child(reading: Reading, first: int, end: int, shared: mmap.mmap, tell: Callable[[list[Any]], None]) -> None:
    """Never returns."""
    status, lines = 1, list[Any]()

    def too_long(number: int, frame: types.FrameType | None) -> None:
        raise _TookTooLongError

    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        resource.setrlimit(resource.RLIMIT_AS, (_size_now() + MEMORY_BYTES, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, too_long)
        watch = Watch()
        for number in range(first, end):
            shared[:8] = struct.pack("=q", number)
            sort, faults, answered, seconds = reading.read(number, watch)
            lines.append((number, sort.name, faults, answered, seconds))
            if faults:
                tell(lines)
        tell(lines)
        status = 0
    finally:
        os._exit(status)


def _size_now() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def summary(report: Report) -> str:
    """Findings by what they are, the most frequent first."""
    found = Counter(f"{finding.sort}: {finding.what.split(' (status')[0]}" for finding in report.findings)
    return "\n".join(f"{count:6} {what}" for what, count in found.most_common())
