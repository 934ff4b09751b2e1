"""Old or new, never a half."""

import errno
import os
from pathlib import Path

import pytest

from lib_pivotal.files import TEMPORARY_SUFFIX, replacing, sentence_of


def test_new_content_takes_the_place(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old" and temporary.parent == path.parent
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_old_and_no_rest(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="bad"), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise ValueError("bad")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_missing_folder_is_the_systems_own_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "absent" / "a.bin"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="the device is Linux's")
def test_an_error_of_the_system_names_the_file_and_not_the_temporary_one(tmp_path):
    for path in (tmp_path / "absent" / "a.bin", tmp_path / "a" / "b.bin"):
        (tmp_path / "a").write_bytes(b"")
        with pytest.raises(OSError) as caught, replacing(path):
            pass
        assert caught.value.filename == str(path) and TEMPORARY_SUFFIX not in str(caught.value)
    path = tmp_path / "a.bin"
    with pytest.raises(OSError) as caught, replacing(path), Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")  # a disk without space names no file
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(path) and not path.exists()
    assert sentence_of(caught.value) == (
        f"{path}: cannot be read or written: No space left on device. Check the path, its rights and the space on its "
        "disk."
    )


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "a.bin"):
        (tmp_path / "other").read_bytes()
    assert caught.value.filename == str(tmp_path / "other") or caught.value.filename == tmp_path / "other"
