"""Processes forked from one that has imported everything, so that torch is imported once a session and not by each.

They are real ones: with a pid, signals and an end of their own. `python -m tests.forked` is the one that forks; it
never trains, as a forked process must not lose threads. Tests ask it by a line of JSON and get one back; see `Forks`.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTED = (
    *("lib_pivotal.standalone.cli", "lib_pivotal.standalone.model"),
    *("lib_pivotal.commands.runs", "lib_pivotal.training.assemble", "lib_pivotal.training.run"),
)


class Fork:
    """One such process; as `subprocess.Popen` as far as tests need it."""

    def __init__(self, forks: Forks, pid: int, output: Path) -> None:
        self.pid = pid
        self.output = output
        self._forks = forks
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, minus the signal that ended it; None while it runs."""
        if self._status is None:
            self._status = self._forks.ask({"poll": self.pid})
        return self._status

    def wait(self, timeout: float = 300) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            assert time.monotonic() < deadline, f"still running: {self.told()}"
            time.sleep(0.02)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def told(self) -> str:
        """What it has written to stdout and stderr."""
        return self.output.read_text(encoding="utf-8", errors="replace")


class Forks:
    """The process that forks, for as long as the context lasts."""

    def __enter__(self) -> Forks:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("COV_CORE_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked"],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def start(
        self, function: str, arguments: Sequence[object], *, output: Path, environment: Mapping[str, str] | None = None
    ) -> Fork:
        """Call `module:function(arguments)` in a process of its own, whose exit status is what it returns."""
        texts = [str(argument) for argument in arguments]
        request = {"call": function, "arguments": texts, "output": str(output), "environment": dict(environment or {})}
        return Fork(self, self.ask(request), output)

    def ask(self, request: Mapping[str, object]) -> int | None:
        """One question to the process that forks."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def main() -> None:
    """The process that forks: a child a call, and the ends of its children."""
    for name in IMPORTED:
        importlib.import_module(name)
    importlib.import_module("tests.conftest").make_tiny_models()  # diffusers imports what is asked for
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is no answer
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                be_child(request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def be_child(request: Mapping[str, object]) -> None:
    """Do what is asked and end; never returns into the parent's loop."""
    status = 1
    try:
        written = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(written, 1)
        os.dup2(written, 2)
        os.environ.update(request["environment"])
        module, function = request["call"].split(":")
        status = getattr(importlib.import_module(module), function)(request["arguments"]) or 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
