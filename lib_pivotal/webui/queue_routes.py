"""Routes under /pivotal/v1/queue: runs and sweeps that wait for their turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, Field

from lib_pivotal.commands import queue as commands
from lib_pivotal.commands.queue import AddRequest, Listing, QueuePlace
from lib_pivotal.config import run_from_dict
from lib_pivotal.confinement import Confinement
from lib_pivotal.errors import ConfigError, Fault
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.runs.queue import RunQueue
from lib_pivotal.runs.sweep import as_axes

WHOLE: Mapping[str, Callable[[QueuePlace], RunQueue]] = MappingProxyType(
    {"pause": commands.pause, "resume": commands.resume, "clear": commands.clear}
)
"""What is asked of the queue as a whole."""
OF_ONE: Mapping[str, Callable[[QueuePlace, int], RunQueue]] = MappingProxyType(
    {"remove": commands.remove, "skip": commands.skip}
)
"""What is asked of one run."""


class MoveRequest(BaseModel):
    """The place of a run among those that wait, counted from 1."""

    to: int = Field(..., ge=1)


class AddedAnswer(BaseModel):
    """Runs that were added, in their order."""

    ids: list[int]
    names: list[str]


def add_queue_routes(
    add: Callable[[str, str, Any, Any], None],
    manager: Callable[[], RunManager],
    folders: Callable[[], Confinement],
    *,
    told: Callable[..., AbstractContextManager[None]],
) -> None:
    """Add the routes; `told` turns our errors into HTTP errors, of a status that it may be given."""
    routes = _QueueRoutes(manager, folders, told)
    add("GET", "/queue", routes.show, dict[str, Any])
    add("POST", "/queue", routes.add, AddedAnswer)
    for verb, work in WHOLE.items():
        add("POST", f"/queue/{verb}", routes.whole(verb, work), dict[str, Any])
    add("POST", "/queue/{entry_id}/move", routes.move, dict[str, Any])
    for verb, act in OF_ONE.items():
        add("POST", f"/queue/{{entry_id}}/{verb}", routes.of_one(verb, act), dict[str, Any])


class _QueueRoutes:
    """The verbs; all but `add` answer the queue as it is then."""

    def __init__(
        self,
        manager: Callable[[], RunManager],
        folders: Callable[[], Confinement],
        told: Callable[..., AbstractContextManager[None]],
    ) -> None:
        self._manager = manager
        self._folders = folders
        self._told = told

    def _place(self) -> QueuePlace:
        return QueuePlace.of_manager(self._manager())

    def show(self) -> dict[str, Any]:
        with self._told():
            return commands.listing(self._place()).as_dict()

    def add(self, run: dict[str, Any]) -> AddedAnswer:
        """A run.json; beside its settings `"overwrite"`, and `"sweep": {"network.unet_lr": [1e-4, 3e-4]}`."""
        with self._told():
            plain = dict(run)
            overwrite, sweep = taken_overwrite(plain), plain.pop("sweep", None) or {}
            if not isinstance(sweep, dict):
                raise ConfigError([Fault("sweep", sweep, "must be settings with lists of values")])
            request = AddRequest(
                run_from_dict(plain), sweep=as_axes(sweep), overwrite=overwrite, folders=self._folders()
            )
            added = commands.add(self._place(), request)
            return AddedAnswer(ids=[entry.id for entry in added], names=[entry.name for entry in added])

    def move(self, entry_id: int, request: MoveRequest) -> dict[str, Any]:
        return self._done(entry_id, lambda place: commands.move(place, entry_id, to=request.to))

    def whole(self, verb: str, work: Callable[[QueuePlace], RunQueue]) -> Callable[[], dict[str, Any]]:
        def serve() -> dict[str, Any]:
            with self._told():
                place = self._place()
                return Listing(work(place), place.runner).as_dict()

        serve.__name__ = f"pivotal_queue_{verb}"
        return serve

    def of_one(self, verb: str, act: Callable[[QueuePlace, int], RunQueue]) -> Callable[[int], dict[str, Any]]:
        def serve(entry_id: int) -> dict[str, Any]:
            return self._done(entry_id, lambda place: act(place, entry_id))

        serve.__name__ = f"pivotal_queue_{verb}_run"
        return serve

    def _done(self, entry_id: int, act: Callable[[QueuePlace], RunQueue]) -> dict[str, Any]:
        """404 for a run that is not there, 400 for what cannot be done with one that is."""
        with self._told():
            place = self._place()
            queue = place.look()
        with self._told(404):
            queue.get(entry_id)
        with self._told():
            return Listing(act(place), place.runner).as_dict()


def taken_overwrite(plain: dict[str, Any]) -> bool:
    """What a body says of files that are there, taken out of it.

    Raises:
        ConfigError: it is neither true nor false.
    """
    overwrite = plain.pop("overwrite", False)
    if not isinstance(overwrite, bool):
        raise ConfigError([Fault("overwrite", overwrite, "must be true or false")])
    return overwrite
