"""Styles: named prompts that are added to the user's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class PromptStyle(NamedTuple):
    name: str
    prompt: str
    negative_prompt: str


class StyleDatabase:
    def __init__(self) -> None:
        self.no_style = PromptStyle("None", "", "")
        self.styles: dict[str, PromptStyle] = {}

    def get_style_prompts(self, styles: Sequence[str]) -> list[str]:
        return [self.styles.get(name, self.no_style).prompt for name in styles]

    def apply_styles_to_prompt(self, prompt: str, styles: Sequence[str]) -> str:
        for text in self.get_style_prompts(styles):
            if "{prompt}" in text:
                prompt = text.replace("{prompt}", prompt)
            else:
                prompt = ", ".join(part for part in (prompt.strip(), text.strip()) if part)
        return prompt

    def apply_negative_styles_to_prompt(self, prompt: str, styles: Sequence[str]) -> str:
        added = [self.styles.get(name, self.no_style).negative_prompt.strip() for name in styles]
        return ", ".join(part for part in (prompt.strip(), *added) if part) if styles else prompt
