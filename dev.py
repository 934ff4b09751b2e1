"""Everything that one runs; `python dev.py` lists the commands.

Needs nothing but Python 3.10 or 3.11. The first call makes `.venv` beside this file and installs what is needed;
later calls find it ready. Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
REQUIREMENTS = (ROOT / "requirements-dev.txt", ROOT / "requirements-nodeps.txt")
STAMP = VENV / "pivotal-ready"
MAX_WORKERS = 8
"""Processes that run tests; each holds torch, up to 1.5 GB."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, help_text) in COMMANDS.items():
        commands.add_parser(name, help=help_text, add_help=False)
    arguments, rest = parser.parse_known_args()
    check_python()
    set_up()
    return COMMANDS[arguments.command][0](rest)


def check_python() -> None:
    """Refuse a Python that the web UI does not run on either."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 12):
        found = ".".join(str(part) for part in sys.version_info[:3])
        sys.exit(f"Python {found} is not supported: run this with Python 3.10 or 3.11.")


def set_up() -> None:
    """Make the environment, or find it ready; a changed requirements file makes it anew."""
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in REQUIREMENTS)).hexdigest()
    if STAMP.is_file() and STAMP.read_text() == wanted and PYTHON.exists():
        return
    started = time.monotonic()
    print(f"Setting up {VENV.name} (once; torch is large, this can take some minutes) ...", flush=True)
    if not PYTHON.exists():
        venv.create(VENV, with_pip=True, clear=VENV.exists())
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "on"]
    for extra, requirements in (([], REQUIREMENTS[0]), (["--no-deps"], REQUIREMENTS[1])):
        show_pip([*pip, *extra, "-r", str(requirements)])
    STAMP.write_text(wanted)
    print(f"Ready after {time.monotonic() - started:.0f} s.", flush=True)


def show_pip(command: list[str]) -> None:
    """Run pip and show one line a package."""
    kept: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            kept.append(line)
            if line.startswith(("Collecting", "Installing", "Successfully")):
                print("  " + line.strip()[:110], flush=True)
    if process.returncode:
        sys.exit("".join(kept[-25:]) + "\npip failed: see above. Run the command again when the cause is fixed.")


def run(*command: str, **extra_environment: str) -> int:
    """Run a program of the environment in the project's folder."""
    environment = {**os.environ, **extra_environment}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH", "")]))
    try:
        return subprocess.call([str(PYTHON), *command], cwd=ROOT, env=environment)
    except KeyboardInterrupt:
        return 130


def setup(rest: list[str]) -> int:
    """The environment is ready by now: say how to use it by hand."""
    script = f"{VENV.name}\\Scripts\\activate" if os.name == "nt" else f"source {VENV.name}/bin/activate"
    print(f"Ready. To use it by hand: {script}")
    return 0


def demo(rest: list[str]) -> int:
    return run("-m", "examples.demo", *rest)


def test(rest: list[str]) -> int:
    """All tests that need no web UI; with line coverage of everything, webui/ too (on a fake web UI).

    `test training` runs one room; `test tests/data -k mask` is handed to pytest as it is. All and a room run in one
    process a core, with one thread each: torch's threads of several processes would stand in each other's way.
    """
    # modules of webui/ are imported afresh for each fake web UI: with their bytecode kept, a fifth of that is saved
    environment = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    workers = ["-n", str(min(os.cpu_count() or 1, MAX_WORKERS)), "--dist", "worksteal"]
    if not rest:
        report = ["--cov=lib_pivotal", "--cov-report=term:skip-covered", "--durations=10", "-rs"]
        return run("-m", "pytest", *workers, *report, **environment)
    if (ROOT / "tests" / rest[0]).is_dir():
        return run("-m", "pytest", *workers, f"tests/{rest[0]}", *rest[1:], **environment)
    return run("-m", "pytest", *rest, **environment)


def lint(rest: list[str]) -> int:
    first = run("-m", "ruff", "check", ".", *rest)
    return run("-m", "mypy") or first


def bench(rest: list[str]) -> int:
    return run("examples/bench.py", *rest)


def evidence(rest: list[str]) -> int:
    return run("-m", "examples.evidence", *rest)


def faults(rest: list[str]) -> int:
    """Runs that are killed, starved and lied to, and hostile files: a table of what held."""
    return run("-m", "tests.faults", *rest)


def page(rest: list[str]) -> int:
    return run("-m", "lib_pivotal.standalone.page", *rest)


def checkpoint(rest: list[str]) -> int:
    return run("-m", "examples.avatars.install", *rest)


LIVE_SUITES = {"tab": "test_tab", "names": "test_names", "parts": "test_parts", "families": "test_families"}


def live(rest: list[str]) -> int:
    """Tests in a real web UI; those that cannot run are counted with the reason."""
    paths = ["tests/live"]
    if rest and rest[0] in LIVE_SUITES:
        paths = [str(path) for path in sorted((ROOT / "tests/live").glob(f"{LIVE_SUITES[rest[0]]}*.py"))]
        rest = rest[1:]
        if not paths:
            print("0 tests: this suite does not exist yet.")
            return 0
    return run("-m", "pytest", "-m", "webui", "-rs", *paths, *rest)


COMMANDS = {
    "setup": (setup, "make the environment, or find it ready"),
    "demo": (demo, "train embeddings and a network on the avatars and make the parts grid"),
    "test": (test, "run the tests: test [ROOM | what pytest takes]"),
    "lint": (lint, "ruff and mypy"),
    "bench": (bench, "speed and memory against the floor and against peers"),
    "evidence": (evidence, "measure the claims of pivotal tuning"),
    "faults": (faults, "a campaign of faults: faults [--count N] [--seed S]"),
    "page": (page, "the training page without the web UI"),
    "checkpoint": (checkpoint, "copy the avatars checkpoint into a web UI: checkpoint FOLDER"),
    "live": (live, "tests in a real web UI: live [tab|names|parts|families]"),
}

if __name__ == "__main__":
    sys.exit(main())
