"""Routes about LoRA files: for programs, under the web UI's API, and for the page's own script, always."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response

from lib_pivotal.webui import catalog

PAGE = "/pivotal/internal/loras"
"""What javascript/pivotal_parts.js asks; like the web UI's own /sd_extra_networks/metadata it needs no --api."""


def list_bundles() -> Response:
    """Every LoRA file: words with vectors, parts, family, problems; from headers alone."""
    return Response(catalog.everything_as_json(), media_type="application/json")


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
