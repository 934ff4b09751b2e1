"""Old or new, never a half."""

import pytest

from lib_pivotal.files import replacing


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
