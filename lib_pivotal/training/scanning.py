"""Scanning a run's folder by the run's own settings."""

from __future__ import annotations

from lib_pivotal.config_pictures import DataConfig
from lib_pivotal.data.dataset import Dataset, scan


def scan_pictures(data: DataConfig, folder: str = "") -> Dataset:
    """Look at the pictures of a run, or at another folder in the same way (by its own layout).

    Raises:
        DataError: there is no such folder, or it is not of that layout.
    """
    return scan(
        folder or data.folder,
        layout="auto" if folder else data.layout,
        captions_from=data.captions_from,  # type: ignore[arg-type]
        caption_lines=data.caption_lines,  # type: ignore[arg-type]
        missing_caption=data.missing_caption,  # type: ignore[arg-type]
        duplicates=data.duplicates,  # type: ignore[arg-type]
        minimum_px=min(data.least_px, data.resolution_px),
    )
