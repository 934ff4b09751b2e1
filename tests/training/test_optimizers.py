"""lib_pivotal/training/optimizers.py: steps against the papers' formulas, resume, modes, clipping, sizes."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import math
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib_pivotal.errors import TrainingError
from lib_pivotal.parameter_groups import ParameterGroup
from lib_pivotal.training import optimizers
from lib_pivotal.training.optimizers import (
    OPTIMIZERS,
    build_optimizer,
    clip_groups,
    evaluation_mode,
    gradient_norm,
    option_names,
    state_bytes,
    state_bytes_by_group,
    training_mode,
)

USABLE = [name for name, kind in optimizers.OPTIMIZERS.items() if not optimizers._unavailable(kind)]


def parameters(count: int = 3) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(5, 4, generator=generator)) for _ in range(count)]


def set_gradients(trained: Iterable[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in trained:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def groups_of(trained: list[nn.Parameter]) -> list[ParameterGroup]:
    return [
        ParameterGroup("words", trained[:1], lr=1e-2, weight_decay=0.01),
        ParameterGroup("unet", trained[1:], lr=1e-3, lr_factor=0.5),
    ]


def test_adamw_is_the_papers_formula() -> None:
    """Loshchilov & Hutter 2019, algorithm 2, in float64, three steps; the fused kernel agrees to float32."""
    trained = parameters()
    optimizer = build_optimizer("adamw", groups_of(trained), options={"betas": (0.8, 0.95), "eps": 1e-6})
    expected = [parameter.detach().double().clone() for parameter in trained]
    first, second = ([torch.zeros_like(e) for e in expected] for _ in range(2))
    for step in range(1, 4):
        set_gradients(trained, step)
        for index, parameter in enumerate(trained):
            lr, decay = (1e-2, 0.01) if index == 0 else (5e-4, 0.0)
            gradient = parameter.grad.double()  # type: ignore[union-attr]
            first[index] = 0.8 * first[index] + 0.2 * gradient
            second[index] = 0.95 * second[index] + 0.05 * gradient**2
            corrected = first[index] / (1 - 0.8**step)
            root = (second[index] / (1 - 0.95**step)).sqrt() + 1e-6
            expected[index] = expected[index] * (1 - lr * decay) - lr * corrected / root
        optimizer.step()
    for parameter, value in zip(trained, expected, strict=True):
        torch.testing.assert_close(parameter.detach().double(), value, rtol=1e-5, atol=1e-6)


def test_lion_is_the_papers_formula() -> None:
    """Chen et al. 2023, algorithm 2."""
    trained = parameters()
    optimizer = build_optimizer("lion", groups_of(trained))
    expected = [parameter.detach().double().clone() for parameter in trained]
    momenta = [torch.zeros_like(e) for e in expected]
    for step in range(1, 6):
        set_gradients(trained, step)
        for index, parameter in enumerate(trained):
            lr, decay = (1e-2, 0.01) if index == 0 else (5e-4, 0.0)
            gradient = parameter.grad.double()  # type: ignore[union-attr]
            direction = (0.9 * momenta[index] + 0.1 * gradient).sign()
            expected[index] = expected[index] - lr * (direction + decay * expected[index])
            momenta[index] = 0.99 * momenta[index] + 0.01 * gradient
        optimizer.step()
    for parameter, value in zip(trained, expected, strict=True):
        torch.testing.assert_close(parameter.detach().double(), value, rtol=1e-5, atol=1e-6)


def test_lion_takes_a_closure_and_skips_what_has_no_gradient() -> None:
    trained = parameters(2)
    optimizer = build_optimizer("lion", groups_of(trained))
    before = trained[1].detach().clone()

    def closure() -> float:
        loss = trained[0].square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == pytest.approx(float(closure()), rel=0.2)
    assert torch.equal(trained[1].detach(), before)


@pytest.mark.parametrize("name", USABLE)
def test_every_usable_optimiser_descends(name: str) -> None:
    target = torch.linspace(-1, 1, 20).view(5, 4)
    trained = parameters(1)
    lr = 1.0 if name == "prodigy" else 2e-2
    optimizer = build_optimizer(name, [ParameterGroup("words", trained, lr)])
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = (trained[0] - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("name", USABLE)
def test_resume_is_bit_exact(name: str) -> None:
    def run(trained: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            set_gradients(trained, step)
            optimizer.step()

    rates = {"lr": 1.0} if name == "prodigy" else {"lr": 1e-2}
    whole = parameters()
    optimizer = build_optimizer(name, [ParameterGroup("words", whole, **rates)])
    run(whole, optimizer, range(10))
    saved = copy.deepcopy((optimizer.state_dict(), [parameter.detach() for parameter in whole]))
    run(whole, optimizer, range(10, 20))

    resumed = [nn.Parameter(value.clone()) for value in saved[1]]
    again = build_optimizer(name, [ParameterGroup("words", resumed, **rates)])
    again.load_state_dict(saved[0])
    run(resumed, again, range(10, 20))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    assert again.param_groups[0]["name"] == "words" and again.param_groups[0]["base_lr"] == rates["lr"]


def test_fused_adamw_is_chosen_where_torch_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"params": parameters()}]
    monkeypatch.setattr(torch, "__version__", "2.1.2+cpu")
    assert optimizers._fast_adamw(records) == {}
    monkeypatch.setattr(torch, "__version__", "2.4.0a0+git123")
    assert optimizers._fast_adamw(records) == {"fused": True}


def test_what_is_missing_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("adamw", "lion"):
        build_optimizer(name, groups_of(parameters()))
    for name, package in [("prodigy", "prodigyopt"), ("schedule_free", "schedulefree"), ("adamw8bit", "bitsandbytes")]:
        with pytest.raises(TrainingError, match=f"`pip install {package}`.*choose AdamW"):
            build_optimizer(name, groups_of(parameters()))
        with pytest.raises(TrainingError, match=f"needs the package {package}, which is not installed"):
            build_optimizer(name, groups_of(parameters()))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="^AdamW8bit needs a CUDA GPU, and torch sees none: choose AdamW$"):
        build_optimizer("adamw8bit", groups_of(parameters()))


def test_faults_are_named() -> None:
    with pytest.raises(TrainingError, match="optimiser 'sgd' is unknown: one of adamw"):
        build_optimizer("sgd", groups_of(parameters()))
    with pytest.raises(TrainingError, match="every parameter group is empty"):
        build_optimizer("adamw", [ParameterGroup("words", [], 1e-3)])
    with pytest.raises(TrainingError, match="learning rate -1 of 'words'"):
        build_optimizer("adamw", [ParameterGroup("words", parameters(), -1)])
    with pytest.raises(TrainingError, match=r"AdamW refuses its settings .*momentum"):
        build_optimizer("adamw", groups_of(parameters()), options={"momentum": 0.9})
    with pytest.raises(TrainingError, match="AdamW refuses its settings"):
        build_optimizer("adamw", groups_of(parameters()), options={"betas": (1.5, 0.9)})
    with pytest.raises(TrainingError, match="Prodigy finds one step size"):
        optimizers._prodigy([{"lr": 1.0}, {"lr": 0.5}, {"lr": 0.0}], {})


def test_packages_are_given_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class that is looked up where, and its arguments; the real packages run through the battery if installed."""
    asked: dict[str, dict[str, Any]] = {}

    def record(module: str) -> Any:
        def constructor(records: list[dict[str, Any]], **arguments: Any) -> torch.optim.Optimizer:
            asked[module] = arguments
            return torch.optim.SGD(records)

        return SimpleNamespace(
            AdamW8bit=constructor, Prodigy=constructor, AdamWScheduleFree=constructor, Adafactor=constructor
        )

    monkeypatch.setattr(importlib, "import_module", record)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("adamw8bit", "prodigy", "schedule_free", "adafactor"):
        group = ParameterGroup("words", parameters(), lr=1.0)
        build_optimizer(name, [group], options={"betas": (0.8, 0.9), "extra": 1})
    plain = {"betas": (0.8, 0.9), "extra": 1}
    assert asked == {
        "bitsandbytes.optim": plain,
        "prodigyopt": plain,
        "schedulefree": plain,
        "transformers.optimization": {
            "relative_step": False,
            "scale_parameter": False,
            "warmup_init": False,
            **plain,
        },
    }


# ---- modes ----


class TwoWeights(torch.optim.SGD):
    """Schedule-free's protocol with its arithmetic: eval() and train() compute one set of weights from the other."""

    def __init__(self, trained: list[nn.Parameter]) -> None:
        super().__init__(trained, lr=0.1)
        self.others = [parameter.detach().cos() for parameter in trained]
        self.mode = "train"

    @torch.no_grad()
    def eval(self) -> None:
        if self.mode == "train":
            for parameter, other in zip(self.param_groups[0]["params"], self.others, strict=True):
                parameter.lerp_(other, 1 - 1 / 0.9)
        self.mode = "eval"

    @torch.no_grad()
    def train(self) -> None:
        if self.mode == "eval":
            for parameter, other in zip(self.param_groups[0]["params"], self.others, strict=True):
                parameter.lerp_(other, 1 - 0.9)
        self.mode = "train"


def test_evaluation_mode_gives_the_training_weights_back_exactly() -> None:
    trained = parameters()
    optimizer = TwoWeights(trained)
    before = [parameter.detach().clone() for parameter in trained]
    optimizer.eval()
    optimizer.train()
    assert any(not torch.equal(a, b) for a, b in zip(trained, before, strict=True)), "the stand-in must round"
    before = [parameter.detach().clone() for parameter in trained]
    with pytest.raises(KeyError), evaluation_mode(optimizer):
        assert optimizer.mode == "eval"
        assert not torch.equal(trained[0], before[0])
        raise KeyError
    assert optimizer.mode == "train"
    assert all(torch.equal(a, b) for a, b in zip(trained, before, strict=True))


def test_training_mode_is_restored() -> None:
    optimizer = TwoWeights(parameters())
    optimizer.eval()
    training_mode(optimizer)
    assert optimizer.mode == "train"


def test_modes_do_nothing_for_other_optimisers() -> None:
    trained = parameters()
    optimizer = build_optimizer("adamw", groups_of(trained))
    training_mode(optimizer)
    before = trained[0].detach().clone()
    with evaluation_mode(optimizer):
        assert torch.equal(trained[0], before)


# ---- clipping and sizes ----


def test_clipping_is_torchs_by_group() -> None:
    trained, others = parameters(), parameters()
    for each in (trained, others):
        set_gradients(each, 7)
    optimizer = build_optimizer("adamw", groups_of(trained))
    norms = clip_groups(optimizer.param_groups, {"words": 0.5, "unet": 1e3})
    theirs = torch.nn.utils.clip_grad_norm_(others[:1], 0.5), torch.nn.utils.clip_grad_norm_(others[1:], 1e3)
    assert float(norms["words"]) == pytest.approx(float(theirs[0]), rel=1e-6)
    assert float(norms["unet"]) == pytest.approx(float(theirs[1]), rel=1e-6)
    for ours, other in zip(trained, others, strict=True):
        torch.testing.assert_close(ours.grad, other.grad, rtol=1e-6, atol=1e-7)
    assert float(gradient_norm([trained[0].grad])) == pytest.approx(0.5, rel=1e-4)  # type: ignore[list-item]


def test_groups_of_one_name_share_a_limit_and_no_limit_means_none() -> None:
    trained = parameters(2)
    set_gradients(trained, 3)
    before = [parameter.grad.clone() for parameter in trained]  # type: ignore[union-attr]
    records: list[dict[str, Any]] = [{"name": "words", "params": [parameter]} for parameter in trained]
    total = math.sqrt(sum(float(gradient.square().sum()) for gradient in before))
    for limits in (None, 0.0, {}, {"unet": 1.0}):
        assert float(clip_groups(records, limits)["words"]) == pytest.approx(total)
        assert all(torch.equal(p.grad, b) for p, b in zip(trained, before, strict=True))  # type: ignore[arg-type]
    clip_groups(records, 1.0)
    for parameter, gradient in zip(trained, before, strict=True):
        torch.testing.assert_close(parameter.grad, gradient / total, rtol=1e-5, atol=1e-7)
    assert float(clip_groups([{"name": "te", "params": parameters()}], 1.0)["te"]) == 0.0


def test_non_finite_norms_are_reported() -> None:
    trained = parameters(1)
    trained[0].grad = torch.full((5, 4), math.inf)
    norms = clip_groups([{"name": "words", "params": trained}], 1.0)
    assert not math.isfinite(float(norms["words"]))
    assert not bool(torch.isfinite(trained[0].grad).all())


def test_state_bytes_are_two_momenta_a_weight() -> None:
    trained = parameters()
    optimizer = build_optimizer("adamw", groups_of(trained))
    assert state_bytes(optimizer) == 0
    set_gradients(trained, 0)
    optimizer.step()
    assert state_bytes(optimizer) == 3 * (2 * 20 * 4 + 4)  # and a step count of 4 bytes a tensor
    assert state_bytes_by_group(optimizer) == {"words": 164, "unet": 328}
    lion = build_optimizer("lion", groups_of(trained))
    lion.step()
    assert state_bytes(lion) == 3 * 20 * 4


def test_nested_state_is_counted() -> None:
    value: dict[str, Any] = {"a": [torch.zeros(3), (torch.zeros(2, dtype=torch.uint8), 5)], "b": {"c": Tensor()}}
    assert optimizers._tensor_bytes(value) == 14


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("adamw8bit",)])
def test_every_option_is_one_of_the_constructors(name):
    """By the constructor's own signature; where the package is not here, nothing can be asked."""
    groups = [ParameterGroup("a", [torch.nn.Parameter(torch.ones(2))], lr=1.0)]
    try:
        optimizer = build_optimizer(name, groups)
    except TrainingError as error:
        pytest.skip(str(error))
    known = inspect.signature(type(optimizer).__init__).parameters
    assert option_names(name) and set(option_names(name)) <= set(known)
