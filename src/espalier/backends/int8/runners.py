"""The runtimes in int8, as runners beside those in float32."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from torch import nn

from .. import executorch, onnxruntime, openvino
from ..agreement import probe
from ..compile import Compile, compiled
from ..onnx_file import write_onnx
from ..protocol import ExportError, Prepared
from . import inductor, through_openvino
from .grids import carries_grids, explicit
from .pt2e import program_of
from .scheme import scheme_of
from .settings import Int8, split

Scheme = Literal["static", "dynamic"]


@dataclass(frozen=True)
class _InInt8(ABC):
    """A runtime in int8; without inputs of the user's it calibrates on noise, which no time depends on."""

    name: str = ""
    float32: str = ""
    settings: Int8 = field(default_factory=Int8)

    @abstractmethod
    def unavailable(self) -> str | None:
        """Return why it cannot be used here and what to install, or None."""

    @abstractmethod
    def version(self) -> str:
        """Return the versions that its timings depend on."""

    def calibrated(self, batches: Iterable[Any]) -> Self:
        """Return this runner with inputs to calibrate on."""
        return replace(self, settings=replace(self.settings, batches=batches))

    def prepare(self, model: nn.Module, example: Any, threads: int) -> Prepared:
        """Return what runs the model in int8; how near it comes to float32 is not judged here.

        Raises:
            BackendError: the runtime cannot quantize or run this network.
        """
        settings = self.settings
        if carries_grids(model):
            return self._of_its_grids(explicit(model), example, threads)
        try:
            calibration, _ = split(settings, example)
        except ExportError:
            if settings.batches:
                raise
            calibration = [probe(example)]
        with tempfile.TemporaryDirectory() as folder:
            scheme = scheme_of(model, example, settings)
            return self._prepared(model, example, threads, (scheme, calibration, Path(folder)))

    @abstractmethod
    def _of_its_grids(self, model: nn.Module, example: Any, threads: int) -> Prepared: ...

    @abstractmethod
    def _prepared(
        self, model: nn.Module, example: Any, threads: int, how: tuple[Scheme, list[Any], Path]
    ) -> Prepared: ...


@dataclass(frozen=True)
class OnnxRuntimeInt8(_InInt8):
    """ONNX Runtime on a file with quantization nodes."""

    name: str = "onnxruntime-int8"
    float32: str = "onnxruntime"

    def unavailable(self) -> str | None:
        """Return what to install, or None."""
        return onnxruntime.OnnxRuntime().unavailable()

    def version(self) -> str:
        """Return ONNX Runtime's version, and PyTorch's, which exports."""
        return onnxruntime.OnnxRuntime().version()

    def _of_its_grids(self, model: nn.Module, example: Any, threads: int) -> Prepared:
        return onnxruntime.OnnxRuntime().prepare(model, example, threads)

    def _prepared(self, model: nn.Module, example: Any, threads: int, how: tuple[Scheme, list[Any], Path]) -> Prepared:
        from .through_onnx import quantize

        scheme, calibration, folder = how
        write_onnx(model, example, folder / "float32.onnx")
        quantize(folder / "float32.onnx", folder / "int8.onnx", scheme, calibration)
        return onnxruntime.session_of(folder / "int8.onnx", example, threads)


@dataclass(frozen=True)
class OpenVinoInt8(_InInt8):
    """OpenVINO on a network that NNCF quantized."""

    name: str = "openvino-int8"
    float32: str = "openvino"

    def unavailable(self) -> str | None:
        """Return what to install, or None."""
        return through_openvino.unavailable()

    def version(self) -> str:
        """Return the versions of OpenVINO, NNCF and PyTorch, which exports."""
        return f"{openvino.OpenVino().version()}, nncf {through_openvino.nncf_module().__version__}"

    def _of_its_grids(self, model: nn.Module, example: Any, threads: int) -> Prepared:
        return openvino.OpenVino().prepare(model, example, threads)

    def _prepared(self, model: nn.Module, example: Any, threads: int, how: tuple[Scheme, list[Any], Path]) -> Prepared:
        scheme, calibration, folder = how
        write_onnx(model, example, folder / "float32.onnx")
        through_openvino.quantize(folder / "float32.onnx", folder / "int8.xml", scheme, calibration)
        return openvino.compiled_of(folder / "int8.xml", example, threads)


@dataclass(frozen=True)
class CompileInt8(_InInt8):
    """torch.compile on a program that torchao quantized."""

    name: str = "compile-int8"
    float32: str = "compile"

    def unavailable(self) -> str | None:
        """Return what to install, or None."""
        return Compile().unavailable() or inductor.unavailable()

    def version(self) -> str:
        """Return PyTorch's version and torchao's."""
        from importlib.metadata import version

        return f"{Compile().version()}, torchao {version('torchao')}"

    def _of_its_grids(self, model: nn.Module, example: Any, threads: int) -> Prepared:
        return compiled(program_of(model, example).module(), example, threads, freezing=True)

    def _prepared(self, model: nn.Module, example: Any, threads: int, how: tuple[Scheme, list[Any], Path]) -> Prepared:
        scheme, calibration, _ = how
        network = inductor.quantized(model, example, scheme, calibration)
        return compiled(network, example, threads, freezing=True)


@dataclass(frozen=True)
class ExecuTorchInt8(_InInt8):
    """ExecuTorch on a program that torchao quantized for XNNPACK."""

    name: str = "executorch-int8"
    float32: str = "executorch"

    def unavailable(self) -> str | None:
        """Return what to install, or None."""
        return executorch.unavailable()

    def version(self) -> str:
        """Return ExecuTorch's version, and PyTorch's, which exports."""
        return executorch.version()

    def _of_its_grids(self, model: nn.Module, example: Any, threads: int) -> Prepared:
        return executorch.ExecuTorch().prepare(model, example, threads)

    def _prepared(self, model: nn.Module, example: Any, threads: int, how: tuple[Scheme, list[Any], Path]) -> Prepared:
        scheme, calibration, folder = how
        executorch.write_pte(model, example, folder / "int8.pte", int8=(scheme, calibration))
        return executorch.method_of(folder / "int8.pte", example, threads)


IN_INT8: dict[str, _InInt8] = {
    one.name: one for one in (CompileInt8(), OnnxRuntimeInt8(), OpenVinoInt8(), ExecuTorchInt8())
}
