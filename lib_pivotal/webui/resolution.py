"""What holds now: one object for the running web UI."""

from __future__ import annotations

import logging

from modules import sd_hijack

from lib_pivotal.webui.generations import EmbeddingResolution

logger = logging.getLogger(__name__)

EMBEDDINGS = "pivotal_words"
"""Attribute of a loaded network: its `LoadedEmbeddings`."""

resolver = EmbeddingResolution()


def say(text: str) -> None:
    """A line under the picture, and in the log."""
    comments = sd_hijack.model_hijack.comments
    if text not in comments:
        comments.append(text)
        logger.warning("%s", text)
    generation = resolver.generation
    if generation is not None and generation.comment is not None:
        generation.comment(text)  # the second pass of hires fix comes after the web UI collected the others
