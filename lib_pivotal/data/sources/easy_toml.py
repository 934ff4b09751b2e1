"""LoRA_Easy_Training_Scripts: kohya's flags in tables `[X.args]` and `[X.dataset_args]`, folders in `[[subsets]]`.

The tables are those that its window is made of (`general_args`, `network_args`, ...); what they hold is called as in
kohya's scripts, and goes to these as flags (`args`) or into a dataset file (`dataset_args`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_pivotal.data.sources.plain_files import mapping

PARTS = ("args", "dataset_args")


def is_easy(plain: Any) -> bool:
    """Whether it is such a file: its own table of the mode, or two of its tables of arguments."""
    if not isinstance(plain, Mapping):
        return False
    tables = sum(
        str(key).endswith("_args") and isinstance(value, Mapping) and any(part in value for part in PARTS)
        for key, value in plain.items()
    )
    return tables >= 2 or (tables >= 1 and ("train_mode" in plain or "subsets" in plain))


def arguments(plain: Mapping[str, Any], part: str) -> dict[str, Any]:
    """All that its tables give the scripts as flags (`args`), or write into the dataset file (`dataset_args`)."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        if str(key).endswith("_args"):
            found |= mapping(mapping(value).get(part))
    return found


def as_dataset(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Its subsets as kohya's dataset file has them."""
    return {"general": arguments(plain, "dataset_args"), "datasets": [{"subsets": plain.get("subsets") or []}]}
