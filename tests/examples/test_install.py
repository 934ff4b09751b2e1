"""`python dev.py checkpoint FOLDER`, and the settings of the README's first character."""

import json
import re

from transformers import CLIPTokenizer

from examples.avatars import install
from examples.avatars.checkpoints import NAMES, WEIGHTS, checkpoint
from examples.avatars.make import plan, write
from lib_pivotal.config import read_run
from lib_pivotal.standalone.tokenizer import clip_tokenizer


def test_into_a_web_ui(tmp_path, capsys):
    models = tmp_path / "models" / "Stable-diffusion"
    models.mkdir(parents=True)
    assert install.main([str(tmp_path)]) == 0
    told = capsys.readouterr().out
    for name in NAMES:
        copy = models / f"{name}.safetensors"
        assert str(copy) in told
        assert copy.read_bytes() == checkpoint(name).read_bytes()
        original = checkpoint(name).with_suffix(".yaml").read_text(encoding="utf-8")
        version = re.search(r"version: (.+)", copy.with_suffix(".yaml").read_text(encoding="utf-8"))[1]
        text = models / "avatars-text"
        assert json.loads(version) == text.as_posix()
        assert copy.with_suffix(".yaml").read_text(encoding="utf-8").replace(version, "X") == re.sub(
            r"version: .+", "version: X", original
        )
        assert json.loads((text / "config.json").read_text())["hidden_size"] == 64
    found = CLIPTokenizer.from_pretrained(models / "avatars-text")
    assert found("akavell, blue hair").input_ids == clip_tokenizer()("akavell, blue hair").input_ids


def test_into_a_folder_of_checkpoints(tmp_path):
    assert install.main([str(tmp_path)]) == 0
    assert (tmp_path / "avatars.safetensors").is_file() and (tmp_path / "avatars-text" / "merges.txt").is_file()


def test_no_folder(tmp_path, capsys):
    assert install.main([str(tmp_path / "absent")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_the_first_run_names_what_make_writes(tmp_path):
    run = read_run(WEIGHTS.parent / "first_run.json")
    write(plan(["akavell"], [], pictures=2, captions="pruned"), tmp_path / "pictures", layout="plain")
    assert [embedding.name for embedding in run.embeddings] == ["akavell"] and run.data.folder == "out/first/pictures"
    assert all(path.read_text().startswith("akavell, 1girl") for path in (tmp_path / "pictures").glob("*.txt"))
