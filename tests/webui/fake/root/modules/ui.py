"""Of the page: the token counter."""

from __future__ import annotations

from typing import Any

from modules import extra_networks, script_callbacks, sd_hijack, shared


def update_token_counter(text: str, steps: int, styles: list[str], *, is_positive: bool = True) -> str:
    params = script_callbacks.BeforeTokenCounterParams(text, steps, styles, is_positive=is_positive)
    script_callbacks.before_token_counter_callback(params)
    text = params.prompt
    if shared.opts.include_styles_into_token_counters:
        database = shared.prompt_styles
        apply = database.apply_styles_to_prompt if is_positive else database.apply_negative_styles_to_prompt
        text = apply(text, params.styles)
    text, _ = extra_networks.parse_prompt(text)
    token_count, max_length = sd_hijack.model_hijack.get_prompt_lengths(text)
    return f"<span class='gr-box gr-text-input'>{token_count}/{max_length}</span>"


__all__: list[Any] = ["update_token_counter"]
