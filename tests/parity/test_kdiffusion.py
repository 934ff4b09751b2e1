"""Ours against k-diffusion's CompVisDenoiser and CompVisVDenoiser (k_diffusion/external.py, commit 4601bf0).

k-diffusion works in noise levels: it feeds the U-Net (x₀ + sigma·ε)·c_in, and for v its target is
(x₀ - c_skip·x)/c_out. The golden numbers below come from its own code:

    git clone https://github.com/crowsonkb/k-diffusion && git -C k-diffusion checkout 4601bf0
    python tests/parity/test_kdiffusion.py k-diffusion

which imports `k_diffusion.external` (packages that it only uses elsewhere may be missing), runs the toy U-Net and the
inputs of this file through it, checks ours against it element by element, and prints `GOLDEN`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from lib_pivotal.training.objective import Objective, SoftMinSNR
from lib_pivotal.training.schedule import NoiseSchedule, append_dims

TIMESTEPS = torch.tensor([0, 137, 500, 999])

# kind -> the mean of the U-Net's input, the loss, and the mean square of the denoised latents, one a sample
GOLDEN: dict[str, dict[str, list[float]]] = {
    "eps": {
        "input": [0.030089696869254112, 0.0056233215145766735, -0.014171646907925606, 0.011256096884608269],
        "loss": [1.2841132879257202, 0.7665426731109619, 0.22066958248615265, 0.05090915039181709],
        "denoised": [0.5315280556678772, 0.3351624310016632, 0.3880486488342285, 10.5919771194458],
    },
    "v": {
        "input": [0.030089696869254112, 0.0056233215145766735, -0.014171646907925606, 0.011256096884608269],
        "loss": [1.309190273284912, 1.0637065172195435, 0.9188510179519653, 1.1303271055221558],
        "denoised": [0.5306140184402466, 0.22114309668540955, 0.0388493686914444, 0.5305914878845215],
    },
}


def sd_alphas_cumprod() -> Tensor:
    """Stable Diffusion's: betas whose square roots go from √0.00085 to √0.012 in 1000 steps."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return (1 - betas).cumprod(0).float()


def latents_and_noise() -> tuple[Tensor, Tensor]:
    """Two `(4, 4, 6, 5)`, without a random generator, so that they are the same everywhere."""
    grid = torch.arange(4 * 4 * 6 * 5, dtype=torch.float64)
    latents = (grid * 0.7).sin() + 0.3 * (grid * 0.11).cos()
    noise = 1.4 * (grid * 1.9 + 0.5).cos()
    return latents.float().view(4, 4, 6, 5), noise.float().view(4, 4, 6, 5)


def toy_unet(noisy: Tensor, timesteps: Tensor) -> Tensor:
    """Something smooth that depends on both inputs."""
    level = append_dims((timesteps.float() / 300).sin(), noisy.ndim)
    return 0.8 * noisy + 0.2 * level - 0.05 * noisy.square()


def ours(kind: str) -> dict[str, Tensor]:
    schedule = NoiseSchedule(sd_alphas_cumprod(), v_prediction=kind == "v")
    latents, noise = latents_and_noise()
    noisy = schedule.add_noise(latents, noise, TIMESTEPS)
    prediction = toy_unet(noisy, TIMESTEPS)
    a = sd_alphas_cumprod()[TIMESTEPS].to(noisy)[:, None, None, None]
    from_v, from_noise = (
        a.sqrt() * noisy - (1 - a).sqrt() * prediction,
        (noisy - (1 - a).sqrt() * prediction) / a.sqrt(),
    )
    return {
        "input": noisy,
        "loss": Objective()(prediction, schedule.target(latents, noise, TIMESTEPS), TIMESTEPS, schedule),
        "denoised": from_v if kind == "v" else from_noise,
    }


def summary(results: dict[str, Tensor]) -> dict[str, list[float]]:
    return {
        "input": results["input"].flatten(1).mean(1).tolist(),
        "loss": results["loss"].tolist(),
        "denoised": results["denoised"].square().flatten(1).mean(1).tolist(),
    }


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_golden_numbers_of_k_diffusion(kind: str) -> None:
    found = summary(ours(kind))
    for name, values in GOLDEN[kind].items():
        assert found[name] == pytest.approx(values, rel=2e-5, abs=2e-6), name


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_wrapper_formulas_written_independently(kind: str) -> None:
    """The wrapper in float64, from sigma alone (Karras et al. 2022, arXiv 2206.00364, table 1)."""
    a = sd_alphas_cumprod().double()[TIMESTEPS]
    sigma = append_dims(((1 - a) / a) ** 0.5, 4)
    latents, noise = (tensor.double() for tensor in latents_and_noise())
    noised = latents + noise * sigma
    model_input = noised / (sigma**2 + 1) ** 0.5
    prediction = toy_unet(model_input, TIMESTEPS)
    if kind == "eps":
        target, denoised = noise, noised - sigma * prediction
    else:
        c_skip, c_out = 1 / (sigma**2 + 1), -sigma / (sigma**2 + 1) ** 0.5
        target, denoised = (latents - c_skip * noised) / c_out, prediction * c_out + noised * c_skip
    results = ours(kind)
    torch.testing.assert_close(results["input"].double(), model_input, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        results["loss"].double(), (prediction - target).square().flatten(1).mean(1), rtol=5e-6, atol=1e-7
    )
    torch.testing.assert_close(results["denoised"].double(), denoised, rtol=1e-5, atol=2e-5)


def test_sigmas_are_k_diffusions() -> None:
    schedule = NoiseSchedule(sd_alphas_cumprod())
    a = sd_alphas_cumprod().double()
    torch.testing.assert_close(schedule.sigmas.double(), ((1 - a) / a).sqrt(), rtol=1e-6, atol=0)
    assert float(schedule.sigmas[0]) == pytest.approx(0.0292, abs=1e-4)
    assert float(schedule.sigmas[-1]) == pytest.approx(14.6146, abs=1e-3)


def test_soft_min_snr_is_k_diffusions() -> None:
    """k_diffusion/layers.py, `Denoiser._weighting_soft_min_snr`, on its loss (that of v): sigma²/(sigma²+1)², γ = 1."""
    schedule = NoiseSchedule(sd_alphas_cumprod(), v_prediction=True)
    sigma = schedule.sigmas.double()
    theirs = sigma**2 / (sigma**2 + 1) ** 2
    weights = SoftMinSNR(gamma=1.0)(schedule.snr(torch.arange(1000)), v_prediction=True).double()
    torch.testing.assert_close(weights, theirs, rtol=2e-5, atol=0)


# ---- the script ----


class _CompVisModel(torch.nn.Module):
    """What k-diffusion wraps."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("alphas_cumprod", sd_alphas_cumprod())
        self.inputs: list[Tensor] = []

    def apply_model(self, noisy: Tensor, timesteps: Tensor, cond: Any = None) -> Tensor:
        self.inputs.append(noisy)
        return toy_unet(noisy, timesteps)


class _Absent(ModuleType):
    """Stands for a package that is imported but not used."""

    __path__ = ()  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def theirs(kind: str, checkout: Path) -> dict[str, Tensor]:
    """The same dictionary as `ours`, by k-diffusion's code in `checkout`."""
    if "k_diffusion" not in sys.modules:
        package = ModuleType("k_diffusion")  # without its __init__, which imports everything
        package.__path__ = [str(checkout / "k_diffusion")]
        sys.modules["k_diffusion"] = package
    while True:
        try:
            external = importlib.import_module("k_diffusion.external")
            break
        except ModuleNotFoundError as error:  # torchvision and the like, which external.py does not use
            sys.modules[str(error.name)] = _Absent(str(error.name))
    model = _CompVisModel()
    wrapper = {"eps": external.CompVisDenoiser, "v": external.CompVisVDenoiser}[kind](model, quantize=True)
    latents, noise = latents_and_noise()
    sigma = wrapper.sigmas[TIMESTEPS]
    loss = wrapper.loss(latents, noise, sigma, cond=None)
    denoised = wrapper(latents + noise * append_dims(sigma, 4), sigma, cond=None)
    return {"input": model.inputs[0], "loss": loss, "denoised": denoised}


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    for kind in ("eps", "v"):
        reference, found = theirs(kind, Path(sys.argv[1])), ours(kind)
        for name, tensor in reference.items():
            print(f"# {kind} {name}: largest difference {float((tensor - found[name]).abs().max()):.2e}")
        print(f'GOLDEN["{kind}"] = {summary(reference)}')


if __name__ == "__main__":
    main()
