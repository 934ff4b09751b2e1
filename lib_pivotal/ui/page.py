"""What the panels of one page share: the controller, the form, what the host adds, and small builders of elements.

An event's handler answers `Shown`, component -> value; what it does not name stays on the page as it is. Only a handler
of one output answers the bare value. Controllers and thumbnails, and through them scanning, planning and importing, are
imported by the first click that asks for them: the web UI builds the page each time it starts.
"""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.config_versions import path_in_1
from lib_pivotal.errors import ConfigError, Fault, PivotalError
from lib_pivotal.ui.embeddings_table import embeddings_table, samples_bar
from lib_pivotal.ui.form import TABLE, Form

if TYPE_CHECKING:
    from lib_pivotal.config import Run
    from lib_pivotal.runs.manager import RunManager
    from lib_pivotal.ui.bundle_controller import BundleController
    from lib_pivotal.ui.page_controller import Checked, PageController
    from lib_pivotal.ui.thumbs import Thumbs

Shown = dict[Any, Any]
"""What an event changes: component -> its value, or `gr.update(...)`."""

CHECK_JS = "() => window.pivotalPage?.redraw('check')"
"""After an event: all that hangs on the settings is looked at again."""


@dataclass(frozen=True)
class TabExtras:
    """What only the host knows.

    `send_to_txt2img_js` is a JavaScript function of one prompt (a string such as `"pivotalSend"` or `"(p) => ..."`);
    `more_tabs` builds further tabs, inside the page's tabs; `program` says what runs us, e.g. `{"web UI": "1.10.1"}`.
    """

    send_to_txt2img_js: str = ""
    more_tabs: Callable[[], None] | None = None
    program: Callable[[], Mapping[str, str]] = dict


@dataclass
class Page:
    """One page while it is built; `parts` are elements that several panels speak of, by name."""

    manager: RunManager
    extras: TabExtras
    form: Form = field(default_factory=Form)
    parts: dict[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def controller(self) -> PageController:
        """What is scanned, proposed, checked and found again."""
        from lib_pivotal.ui.page_controller import PageController

        return PageController(self.manager)

    @functools.cached_property
    def bundles(self) -> BundleController:
        """Work on the files of the LoRA folder."""
        from lib_pivotal.ui.bundle_controller import BundleController

        return BundleController(self.manager.backend)

    @functools.cached_property
    def thumbs(self) -> Thumbs:
        """Thumbnails of the Data page."""
        from lib_pivotal.ui.thumbs import THUMB_PX, Thumbs

        return Thumbs(THUMB_PX)

    def named(self, *names: str) -> list[Any]:
        """Elements by name: the outputs of an event."""
        return [self.parts[name] for name in names]

    def shown(self, **values: Any) -> Shown:
        """What an event shows, by the elements' names."""
        return {self.parts[name]: value for name, value in values.items()}

    def embeddings_table(self, run: Run) -> str:
        """The editor of a run's embeddings, with what the scanned pictures say of them."""
        return embeddings_table(self.controller.rows(run), self.controller.samples(run))

    def hidden_button(self, name: str) -> Any:
        """A button that only `pivotal.js` presses."""
        self.parts[name] = gr.Button(name, elem_id=f"pivotal_{name}", elem_classes=["pivotal-hidden"])
        return self.parts[name]

    def hidden_text(self, name: str, value: str = "") -> Any:
        """A text that only `pivotal.js` writes."""
        self.parts[name] = gr.Textbox(
            value, label=name, elem_id=f"pivotal_{name}", elem_classes=["pivotal-hidden"], show_label=False
        )
        return self.parts[name]

    def answered(self, event: str) -> Any:
        """The last output of an event that `pivotal.js` waits for; its handler fills it with `answer()`."""
        return self.html(f"{event}_answered", classes=["pivotal-hidden"])

    def html(self, name: str, value: str = "", *, classes: Sequence[str] = ()) -> Any:
        """A piece of HTML that is filled later."""
        self.parts[name] = gr.HTML(value, elem_id=f"pivotal_{name}", elem_classes=["pivotal-html", *classes])
        return self.parts[name]

    def read(self, values: Sequence[Any]) -> tuple[Run, list[Fault]]:
        """The run on the page, and its faults."""
        return self.form.read(values)

    def say(self, html: str, run: Run, faults: Sequence[Fault] = ()) -> Shown:
        """What a button of the Train page answers, in its place below the settings that count most.

        `still_said` finds it again: a look at the settings as they are must not wipe it away.
        """
        said = f'<div class="pivotal-said-now" {_token()}>{html}</div>' if html else ""
        return self.shown(feedback=said, said_now=(said, run, tuple(faults)))

    def bind_saying(self, event: Callable[..., Any], act: Callable[..., str], inputs: Sequence[Any] = ()) -> Any:
        """Bind a button of the Train page that answers a sentence, or nothing."""

        def press(*values: Any) -> Shown:
            given, settings = values[: len(inputs)], values[len(inputs) :]
            return self.say(act(*given), *self.read(settings))

        return quiet(event, press, [*inputs, *self.form.components], self.named("feedback", "said_now"))


def still_said(said_now: tuple[str, Run, tuple[Fault, ...]] | None, run: Run, faults: Sequence[Fault]) -> str:
    """What a button answered (`Page.say`), as long as the settings are those that it was pressed with."""
    if said_now is None:
        return ""
    said, *pressed_with = said_now
    return said if pressed_with == [run, tuple(faults)] else ""


def answer() -> str:
    """HTML that differs from any before: by its change `pivotal.js` knows that an event was answered."""
    return f"<div {_token()}></div>"


def _token() -> str:
    return f'data-answer="{secrets.token_hex(4)}"'


def payload(value: Any) -> str:
    """JSON for `pivotal.js`, as an attribute."""
    return f'<div data-json="{escape(json.dumps(value, ensure_ascii=False))}"></div>'


def quiet(
    event: Callable[..., Any], fn: Callable[..., Any], inputs: Any = None, outputs: Any = None, **more: Any
) -> Any:
    """Bind without gradio's overlay, and without its queue: the queue's one lane must not wait for a page."""
    return event(fn=fn, inputs=inputs, outputs=outputs, show_progress="hidden", queue=False, api_name=False, **more)


def label_of(path: str) -> str:
    """What a field is called on the page; of an embedding, its number and the setting."""
    if path.startswith("embeddings."):
        _, number, *rest = path.split(".")
        return (
            f"embedding {int(number) + 1}, {rest[0].replace('_', ' ')}" if number.isdigit() and rest else "Embeddings"
        )
    return next((entry.label for entry in TABLE if entry.path == path), path)


def fault_text(fault: Fault) -> str:
    """Problem and remedy, without the field."""
    return f"{fault.problem}. {fault.remedy}".strip() if fault.remedy else f"{fault.problem}."


def faults_list(faults: Sequence[Fault]) -> str:
    """All faults in words; a click goes to the field."""
    if not faults:
        return ""
    items = "".join(
        f'<li class="error"><i>✕</i><span>{_link(fault.field)} {escape(fault_text(fault))}</span></li>'
        for fault in faults
    )
    return f'<ul class="pivotal-problems">{items}</ul>'


def _link(path: str) -> str:
    name = escape(label_of(path))
    return f'<button type="button" class="pivotal-link" data-field="{escape(path_in_1(path))}">{name}</button>'


def facts_of(checked: Checked) -> str:
    """For `pivotal.js`: marks on fields, fields that mean nothing here, and the samples of each embedding."""
    faults = [{"field": path_in_1(fault.field), "text": fault_text(fault)} for fault in checked.faults]
    samples = {name: samples_bar(samples) for name, samples in checked.samples.items()}
    return payload({"faults": faults, "idle": [path_in_1(path) for path in checked.idle], "draws": samples})


def sentence(error: Exception) -> str:
    """What to tell the user of an error."""
    return str(error) if isinstance(error, PivotalError) else f"{type(error).__name__}: {error}"


def message(text: str, level: str = "error") -> str:
    """A sentence to the user."""
    sign = {"error": "✕", "warning": "!", "info": "i", "ok": "✓"}[level]
    return f'<ul class="pivotal-problems"><li class="{level}"><i>{sign}</i><span>{escape(text)}</span></li></ul>'


def error_html(error: Exception) -> str:
    """An error as the page shows it."""
    return faults_list(error.faults) if isinstance(error, ConfigError) else message(sentence(error))


def note(level: str, text: str) -> str:
    """A small remark under a field."""
    return f'<div class="pivotal-note {level}">{escape(text)}</div>'


def unchanged() -> Mapping[str, Any]:
    """Leave an element as it is."""
    result: Mapping[str, Any] = gr.update()
    return result
