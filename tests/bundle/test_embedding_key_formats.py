"""Every spelling of a word's vectors."""

from __future__ import annotations

import pytest
import torch

from lib_pivotal.bundle.embedding_key_formats import TensorHeader, carry_out, plan_embedding, seen_of

V3 = TensorHeader("F32", (3, 768))
G3 = TensorHeader("F32", (3, 1280))


@pytest.mark.parametrize(
    ("tensors", "spelling", "widths", "vectors", "warnings"),
    [
        ({"string_to_param.*": V3}, "string_to_param.*", (768,), 3, 0),
        ({"string_to_param.265": V3}, "string_to_param.265", (768,), 3, 0),
        ({"string_to_param": V3}, "string_to_param", (768,), 3, 0),
        ({"string_to_param.*": V3, "string_to_param.b": V3}, "string_to_param.*", (768,), 3, 1),
        ({"clip_l": V3}, "clip_l", (768,), 3, 0),
        ({"clip_l": V3, "clip_g": G3}, "clip_l+clip_g", (768, 1280), 3, 0),
        ({"clip_l": V3, "clip_l_out": V3}, "clip_l", (768,), 3, 1),
        ({"clip_l": V3, "clip_g": G3, "clip_l_out": V3, "clip_g_out": G3}, "clip_l+clip_g", (768, 1280), 3, 2),
        ({"clip_l": V3, "t5": TensorHeader("F32", (3, 4096))}, "clip_l", (768,), 3, 1),
        ({"clip_g": V3}, "clip_g", (768,), 3, 1),
        ({"text_encoders_0": V3}, "text_encoders_0", (768,), 3, 0),
        ({"text_encoders_0": V3, "text_encoders_1": G3}, "text_encoders_0+text_encoders_1", (768, 1280), 3, 0),
        ({"emb_params": V3}, "emb_params", (768,), 3, 0),
        ({"emp_params": V3}, "emp_params", (768,), 3, 0),
        ({"<s1>": V3}, "<s1>", (768,), 3, 0),
        ({"emb_params": TensorHeader("BF16", (768,))}, "emb_params", (768,), 1, 1),
        ({"string_to_param.*": TensorHeader("F16", (3, 2048))}, "string_to_param.*", (768, 1280), 3, 1),
        ({"emb_params": TensorHeader("F16", (2048,))}, "emb_params", (768, 1280), 1, 2),
        ({"string_to_param.*": V3, "clip_l": V3, "emb_params": V3}, "string_to_param.*", (768,), 3, 2),
        ({"string_to_param.*": V3, "step": TensorHeader("I64", ())}, "string_to_param.*", (768,), 3, 1),
        ({"anything": V3, "step": TensorHeader("I64", ())}, "anything", (768,), 3, 1),
        ({"tiny": TensorHeader("F32", (4, 64))}, "tiny", (64,), 4, 0),
    ],
)
def test_spellings(
    tensors: dict[str, TensorHeader], spelling: str, widths: tuple[int, ...], vectors: int, warnings: int
) -> None:
    plan, problems = plan_embedding("dog", tensors)
    assert plan is not None
    assert (plan.spelling, plan.widths, plan.vectors) == (spelling, widths, vectors)
    assert [problem.severity for problem in problems] == ["warning"] * warnings


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"clip_l_out": V3}, "none of its tensors"),
        ({"t5": V3}, "none of its tensors"),
        ({"step": TensorHeader("I64", ())}, "none of its tensors"),
        ({"clip_g": G3}, "without clip_l"),
        ({"clip_l": V3, "clip_g": TensorHeader("F32", (2, 1280))}, "unequal numbers of vectors"),
        ({"clip_l": G3, "clip_g": V3}, "do not make a pair"),
        ({"string_to_param.a": V3, "string_to_param.b": V3}, "several terms"),
        ({"a": V3, "b": V3}, "several terms"),
        ({"emb_params": TensorHeader("I32", (3, 768))}, "dtype I32"),
        ({"emb_params": TensorHeader("F32", (1, 3, 768))}, "shape [1, 3, 768]"),
        ({"emb_params": TensorHeader("F32", ())}, "shape []"),
        ({"emb_params": TensorHeader("F32", (0, 768))}, "holds nothing"),
        ({"emb_params": TensorHeader("F32", (3, 0))}, "holds nothing"),
        ({"emb_params": TensorHeader("F32", (76, 768))}, "76 vectors"),
        ({"emb_params": G3}, "width 1280 alone"),
    ],
)
def test_unusable_embeddings_say_why(tensors: dict[str, TensorHeader], reason: str) -> None:
    plan, problems = plan_embedding("dog", tensors)
    assert plan is None
    assert [p for p in problems if p.severity == "error" and reason in p.what and p.embedding == "dog"]


def test_concatenated_towers_are_split_by_columns() -> None:
    both = torch.randn(3, 2048)
    plan, _ = plan_embedding("dog", {"string_to_param.*": seen_of(both)})
    assert plan is not None
    first, second = carry_out(plan, {"string_to_param.*": both}.__getitem__)
    assert torch.equal(first, both[:, :768]) and torch.equal(second, both[:, 768:])
    assert first.is_contiguous() and second.is_contiguous()


def test_a_single_dimension_becomes_one_vector() -> None:
    flat = torch.randn(768)
    plan, _ = plan_embedding("dog", {"x": seen_of(flat)})
    assert plan is not None
    (tower,) = carry_out(plan, {"x": flat}.__getitem__)
    assert tower.shape == (1, 768) and torch.equal(tower[0], flat)
