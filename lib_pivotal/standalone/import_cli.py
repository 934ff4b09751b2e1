"""`python -m lib_pivotal import`: another trainer's settings as run.json, and what became of each key."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from typing import Any

from lib_pivotal.files import typed_path


def add_import_command(commands: Any) -> None:
    """Add the verb to a parser's commands."""
    command = commands.add_parser(
        "import", help="settings of HCP, kgrid, kohya, its GUI or OneTrainer as run.json", description=__doc__
    )
    command.add_argument("file", type=typed_path, help=".yaml, .toml or .json of another trainer")
    command.add_argument("-o", "--out", type=typed_path, metavar="RUN.json", help="write the settings here")
    command.add_argument("-f", "--overwrite", action="store_true", help="replace a file that is there already")
    command.add_argument("--json", action="store_true", help="print run and report as JSON")
    command.set_defaults(run=run_import)


def run_import(parsed: argparse.Namespace) -> int:
    """Print the report; write run.json where it is wanted."""
    from lib_pivotal.commands.settings import ImportRequest, import_settings, table
    from lib_pivotal.config import write_run
    from lib_pivotal.file_names import refuse_output

    if parsed.out:
        refuse_output(parsed.out, overwrite=parsed.overwrite)
    found = import_settings(ImportRequest(str(parsed.file)))
    if parsed.out:
        write_run(parsed.out, found.run)
    if parsed.json:
        _print(json.dumps(found.to_plain(), indent=2, ensure_ascii=False))
        return 0
    _print(table(found.report, width=shutil.get_terminal_size((120, 24)).columns))
    if found.faults:
        _print("\nSTILL TO BE SET\n" + "\n".join(f"  {fault}" for fault in found.faults))
    if parsed.out:
        _print(f"\n{parsed.out} is written.")
    return 0


def _print(text: str) -> None:
    sys.stdout.write(
        text.encode(sys.stdout.encoding or "utf-8", "replace").decode(sys.stdout.encoding or "utf-8") + "\n"
    )
