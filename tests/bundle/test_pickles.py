"""No pickle is ever executed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from lib_pivotal.bundle.embedding_files import read_embedding
from lib_pivotal.bundle.pickles import load_plain, load_tensors
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.errors import BundleError


class Attack:
    """Touches a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("reader", [load_plain, load_tensors, read_bundle, read_embedding])
@pytest.mark.parametrize("modern", [True, False])
def test_an_attack_is_refused_and_not_run(tmp_path: Path, reader: object, modern: bool) -> None:
    target, path = tmp_path / "owned", tmp_path / "evil.pt"
    content = {"string_to_param": {"*": torch.ones(1, 768)}, "x": Attack(target)}
    if modern:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(BundleError, match=r"refused|not a torch file"):
        reader(path)  # type: ignore[operator]
    assert not target.exists()


def test_tensors_numbers_and_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(2), "step": 3, "name": "x"}, path)
    assert load_plain(path)["step"] == 3
    assert set(load_tensors(path)) == {"a"}


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x80\x02.", b"PK\x03\x04broken"])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"x\.pt"):
        load_plain(path)


def test_missing_and_wrong_content(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be opened"):
        load_plain(tmp_path / "none.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BundleError, match="holds a list"):
        load_tensors(tmp_path / "list.pt")
