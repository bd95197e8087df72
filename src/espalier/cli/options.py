"""What each command takes. Fields become options, their docstrings the help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ..recipes import Settings

_Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
_Settings = Annotated[Settings, tyro.conf.arg(name=""), tyro.conf.UseAppendAction]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train a small network on scikit-learn's handwritten digits, compress it, prove it, save it and measure it."""

    macs: float = 0.3
    """multiply-accumulates the result may cost, as a ratio"""
    seed: int = 0
    """of everything random"""
    out: str = "runs"
    """where the run folder goes"""


@dataclass(frozen=True, kw_only=True)
class Compress:
    """Make a network smaller, fine-tune it, save it and report."""

    model: _Name
    """timm:, torchvision:, transformers: or espalier: name, or path/to/file.py:function"""
    data: str
    """digits; mnist:, cifar10:, cifar100: or camvid:PATH; parquet:PATH (a folder with train.parquet and test.parquet);
    imagefolder:PATH; huggingface:PATH (saved to disk); or path/to/file.py:function"""
    weights: str | None = None
    """file with the trained weights: safetensors, or a PyTorch checkpoint (read without pickle's code)"""
    pretrained: bool = False
    """download the published weights of a timm or torchvision model"""
    image_size: int | None = None
    """height and width to scale images to"""
    out: str = "runs"
    """where the run folder goes"""
    settings: _Settings = field(default_factory=Settings)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Do what a recipe file says. What is given here takes the place of what the file says."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """recipe.toml, .yaml or .json"""
    model: str | None = None
    """timm:, torchvision:, transformers: or espalier: name, or path/to/file.py:function"""
    weights: str | None = None
    """file with the trained weights"""
    data: str | None = None
    """digits, parquet:PATH, imagefolder:PATH, ..."""
    seed: int | None = None
    """of everything random"""
    out: str = "runs"
    """where the run folder goes"""


@dataclass(frozen=True, kw_only=True)
class Resume:
    """Go on with a run that was stopped, from its last checkpoint."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """the run folder"""
    trust: bool = False
    """run the code of a path/to/file.py:function that the recipe names, even if the folder was written elsewhere"""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """List the runs of a folder; or compare some of them."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = ()
    """runs to compare; all are listed when none is named"""
    out: str = "runs"
    """where the run folders are"""
    json: bool = False
    """print everything as JSON"""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Show which units of a network live and die together, what is frozen, and why."""

    model: _Name
    """timm:, torchvision:, transformers: or espalier: name, or path/to/file.py:function"""
    json: bool = False
    """print everything as JSON"""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report of a run folder again."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """the run folder"""
