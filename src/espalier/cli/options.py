"""What each command takes. Fields become options; the help is their docstring, or that of a type they share.

tyro reads the words of a line into these; pydantic then checks every value against its field (``dispatch``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from ..recipes import Settings
from ..recipes.settings import LIMITS
from ..recipes.steps.base import MOST_THREADS, WHOLE
from ..recipes.steps.export import LEAST_SQNR_DB, ExportFormat, ExportScheme
from .groups import joined, part
from .usage import UsageError, flag

_Name = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(
        metavar="MODEL", help="timm:, torchvision:, transformers: or espalier: name, or path/to/file.py:function"
    ),
]
_Folder = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help="the run folder")]
_Place = Annotated[str, tyro.conf.arg(metavar="FOLDER", help="where the run folder goes")]
_Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
_Whole = Annotated[int | None, Field(ge=1, le=2**31 - 1), tyro.conf.arg(metavar="N", help_behavior_hint="")]
_Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
_Ratio = Annotated[float, Field(gt=0, lt=1)]
_Seed = Annotated[int, Field(ge=0, lt=WHOLE)]
_Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]
_Trust = Annotated[
    _Flag,
    tyro.conf.arg(
        help="run the code of a path/to/file.py:function that the run names, even if the folder was written elsewhere",
        help_behavior_hint="",
    ),
]

_BUDGET = (*LIMITS, "backend", "threads")
_CHOICE = ("method", "options", "criterion", "strategy", "keep", "round_to", "rounds", "score_batches", "recover")
_REST = tuple(name for name in Settings.model_fields if name not in _BUDGET + _CHOICE)

if TYPE_CHECKING:
    _Budget = _Choice = _Training = Settings
else:
    _Budget = part("Budget", "What the result may cost, on which backend; give at least one limit.", _BUDGET)
    _Choice = part("Choice", "Which units go, in how many cuts, and what mends the network.", _CHOICE)
    _Training = part("Training", "How the network is trained before and after.", _REST)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train a small network on scikit-learn's handwritten digits, compress it, prove it, save it and measure it."""

    macs: _Ratio = 0.3
    """multiply-accumulates the result may cost, as a ratio"""
    seed: _Seed = 0
    """of everything random"""
    out: _Place = "runs"
    name: _Text = None
    """of the run folder; after the model or the recipe and the time when not given"""
    json: _Flag = False
    """print the run as JSON"""


@dataclass(frozen=True, kw_only=True)
class Compress:
    """Make a network smaller, fine-tune it, save it and report."""

    model: _Name
    data: Annotated[str, tyro.conf.arg(metavar="SOURCE")]
    """digits; mnist:, cifar10:, cifar100:, camvid: or voc:PATH; imagefolder:PATH;
    parquet:PATH (a folder with train.parquet and test.parquet);
    ucf101: or hmdb51:PATH; huggingface:PATH (saved to disk); or path/to/file.py:function"""
    weights: _Text = None
    """file with the trained weights: safetensors, or a PyTorch checkpoint (read without pickle's code)"""
    pretrained: _Flag = False
    """download the published weights of a timm or torchvision model"""
    image_size: _Whole = None
    """height and width to scale images to"""
    out: _Place = "runs"
    name: _Text = None
    """of the run folder; after the model or the recipe and the time when not given"""
    json: _Flag = False
    """print the run as JSON"""
    budget: _Budget = field(default_factory=_Budget)
    choice: _Choice = field(default_factory=_Choice)
    training: _Training = field(default_factory=_Training)

    def settings(self) -> Settings:
        """Return what was chosen as settings.

        Raises:
            UsageError: no limit is given, or a value is out of range.
        """
        chosen = joined(self.budget, self.choice, self.training)
        if all(getattr(chosen, name) is None for name in LIMITS):
            limits = ", ".join(map(flag, LIMITS))
            raise UsageError(f"nothing says how small the result should be: give one of {limits}")
        return chosen


@dataclass(frozen=True, kw_only=True)
class Run:
    """Do what a recipe file says. What is given here takes the place of what the file says."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """recipe.toml, .yaml or .json"""
    model: _Text = None
    """timm:, torchvision:, transformers: or espalier: name, or path/to/file.py:function"""
    weights: _Text = None
    """file with the trained weights"""
    data: _Text = None
    """digits, parquet:PATH, imagefolder:PATH, ..."""
    engine: _Text = None
    """under torchrun: ddp or fsdp"""
    seed: Annotated[int | None, Field(ge=0, lt=WHOLE), tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """of everything random"""
    out: _Place = "runs"
    name: _Text = None
    """of the run folder; after the model or the recipe and the time when not given"""
    json: _Flag = False
    """print the run as JSON"""


@dataclass(frozen=True, kw_only=True)
class Resume:
    """Go on with a run that was stopped, from its last checkpoint."""

    run: _Folder
    trust: _Trust = False
    json: _Flag = False
    """print the run as JSON"""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """List the runs of a folder; or compare some of them."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = ()
    """runs to compare; all are listed when none is named"""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "runs"
    """where the run folders are"""
    json: _Flag = False
    """print everything as JSON"""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Do what a study file says, as far as it is not done yet, and report what it found."""

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """study.toml, .yaml or .json"""
    executor: Literal["inprocess", "pool", "ray"] = "inprocess"
    """where its runs go: one after another, processes of this machine, or the Ray cluster that RAY_ADDRESS names"""
    workers: _Count = 2
    """runs at a time, of pool and ray"""
    any_code: _Flag = False
    """take results that another version of Espalier's code has left in the folder, instead of computing them again"""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = "studies"
    """where the study's folder goes; results that it holds already are kept"""
    json: _Flag = False
    """print what was found as JSON"""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Show which units of a network live and die together, what is frozen, and why."""

    model: _Name
    json: _Flag = False
    """print everything as JSON"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report of a run folder again."""

    run: _Folder
    json: _Flag = False
    """print the run as JSON too"""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Time a network before and after compression, in float32 and in int8, in turns, on every backend there is."""

    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_MODEL")]
    """a run folder: its dense network and its result; or a model's name: that network, and a cut of it"""
    backends: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")] = ()
    """some of eager, compile, onnxruntime, openvino and executorch, and all but eager with -int8 at their end; all when
    not given"""
    batch: _Count = 1
    """inputs of a forward pass"""
    threads: Annotated[int | None, Field(ge=1, le=MOST_THREADS), tyro.conf.arg(metavar="N", help_behavior_hint="")] = (
        None
    )
    """of the backend; PyTorch's own number when not given"""
    rounds: Annotated[int, Field(ge=2)] = 30
    """timings of each network"""
    macs: _Ratio = 0.5
    """for a model's name: the ratio of multiply-accumulates that its cut keeps"""
    trust: _Trust = False
    json: _Flag = False
    """print everything as JSON"""


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the result of a run in another format; it is run and compared with PyTorch before it has its name."""

    run: _Folder
    to: ExportFormat = "onnx"
    """ONNX, OpenVINO IR, torch.export's own format (pt2) or ExecuTorch's (pte)"""
    int8: _Flag = False
    """weights and activations in eight bits, calibrated on inputs of the run's training split"""
    scheme: ExportScheme = "auto"
    """of int8: ranges of activations fixed by calibration (static), or found anew in every pass (dynamic); auto is
    dynamic for networks with attention or recurrent layers, static for others"""
    samples: _Count = 128
    """of int8: inputs to calibrate on"""
    least_sqnr_db: float = LEAST_SQNR_DB
    """of int8: signal to noise against PyTorch in decibels; a result with less is refused"""
    batch: _Count = 1
    """inputs of a forward pass; the exported network takes as many"""
    out: _Text = None
    """path of the file; model.onnx, .xml, .pt2 or .pte (with int8: model-int8.onnx, ...) in the run folder when not
    given"""
    trust: _Trust = False
    json: _Flag = False
    """print what was written as JSON"""


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Write a model's tensors in the fewest bytes; what is decoded is the same bit by bit, and compared at once."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE_OR_RUN")]
    """model.safetensors or other weights; or a run folder: its result"""
    out: _Text = None
    """path of the file; beside the model, with the ending .esp, when not given"""
    threads: _Whole = None
    """tensors at a time; as many as there are processors when not given"""
    json: _Flag = False
    """print what was written as JSON"""


@dataclass(frozen=True, kw_only=True)
class Decode:
    """Bring an encoded model back as safetensors, bit by bit."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """model.esp"""
    out: Annotated[str, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
    """path of the safetensors file"""
    threads: _Whole = None
    """tensors at a time; as many as there are processors when not given"""
    json: _Flag = False
    """print what was written as JSON"""


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """Show what the bytes of a model file go to, tensor by tensor; nothing is decoded."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """model.esp, or safetensors of anybody's"""
    json: _Flag = False
    """print everything as JSON"""


EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("espalier demo", "espalier demo --macs 0.15 --out /tmp/runs"),
    "compress": (
        "espalier compress timm:resnet18 --data imagefolder:PATH --pretrained --macs 0.5",
        "espalier compress espalier:cifar_resnet20 --weights FILE --data parquet:PATH --max-drop 1.0",
        "espalier compress espalier:cifar_resnet20 --weights FILE --data cifar10:PATH --macs 0.5 --method group_fisher",
        "espalier compress net.py:build --data imagefolder:PATH --latency-ms 12 --backend onnxruntime --size-mb 3",
    ),
    "run": ("espalier run recipe.toml", "espalier run recipe.toml --data cifar10:PATH --seed 1"),
    "resume": ("espalier resume runs/demo-20260131-123456",),
    "runs": ("espalier runs", "espalier runs demo-20260131-123456 demo-20260131-133456"),
    "study": (
        "espalier study examples/heuristics-digits.toml",
        "espalier study study.toml --executor pool --workers 2",
    ),
    "trace": ("espalier trace timm:vit_base_patch16_224", "espalier trace net.py:build --json"),
    "report": ("espalier report runs/demo-20260131-123456",),
    "bench": (
        "espalier bench runs/demo-20260131-123456",
        "espalier bench torchvision:resnet50 --macs 0.5 --backends eager onnxruntime --threads 1",
    ),
    "export": (
        "espalier export runs/demo-20260131-123456 --to onnx",
        "espalier export runs/demo-20260131-123456 --to openvino --int8",
    ),
    "encode": (
        "espalier encode runs/demo-20260131-123456",
        "espalier encode weights.safetensors --out weights.esp",
    ),
    "decode": ("espalier decode model.esp --out model.safetensors",),
    "inspect": ("espalier inspect model.esp", "espalier inspect model.safetensors --json"),
}
