"""No pickle is ever executed."""

from __future__ import annotations

import os
import pickle
import random
import re
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


SAVED = {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(1, 8)}, "name": "x", "step": 5}
LAYOUTS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}


def damaged(content: bytes, draw: random.Random) -> bytes:
    """One to six places changed, cut or doubled: at the beginning, in the zip's list, anywhere."""
    made = bytearray(content)
    for _ in range(draw.randint(1, 6)):
        size = len(made)
        at = draw.choice(
            (draw.randrange(min(size, 500)), size - 1 - draw.randrange(min(size, 500)), draw.randrange(size))
        )
        kind = draw.choice(("byte", "bit", "cut", "double"))
        if kind == "byte":
            made[at] = draw.randrange(256)
        elif kind == "bit":
            made[at] ^= 1 << draw.randrange(8)
        elif kind == "double":
            made[at:at] = made[at : at + 20]
        elif size > 100:
            del made[at : at + draw.randint(1, 40)]
    return bytes(made)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_files_are_read_or_refused(tmp_path: Path, layout: str) -> None:
    """Nothing but BundleError, which names the file: torch itself raises a dozen types."""
    path = tmp_path / "x.pt"
    torch.save(SAVED, path, **LAYOUTS[layout])
    content, draw, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(400):
        path.write_bytes(damaged(content, draw))
        for read in (read_embedding, read_bundle):
            try:
                read(path)
            except BundleError as error:
                assert "x.pt" in str(error)
                refused += 1
    assert refused > 100


def test_a_storage_that_is_not_there(tmp_path: Path) -> None:
    """torch asserts that each storage which the legacy layout names was announced before."""
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    keys = re.findall(rb"\d{8,}", content)
    at = content.rindex(keys[-1])
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(BundleError, match="not a torch file"):
        load_plain(path)


def test_missing_and_wrong_content(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be opened"):
        load_plain(tmp_path / "none.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BundleError, match="holds a list"):
        load_tensors(tmp_path / "list.pt")
