"""The queue as a piece of HTML: why it waits, a line a run with its buttons, and the picture of each sweep."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from lib_pivotal.ui import thumbs

SWEEP_PX = 640


def queue_html(listed: Mapping[str, Any]) -> str:
    """Of `commands.queue.Listing.as_dict`; empty where nothing is in the queue and nothing is to be said."""
    parts = []
    if listed["notice"]:
        parts.append(f'<p class="pivotal-note warning">{escape(listed["notice"])}</p>')
    if listed["runs"]:
        waiting = sum(entry["state"] == "waiting" for entry in listed["runs"])
        rows = "".join(_row(entry, waiting) for entry in listed["runs"])
        head = "<tr><th>Queue</th><th>run</th><th>steps</th><th></th></tr>"
        parts.append(f'<table class="pivotal-queue"><thead>{head}</thead><tbody>{rows}</tbody></table>')
    parts += [_sweep(sweep) for sweep in listed["sweeps"] if sweep["grid"]]
    return f'<div id="pivotal_queue_table">{"".join(parts)}</div>' if parts else ""


def _row(entry: Mapping[str, Any], waiting: int) -> str:
    state, reason = entry["state"], escape(entry["reason"])
    told = f"<small>{reason}</small>" if reason else ""
    steps = f"{entry['step']} of {entry['max_steps']}" if entry["step"] else f"{entry['max_steps']}"
    return (
        f'<tr class="{state}"><td class="state">{state}</td><td>{escape(entry["name"])}{told}</td>'
        f'<td class="n">{steps}</td><td class="tools">{_buttons(entry, waiting)}</td></tr>'
    )


def _buttons(entry: Mapping[str, Any], waiting: int) -> str:
    """What can be done with a run, as it is now."""
    state, found = entry["state"], []
    if state == "waiting":
        found.append(_button(entry, "up", "↑", "Earlier", disabled=entry["position"] == 1))
        found.append(_button(entry, "down", "↓", "Later", disabled=entry["position"] == waiting))
    if state == "running":
        found.append(_button(entry, "skip", "skip", "Stop and save this run, and begin the next"))
    else:
        found.append(_button(entry, "remove", "✕", "Take it out of the queue; its files stay"))
    return "".join(found)


def _button(entry: Mapping[str, Any], verb: str, sign: str, title: str, *, disabled: bool = False) -> str:
    state = " disabled" if disabled else ""
    name = escape(f"{title}: {entry['name']}")
    return (
        f'<button type="button" class="pivotal-mini" data-queue="{verb}:{entry["id"]}" title="{escape(title)}" '
        f'aria-label="{name}"{state}>{sign}</button>'
    )


def _sweep(sweep: Mapping[str, Any]) -> str:
    settings = ", ".join(escape(path) for path in sweep["settings"])
    uri = thumbs.thumbnail(sweep["grid"], SWEEP_PX)
    picture = f'<img src="{uri}" alt="Sweep of {settings}" data-zoom="1">' if uri else ""
    return (
        f'<figure class="pivotal-sweep">{picture}<figcaption>Sweep <b>{escape(sweep["name"])}</b> over {settings}: '
        f"{escape(sweep['grid'])}</figcaption></figure>"
    )
