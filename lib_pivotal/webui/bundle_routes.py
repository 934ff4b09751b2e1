"""Routes about LoRA files: for programs, under the web UI's API, and for the page's own script, always."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response

from lib_pivotal.bundle.metadata import finite_number
from lib_pivotal.commands.terms import both
from lib_pivotal.errors import PivotalError
from lib_pivotal.files import sentence_of
from lib_pivotal.webui import catalog

PAGE = "/pivotal/internal/loras"
"""What javascript/pivotal_parts.js asks; like the web UI's own /sd_extra_networks/metadata it needs no --api."""


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_pairs(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text(text) for pair in value.items() for text in pair)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_adjustments(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(one, dict) and set(one) <= {"norm", "init_share"} and None not in map(finite_number, one.values())
        for one in value.values()
    )


FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = MappingProxyType(
    {
        "renames": (_are_pairs, "pairs of text"),
        **dict.fromkeys(("names", "parts", "embeddings"), (_are_texts, "a list of text")),
        "weights": (_are_numbers, "a list of numbers"),
        "adjustments": (_are_adjustments, 'for each name {"norm": number, "init_share": number}'),
        **dict.fromkeys(("value", "unet", "te", "cfg"), (_is_number, "a number")),
        **dict.fromkeys(
            ("rank", "conv_rank"), (lambda value: _is_number(value) and isinstance(value, int), "a whole number")
        ),
        "overwrite": (lambda value: isinstance(value, bool), "true or false"),
    }
)
"""What a field of a request holds, where it is not one text."""
MAY_BE_NULL = ("new_name", "weights", "base", "description", "licence", "unet", "te", "cfg")


def list_bundles() -> Response:
    """Every LoRA file: embeddings with vectors, parts, family, problems; from headers alone."""
    return Response(catalog.everything_as_json(), media_type="application/json")


def work(verb: str, body: dict[str, Any]) -> dict[str, Any]:
    """Work on files: a verb of `bundle_work.VERBS`, whose arguments are the body's fields.

    Answers `{"written": [paths]}`; `verify` `{"sound": ..., "problems": [...]}`; `show` what the file's header tells;
    `extract`, `resize` and `to_lora` also what each layer has lost.
    """
    from lib_pivotal.webui import bundle_work  # here: to start, no file is worked on

    function = bundle_work.VERBS.get(verb)
    if function is None:
        raise HTTPException(404, f"no such work: {verb}; there are {', '.join(bundle_work.VERBS)}")
    signature = inspect.signature(function)
    if "embeddings" not in body:  # as it was called in the first version
        body = {"embeddings" if key == "words" else key: value for key, value in body.items()}
    try:
        signature.bind(**body)
    except TypeError as error:
        raise HTTPException(422, f"{verb}: {error}; it takes {', '.join(signature.parameters)}") from error
    for key, value in body.items():
        fits, what = FIELDS.get(key, (_is_text, "text"))
        if not fits(value) and not (key in MAY_BE_NULL and value is None):
            raise HTTPException(422, f"{verb}: {key} must be {what}")
    try:
        return both(function(**body).as_dict())
    except PivotalError as error:
        raise HTTPException(400, str(error)) from error
    except OSError as error:
        raise HTTPException(400, sentence_of(error)) from error


def register_page(app: FastAPI) -> None:
    """Add the page's route; behind the page's login where there is one."""

    def loras(request: Request) -> Any:
        if not may_see(app, request):
            raise HTTPException(401, "not logged in")
        return list_bundles()

    app.add_api_route(PAGE, loras, methods=["GET"], response_model=None)


def may_see(app: Any, request: Request) -> bool:
    """Whether the request comes from somebody who may see the page: gradio's own cookies (gradio/routes.py)."""
    if getattr(app, "auth", None) is None:
        return True
    tokens = getattr(app, "tokens", {})
    cookies = [request.cookies.get(name) for name in ("access-token", "access-token-unsecure")]
    return any(cookie is not None and tokens.get(cookie) is not None for cookie in cookies)
