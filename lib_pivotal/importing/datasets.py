"""Dataset files of other trainers that a scan understands: hand `DATASET_FILES` over to it as `files`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_pivotal.data.sources.source import DatasetFile
from lib_pivotal.errors import ConfigError, DataError
from lib_pivotal.importing import hcp_dataset, kohya_dataset, onetrainer_dataset
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


DATASET_FILES = tuple(
    DatasetFile(layout, title, suffixes, read_plain, fits, read)
    for layout, title, suffixes, fits, read in (
        ("kohya_toml", "kohya's dataset file (.toml)", (".toml",), kohya_dataset.is_kohya, kohya_dataset.read_kohya),
        ("hcp", "HCP-Diffusion's dataset file (.yaml)", (".yaml", ".yml"), hcp_dataset.is_hcp, hcp_dataset.read_hcp),
        (
            *("onetrainer", "OneTrainer's concepts (.json)", (".json",)),
            *(onetrainer_dataset.is_onetrainer, onetrainer_dataset.read_onetrainer),
        ),
    )
)
"""In the order in which they are tried."""
