"""Nothing planted comes through: paths of three systems, user names, tokens; and what helps stays."""

from pathlib import Path

import pytest

from lib_pivotal.runs import scrubbing
from lib_pivotal.runs.scrubbing import Scrubber

HOME = "/".join(("", "home", "marlene"))


@pytest.fixture
def scrubber(monkeypatch):
    monkeypatch.setattr(scrubbing, "_user", lambda: "marlene")
    monkeypatch.setattr(Path, "home", lambda: Path(HOME))
    monkeypatch.setattr(scrubbing.platform, "node", lambda: "marlenes-box")
    made = Scrubber({"lora": Path("/data/my models/Lora")})
    made.learn([r"C:\Users\Otto Example\x", "/Users/gisela/pictures", "/srv/own pictures/set one"])
    return made


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"{HOME}/sd/models/aoi.safetensors is gone", "<folder>/aoi.safetensors is gone"),
        ("cannot read /srv/alpha/beta/picture 1.png", "cannot read <folder>/picture 1.png"),
        ("cannot read /srv/own pictures/set one/1.png", "cannot read <folder>/set one/1.png"),
        ("/data/my models/Lora/aoi.safetensors: full", "<lora>/aoi.safetensors: full"),
        ("'/mnt/secret place/a.png'", "'<folder>/a.png'"),
        (r"D:\private\own\aoi.png: full", "<folder>/aoi.png: full"),
        (r"'C:\\Users\\gisela\\aoi.png'", "'<folder>/aoi.png'"),
        (r"\\server\share\aoi.png", "<folder>/aoi.png"),
        ("file:///srv/own/aoi.png", "<folder>/aoi.png"),
        (
            'File "/opt/sd/venv/lib/python3.10/site-packages/torch/nn/modules/linear.py", line 9',
            'File "<folder>/site-packages/torch/nn/modules/linear.py", line 9',
        ),
        ("saved for Marlene by gisela", "saved for <user> by <user>"),
        ("host marlenes-box", "host <machine>"),
        ("write to marlene.x@example.org", "write to <mail>"),
        ("HF_TOKEN=hf_abcdefghijklmnop", "HF_TOKEN=<hidden>"),
        ('"api_key": "12345"', '"api_key": "<hidden>"'),
        ("--api-auth me:word", "--api-auth <hidden>"),
        ("Authorization: Bearer abcdefgh123", "Authorization: <hidden>"),
        ("got ghp_0123456789abcdefghij back", "got <hidden> back"),
        ("https://me:word@host.org/x?token=1", "https://<hidden>@host.org/x?<hidden>"),
    ],
)
def test_what_was_planted_is_gone(scrubber, text, wanted):
    found = scrubber.text(text)
    assert found == wanted
    assert scrubber.text(found) == found  # and nothing is hidden twice


@pytest.mark.parametrize(
    "text",
    [
        "step 312 of 1500, 2.4 steps/s",
        "loss and/or norm, 1/2, keep_tokens: 2, max_tokens = 75",
        "the token embeddings of aoi, hana",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "1girl, blue hair, <lora:aoi:1>, aoi@gekidol",
    ],
)
def test_what_helps_stays(scrubber, text):
    assert scrubber.text(text) == text


def test_values_that_are_paths_may_hold_blanks_and_keys_are_looked_at(scrubber):
    plain = {"folder": "/srv/own pictures of it/set one", "token": "abc", "/srv/x/a.png": [1, "gisela", None]}
    assert scrubber.plain(plain) == {
        "folder": "<folder>/set one",
        "token": "<hidden>",
        "<folder>/a.png": [1, "<user>", None],
    }


def test_short_and_common_user_names_do_not_hit_words(monkeypatch):
    monkeypatch.setattr(scrubbing, "_user", lambda: "root")
    assert Scrubber().text("the root logger") == "the root logger"
