"""Shared down-projections give what separate ones give, whatever the host does with its tensors."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from lib_pivotal.networks.fused import fuse

pytestmark = pytest.mark.usefixtures("only_functions")


def groups(network):
    return [{member.layer.name for member in shared.members} for shared in network._shared]


def test_groups_are_qkv_and_kv(world):
    assert groups(world.network()) == [
        {f"lora_te_self_attn_{x}_proj" for x in "qkv"},
        {f"lora_unet_attn1_to_{x}" for x in "qkv"},
        {f"lora_unet_attn2_to_{x}" for x in "kv"},
    ]
    assert groups(world.network(fuse=False)) == []
    assert groups(world.network(pattern="attn1_to_q|conv|attn2_to_k")) == []
    assert fuse([]) == []


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.0}])
def test_fused_equals_separate(world, perturb, settings):
    """Outputs and gradients agree to rounding; alpha 0 (a scale of 0) is no special case."""
    results = []
    for fused in (True, False):
        network = perturb(world.network(fuse=fused, **settings))
        embeddings = world.embeddings.clone().requires_grad_()
        with network.attach():
            output = world.model(world.pixels, embeddings)
            output.square().sum().backward()
        results.append([output.detach(), embeddings.grad, *(parameter.grad for parameter in network.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_host_that_gives_different_tensors(world, perturb):
    """Hypernetworks feed k and v with tensors of their own: no product may be reused."""
    network, separate = (perturb(world.network(fuse=fused)) for fused in (True, False))
    model = world.model
    inputs = [torch.randn(2, 4, 8) for _ in range(3)]

    def outputs():
        layers = (model.attn1_to_q, model.attn1_to_k, model.attn1_to_v)
        return [layer(x) for layer, x in zip(layers, inputs, strict=True)]

    with separate.attach():
        expected = outputs()
    with network.attach():
        got = outputs()
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_stale_products_are_never_used(world, perturb):
    """A group left half-way, then changed weights, multipliers, an input changed in place, another grad mode."""
    network = perturb(world.network())
    model, x = world.model, torch.randn(2, 4, 8)
    q, k = model.attn1_to_q, model.attn1_to_k

    def fresh(layer):
        with separate.attach():
            return layer(x)

    def changed_weights():
        perturb(network, seed=3)

    def changed_multiplier():
        network.set_multipliers(unet=0.5)

    def changed_input():
        x.mul_(2.0)

    for change in (changed_weights, changed_multiplier, changed_input):
        with network.attach():
            q(x)
            change()
            got = k(x)
        separate = world.network(fuse=False)
        separate.load_state_dict(network.state_dict())
        separate.set_multipliers(unet=network.multipliers["unet"])
        torch.testing.assert_close(got, fresh(k))
    with network.attach():
        with torch.no_grad():
            q(x)
        assert k(x).requires_grad


def test_a_member_called_twice_computes_anew(world, perturb):
    network = perturb(world.network())
    x = torch.randn(2, 4, 8)
    with network.attach():
        first = world.model.attn1_to_q(x)
        first.sum().backward()
        second = world.model.attn1_to_q(x)
        second.sum().backward()  # would be "backward a second time" on a reused product
    assert torch.equal(first, second)


def test_nothing_is_kept_alive(world, perturb):
    network = perturb(world.network())
    x = torch.randn(2, 4, 8)
    seen = weakref.ref(x)
    with network.attach():
        for layer in (world.model.attn1_to_q, world.model.attn1_to_k, world.model.attn1_to_v):
            layer(x)
        del x
        gc.collect()
        assert seen() is None
        world.model.attn1_to_q(torch.randn(2, 4, 8))
    assert all(not shared._products for shared in network._shared)


def test_inference_mode(world, perturb):
    network = perturb(world.network())
    with network.attach():
        expected = world.run()
        with torch.inference_mode():
            assert torch.equal(world.model(world.pixels.clone(), world.embeddings.clone()), expected)
