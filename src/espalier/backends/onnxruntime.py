"""ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .onnx_calls import Branches, number_in
from .onnx_file import missing
from .protocol import BackendError, Prepared, Run, tensors
from .through_onnx import ThroughOnnx, Timing

# Between a blocked and a plain layout: inside a network neighbours share a layout and most of these vanish.
_LAYOUT = ("ReorderInput", "ReorderOutput")


@dataclass(frozen=True)
class OnnxRuntime(ThroughOnnx):
    """The network as an ONNX file, optimized and run by ONNX Runtime's own kernels."""

    name: str = "onnxruntime"

    def unavailable(self) -> str | None:
        """Return what to install, or None."""
        return missing("onnx", "onnxscript", "onnxruntime", extra="onnx")

    def version(self) -> str:
        """Return ONNX Runtime's version, and PyTorch's, which exports."""
        return f"onnxruntime {_runtime().__version__}, exported by torch {torch.__version__}"

    def load(self, path: Path, example: Any, threads: int) -> Prepared:
        """Return a session on a file."""
        return session_of(path, example, threads)

    def profile(self, built: Branches, threads: int, sweeps: int) -> Iterator[Timing]:
        """Yield the kernels' times from the runtime's profile; a kernel's first run is its warm-up."""
        with tempfile.TemporaryDirectory() as folder:
            session = _session(built.model(), threads, str(Path(folder) / "profile"))
            for _ in range(sweeps + 1):
                session.run(None, built.feeds)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        warm: set[tuple[int, str]] = set()
        for event in events:
            number = number_in(event.get("name", ""))
            kernel = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
            if not kernel or number is None or event["args"].get("op_name") in _LAYOUT:
                continue
            node = (number, event["name"])
            if node in warm:
                yield *node, 1e-3 * event["dur"]
            warm.add(node)


def session_of(path: Path, example: Any, threads: int) -> Prepared:
    """Return what runs an ONNX file on ``example``.

    Raises:
        BackendError: ONNX Runtime cannot load it.
    """
    session, content = _session(str(path), threads), path.read_bytes()  # the file may be gone when it is looked into

    def bind(given: Any) -> Run:
        feed = feed_of(session, given)

        def run() -> list[Tensor]:
            return [torch.from_numpy(np.asarray(array)) for array in session.run(None, feed)]

        return run

    return Prepared(bind, example, lambda: _kernels(content, feed_of(session, example), threads))


def feed_of(session: Any, example: Any) -> dict[str, np.ndarray]:
    """Return an example's arrays by the names of a network's inputs.

    Raises:
        BackendError: there are more or fewer.
    """
    given = tensors(example)
    names = [one.name for one in session.get_inputs()]
    if len(names) != len(given):
        raise BackendError(
            f"the exported network takes {len(names)} inputs, the example has {len(given)} tensors: an argument that "
            "does not reach the outputs was dropped; leave it out of the example"
        )
    return {name: tensor.detach().cpu().numpy() for name, tensor in zip(names, given, strict=True)}


def _kernels(content: bytes, feed: dict[str, np.ndarray], threads: int) -> Counter[str]:
    """Return the operators of one run by the runtime's profile, with the type of their first input."""
    with tempfile.TemporaryDirectory() as folder:
        session = _session(content, threads, str(Path(folder) / "profile"))
        session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    found: Counter[str] = Counter()
    for event in events:
        given = event.get("args", {})
        kernel = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        if kernel and given.get("op_name") not in _LAYOUT:
            first = next((key for shape in given.get("input_type_shape", [])[:1] for key in shape), "")
            found[f"{given.get('op_name')} {first}".strip()] += 1
    return found


def _runtime() -> Any:
    import onnxruntime

    return onnxruntime


def _session(model: Any, threads: int, profile: str = "") -> Any:
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if threads > 1:  # a network that waits must not keep the cores that its rival in a race needs
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    try:
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors are of types without a common base
        raise BackendError(f"ONNX Runtime cannot load the network: {str(error)[:300]}") from error
