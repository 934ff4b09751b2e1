"""Names in SD2 and SDXL, and across a switch of models; random checkpoints of the true widths (`tiny_families.py`)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.live.conftest import Installation, RequestFailedError, TinyCheckpoints, running
from tests.live.material import Material
from tests.live.situations import Situation

pytestmark = [pytest.mark.webui, pytest.mark.slow]
WIDTHS = {"sd1": (768,), "sd2": (1024,), "sdxl": (768, 1280)}
"""By family; SD1's is the width of one of SDXL's two."""

PAIRS = list(itertools.permutations(WIDTHS, 2))


@pytest.fixture(scope="module", params=[True, False], ids=["with", "stock"])
def s(
    request,
    installation: Installation,
    checkpoint: Path,
    tiny_checkpoints: TinyCheckpoints,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Situation]:
    def prepare(data: Path) -> None:
        tiny_checkpoints.lay_out(data, *WIDTHS)

    folder = tmp_path_factory.mktemp("families")
    with running(installation, checkpoint, folder, linked=request.param, prepare=prepare) as webui:
        situation = Situation(webui, Material(load_file(checkpoint)))
        situation.ours = request.param
        webui.call("/sdapi/v1/options", {"live_previews_enable": False})  # SDXL's would be downloaded
        yield situation


def use(s: Situation, family: str) -> None:
    s.webui.call("/sdapi/v1/options", {"sd_model_checkpoint": f"{family}.safetensors"})


def vectors(family: str, seed: int, rows: int = 2) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(0.3 * torch.randn(rows, width, generator=generator) for width in WIDTHS[family])


def bundle(s: Situation, name: str, towers: tuple[Tensor, ...], **extra: Tensor) -> str:
    return s.bundle({name: towers}, extra=extra, metadata={"sshs_model_hash": "ab" * 32})


def embedding(s: Situation, towers: tuple[Tensor, ...], name: str = "") -> str:
    return s.embedding(towers, name)


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_a_embedding_is_the_same_as_from_the_folder(s: Situation, family: str) -> None:
    use(s, family)
    name, towers = s.fresh(), vectors(family, 1)
    reference = embedding(s, towers)
    file = bundle(s, name, towers)
    ours = s.pixels(f"<lora:{file}:1> a {name} face", negative_prompt=f"({name}:0.5)")
    assert ours == s.pixels(f"a {reference} face", negative_prompt=f"({reference}:0.5)")
    assert ours != s.pixels("a face")


def test_infotext_of_sdxl_says_each_embedding_once(s: Situation) -> None:
    use(s, "sdxl")
    name = s.fresh()
    file = bundle(s, name, vectors("sdxl", 2))
    told = s.webui.txt2img(f"<lora:{file}:1> a {name} face").infotext.split("TI hashes")[1]
    assert (told.count(f"{name}: abababababab") == 1) == s.ours
    assert (told.count(f"{name}:") == 1) == s.ours, "the stock web UI writes it for each encoder"


def test_both_encoders_side_by_side_in_one_tensor(s: Situation) -> None:
    """HCP-Diffusion's spelling, which the stock web UI takes and then fails on."""
    use(s, "sdxl")
    name, towers = s.fresh(), vectors("sdxl", 3)
    reference = embedding(s, towers)
    file = s.bundle({name: (torch.cat(towers, dim=1),)})
    if not s.ours:
        with pytest.raises(Exception, match="500"):
            s.pixels(f"<lora:{file}:1> a {name} face")
        return
    assert s.pixels(f"<lora:{file}:1> a {name} face") == s.pixels(f"a {reference} face")


def test_towers_of_unequal_length_and_embeddings_of_another_model(s: Situation) -> None:
    if not s.ours:
        pytest.skip("nothing is said there")
    use(s, "sdxl")
    uneven, other = s.fresh("uneven"), s.fresh("other")
    extra = {f"bundle_emb.{uneven}.clip_l": torch.zeros(2, 768), f"bundle_emb.{uneven}.clip_g": torch.zeros(3, 1280)}
    file = s.bundle({other: (torch.zeros(1, 768),)}, extra=extra)
    said = s.said(f"<lora:{file}:1> {uneven}, {other}")
    assert "unequal numbers of vectors" in said
    assert "do not fit this checkpoint (768 wide, it has 768+1280)" in said


@pytest.mark.parametrize("parts", [(), ("unet", "te")], ids=["words", "with the network"])
@pytest.mark.parametrize(("loaded", "other"), PAIRS)
def test_a_bundle_of_another_family(
    s: Situation, tiny_checkpoints: TinyCheckpoints, loaded: str, other: str, parts: tuple[str, ...]
) -> None:
    """It is said by name, its words are as if they were not there, and words that fit work beside it."""
    if not s.ours:
        pytest.skip("nothing is said there")
    use(s, loaded)
    name, fitting = s.fresh(), s.fresh()
    theirs = Material(load_file(tiny_checkpoints.path(other)))
    file = bundle(s, name, vectors(other, 7), **theirs.network(*theirs.whole(parts)))
    good, reference = bundle(s, fitting, vectors(loaded, 8)), embedding(s, vectors(loaded, 8))
    before = len(s.webui.log_text())
    made = s.pixels(f"<lora:{file}:1> a {name} face", negative_prompt=name)
    said = s.webui.log_text()[before:]
    widths = ["+".join(map(str, WIDTHS[family])) for family in (other, loaded)]
    assert name in said
    assert f"do not fit this checkpoint ({widths[0]} wide, it has {widths[1]})" in said
    assert "Traceback" not in said
    if not parts:
        assert made == s.pixels(f"a {name} face", negative_prompt=name)
    assert s.pixels(f"<words:{file}> a {name} face") == s.pixels(f"a {name} face")
    assert s.pixels(f"<words:{file}><lora:{good}:1> a {fitting} face") == s.pixels(f"a {reference} face")
    assert "Traceback" not in s.webui.log_text()[before:]


def test_a_folder_embedding_survives_a_switch_of_models(s: Situation) -> None:
    """B1: a name that a bundle used on one model, and the folder has for the other."""
    name, towers = s.fresh(), vectors("sdxl", 4)
    embedding(s, towers, name)
    reference = embedding(s, towers)
    file = s.bundle({name: s.vectors(70)})
    use(s, "avatars")
    s.pixels(f"<lora:{file}:1> a {name} face")
    use(s, "sdxl")
    assert (s.pixels(f"a {name} face") == s.pixels(f"a {reference} face")) == s.ours


def test_embeddings_without_the_network_on_another_checkpoint(s: Situation) -> None:
    if not s.ours:
        pytest.skip("there is no such tag")
    use(s, "sd2")
    name, towers = s.fresh(), vectors("sd2", 5)
    reference = embedding(s, towers)
    file = bundle(s, name, towers, **s.material.network("unet", "te"))
    assert s.pixels(f"<words:{file}> a {name} face") == s.pixels(f"a {reference} face")


def test_more_than_one_model_in_memory(s: Situation) -> None:
    """B21: a model that is kept is taken up again without a new look at the embeddings; widths are asked anew."""
    use(s, "sd2")
    with s.options({"sd_checkpoints_limit": 2}):
        # SDXL has to be the one that is loaded last: that is when the web UI notes what it expects of embeddings
        name, towers = s.fresh(), vectors("sdxl", 6)
        file = bundle(s, name, towers)
        use(s, "sdxl")
        before = s.pixels(f"<lora:{file}:1> a {name} face")
        use(s, "sd2")
        if not s.ours:  # the word of the other model goes into the text encoder
            with pytest.raises(RequestFailedError, match="500"):
                s.pixels(f"<lora:{file}:1> a {name} face")
            return
        assert "do not fit" in s.said(f"<lora:{file}:1> a {name} face")
        use(s, "sdxl")
        assert s.pixels(f"<lora:{file}:1> a {name} face") == before
