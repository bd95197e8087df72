"""ExecuTorch on the CPU: PyTorch's runtime for phones and small machines, with XNNPACK's kernels.

torch.export ──▶ (torchao's quantization) ──▶ to_edge, XNNPACK takes what it can ──▶ .pte ──▶ runtime
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .int8.pt2e import converted, program_of
from .onnx_file import missing
from .protocol import BackendError, ExportError, Prepared, Run, tensors


@dataclass(frozen=True)
class ExecuTorch:
    """The network as an ExecuTorch program, its layers by XNNPACK where that knows them."""

    name: str = "executorch"

    def unavailable(self) -> str | None:
        """Return what to install, or why what is installed does not work, or None."""
        return unavailable()

    def version(self) -> str:
        """Return ExecuTorch's version, and PyTorch's, which exports."""
        return version()

    def prepare(self, model: nn.Module, example: Any, threads: int) -> Prepared:
        """Return what runs the program of ``model``.

        Raises:
            BackendError: ExecuTorch cannot hold this network.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pte"
            write_pte(model, example, path)
            return method_of(path, example, threads)


def unavailable() -> str | None:
    """Return what to install, or why what is installed does not work beside this PyTorch, or None."""
    absent = missing("executorch", "torchao", extra="executorch")
    if absent:
        return absent
    try:
        with quiet():
            import_module("executorch.exir")
            import_module("executorch.runtime")
    except Exception as error:  # a wheel for another PyTorch fails as it is imported, in many ways
        return f"executorch does not import beside torch {torch.__version__}: {error!r:.200}"
    return None


def version() -> str:
    """Return ExecuTorch's version, and PyTorch's, which exports."""
    return f"executorch {installed('executorch')}, exported by torch {torch.__version__}"


def write_pte(
    model: nn.Module,
    example: Any,
    path: Path,
    *,
    int8: tuple[Literal["static", "dynamic"], Iterable[Any]] | None = None,
) -> None:
    """Write a program; it is not checked here.

    Args:
        int8: scheme and calibration inputs, or None for float32.

    Raises:
        ExportError: ExecuTorch is not there, or cannot hold this network.
    """
    absent = unavailable()
    if absent:
        raise ExportError(absent)
    if int8 is not None:
        model = _quantized(model, example, *int8)
    program = program_of(model, example)
    with quiet():
        xnnpack = import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        exir = import_module("executorch.exir")
        try:
            lowered = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
            path.write_bytes(lowered.to_executorch().buffer)
        except Exception as error:  # its passes raise whatever they do
            raise ExportError(f"ExecuTorch cannot hold {type(model).__name__}: {error!r:.300}") from error


def _quantized(model: nn.Module, example: Any, scheme: Literal["static", "dynamic"], inputs: Iterable[Any]) -> Any:
    with quiet():
        xnnpack = import_module("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
        config = xnnpack.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=scheme == "dynamic")
        return converted(model, example, xnnpack.XNNPACKQuantizer().set_global(config), inputs)


def method_of(path: Path, example: Any, threads: int) -> Prepared:
    """Return what runs a program's forward on ``example``.

    Raises:
        BackendError: the runtime cannot load it.
    """
    content = path.read_bytes()
    with quiet():
        portable_lib = import_module("executorch.extension.pybindings.portable_lib")
        runtime = import_module("executorch.runtime").Runtime.get()
        if portable_lib._threadpool_get_thread_count() != threads:
            portable_lib._unsafe_reset_threadpool(threads)
        try:
            method = runtime.load_program(content).load_method("forward")
        except Exception as error:
            raise BackendError(f"ExecuTorch cannot load the network: {error!r:.300}") from error
    if method is None:
        raise BackendError("ExecuTorch cannot load the network: it has no method forward")

    def bind(given: Any) -> Run:
        inputs = [tensor.contiguous() for tensor in tensors(given)]

        def run() -> list[Tensor]:
            # the runtime's own memory: the next run writes over it
            return [one.clone() for one in method.execute(inputs) if isinstance(one, Tensor)]

        return run

    return Prepared(bind, example, lambda: _instructions(content))


def _instructions(content: bytes) -> Counter[str]:
    """Return what a program calls: parts that XNNPACK took as a whole, and operators of the portable library."""
    with quiet():
        program = import_module("executorch.exir._serialize._program").deserialize_pte_binary(content).program
    found: Counter[str] = Counter()
    for plan in program.execution_plan:
        for chain in plan.chains:
            for one in chain.instructions:
                arguments = one.instr_args
                if hasattr(arguments, "delegate_index"):
                    found[f"{plan.delegates[arguments.delegate_index].id} (a part of the network)"] += 1
                elif hasattr(arguments, "op_index"):
                    found[f"{plan.operators[arguments.op_index].name} (portable)"] += 1
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Silence ExecuTorch's remarks on the processor, which its C++ writes to standard error."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    before = os.dup(2)
    try:
        with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere:
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        logging.disable(level)
