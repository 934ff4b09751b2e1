"""Makes `sampling.safetensors`: latents that k-diffusion and the web UI v1.10.1 arrive at with a formula as the U-Net.

Runs k-diffusion's own wrappers and samplers, and `ImageRNG` and `combine_denoised` cut out of the web UI's files:

    PYTHONPATH=. <web UI>/venv/bin/python tests/golden/make_sampling.py <web UI>
"""

import ast
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.golden.sampling_case import CASES, SEEDS, SHAPE, alphas_cumprod, contexts, formula

HERE = Path(__file__).parent


def cut_out(path: Path, names: set[str], scope: dict) -> dict:
    """Executes the classes and functions of these names, which may be methods."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    body = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in names]
    exec(compile(ast.Module(body, []), str(path), "exec"), scope)
    return scope


def main(root: Path) -> None:
    sys.path.insert(0, str(root / "repositories" / "k-diffusion"))
    from k_diffusion import external, sampling

    device = torch.device("cpu")
    scope = {
        "torch": torch,
        "devices": types.SimpleNamespace(device=device, cpu=device),
        "shared": types.SimpleNamespace(
            device=device, opts=types.SimpleNamespace(randn_source="CPU", eta_noise_seed_delta=0)
        ),
    }
    wanted = {"ImageRNG", "randn", "randn_without_seed", "create_generator", "manual_seed"}
    cut_out(root / "modules" / "rng.py", wanted, scope)
    combine = cut_out(root / "modules" / "sd_samplers_cfg_denoiser.py", {"combine_denoised"}, {"torch": torch})
    results = {}
    for name, (sampler, v_prediction, scale, steps) in CASES.items():
        model = types.SimpleNamespace(
            alphas_cumprod=alphas_cumprod(), apply_model=lambda x, t, cond: formula(x, t, cond)
        )
        wrapper = external.CompVisVDenoiser if v_prediction else external.CompVisDenoiser
        wrapped = wrapper(model, quantize=False)
        positive, negative = contexts()

        def denoise(x, sigma, wrapped=wrapped, positive=positive, negative=negative, scale=scale):
            out = wrapped(torch.cat([x, x]), torch.cat([sigma, sigma]), cond=torch.cat([positive, negative]))
            pairs = [[(index, 1.0)] for index in range(len(x))]
            return combine["combine_denoised"](None, out, pairs, negative, scale)

        noise = scope["ImageRNG"](SHAPE, SEEDS)
        sampling.torch = types.SimpleNamespace(**{**vars(torch), "randn_like": lambda x, noise=noise: noise.next()})
        sigmas = wrapped.get_sigmas(steps)
        start = noise.next() * sigmas[0]
        results[name] = getattr(sampling, sampler)(denoise, start, sigmas, disable=True).contiguous()
        results[f"sigmas.{steps}"] = sigmas
    save_file(results, str(HERE / "sampling.safetensors"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
