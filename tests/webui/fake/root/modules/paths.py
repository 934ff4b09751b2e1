"""The same folders, and where the repositories lie."""

from __future__ import annotations

from modules.paths_internal import data_path, models_path, script_path

paths: dict[str, str] = {}

__all__ = ["data_path", "models_path", "paths", "script_path"]
