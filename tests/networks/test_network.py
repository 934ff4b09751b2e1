"""The battery that every algorithm passes, on linear layers and convolutions and in every type."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.adapter import layer_weight
from lib_pivotal.networks.network import Network, build_network
from lib_pivotal.networks.registry import ALGORITHMS
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Layer
from tests.networks.battery import ROWS

pytestmark = pytest.mark.usefixtures("either_path")

KINDS = {"linear": "attn|ff|self_attn", "conv": "conv_in|down|conv_out", "everything": ""}
# type -> largest allowed difference, relative to the largest output
TYPES = {torch.float32: 2e-6, torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float64: 1e-6}


def fits(row, kind):
    """Whether the kind takes layers of this sort; norms are only among everything."""
    taken = ALGORITHMS[row.algorithm].layers
    return kind == "everything" or kind in taken


CASES = [(name, kind, dtype) for name in ROWS for kind in KINDS for dtype in TYPES if fits(ROWS[name], kind)]


def weight_delta(network, layer_name):
    """`ΔW` of one layer at multiplier 1, in its weight's shape."""
    adapter = network._entry(layer_name).adapter
    return adapter.delta(layer_weight(adapter.layer))


def difference(a, b):
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


@pytest.mark.parametrize(("name", "kind", "dtype"), CASES)
def test_battery(make_world, perturb, name, kind, dtype):
    """Bare at first; changed when perturbed; forward == merged; unmerged and detached == bare, bit for bit."""
    world = make_world(dtype)
    bare = world.run()
    before = {name: tensor.clone() for name, tensor in world.model.state_dict().items()}
    network = world.network(name, pattern=KINDS[kind])
    with network.attach():
        assert difference(world.run(), bare) == 0
    perturb(network, std=ROWS[name].std)
    with network.attach():
        changed = world.run()
        with network.merged():
            merged = world.run()
        again = world.run()
    assert changed.dtype == dtype
    assert difference(changed, bare) > 0.05
    assert difference(changed, merged) < TYPES[dtype] * ROWS[name].exact
    assert torch.equal(again, changed)
    assert torch.equal(world.run(), bare)
    assert all(torch.equal(tensor, before[name]) for name, tensor in world.model.state_dict().items())


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_save_and_load_are_bit_equal(world, perturb, name, dtype):
    network = perturb(world.network(name))
    tensors = network.kohya_tensors(dtype)
    assert all(tensor.dtype == dtype and tensor.is_contiguous() for tensor in tensors.values())
    read = Network.from_kohya(world.layers, tensors)
    assert read.unmatched == ()
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in read.kohya_tensors(dtype).items())
    if dtype == torch.float32:
        with network.attach():
            expected = world.run()
        with read.attach():  # another kind may round otherwise
            assert difference(world.run(), expected) <= (1e-6 if ROWS[name].file_of else 0)


def test_every_algorithm_has_its_row():
    assert {row.algorithm for row in ROWS.values()} == set(ALGORITHMS)


def test_saved_tensors_are_copies(world, perturb):
    network = world.network()
    tensors = network.kohya_tensors()
    before = {key: tensor.clone() for key, tensor in tensors.items()}
    perturb(network)
    assert all(torch.equal(tensor, before[key]) for key, tensor in tensors.items())


def test_kohya_layout(world):
    tensors = world.network("dora").kohya_tensors()
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    assert shapes["lora_unet_down.lora_down.weight"] == (3, 8, 3, 3)
    assert shapes["lora_unet_down.lora_up.weight"] == (8, 3, 1, 1)
    assert shapes["lora_unet_down.dora_scale"] == (1, 8, 1, 1)
    assert shapes["lora_unet_attn2_to_k.lora_down.weight"] == (3, 6)
    assert shapes["lora_unet_attn2_to_k.dora_scale"] == (1, 6)
    assert shapes["lora_unet_down.alpha"] == ()
    assert tensors["lora_unet_down.alpha"].item() == 2.0


def test_from_kohya_reports_what_it_cannot_use(world, perturb):
    tensors = perturb(world.network(pattern="unet_ff$|attn1_to_q")).kohya_tensors()
    tensors["lora_unet_elsewhere.lora_up.weight"] = torch.zeros(2, 2)
    tensors["bundle_emb.word.string_to_param.*"] = torch.zeros(1, 6)
    tensors["lora_unet_attn1_to_q.lora_mid.weight"] = torch.zeros(3, 3)
    network = Network.from_kohya(world.layers, tensors)
    assert network.layer_names == ("lora_unet_ff",)
    assert set(network.unmatched) == {key for key in tensors if not key.startswith("lora_unet_ff")}


def test_from_kohya_takes_rank_and_alpha_of_each_layer(world):
    tensors = {
        "lora_unet_ff.lora_down.weight": torch.ones(2, 8, 1, 1),  # a 1×1 convolution's shape on a linear layer
        "lora_unet_ff.lora_up.weight": torch.ones(8, 2, 1, 1),
        "lora_unet_ff.alpha": torch.tensor(0.5),
        "lora_unet_attn1_to_v.lora_down.weight": torch.ones(5, 8),
        "lora_unet_attn1_to_v.lora_up.weight": torch.ones(8, 5),
    }
    network = Network.from_kohya(world.layers, tensors)
    assert torch.equal(weight_delta(network, "lora_unet_ff"), torch.full((8, 8), 2 * 0.5 / 2))
    # no alpha: the scale is 1, as in the web UI
    assert torch.equal(weight_delta(network, "lora_unet_attn1_to_v"), torch.full((8, 8), 5.0))


@pytest.mark.parametrize("name", ROWS)
def test_gradient_only_in_the_adapter(world, perturb, name):
    network = perturb(world.network(name))
    with network.attach():
        world.run().square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in network.parameters())
    assert all(parameter.grad is None for parameter in world.model.parameters())
    assert all(parameter.dtype == torch.float32 and parameter.is_leaf for parameter in network.parameters())


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointed_equals_plain(world, perturb, name, reentrant, dropout):
    """Outputs and gradients, dropout's masks included, whether or not the inputs require a gradient."""
    network = perturb(world.network(name, dropout=dropout, rank_dropout=dropout))
    model = world.model

    def gradients(checkpointed):
        for parameter in network.parameters():
            parameter.grad = None
        embeddings = world.embeddings.clone().requires_grad_()
        torch.manual_seed(3)
        context = model.encode(embeddings)
        x = torch.tanh(model.conv_in(world.pixels)).flatten(2).transpose(1, 2)
        for _ in range(2):
            x = (
                checkpoint(model.middle, x, context, use_reentrant=reentrant)
                if checkpointed
                else model.middle(x, context)
            )
        loss = x.square().sum()
        loss.backward()
        used = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
        return [loss.detach(), embeddings.grad.clone(), *used]

    with network.attach():
        plain, checkpointed = gradients(False), gradients(True)
    assert len(plain) == len(checkpointed) > (7 if name == "norm" else 10)
    for a, b in zip(plain, checkpointed, strict=True):
        assert difference(a, b) < 1e-5


@pytest.mark.parametrize("name", ROWS)
def test_a_part_at_zero_is_bare_and_free(world, perturb, name):
    network = perturb(world.network(name))
    bare = world.run()
    with network.attach():
        whole = world.run()
        with network.with_multipliers(unet=0.0, te=0.0):
            assert torch.equal(world.run(), bare)
            assert hooks(world) == 0
        with network.with_multipliers(te=0.0):
            unet_only = world.run()
            assert not any(hooks_of(layer) for layer in world.layers if layer.part == "te")
        network.set_multipliers(unet=0.0)
        te_only = world.run()
        network.set_multipliers()
        assert torch.equal(world.run(), whole)
    assert hooks(world) == 0
    outputs = [bare, whole, unet_only, te_only]
    assert not any(torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])


@pytest.mark.parametrize("name", ROWS)
def test_layers_that_rest_are_bare(world, perturb, name):
    """As the network without them, loaded from a file that lacks their keys; some of a fused group among them."""
    network = perturb(world.network(name))
    resting = network.layer_names[::2]
    rest = tuple(f"{layer}." for layer in resting)
    kept = {key: tensor for key, tensor in network.kohya_tensors().items() if not key.startswith(rest)}
    others = Network.from_kohya(world.layers, kept)
    with others.attach():
        expected = world.run()
    with network.attach():
        whole = world.run()
        with network.without(resting):
            assert not any(hooks_of(layer) for layer in world.layers if layer.name in resting)
            found = world.run()
            found.square().sum().backward()
        assert torch.equal(world.run(), whole) and not torch.equal(whole, found)
    assert difference(found, expected) < 1e-6
    trained = {
        layer
        for layer, adapter in network.adapters.items()
        if any(parameter.grad is not None for parameter in adapter.parameters())
    }
    assert trained == set(network.layer_names) - set(resting)
    assert hooks(world) == 0


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("pattern", KINDS.values(), ids=KINDS)
def test_alpha_and_multiplier_scale_linearly(world, perturb, name, pattern):
    """On one layer at a time the change of the output is linear in the multiplier, and in alpha where there is one."""
    for layer in world.layers:
        taken = layer.kind in ALGORITHMS[ROWS[name].algorithm].layers
        if not taken or not LayerRule(pattern, 1, 1.0).matches(layer.name):
            continue
        x = input_of(layer)
        bare = layer.module(x)
        changes = []
        for alpha, multiplier in ((2.0, 1.0), (4.0, 1.0), (2.0, -0.5)):
            network = perturb(world.network(name, pattern=f"^{layer.name}$", alpha=alpha))
            network.set_multipliers(unet=multiplier, te=multiplier)
            with network.attach():
                changes.append(layer.module(x) - bare)
        if (factor := ROWS[name].alpha_factor) is not None:
            torch.testing.assert_close(changes[1], factor * changes[0], rtol=1e-4, atol=2e-6)
        torch.testing.assert_close(changes[2], -0.5 * changes[0], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", ROWS)
def test_gradients_are_those_of_the_finite_differences(make_world, perturb, name):
    """In fp64, of the loss to every trained tensor and to the input, along one direction at random in each."""
    if not ROWS[name].whole_gradient:
        pytest.skip("its own tests compare with autograd, the constant held")
    world = make_world(torch.float64)
    network = perturb(world.network(name)).double()
    world.embeddings.requires_grad_()
    leaves = [*network.parameters(), world.embeddings]
    with network.attach():
        found = torch.autograd.grad(world.run().square().sum(), leaves)
        for leaf, gradient in zip(leaves, found, strict=True):
            direction = torch.randn(leaf.shape, dtype=torch.float64)
            with torch.no_grad():
                losses = []
                for step in (1e-5, -1e-5):
                    leaf.add_(direction, alpha=step)
                    losses.append(world.run().square().sum())
                    leaf.sub_(direction, alpha=step)
            slope = (losses[0] - losses[1]) / 2e-5
            torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ROWS)
def test_dropout_is_drawn_from_the_global_generator(world, perturb, name):
    """Dropout draws from the global generator: the same seed, the same masks; another, others."""
    network = perturb(world.network(name, dropout=0.4, rank_dropout=0.4))
    if not ALGORITHMS[ROWS[name].algorithm].common & {"dropout", "rank_dropout"}:
        pytest.skip("has no dropout")
    outputs = []
    with network.attach():
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            outputs.append(world.run())
        network.eval()
        torch.manual_seed(1)
        without = world.run()
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2]) and not torch.equal(outputs[0], without)


@pytest.mark.parametrize("name", ROWS)
def test_max_norm_of_every_kind(world, perturb, name):
    """No layer's change is larger than the limit afterwards; those that were smaller stay."""
    network = perturb(world.network(name))
    norms = {layer: weight_delta(network, layer).norm().item() for layer in network.layer_names}
    limit = sorted(norms.values())[len(norms) // 2] * 1.0001
    if not ROWS[name].limits_change:
        pytest.skip("its limit is that of its factors")
    assert network.apply_max_norm(limit) == sum(norm > limit for norm in norms.values())
    for layer, norm in norms.items():
        assert weight_delta(network, layer).norm().item() == pytest.approx(min(norm, limit), rel=1e-4)


@pytest.mark.parametrize("name", ROWS)
def test_a_step_without_numbers(make_world, name):
    """As the pre-flight counts memory: nothing depends on a value."""
    world = make_world()
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = world.network(name, rank_dropout=0.1).train()
        with network.attach():
            world.run().sum().backward()


def test_the_log_tells_in_which_way_each_layer_runs(world, caplog):
    """Once a layer, at debug level: a LoHa of rank 2 by its factors, of rank 6 rebuilt; and what its cost says."""
    for rank, way in ((1, "by its factors"), (6, "rebuilt")):
        network = world.network("loha", pattern="unet_ff$", rank=rank)
        with caplog.at_level("DEBUG", "lib_pivotal.networks.network"), network.attach():
            world.run(), world.run()
        (line,) = [record.getMessage() for record in caplog.records]
        (cost,) = network.costs({"lora_unet_ff": 18}).values()
        told = f"lora_unet_ff: {way}, 18 tokens, {cost.multiplications / 18:.0f} multiplications a token"
        assert line == told and not hooks(world)
        caplog.clear()


@pytest.mark.parametrize("name", ROWS)
def test_costs_grow_with_the_tokens(world, name):
    network = world.network(name)
    few, many = (network.costs(dict.fromkeys(network.layer_names, tokens)) for tokens in (10, 1000))
    trained = sum(parameter.numel() for parameter in network.parameters())
    assert sum(cost.parameters for cost in few.values()) == trained
    assert all(few[layer].multiplications < many[layer].multiplications for layer in few)
    assert all(few[layer].kept < many[layer].kept for layer in few)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("multiplier", [0.3, -1.0, 2.0])
def test_merged_equals_forward_at_any_multiplier(world, perturb, name, multiplier):
    network = perturb(world.network(name))
    network.set_multipliers(unet=multiplier, te=0.5)
    with network.attach():
        forward = world.run()
    with network.merged():
        assert difference(world.run(), forward) < 3e-6
        # switching while merged merges anew from the kept originals
        network.set_multipliers(unet=0.0, te=0.0)
        bare = world.run()
    assert torch.equal(world.run(), bare)


@pytest.mark.parametrize("name", ROWS)
def test_hooks_come_off_after_an_exception(world, perturb, name):
    network = perturb(world.network(name))
    bare = world.run()
    with pytest.raises(RuntimeError), network.attach(), network.with_multipliers(unet=0.5):
        world.model(torch.randn(1, 7, 6, 6), world.embeddings)
    assert hooks(world) == 0
    assert network.multipliers == {"unet": 1.0, "te": 1.0, "te2": 1.0}
    with pytest.raises(ZeroDivisionError), network.merged():
        _ = 1 / 0
    assert torch.equal(world.run(), bare)


@pytest.mark.parametrize("name", ROWS)
def test_autocast(world, perturb, name):
    """fp32 weights under bf16 autocast: outputs of autocast's type, gradients fp32 and close to the exact ones."""
    network = perturb(world.network(name))
    with network.attach():
        world.run().square().sum().backward()
        exact = [parameter.grad.clone() for parameter in network.parameters()]
        for parameter in network.parameters():
            parameter.grad = None
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = world.run()
        output.float().square().sum().backward()
    assert output.dtype == torch.bfloat16
    for parameter, grad in zip(network.parameters(), exact, strict=True):
        assert parameter.grad.dtype == torch.float32
        assert (parameter.grad - grad).norm() < 0.15 * grad.norm()


def test_dropout_only_in_training_mode(world, perturb):
    plain, dropping = (perturb(world.network(dropout=p, rank_dropout=p)) for p in (0.0, 0.4))
    with plain.attach():
        expected = world.run()
    with dropping.attach():
        assert not torch.allclose(world.run(), expected)
        dropping.eval()
        assert torch.equal(world.run(), expected)


def test_groups_and_rates(world):
    rules = [
        LayerRule("attn1", rank=2, alpha=1.0, lr_factor=3.0, group="self"),
        LayerRule("conv_out", rank=0, alpha=0.0),
        LayerRule("conv", rank=1, alpha=1.0, lr_factor=0.5),
        LayerRule("", rank=4, alpha=4.0),
    ]
    network = build_network(world.layers, rules, seed=0, device="cpu")
    groups = {group.name: group for group in network.parameter_groups()}
    assert list(groups) == ["te", "unet ×0.5", "unet ×1", "unet/self"]
    assert groups["unet/self"].lr_factor == 3.0
    assert groups["te"].part == "te"
    assert "lora_unet_conv_out" not in network.layer_names
    assert network.spec("lora_unet_attn1_to_q").rank == 2
    assert network.parts == {"unet", "te"}
    listed = [id(parameter) for group in groups.values() for parameter in group.parameters]
    assert sorted(listed) == sorted(id(parameter) for parameter in network.parameters())


UPS = {"lora": {"up"}, "dora": {"up"}, "dylora": {"up"}, "glora": {"a2", "b2"}}
"""What LoRA+ is defined for: of a product up · down, `up`."""


@pytest.mark.parametrize("name", ROWS)
def test_lora_plus(world, name):
    """The up factors are a group at a higher rate, where a kind has them; the others are as without it."""
    row = ROWS[name]
    rules = [LayerRule("attn1", rank=row.rank, alpha=1.0, lr_factor=3.0, group="self"), LayerRule("", row.rank, 1.0)]
    made = {
        factor: build_network(
            world.layers,
            rules,
            algorithm=row.algorithm,
            options=row.options,
            up_lr_factor=factor,
            seed=0,
            device="cpu",
        )
        for factor in (1.0, 8.0)
    }
    plain, plus = (
        {id(p): group.lr_factor for group in network.parameter_groups() for p in group.parameters}
        for network in made.values()
    )
    names = {id(p): key.rpartition(".")[2] for key, p in made[8.0].named_parameters()}
    before = dict(zip(names, (plain[id(p)] for p in made[1.0].parameters()), strict=True))
    assert names.keys() == plus.keys()
    for parameter, factor in plus.items():
        is_up = names[parameter] in UPS.get(row.algorithm, set())
        assert factor == before[parameter] * (8.0 if is_up else 1.0)
    assert ("up_lr_factor" in ALGORITHMS[row.algorithm].common) == (row.algorithm in UPS)


MAX_NORM_OF_THE_CHANGE = {"lora", "loha", "lokr", "glora", "dylora", "ia3", "full", "norm"}


def test_of_which_kinds_max_norm_limits_the_change():
    """Of DoRA it limits the factors' product, of rotations the blocks; PiSSA and OLoRA go back towards their start."""
    started = {"pissa", "olora"}
    plain = {row.algorithm for row in ROWS.values() if row.limits_change}
    assert plain == MAX_NORM_OF_THE_CHANGE
    others = {name for name, row in ROWS.items() if not row.limits_change} - started
    assert all("dora" in name or ROWS[name].algorithm in ("oft", "boft") for name in others)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.limits_change])
def test_max_norm_where_it_is_not_of_the_change(world, perturb, name):
    """A limit above everything leaves all as it is; a small one makes every layer's numbers smaller, none larger."""
    network = perturb(world.network(name), std=ROWS[name].std)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    assert network.apply_max_norm(1e6) == 0
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert network.apply_max_norm(0.05) == len(network.layer_names)
    assert network.apply_max_norm(0.0501) == 0


def test_same_seed_same_start(world):
    a, b, c = (build_network(world.layers, [LayerRule("", 2, 1.0)], seed=s, device="cpu") for s in (1, 1, 2))
    torch.manual_seed(99)  # the global generator has no say
    key = "lora_unet_ff.lora_down.weight"
    assert torch.equal(a.kohya_tensors()[key], b.kohya_tensors()[key])
    assert not torch.equal(a.kohya_tensors()[key], c.kohya_tensors()[key])
    assert a.kohya_tensors()[key].abs().max() <= 8**-0.5


def test_max_norm(world, perturb):
    network = perturb(world.network())
    norms = {name: weight_delta(network, name).norm().item() for name in network.layer_names}
    limit = sorted(norms.values())[4]
    assert network.apply_max_norm(limit * 1.0001) == sum(norm > limit for norm in norms.values())
    for name, norm in norms.items():
        assert weight_delta(network, name).norm().item() == pytest.approx(min(norm, limit * 1.0001), rel=1e-4)
    with pytest.raises(NetworkError, match="must be above 0"):
        network.apply_max_norm(0.0)


def test_misuse_is_told(world):
    network = world.network()
    with network.attach(), pytest.raises(NetworkError, match="attached already"), network.attach():
        pass
    with network.merged(), pytest.raises(NetworkError, match="merged already"):
        network.merge()
    with pytest.raises(NetworkError, match="no adapter there"):
        network.spec("lora_unet_nowhere")
    with pytest.raises(NetworkError, match="Widen the rules"):
        world.network(pattern="nowhere")
    with pytest.raises(NetworkError, match="named twice"):
        build_network([*world.layers, world.layers[0]], [LayerRule("", 1, 1.0)], seed=0, device="cpu")
    grouped = Layer("lora_unet_grouped", "unet", "conv", torch.nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(NetworkError, match="groups=2"):
        build_network([grouped], [LayerRule("", 1, 1.0)], seed=0, device="cpu")


def input_of(layer):
    """What the layer takes: two samples of 4 tokens, or of 6×6 pixels."""
    if layer.kind == "conv":
        return torch.randn(2, layer.module.in_channels, 6, 6)
    if layer.kind == "linear":
        return torch.randn(2, 4, layer.module.in_features)
    width = layer.module.weight.shape[0]
    return torch.randn(2, width, 6, 6) if isinstance(layer.module, torch.nn.GroupNorm) else torch.randn(2, 4, width)


def hooks_of(layer):
    return len(layer.module._forward_hooks) + len(layer.module._forward_pre_hooks)


def hooks(world):
    return sum(hooks_of(layer) for layer in world.layers)
