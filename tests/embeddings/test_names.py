"""Names: legal, and heard only where they are meant."""

import pytest

from lib_pivotal.embeddings.names import check_name
from lib_pivotal.prompts import tokenize
from lib_pivotal.standalone.tokenizer import clip_tokenizer


def check(name, existing=None, vectors=0):
    tokenizer = clip_tokenizer()
    return check_name(name, token_ids=lambda text: tokenize(tokenizer, [text])[0], existing=existing, vectors=vectors)


def test_a_good_name():
    issues = check("kxq-aoi", {"ren": "this run"}, 4)
    assert [issue.level for issue in issues] == ["info"] and "takes 4 of a chunk's 75" in str(issues[0])


@pytest.mark.parametrize("name", ["", "Aoi", "aoi2", "v1.5-girl", "<aoi>", "my char", "-aoi"])
def test_illegal_names(name):
    assert check(name)[0].level == "error"
    assert check(name)[0].remedy


def test_a_common_embedding():
    (issue,) = check("cat")
    assert issue.level == "warning" and "single token" in issue.reason


def test_found_at_the_end_of_longer_embeddings():
    assert any("longer words such as" in issue.reason for issue in check("aoi"))


def test_traps_of_other_tools():
    assert any(issue.level == "warning" and "alpha" in issue.reason for issue in check("alphazq"))


def test_clashes():
    (issue, *_) = check("zqaoi", {"ZQAoi": "embeddings folder"})
    assert issue.level == "error" and "embeddings folder" in issue.reason
    assert any("is a part of 'zqaoi-san'" in issue.reason for issue in check("zqaoi", {"zqaoi-san": ""}))
    assert any("'zqaoi' (bundle x) is a part" in issue.reason for issue in check("zqaoi-san", {"zqaoi": "bundle x"}))
    assert not any("'ren'" in issue.reason for issue in check("zqaoi", {"ren": "", " ": ""}))


def test_same_tokens_by_other_letters():
    issues = check("zqaoi", {"zqaoi ": "embeddings folder"})
    assert any("same tokens" in issue.reason for issue in issues)


def test_sizes():
    assert any(issue.level == "error" for issue in check("zqaoi", vectors=76))
    assert any("never share a chunk" in issue.reason for issue in check("zqaoi", vectors=40))
    assert any("tokens long" in issue.reason for issue in check("zq-xv-qj-wz-kx-vb", vectors=4))


def test_letters_inside_another_name():
    """No token of one is one of the other's, but SD.Next compares letters."""
    for name, other in (("kirazq", "bakirazqo"), ("bakirazqo", "kirazq")):
        issues = check(name, {other: "this run"})
        assert [issue.level for issue in issues if "SD.Next" in issue.reason] == ["info"]
    assert not [issue for issue in check("kirazq", {"aoizq": "this run"}) if "SD.Next" in issue.reason]
