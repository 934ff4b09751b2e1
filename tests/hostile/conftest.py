"""A way to write files that no honest writer would."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def raw(tmp_path: Path) -> Callable[..., Path]:
    """Write a header (a table, or bytes) and data as they are: `raw({...}, b"data", claim=header_length)`."""

    def _raw(
        header: Mapping[str, Any] | bytes, data: bytes = b"", *, claim: int | None = None, name: str = "raw.safetensors"
    ) -> Path:
        blob = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / name
        path.write_bytes((len(blob) if claim is None else claim).to_bytes(8, "little") + blob + data)
        return path

    return _raw
