"""AltDiffusion's text encoder, a kind of CLIP's for the web UI."""

from __future__ import annotations

from modules import sd_hijack_clip


class FrozenXLMREmbedderWithCustomWords(sd_hijack_clip.FrozenCLIPEmbedderWithCustomWords):
    pass
