"""For tests, an extension's script: what v1.10.1 does for --upcast-sampling only where there is a GPU, on a CPU too.

Its own lines are run, those below `torch.cuda.is_available()` in modules/sd_hijack_unet.py: group norms and gated
activations of a half-precision U-Net compute in fp32. Without them its own txt2img fails on a CPU ("mixed dtype").
"""

import ast
from pathlib import Path

from modules import sd_hijack_unet


def run_lines():
    """Everything below the condition, in the module where it stands."""
    path = Path(sd_hijack_unet.__file__)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and "cuda.is_available" in ast.unparse(node.test):
            exec(compile(ast.Module(node.body, []), str(path), "exec"), vars(sd_hijack_unet))


run_lines()
