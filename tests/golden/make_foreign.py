"""Make tests/golden/lycoris_pack.safetensors and lycoris_batch.safetensors with LyCORIS's own scripts.

    python tests/golden/make_foreign.py PATH/TO/LyCORIS        (made with its commit f49d30d)

The words, 64 wide: `hcp` from a .pt as HCP-Diffusion writes it, `kohya` and `diffusers` from the safetensors files of
kohya's textual inversion and of diffusers' advanced scripts.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
WIDTH = 64


def vectors(seed: int) -> torch.Tensor:
    """Two vectors of a word."""
    return 0.05 * torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(seed))


EMBEDDINGS = {"hcp": 1, "kohya": 2, "diffusers": 3}
"""Word -> seed of its vectors."""


def main(checkout: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save({"string_to_param": {"*": vectors(1)}, "name": "hcp"}, folder / "hcp.pt")
        save_file({"emb_params": vectors(2)}, str(folder / "kohya.safetensors"))
        save_file({"clip_l": vectors(3)}, str(folder / "diffusers.safetensors"))
        lora = folder / "lora" / "plain.safetensors"
        lora.parent.mkdir()
        save_file({"lora_unet_nothing.alpha": torch.tensor(1.0)}, str(lora))
        embeddings = [str(folder / file) for file in ("hcp.pt", "kohya.safetensors", "diffusers.safetensors")]

        def run(script: str, *arguments: str) -> None:
            subprocess.run([sys.executable, str(checkout / "tools" / script), *arguments], check=True, cwd=folder)

        run("pack_bundle.py", str(lora), *embeddings)
        shutil.copy(lora.with_name("plain_bundle.safetensors"), HERE / "lycoris_pack.safetensors")
        flags = ["--to_bundle", "--pack_all_embeddings", "--dst_dir", "out", "--emb_ext", ".pt", ".safetensors"]
        run("batch_bundle_convert.py", "--network_path", str(lora), "--emb_path", *embeddings, *flags)
        shutil.copy(folder / "out" / "plain-bundle.safetensors", HERE / "lycoris_batch.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
