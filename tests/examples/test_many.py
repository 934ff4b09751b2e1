"""Sixteen words from a folder in kgrid's layout, planned without a choice made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples import many
from examples.avatars import make
from examples.avatars.characters import CHARACTERS, DESCRIBABLE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many.write_pictures(tmp_path_factory.mktemp("many") / "pictures", pictures=12, pairs=2, seed=0)


def test_one_click_from_folder_to_a_plan_without_warnings(folder: Path) -> None:
    run, plan = many.plan_by_defaults(folder)
    assert sorted(embedding.name for embedding in plan.embeddings) == sorted([*list(CHARACTERS)[:15], "inkurro"])
    assert [f.text for f in plan.at_least("warning")] == []
    for embedding in plan.embeddings:
        own = set() if embedding.style else set(make.core_tags(embedding.name))
        assert set(embedding.absorbed) == own and embedding.style == (embedding.name == "inkurro")
        assert embedding.samples >= 800
    assert any(len(picture.embeddings) == 2 and "2girls" in picture.trained for picture in plan.pictures)
    assert run.data.resolution_px == 64


def test_command_line_plans_and_writes_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pictures").symlink_to(folder, target_is_directory=True)
    assert many.main(["--out", str(tmp_path)]) == 0
    assert len(json.loads((tmp_path / "plan.json").read_text())["embeddings"]) == 16
    assert "longest caption" in capsys.readouterr().out


def test_prompts_leave_to_the_embedding_what_it_should_know() -> None:
    for text, avatar in many.prompts("akavell", 3):
        tags = text.split(", ")
        assert tags[0] == "akavell" and not set(tags) & set(make.core_tags(avatar))
    (bare, avatar), *_ = many.prompts("akavell", 1, by_embedding=False)
    assert set(make.core_tags(avatar)) <= set(bare.split(", ")) and "akavell" not in bare
    assert [a for _, a in many.prompts("akavell", 3)] == [a for _, a in many.prompts("akavell", 3, by_embedding=False)]
    assert all(getattr(avatar, key) == getattr(CHARACTERS["akavell"], key) for key in DESCRIBABLE)
