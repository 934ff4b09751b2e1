"""Whatever is wrong with JSON from outside is a ValueError, so that every reader needs one except clause."""

import json

import pytest

from lib_pivotal.config import read_run
from lib_pivotal.errors import ConfigError
from lib_pivotal.plain_json import parse_json
from lib_pivotal.runs.presets import read_run_settings

BAD = [b"", b"{", b"[" * 9**5, b'{"a":' * 9**5, b'{"seed": 1' + b"0" * 6000 + b"}", b"\xff\xfe", b'"\x00"', b"nul"]


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_whatever_is_wrong_is_a_value_error(text, tmp_path):
    with pytest.raises(ValueError):
        parse_json(text)
    path = tmp_path / "two.run.json"
    path.write_bytes(text)
    for reader in (read_run, read_run_settings):
        with pytest.raises(ConfigError, match="two.run.json"):
            reader(path)


def test_good_text_is_what_json_says():
    for value in ({"a": [1, 2.5, None, True, "犬"]}, [], 3):
        assert parse_json(json.dumps(value)) == parse_json(json.dumps(value).encode()) == value
