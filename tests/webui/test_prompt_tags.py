from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.embeddings.adjustment import EmbeddingAdjustment
from lib_pivotal.webui.prompt_tags import (
    PARTS,
    embeddings_adjusted,
    part_switched,
    tags_in,
    understand,
    untrapped,
    weight_set,
    with_weights,
)


@pytest.mark.parametrize(
    ("text", "te", "unet", "embeddings"),
    [
        ("x", 1, 1, True),
        ("x:0.8", 0.8, 0.8, True),
        ("x:0:1", 0, 1, True),
        ("x:1:te=0", 0, 0, True),  # the trap: extra_networks_lora.py:32-36
        ("x:1:unet=0", 1, 0, True),
        ("x:te=0:unet=1", 0, 1, True),
        ("x:1:0.5:8", 1, 0.5, True),
        ("x:1:1:words=0", 1, 1, False),
        ("x:1:1:words=OFF", 1, 1, False),
        ("x:0@0,1@1", None, None, True),
        ("x:off", None, None, True),
    ],
)
def test_a_tag_is_read_as_the_web_ui_reads_it(text, te, unet, embeddings):
    tag = understand(text.split(":"))
    assert (tag.name, tag.te, tag.unet, tag.embeddings) == ("x", te, unet, embeddings)


def test_the_trap_is_known():
    assert understand(["x", "1", "te=0"]).te_alone
    assert not understand(["x", "1", "1", "te=0"]).te_alone
    assert not understand(["x", "0", "te=0"]).te_alone
    assert untrapped("<lora:x:1:te=0> a <lora:y:te=0.5:lbw=MIDD>") == (
        "<lora:x:0:1> a <lora:y:0.5:1:lbw=MIDD>",
        ["x", "y"],
    )
    assert untrapped("<lora:x:1:te=0>", applies=frozenset()) == ("<lora:x:1:te=0>", [])


def test_other_extensions_fields_pass_through():
    assert with_weights(["x", "1", "te=0", "lbw=MIDD", "stop=10"], te="0", unet="1") == [
        *("x", "0", "1", "lbw=MIDD", "stop=10")
    ]
    prompt = "<lora:x:1:1:8:lbw=A> <lora:y:0@0,1@1> <hypernet:z:1> <lyco:q:0.5>"
    assert part_switched(prompt, "U-Net") == "<lora:x:0:1:8:lbw=A> <lora:y:0@0,1@1> <hypernet:z:1> <lyco:q:0:0.5>"


@pytest.mark.parametrize(
    ("part", "expected"),
    [("whole", "0.8:0.8"), ("U-Net", "0:0.8"), ("TE", "0.8:0"), ("words", "0:0"), ("none", "0:0:words=0")],
)
def test_parts(part, expected):
    assert part_switched("<lora:x:0.8> a", part) == f"<lora:x:{expected}> a"


def test_a_weight_comes_back():
    assert part_switched("<lora:x:0:0.6:words=0>", "whole") == "<lora:x:0.6:0.6>"
    assert part_switched("<lora:x:0:0>", "TE") == "<lora:x:1:0>"
    assert part_switched("<lora:x:1><lora:y:1>", "TE", only="y") == "<lora:x:1><lora:y:1:0>"
    assert weight_set("<lora:x:1:0.5>", te=0.25) == "<lora:x:0.25:0.5>"
    with pytest.raises(ValueError, match="unknown"):
        part_switched("<lora:x:1>", "half")


@given(st.text(alphabet="<lorawds:=0.1@,> ", max_size=40), st.sampled_from(PARTS))
def test_no_prompt_breaks_them(prompt, part):
    switched = part_switched(prompt, part)
    assert part_switched(switched, part) == switched
    assert [kind for kind, _ in tags_in(switched)] == [kind for kind, _ in tags_in(prompt)]


def test_adjustments_of_embeddings():
    tag = understand("x:1:emb=hana*0.8~0.2:te=0:emb=kira~0.5:emb=Hana*2:emb=mio:lbw=A".split(":"))
    assert (tag.te, tag.unet, tag.embeddings) == (0, 0, True), "the weights are read as if they were not there"
    assert tag.adjustments == (("Hana", EmbeddingAdjustment(2, 0)), ("kira", EmbeddingAdjustment(1, 0.5)))
    assert len(tag.unread) == 1 and "'mio' is not NAME*NORM~SHARE" in tag.unread[0]
    assert understand(["x", "1"]).adjustments == ()


def test_adjustments_are_written_for_all_embeddings_or_one():
    files = {"x": ["hana", "kira"], "y": ["mio"]}
    prompt = "<lora:x:1:emb=Hana*0.8~0.2:lbw=A> hana <lyco:y:0:1> <words:x>"

    def adjusted(text, **options):
        return embeddings_adjusted(text, files.__getitem__, **options)

    assert adjusted(prompt, norm=0.5) == (
        "<lora:x:1:lbw=A:emb=hana*0.5~0.2:emb=kira*0.5~0> hana <lyco:y:0:1:emb=mio*0.5~0> <words:x>"
    )
    assert adjusted(prompt, init_share=0.25, only="MIO") == (
        "<lora:x:1:lbw=A:emb=Hana*0.8~0.2> hana <lyco:y:0:1:emb=mio*1~0.25> <words:x>"
    )
    assert adjusted(adjusted(prompt, norm=1), init_share=0) == "<lora:x:1:lbw=A> hana <lyco:y:0:1> <words:x>"


@pytest.mark.parametrize("part", PARTS)
def test_adjustments_pass_through_whatever_else_is_changed(part):
    prompt = "<lora:x:1:te=0.5:emb=hana*0.8~0.2> hana"
    for changed in (part_switched(prompt, part), weight_set(prompt, unet=0.5), untrapped(prompt)[0]):
        ((_, tag),) = tags_in(changed)
        assert tag.adjustments == (("hana", EmbeddingAdjustment(0.8, 0.2)),)
