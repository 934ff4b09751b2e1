"""A checkpoint's vocabulary off its file, against the checkpoint as it is loaded."""

import pytest
import torch

from lib_pivotal.errors import HostError
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.standalone.token_tables import checkpoint_tables
from tests.standalone.tiny_families import make, write

TEXT = "red &amp; blue hair, girl"
"""OpenCLIP resolves HTML's entities, CLIP does not."""


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_rows_are_those_of_the_loaded_checkpoint(tmp_path, family):
    path = write(tmp_path / f"{family}.safetensors", make(family))
    found, loaded = checkpoint_tables(path), StandaloneHost.load(path).text
    assert found.widths == loaded.widths
    for ours, theirs in zip(found.embed_text(TEXT), loaded.embed_text(TEXT), strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, theirs)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"no header")
    for path in ("x.safetensors", "absent.safetensors"):
        with pytest.raises(HostError):
            checkpoint_tables(tmp_path / path)
