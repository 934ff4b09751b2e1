"""Makes `imports.json` anew: what imports of other trainers' settings give, key by key.

    PYTHONPATH=. python tests/golden/make_imports.py

The files in it were written for this: each key that a trainer's table knows, with several values. A change of a report
is a change of what users read, so it is made on purpose and shows in the diff of `imports.json`.
"""

import json
from pathlib import Path

from lib_pivotal.config import Run, run_to_dict
from lib_pivotal.importing.reading import leaves
from lib_pivotal.importing.settings import import_text

GOLDEN = Path(__file__).parent / "imports.json"


def imported(name, text):
    """The settings that differ from our own, remarks, and a line for each key."""
    found = import_text(text.encode(), name).to_plain()
    ours = dict(leaves(run_to_dict(Run())))
    lines = [(line["key"], line["fate"], line["became"], line["why"]) for line in found["report"]["lines"]]
    return {
        "run": {path: value for path, value in leaves(found["run"]) if ours.get(path) != value},
        "remarks": found["report"]["remarks"],
        "lines": [" | ".join(parts) for parts in lines],
        "faults": found["faults"],
    }


if __name__ == "__main__":
    cases = json.loads(GOLDEN.read_text(encoding="utf-8"))
    made = {name: {"text": case["text"], **imported(name, case["text"])} for name, case in cases.items()}
    GOLDEN.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
