"""A queue of runs as plain values: what waits, what became of each, and in which order.

Nothing here reads a file, knows a clock or starts anything: `queue_file` keeps it, `queue_runner` serves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

from lib_pivotal.errors import FileNameError, HostError
from lib_pivotal.training.results import Results

State = Literal["waiting", "running", "done", "failed", "skipped", "interrupted"]
ENDED: tuple[State, ...] = ("done", "failed", "skipped")
"""States of a run that nothing more happens to."""
VERSION = 1
T = TypeVar("T")


@dataclass(frozen=True)
class Axis:
    """A setting of a sweep by its dotted path, and its values."""

    path: str = ""
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """Runs that differ in one or two settings; `grid` is the picture of all their parts grids, once it is made."""

    id: int = 0
    name: str = ""
    axes: tuple[Axis, ...] = ()
    grid: str = ""


@dataclass(frozen=True)
class QueuedRun:
    """One run of the queue: `settings` as in a run.json.

    `run_id` is its folder once it began: with it, the run goes on from its saved state and never starts over.
    `max_steps` are its steps in all, with those that the network sits out. `checkpoint` is what was loaded when it was
    added, empty where that is not known. `place` is where its pictures go in the grid of its sweep: the number of the
    value of each axis.
    """

    id: int = 0
    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    state: State = "waiting"
    reason: str = ""
    run_id: str = ""
    step: int = 0
    max_steps: int = 0
    overwrite: bool = False
    checkpoint: str = ""
    sweep: int = 0
    place: tuple[int, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in ENDED


@dataclass(frozen=True)
class RunQueue:
    """All of a queue. Every verb gives a new one. `notice` is a sentence for the user: why it waits."""

    runs: tuple[QueuedRun, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    paused: bool = False
    notice: str = ""
    last_id: int = 0

    # ---- looking ----

    def get(self, entry_id: int) -> QueuedRun:
        """By number.

        Raises:
            HostError: there is none.
        """
        for entry in self.runs:
            if entry.id == entry_id:
                return entry
        raise HostError(f"the queue has no run {entry_id}: it was removed, or never there")

    def next(self) -> QueuedRun | None:
        """The run whose turn it is; None where none waits."""
        return next((entry for entry in self.runs if entry.state == "waiting"), None)

    def of_sweep(self, sweep_id: int) -> tuple[QueuedRun, ...]:
        """The runs of a sweep that are still in the list."""
        return tuple(entry for entry in self.runs if sweep_id and entry.sweep == sweep_id)

    # ---- changing the list ----

    def with_added(self, entries: Iterable[QueuedRun], sweep: Sweep | None = None) -> RunQueue:
        """With runs, and the sweep that they are of, at the end; numbers are given here and never again."""
        number = self.last_id
        if sweep is not None:
            number += 1
            sweep = replace(sweep, id=number)
        added = []
        for entry in entries:
            number += 1
            added.append(replace(entry, id=number, sweep=0 if sweep is None else sweep.id))
        sweeps = self.sweeps if sweep is None else (*self.sweeps, sweep)
        return replace(self, runs=(*self.runs, *added), sweeps=sweeps, last_id=number)

    def with_moved(self, entry_id: int, to: int) -> RunQueue:
        """With a waiting run as the `to`-th of those that wait, counted from 1; beyond the ends is at the end.

        Raises:
            HostError: there is no such run, or it does not wait.
        """
        entry = self.get(entry_id)
        if entry.state != "waiting":
            raise HostError(f"{entry.name} is {entry.state}: only runs that wait can be moved")
        places = [place for place, one in enumerate(self.runs) if one.state == "waiting"]
        order = [self.runs[place] for place in places if self.runs[place].id != entry_id]
        order.insert(max(to - 1, 0), entry)
        found = list(self.runs)
        for place, one in zip(places, order, strict=True):
            found[place] = one
        return replace(self, runs=tuple(found))

    def position(self, entry_id: int) -> int:
        """Of a waiting run among those that wait, from 1; 0 where it does not wait."""
        waiting = [entry.id for entry in self.runs if entry.state == "waiting"]
        return waiting.index(entry_id) + 1 if entry_id in waiting else 0

    def without(self, entry_id: int) -> RunQueue:
        """Without a run; its files stay.

        Raises:
            HostError: there is no such run, or it goes on.
        """
        entry = self.get(entry_id)
        if entry.state == "running":
            raise HostError(f"{entry.name} is running: skip it, which stops and saves it, and then remove it")
        return self._without({entry_id})

    def without_ended(self) -> RunQueue:
        """Without the runs that have ended; their files stay."""
        return self._without({entry.id for entry in self.runs if entry.ended})

    def _without(self, ids: set[int]) -> RunQueue:
        runs = tuple(entry for entry in self.runs if entry.id not in ids)
        wanted = {entry.sweep for entry in runs}
        return replace(self, runs=runs, sweeps=tuple(sweep for sweep in self.sweeps if sweep.id in wanted))

    # ---- what became of runs ----

    def with_changed(self, entry_id: int, **changes: Any) -> RunQueue:
        """With fields of a run changed; nothing where it was removed meanwhile."""
        runs = tuple(replace(entry, **changes) if entry.id == entry_id else entry for entry in self.runs)
        return replace(self, runs=runs)

    def with_grid(self, sweep_id: int, grid: str) -> RunQueue:
        """With the picture of a sweep."""
        sweeps = tuple(replace(sweep, grid=grid) if sweep.id == sweep_id else sweep for sweep in self.sweeps)
        return replace(self, sweeps=sweeps)

    def with_pause(self, notice: str = "") -> RunQueue:
        """Waiting: no further run begins; `notice` says why."""
        return replace(self, paused=True, notice=notice)

    def with_resume(self) -> RunQueue:
        """Going on: interrupted runs wait for their turn, in which they go on from their saved state."""
        runs = tuple(
            replace(entry, state="waiting", reason="") if entry.state == "interrupted" else entry for entry in self.runs
        )
        return replace(self, runs=runs, paused=False, notice="")

    def recovered(self, *, pause_waiting: bool) -> RunQueue:
        """After the process that served it has ended: a run that was going on is interrupted, and the queue waits.

        With `pause_waiting` it waits also where only runs that had not begun are left.
        """
        cut_off = [entry for entry in self.runs if entry.state == "running"]
        runs = tuple(
            replace(entry, state="interrupted", reason="the program ended while it was training")
            if entry.state == "running"
            else entry
            for entry in self.runs
        )
        queue = replace(self, runs=runs)
        if cut_off:
            return queue.with_pause(
                f"The program ended while {cut_off[0].name} was training, so the queue waits. Resume continues that "
                "run from its last saved state, then the others; skip or remove it to train them without it."
            )
        if pause_waiting and self.next() is not None and not self.paused:
            return queue.with_pause("The program was started again, so the queue waits. Resume begins the next run.")
        return queue

    # ---- as plain values ----

    def to_plain(self) -> dict[str, Any]:
        """JSON values."""
        return {"version": VERSION, **asdict(self)}


def queue_from_plain(plain: Any) -> RunQueue:
    """A queue of `RunQueue.to_plain`.

    Raises:
        ValueError: what is wrong with it.
    """
    if not isinstance(plain, Mapping) or plain.get("version") != VERSION:
        raise ValueError(f"it is no queue of version {VERSION}")
    queue = _read(RunQueue, plain, inner={"runs": _read_run, "sweeps": _read_sweep})
    if len({entry.id for entry in queue.runs}) < len(queue.runs):
        raise ValueError("two runs have the same number")
    numbers = [*(entry.id for entry in queue.runs), *(sweep.id for sweep in queue.sweeps)]
    return replace(queue, last_id=max([queue.last_id, *numbers]))


def _read_run(plain: Any) -> QueuedRun:
    found = _read(QueuedRun, plain)
    if found.state not in get_args(State):
        raise ValueError(f"no state: {found.state!r}")
    return found


def _read_sweep(plain: Any) -> Sweep:
    return _read(Sweep, plain, inner={"axes": lambda axis: _read(Axis, axis)})


def _read(kind: type[T], plain: Any, *, inner: Mapping[str, Any] | None = None) -> T:
    """A dataclass whose fields all have defaults, which say what type a value must have."""
    if not isinstance(plain, Mapping):
        raise ValueError(f"a {kind.__name__} is no object")
    empty, found = kind(), {}
    for one in fields(kind):  # type: ignore[arg-type]
        default = getattr(empty, one.name)
        value = plain.get(one.name, default)
        wanted: type | tuple[type, ...] = (list, tuple) if isinstance(default, tuple) else type(default)
        if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool)):
            raise ValueError(f"{one.name} of a {kind.__name__} is {type(value).__name__}")
        if isinstance(default, tuple):
            value = tuple(map((inner or {}).get(one.name, lambda item: item), value))
        found[one.name] = value
    return kind(**found)


def refuse_clashes(added: Sequence[Results], others: Sequence[Results]) -> None:
    """Refuse runs that would write a file that one of `others`, or one added before them, writes.

    Raises:
        FileNameError: which file, and whose it is.
    """
    before = list(others)
    for results in added:
        for other in before:
            if clash := results.clash(other):
                raise FileNameError(
                    f"{clash}: the run {other.name!r} in the queue writes a file of this name already. Give the run "
                    "another name, or say that it may be replaced (overwrite)."
                )
        before.append(results)
