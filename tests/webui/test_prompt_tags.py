from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_pivotal.webui.prompt_tags import PARTS, part_switched, tags_in, understand, untrapped, weight_set, with_weights


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
