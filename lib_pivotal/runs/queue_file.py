"""The file of a queue: written in one step, changed by one process at a time, served by one process at a time.

The operating system lets go of both locks when a process ends, however it ends: a lock never outlives its owner.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from lib_pivotal.errors import HostError
from lib_pivotal.files import replacing, sentence_of
from lib_pivotal.plain_json import parse_json
from lib_pivotal.runs.queue import RunQueue, queue_from_plain

FILE = "queue.json"
CHANGING, SERVING = ".queue-changing.lock", ".queue-serving.lock"
PATIENCE_S = 20.0
"""So long a change waits for another one, which takes milliseconds."""
ATTEMPTS = 10
"""At becoming the one that serves it: who asks whether it is served holds the lock for an instant."""
SERVED_ELSEWHERE = "another program serves this queue now: end it, or steer the queue from there"

logger = logging.getLogger(__name__)


class QueueFile:
    """The queue of a folder of runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._serving: IO[bytes] | None = None

    # ---- reading and changing ----

    def look(self) -> RunQueue:
        """As it is on the disk; empty where there is none yet. One that cannot be understood is set aside first.

        Raises:
            HostError: the file cannot be read.
        """
        try:
            return self._read()
        except ValueError:
            return self.change(lambda queue: queue)

    def change(self, change: Callable[[RunQueue], RunQueue]) -> RunQueue:
        """Put what `change` makes of the queue in its place; what it raises passes through, and nothing is changed.

        Raises:
            HostError: the file cannot be read or written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                try:
                    before = self._read()
                except ValueError as error:
                    before = self._set_aside(error)
                after = change(before)
                if after != before or not self.path.exists():
                    self._write(after)
                return after
        except OSError as error:
            raise HostError(f"the queue: {sentence_of(error, self.path)}") from error

    def _read(self) -> RunQueue:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return RunQueue()
        except OSError as error:
            raise HostError(f"the queue: {sentence_of(error, self.path)}") from error
        return queue_from_plain(parse_json(text))

    def _write(self, queue: RunQueue) -> None:
        text = json.dumps(queue.to_plain(), indent=1, ensure_ascii=False) + "\n"
        with replacing(self.path) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")

    def _set_aside(self, error: ValueError) -> RunQueue:
        """Keep a file that cannot be understood under another name; the queue begins empty, and says so."""
        stem, number = time.strftime("queue.broken-%Y%m%d-%H%M%S"), 1
        aside = self.folder / f"{stem}.json"
        while aside.exists():
            number += 1
            aside = self.folder / f"{stem}-{number}.json"
        self.path.replace(aside)
        logger.warning("%s could not be understood (%s); it is kept as %s", self.path, error, aside.name)
        return self._begun_empty(aside, error)

    def _begun_empty(self, aside: Path, error: ValueError) -> RunQueue:
        queue = RunQueue().with_pause(
            f"The file of the queue could not be understood ({error}). It is kept as {aside}, and the queue begins "
            "empty. Runs that had begun are in their folders, and can be continued."
        )
        self._write(queue)
        return queue

    # ---- alone ----

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Inside, no other process or thread changes the file."""
        deadline = time.monotonic() + PATIENCE_S
        while (held := _lock(self.folder / CHANGING)) is None:
            if time.monotonic() > deadline:
                raise HostError(f"the queue: {self.path} is being changed by another program all the time")
            time.sleep(0.01)
        try:
            yield
        finally:
            held.close()

    def serve(self) -> bool:
        """Become the one that serves the queue; False where another process or thread of this one does.

        Raises:
            HostError: the folder cannot be written.
        """
        attempts = 0
        while self._serving is None and attempts < ATTEMPTS:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._serving = _lock(self.folder / SERVING)
            except OSError as error:
                raise HostError(f"the queue: {sentence_of(error, self.path)}") from error
            attempts += 1
            if self._serving is None:
                time.sleep(0.01)
        return self._serving is not None

    def put_in_order(self, *, pause_waiting: bool) -> None:
        """Put what the process before left in order (`RunQueue.recovered`), where no process serves the queue."""
        if self.serve():
            self.change(lambda queue: queue.recovered(pause_waiting=pause_waiting))
            self.release()

    @property
    def served(self) -> bool:
        """Whether a process serves it, this one or another; asking makes no file."""
        lock = self.folder / SERVING
        if self.serves or not lock.exists():
            return self.serves
        try:
            held = _lock(lock)
        except OSError:
            return False
        if held is not None:
            held.close()
        return held is None

    @property
    def serves(self) -> bool:
        """Whether this is the one that serves it."""
        return self._serving is not None

    def release(self) -> None:
        """Let others serve it."""
        if self._serving is not None:
            self._serving.close()
            self._serving = None


def _lock(path: Path) -> IO[bytes] | None:
    """The file, locked until it is closed; None where it is locked already."""
    file = path.open("ab")
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        return None
    except OSError as error:  # a file system without locks: one process is what is usual
        logger.debug("%s cannot be locked: %s", path, error)
    return file
