"""The script "Four rows", the parts grid in the web UI: full, U-Net only, text encoder only, embeddings only."""

from __future__ import annotations

from typing import Any

from modules import images, processing, scripts, shared

from lib_pivotal.ui import parts_rows
from lib_pivotal.webui import catalog, parts, prompt_tags

TITLE = "Four rows"
"""The nickname of the parts grid; programs and infotexts call the script by it."""
ROWS = (("full", "whole"), ("U-Net only", "U-Net"), ("text encoder only", "TE"), ("embeddings only", "words"))


class FourRows(scripts.Script):  # type: ignore[misc]
    """One labelled grid: a row a part, a column an embedding (or a prompt)."""

    def title(self) -> str:
        """Its name in the list of scripts."""
        return TITLE

    def ui(self, is_img2img: bool) -> list[Any]:
        """Embeddings and prompts for the columns."""
        embeddings, prompts, margin = parts_rows.four_rows_form(self.elem_id)
        self.infotext_fields = [(embeddings, "Four rows words"), (prompts, "Four rows prompts")]
        return [embeddings, prompts, margin]

    def run(self, p: Any, embeddings: str, prompts: str, margin_px: int) -> Any:
        """Make the pictures, row by row, and the grid in front of them."""
        processing.fix_seed(p)
        base = p.prompt[0] if isinstance(p.prompt, list) else p.prompt
        base = parts.with_added_network(base)
        columns = columns_of(base, embeddings, prompts)
        if not columns:
            raise ValueError(
                "Four rows: no embedding and no prompt to show. Name some, or put a bundle into the prompt."
            )
        seed = int(p.seed)
        p.batch_size, p.n_iter = 1, len(columns)
        p.do_not_save_grid = True
        p.extra_generation_params["Script"] = TITLE
        p.extra_generation_params["Four rows words"] = embeddings or None
        p.extra_generation_params["Four rows prompts"] = prompts.replace("\n", " | ") or None
        shared.state.job_count = len(columns) * len(ROWS)
        negative = p.negative_prompt
        result: Any = None
        pictures: list[Any] = []
        infotexts: list[str] = []
        for label, part in ROWS:
            p.prompt = [prompt_tags.part_switched(prompt, part) for _, prompt in columns]
            p.negative_prompt, p.seed = negative, [seed] * len(columns)
            shared.state.job = label
            row = processing.process_images(p)
            result = result or row
            pictures += row.images[: len(columns)]
            infotexts += row.infotexts[: len(columns)]
            if shared.state.interrupted or len(row.images) < len(columns):
                break
        if len(pictures) == len(columns) * len(ROWS):
            grid = labelled(pictures, [name for name, _ in columns], margin_px=int(margin_px))
            if shared.opts.grid_save:
                images.save_image(
                    grid,
                    p.outpath_grids,
                    "four_rows",
                    info=infotexts[0],
                    extension=shared.opts.grid_format,
                    prompt=base,
                    seed=seed,
                    grid=True,
                    p=p,
                )
            pictures, infotexts = [grid, *pictures], [infotexts[0], *infotexts]
            result.index_of_first_image = 1
        result.images, result.infotexts = pictures, infotexts
        return result


def columns_of(prompt: str, embeddings: str, prompts: str) -> list[tuple[str, str]]:
    """Label and prompt of every column.

    `prompts`: one a line, each with the tags of `prompt` where it has none of its own. `{word}` stands for an
    embedding; without it the embedding goes in front. No embeddings given: those of the bundles in the prompt.
    """
    lines = [line.strip() for line in prompts.replace(" | ", "\n").splitlines() if line.strip()]
    named = [embedding.strip() for embedding in embeddings.replace("\n", ",").split(",") if embedding.strip()]
    here = "".join(match.group() for match in prompt_tags.TAG.finditer(prompt))
    full = [line if prompt_tags.TAG.search(line) else here + line for line in lines] or [prompt]
    if not named and not (lines and not any("{word}" in line for line in lines)):
        named = embeddings_of(prompt)
    if not named:
        return [(prompt_tags.TAG.sub("", text).strip() or text, text) for text in (full if lines else [])]
    if len(full) == 1:
        return [(embedding, put(full[0], embedding)) for embedding in named]
    plain = [prompt_tags.TAG.sub("", text).replace("{word}", "").strip(" ,") for text in full]
    return [
        (f"{embedding}: {label}", put(text, embedding))
        for embedding in named
        for label, text in zip(plain, full, strict=True)
    ]


def embeddings_of(prompt: str) -> list[str]:
    """The embeddings of every bundle in the prompt, in its order."""
    found: list[str] = []
    for _, tag in prompt_tags.tags_in(prompt):
        entry = catalog.find_on_disk(tag.name)
        found += [embedding["name"] for embedding in catalog.describe(entry)["words"]] if entry is not None else []
    return list(dict.fromkeys(found))


def put(prompt: str, embedding: str) -> str:
    """The prompt with the embedding in its place, or in front (behind the tags that stand there)."""
    if "{word}" in prompt:
        return prompt.replace("{word}", embedding)
    tagged = "".join(match.group() for match in prompt_tags.TAG.finditer(prompt))
    rest = prompt_tags.TAG.sub("", prompt).strip(" ,")
    return f"{tagged}{embedding}, {rest}".rstrip(" ,")


def labelled(pictures: list[Any], columns: list[str], *, margin_px: int) -> Any:
    """The grid with the web UI's own lettering."""
    width, height = pictures[0].size
    grid = images.image_grid(pictures, rows=len(ROWS))
    across = [[images.GridAnnotation(name)] for name in columns]
    down = [[images.GridAnnotation(label)] for label, _ in ROWS]
    return images.draw_grid_annotations(grid, width, height, across, down, margin_px)
