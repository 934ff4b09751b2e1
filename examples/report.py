"""A short page of pictures and numbers that opens in any browser: one file, pictures inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222; }
img { max-width: 100%; border: 1px solid #ddd; border-radius: 6px; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
td:first-child, th:first-child { text-align: left; }
.bar { display: inline-block; height: .8rem; background: #ff7c00; border-radius: 2px; vertical-align: middle; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #ddd; } img, td, th { border-color: #444; } }
"""
ROWS = (("whole", "full"), ("unet", "U-Net only"), ("te", "text encoder only"), ("words", "embeddings only"))


def write_html(path: Path, title: str, report: Mapping[str, Any], *, pictures: Sequence[str]) -> None:
    """Write the page beside the pictures it shows; they are put into it, so that it can be sent around."""
    shown = "".join(_picture(path.parent / name) for name in pictures)
    identity = report["identity"]
    lines = "".join(_line(label, identity["pivotal"][key]) for key, label in ROWS)
    lines += _line("traits as prompt, no embedding", identity["base"])
    path.write_text(
        f"<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>"
        f"<p>Embeddings: {html.escape(', '.join(report['embeddings']))}. "
        f"{report['steps']} steps in {report['seconds']:.0f} seconds.</p>{shown}<h2>Identity</h2>"
        "<p>How surely a classifier that has never seen the diffusion model "
        f"recognises each character and style, from 0 to 1.</p><table><tr><th>on</th><th>score</th><th></th></tr>"
        f"{lines}</table></html>\n",
        encoding="utf-8",
    )


def _line(label: str, value: float) -> str:
    bar = f"<span class='bar' style='width:{round(max(value, 0) * 200)}px'></span>"
    return f"<tr><td>{html.escape(label)}</td><td>{value:.2f}</td><td style='text-align:left'>{bar}</td></tr>"


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<p><img alt='{html.escape(path.stem)}' src='data:image/png;base64,{data}'></p>"
