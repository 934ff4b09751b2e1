"""The adjustment of vectors at use, against its formula and the code of its authors."""

import math

import pytest
import torch

from lib_pivotal.embeddings.slerp import adjusted_rows


def rows(count, seed, width=24):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def unit(tensor):
    return tensor.double() / tensor.double().norm(dim=1, keepdim=True)


def tea(vector, target, *, rho, alpha):
    """`adjust_norm_and_slerp` of algo_adjust_embedding.py, tuananhbui89/Embedding-Adjustment b8c3cab: its steps."""
    norm = (1 - alpha) * vector.norm() + alpha * target.norm()
    start, end = norm * vector / vector.norm(), norm * target / target.norm()
    theta = torch.acos(torch.dot(start / start.norm(), end / end.norm()).clamp(-1, 1))
    return (torch.sin((1 - rho) * theta) * start + torch.sin(rho * theta) * end) / torch.sin(theta)


@pytest.mark.parametrize(("alpha", "rho"), [(0.5, 0.2), (0.0, 0.2), (0.5, 0.0), (1.0, 0.7)])
def test_it_is_the_authors_adjustment_by_another_factor(alpha, rho):
    vectors, targets = 5 * rows(4, 1), rows(4, 2)
    for vector, target in zip(vectors, targets, strict=True):
        factor = float(1 - alpha + alpha * target.norm() / vector.norm())
        ours = adjusted_rows(vector[None], target[None], norm=factor, init_share=rho)
        torch.testing.assert_close(ours[0], tea(vector, target, rho=rho, alpha=alpha), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_one_and_zero_change_no_bit(dtype):
    given = rows(3, 1).to(dtype)
    for init in (None, rows(2, 2)):
        assert adjusted_rows(given, init, norm=1, init_share=0) is given


def test_the_norm_alone_is_a_factor():
    given = rows(3, 1).half()
    for init in (None, rows(2, 2)):
        assert torch.equal(adjusted_rows(given, init, norm=0.3), (0.3 * given.double()).float())
    assert torch.equal(adjusted_rows(given, None, norm=0.5, init_share=0.4), 0.5 * given.float()), "no text, no turn"
    assert not adjusted_rows(given, rows(3, 2), norm=0, init_share=0.5).any()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_norms_are_kept_and_the_angle_is_shared(share):
    given, init = 3 * rows(5, 1), rows(5, 2)
    turned = adjusted_rows(given, init, init_share=share)
    torch.testing.assert_close(turned.norm(dim=1), given.norm(dim=1))
    whole = torch.acos((unit(given) * unit(init)).sum(dim=1))
    torch.testing.assert_close(torch.acos((unit(given) * unit(turned)).sum(dim=1)), share * whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        torch.acos((unit(init) * unit(turned)).sum(dim=1).clamp(-1, 1)), (1 - share) * whole, rtol=1e-4, atol=1e-3
    )


def test_at_one_the_direction_is_the_init_texts():
    given, init = 3 * rows(5, 1), rows(5, 2)
    torch.testing.assert_close(unit(adjusted_rows(given, init, init_share=1.0)), unit(init), rtol=0, atol=1e-6)


def test_fewer_rows_of_the_text_are_repeated_and_more_are_cut_as_training_does_it():
    given, init = rows(5, 1), rows(2, 2)
    expected = adjusted_rows(given, init[[0, 1, 0, 1, 0]], init_share=0.4)
    assert torch.equal(adjusted_rows(given, init, init_share=0.4), expected)
    more = torch.cat([init, rows(7, 3)])
    assert torch.equal(adjusted_rows(given[:2], more, init_share=0.4), expected[:2])


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("nearly", [0.0, 1e-7, 1e-4])
def test_opposite_rows_are_turned_through_no_zero(share, nearly):
    given = torch.cat([3 * rows(2, 1), 2 * torch.eye(3, 24)])
    turned = adjusted_rows(given, -0.4 * given + nearly * rows(5, 4), init_share=share)
    assert torch.isfinite(turned).all()
    torch.testing.assert_close(turned.norm(dim=1), given.norm(dim=1))
    cosine = torch.full((5,), math.cos(share * math.pi), dtype=torch.float64)
    torch.testing.assert_close((unit(given) * unit(turned)).sum(dim=1), cosine, rtol=0, atol=2e-3)


def test_equal_directions_stay():
    given = rows(3, 1)
    torch.testing.assert_close(adjusted_rows(given, 7 * given, init_share=0.5), given, rtol=0, atol=1e-6)


def test_rows_without_a_direction_stay_as_they_are():
    given, init = rows(3, 1), rows(3, 2)
    given[0], init[1] = 0, 0
    turned = adjusted_rows(given, init, norm=0.5, init_share=0.5)
    assert torch.equal(turned[:2], 0.5 * given[:2])
    assert not torch.allclose(unit(turned[2:]), unit(given[2:]), atol=1e-2)
