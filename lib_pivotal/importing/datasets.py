"""Dataset files of other trainers that a scan understands: hand `DATASET_FILES` over to it as `files`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_pivotal.data.sources.source import DatasetFile
from lib_pivotal.errors import ConfigError, DataError
from lib_pivotal.importing.hcp_dataset import is_hcp, read_hcp
from lib_pivotal.importing.kohya_dataset import is_kohya, read_kohya
from lib_pivotal.importing.onetrainer_dataset import is_onetrainer, read_onetrainer
from lib_pivotal.importing.reading import parse_text, read_bytes


def read_plain(path: Path) -> Any:
    """The plain values in a json, yaml or toml file; nothing in it is executed.

    Raises:
        DataError: it cannot be read, or is far too large for what it should be.
    """
    try:
        return parse_text(read_bytes(path), path.name)
    except ConfigError as error:
        told = "; ".join(f"{fault.problem}. {fault.remedy}".strip() for fault in error.faults)
        raise DataError(f"{path.name}: {told}") from error


DATASET_FILES = (
    DatasetFile("kohya_toml", "kohya's dataset file (.toml)", (".toml",), read_plain, is_kohya, read_kohya),
    DatasetFile("hcp", "HCP-Diffusion's dataset file (.yaml)", (".yaml", ".yml"), read_plain, is_hcp, read_hcp),
    DatasetFile("onetrainer", "OneTrainer's concepts (.json)", (".json",), read_plain, is_onetrainer, read_onetrainer),
)
"""In the order in which they are tried."""
