"""What is done, on disk: a run that was killed goes on from here.

A run is a program of stages. Each stage that ended is in ``progress.json`` with what it found, and with the state that
it left; the program runs again from its beginning, and what is done is looked up. So every stage must be a function of
the recipe, of what it is given, and of the seed that its name gives it: never of the time or of an earlier run.

    checkpoints/progress.json       {"stages": [{"key", "found", "state"}, ...], "partial": {...} | null}
    checkpoints/0007.safetensors    the network that stage 7 left; also 0007.training.safetensors (see ``state``)

Files are written first; ``progress.json`` then names them, which is the moment that counts; what it names no more is
removed last. Whatever moment a crash picks, the last ``progress.json`` and all that it names are whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core import FileError
from ...core.atomic import write_text
from ...engines.engine import Alone, Engine
from ...graph.header import sha256
from .. import chance
from ..training.sharded import read_shards, write_shards
from ..training.state import State, files_of, read_state, settle, write_state
from .folder import cannot_write

_FILE = "progress.json"
_VERSION = 1


@dataclass(eq=False)
class Handle:
    """A state that a stage left: in memory, or in the files that ``data`` names until somebody asks."""

    data: dict[str, Any]
    _load: Callable[[dict[str, Any]], State] = field(repr=False)
    _state: State | None = None

    def open(self) -> State:
        """Return the state. Only for work that is done now: the files of what came before may be gone."""
        if self._state is None:
            self._state = self._load(self.data)
        return self._state

    @property
    def kept(self) -> dict[str, tuple[int, ...]]:
        """What is left of the dense network's groups that lost units; no file is read."""
        kept = self._state.kept if self._state is not None else self.data["kept"]
        return {name: tuple(units) for name, units in kept.items()}


@dataclass(frozen=True, eq=False)
class Partial:
    """A stage that had not ended: its state, what it noted, and further tensors."""

    state: State
    notes: Mapping[str, Any]
    extra: Mapping[str, Tensor]


class Checkpoints:
    """The stages of a run that are done, and the means to do the next one.

    Attributes:
        seed: of the run; each stage gets its own from it.
        folder: of the files, or None to keep everything in memory. All ranks see it, and rank 0 writes.
        engine: makes what a stage found and left the same on every rank: rank 0's.
        note: what a user should know about how the run goes on.
    """

    def __init__(self, folder: Path | None, original: nn.Module, seed: int, engine: Engine | None = None) -> None:
        self.folder, self.seed = folder, seed
        self.engine = engine or Alone(torch.device("cpu"))
        self._original = original
        self._stages: list[dict[str, Any]] = []
        self._partial: dict[str, Any] | None = None
        self._found: dict[str, Any] = {}
        self._next = 0
        self._written = 0
        self._pins: dict[str, Handle] = {}
        self.note = ""
        if folder is not None and self.engine.first(lambda: (folder / _FILE).exists()):
            self._read(folder)
        elif folder is not None:
            self.engine.first(lambda: folder.mkdir(parents=True, exist_ok=True))
            self._commit()

    @property
    def replaying(self) -> bool:
        """Whether the next stage was done by an earlier process."""
        return self._next < len(self._stages)

    def seed_of(self, key: str) -> int:
        """Return the seed of a stage."""
        return chance.derived(self.seed, key)

    def once(self, key: str, work: Callable[[], Any]) -> Any:
        """Do a stage that changes no network, or look up what it found (what JSON can hold); once a run for a key."""
        if key in self._found:
            return self._found[key]
        known = self._known(key)
        if known is None:
            chance.seed_all(self.seed_of(key))
            known = {"key": key, "found": self.engine.agreed(work()), "state": None}
            self._done(known)
        self._found[key] = known["found"]
        return known["found"]

    def change(self, key: str, work: Callable[[], tuple[State, Any]]) -> tuple[Handle, Any]:
        """Do a stage that leaves another state, or look it up; return it with what the stage found."""
        known = self._known(key)
        if known is not None:
            return Handle(known["state"], self._load), known["found"]
        chance.seed_all(self.seed_of(key))
        state, found = work()
        state.model.eval()
        self.engine.equal(state.model, state.optimizer)
        found = self.engine.agreed(found)
        settle(state.model, state.optimizer)
        data = self._write(state) if self.folder is not None else {}
        self._done({"key": key, "found": found, "state": data})
        return Handle(data, self._load, state), found

    def partial(self, key: str) -> Partial | None:
        """Return how far the stage had come when the last process ended, if it was on its way."""
        if self._partial is None or self._partial["key"] != key or self.folder is None:
            return None
        data, folder = self._partial["state"], self.folder
        if "surgery" in data:
            from ...engines.checkpoint import read  # one process needs none of it

            tensors = read(folder / f"{data['name']}.shards")
            state, extra = read_shards(folder, data, tensors, self._original)
        else:
            state, extra = read_state(folder, data, self._original)
        return Partial(state, self._partial["notes"], extra)

    def save_partial(self, key: str, state: State, notes: Mapping[str, Any], extra: Mapping[str, Tensor]) -> None:
        """Write how far a stage has come; ``notes`` is what JSON can hold."""
        if self.folder is not None:
            if self.engine.shards:
                self._written += 1
                self.engine.first(partial(_remove, self.folder / f"{self._written:04d}.shards"))  # of a crash
                data = write_shards(self.folder, f"{self._written:04d}", state, extra)
            else:
                data = self._write(state, extra)
            self._partial = {"key": key, "notes": notes, "state": data}
            self._commit()

    def pin(self, role: str, handle: Handle) -> None:
        """Keep a state's files beyond the next stage; the role's earlier state is let go."""
        self._pins[role] = handle

    def forget(self) -> None:
        """Remove everything: the run is over."""
        if self.folder is not None:
            self.engine.first(partial(_remove, self.folder))

    def _known(self, key: str) -> dict[str, Any] | None:
        if not self.replaying:
            return None
        known = self._stages[self._next]
        if known["key"] != key:
            raise FileError(
                f"{self.folder} belongs to another recipe or version: it goes on with {known['key']!r}, not {key!r}"
            )
        self._next += 1
        return known

    def _done(self, stage: dict[str, Any]) -> None:
        self._stages.append(stage)
        self._next += 1
        self._partial = None
        self._commit()

    def _write(self, state: State, extra: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        assert self.folder is not None
        self._written += 1
        return self.engine.first(partial(write_state, self.folder, f"{self._written:04d}", state, extra))

    def _load(self, data: dict[str, Any]) -> State:
        if self.folder is None:
            raise FileError("a state was let go")
        state, _ = read_state(self.folder, data, self._original)
        settle(state.model, state.optimizer)
        return state

    def _commit(self) -> None:
        """Write ``progress.json``, then remove the files that it no longer needs."""
        if self.folder is not None:
            self.engine.first(partial(self._record, self.folder))

    def _record(self, folder: Path) -> None:
        last = next((s["state"] for s in reversed(self._stages) if s["state"]), None)
        partial = self._partial["state"] if self._partial else None
        needed = [data for data in (last, partial, *(pin.data for pin in self._pins.values())) if data]
        record = {
            "espalier_progress": _VERSION,
            "written": self._written,
            "ranks": self.engine.ranks,
            "stages": self._stages,
            "partial": self._partial,
        }
        try:
            write_text(folder / _FILE, _sealed(record))
        except OSError as error:
            raise FileError(cannot_write(folder / _FILE, error)) from error
        names = {_FILE, *(name for data in needed for name in files_of(data))}
        for path in folder.iterdir():
            if path.name not in names:
                _remove(path)

    def _read(self, folder: Path) -> None:
        path = folder / _FILE
        try:
            record = self.engine.first(lambda: _opened(path.read_text(encoding="utf-8")))
            if record["espalier_progress"] != _VERSION:
                raise FileError(f"{path} has version {record['espalier_progress']!r}; this Espalier reads {_VERSION}")
            self._stages, self._partial = list(record["stages"]), record["partial"]
            self._written = int(record["written"])
            was = int(record.get("ranks", 1))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileError(f"{path} is damaged: {error!r:.120}") from error
        if was != self.engine.ranks:
            self._partial = None
            self.note = (
                f"the run went on with {self.engine.ranks} processes after {was}: the stage under way began again, and "
                "the result is not bit by bit what it would have been"
            )


def _sealed(record: dict[str, Any]) -> str:
    """Return a record as JSON with its own SHA-256: whatever is read back is what was written."""
    return json.dumps({"sha256": sha256(json.dumps(record).encode()), **record})


def _opened(text: str) -> dict[str, Any]:
    """Return what ``_sealed`` was given, as JSON has it.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    record = json.loads(text)
    if record.pop("sha256") != sha256(json.dumps(record).encode()):
        raise ValueError("it does not match its SHA-256")
    return record


def _remove(path: Path) -> None:
    """Remove a file, or a folder of shards."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def callers_chance() -> Iterator[None]:
    """Give the caller's random numbers back as they were."""
    before = chance.states()
    try:
        yield
    finally:
        chance.restore(before)
