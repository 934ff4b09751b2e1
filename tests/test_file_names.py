"""The one rule for names of files: against hostile names, the web UI's own way to read a tag, and real folders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lib_pivotal.config import check_run, run_from_dict
from lib_pivotal.errors import ConfigError, FileNameError
from lib_pivotal.file_names import MOST_BYTES, checked_name, legal_file_name, name_reasons, refuse_taken
from lib_pivotal.files import replacing
from tests.hostile_names import EMPTY, GOOD, HOSTILE

any_text = st.text(st.characters(), max_size=300) | st.text(st.sampled_from("ab./\\:<>#,= \n\x00con1-"), max_size=12)


@pytest.mark.parametrize(("name", "reason"), HOSTILE)
def test_hostile_names_are_refused_with_the_reason(name: str, reason: str) -> None:
    assert reason in "; ".join(name_reasons(name))
    with pytest.raises(FileNameError, match="cannot be called") as caught:
        checked_name(name, "the new file")
    assert reason in str(caught.value)
    str(caught.value).encode("utf-8")  # half a surrogate pair is spelt


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_is_no_name(name: str) -> None:
    assert name_reasons(name) == ["is empty"]


@pytest.mark.parametrize("name", GOOD)
def test_good_names_are_taken_as_they_are(name: str) -> None:
    assert name_reasons(name) == [] and checked_name(name, "x") == name and legal_file_name(name) in (name, "a b")


@pytest.mark.parametrize(("name", "reason"), HOSTILE)
def test_the_settings_say_the_same(name: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_from_dict({"name": name, "words": [{"name": "aoi"}]})
    assert [fault.field for fault in caught.value.faults] == ["name"] and reason in str(caught.value)


def test_no_name_stands_for_the_usual_one() -> None:
    assert check_run({"words": [{"name": "aoi"}]})[1] == []


def test_an_embedding_that_becomes_a_file_is_asked_for_more() -> None:
    plain = {"name": "x", "words": [{"name": "con"}]}
    assert check_run(plain)[1] == []
    faults = check_run({**plain, "saving": {"embedding_files": True}})[1]
    assert [fault.field for fault in faults] == ["embeddings.0.name"] and "device" in faults[0].problem


def _as_the_web_ui_reads(tag: str) -> str | None:
    """v1.10.1: comments are stripped (processing_scripts/comments.py), then tags are taken (extra_networks.py)."""
    tag = re.sub("(^|\n)#[^\n]*(\n|$)", "\n", tag)
    tag = re.sub("#[^\n]*(\n|$)", "\n", tag)
    found = re.fullmatch(r"<(\w+):([^>]+)>", tag)
    if found is None:
        return None
    positional = [item for item in found.group(2).split(":") if len(item.split("=", 2)) != 2]
    return positional[0] if positional else None


@pytest.mark.parametrize(("name", "called"), [("a:b", "a"), ("a=1", "1"), ("a#b", None), ("a>b", None), ("a", "a")])
def test_how_the_web_ui_reads_a_tag(name: str, called: str | None) -> None:
    assert _as_the_web_ui_reads(f"<lora:{name}:1>") == called


@settings(deadline=None, max_examples=300)
@given(name=any_text)
@example(name="con.v1")
@example(name="../" * 40 + "x")
def test_whatever_is_accepted_can_be_called_and_is_one_file_of_the_folder(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    legal = legal_file_name(name)
    assert legal == "" or name_reasons(legal) == []
    for accepted in {one for one in (name, legal) if one and not name_reasons(one)}:
        assert _as_the_web_ui_reads(f"<lora:{accepted}:1>") == accepted
        folder = tmp_path_factory.mktemp("names")
        inner = folder / "inner"
        inner.mkdir()
        (folder / "outside").write_bytes(b"as it was")
        made = []
        for ending in (".safetensors", "-10000000.safetensors", "-without-te-te2-unet-words.safetensors", ".run.json"):
            path = inner / f"{accepted}{ending}"
            with replacing(path) as temporary:  # with the longest of temporary names
                temporary.write_bytes(b"x")
            assert path.resolve().parent == inner.resolve() and path.name.startswith(accepted)
            made.append(path.name)
        assert sorted(path.name for path in inner.iterdir()) == sorted(made)
        assert sorted(path.name for path in folder.iterdir()) == ["inner", "outside"]
        assert len(accepted.encode()) <= MOST_BYTES


def test_files_that_are_there_are_only_replaced_when_told(tmp_path: Path) -> None:
    there, gone, link = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    there.write_bytes(b"")
    link.symlink_to(tmp_path / "nowhere")  # writing to it would make that file
    refuse_taken([gone], overwrite=False)
    refuse_taken([there, link], overwrite=True)
    for path in (there, link):
        with pytest.raises(FileNameError, match=f"{path.name}: there is a file of this name already"):
            refuse_taken([gone, path], overwrite=False)
