"""I3D and the moving digits: names and sizes as published, padding by hand, and motions as their classes say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import espalier as es
from espalier.core import FileError
from espalier.tasks import Task, load_task
from espalier.tasks.sources.moving_digits import MOTIONS
from espalier.zoo.i3d import I3D, i3d


@pytest.fixture(scope="module")
def videos() -> Task:
    return load_task("moving_digits", batch_size=32)


def test_names_and_shapes_are_those_of_the_kinetics_checkpoints() -> None:
    with torch.device("meta"):
        state = {name: tuple(tensor.shape) for name, tensor in i3d().state_dict().items()}
    published = {
        "Conv3d_1a_7x7.conv3d.weight": (64, 3, 7, 7, 7),
        "Conv3d_1a_7x7.bn.running_var": (64,),
        "Conv3d_2c_3x3.conv3d.weight": (192, 64, 3, 3, 3),
        "Mixed_3b.b0.conv3d.weight": (64, 192, 1, 1, 1),
        "Mixed_4d.b1b.conv3d.weight": (256, 128, 3, 3, 3),
        "Mixed_4f.b2a.bn.weight": (32,),
        "Mixed_5c.b3b.conv3d.weight": (128, 832, 1, 1, 1),
        "logits.conv3d.weight": (400, 1024, 1, 1, 1),
        "logits.conv3d.bias": (400,),
    }
    assert published.items() <= state.items()
    assert sum(name.endswith("conv3d.weight") for name in state) == 3 + 9 * 6 + 1
    weights = [shape for name, shape in state.items() if not name.endswith(("running_mean", "running_var", "tracked"))]
    assert round(sum(map(math.prod, weights)) / 1e6, 1) == 12.7


def test_padding_is_tensorflows(videos: Task) -> None:
    torch.manual_seed(0)
    model = I3D(10, width=1 / 16, channels=1).eval()
    x = videos.example()
    unit = model.Conv3d_1a_7x7
    with torch.no_grad():
        found = unit.conv3d(functional.pad(x, (2, 3, 2, 3, 2, 3)))  # even sizes, kernel 7, stride 2: 5 zeros, 2 before
        assert torch.equal(unit(x), functional.relu(unit.bn(found))) and found.shape[2:] == (4, 16, 16)
        odd = model.Conv3d_1a_7x7(x[:, :, :7, :31, :31])  # odd sizes: 6 zeros, 3 on both sides
        by_hand = functional.conv3d(x[:, :, :7, :31, :31], unit.conv3d.weight, stride=2, padding=3)
        assert torch.allclose(odd, functional.relu(unit.bn(by_hand)), atol=1e-6) and odd.shape[2:] == (4, 16, 16)


def test_concatenated_branches_are_cut_and_proved(videos: Task) -> None:
    torch.manual_seed(0)
    model = es.model("espalier:i3d_narrow", classes=10).eval()
    graph = es.trace(model, videos.example())
    assert {axis.tensor for axis in graph.frozen} == {"logits.conv3d.weight", "logits.conv3d.bias"}
    plan = es.plan(graph, es.criteria.magnitude(model, graph), es.Budget(macs=0.5), strategy="uniform")
    small = es.cut(model, graph, plan, prove=True)
    assert es.trace(small, videos.example()).cost().macs <= 0.5 * graph.cost().macs
    assert small.Mixed_4c.b1a.conv3d.in_channels < model.Mixed_4c.b1a.conv3d.in_channels
    whole = es.trace(I3D(5, width=1 / 8), torch.zeros(2, 3, 9, 40, 40))  # another size and another number of channels
    assert len(whole.groups) == len(graph.groups)


def middles(videos: Task, motion: str) -> tuple[Tensor, Tensor]:
    """Return where the light of a motion's videos is (count, frames, 2), and how far it is spread (count, frames)."""
    loader = videos.validation
    light = loader.images[loader.targets == MOTIONS.index(motion)][:, 0].float()  # type: ignore[attr-defined]
    at = torch.linspace(-1, 1, light.shape[-1])
    total = light.sum((2, 3))
    x, y = (light.sum(2) * at).sum(2) / total, (light.sum(3) * at).sum(2) / total
    spread = (light * ((at - x[..., None, None]) ** 2 + (at[:, None] - y[..., None, None]) ** 2)).sum((2, 3)) / total
    return torch.stack([x, y], dim=2), spread.sqrt()


@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
def test_digits_go_where_the_class_says(videos: Task, motion: str, axis: int, sign: int) -> None:
    place, _ = middles(videos, motion)
    assert ((sign * place.diff(dim=1)[..., axis]) > 0).all()
    assert (place[..., 1 - axis].diff(dim=1).abs() < 0.05).all()


@pytest.mark.parametrize(("motion", "axis"), [("bouncing sideways", 0), ("bouncing upright", 1)])
def test_bouncing_digits_turn_round(videos: Task, motion: str, axis: int) -> None:
    steps = middles(videos, motion)[0].diff(dim=1)[..., axis]
    assert ((steps > 0.01).any(1) & (steps < -0.01).any(1)).all()


def test_growing_digits_grow_and_shrinking_ones_shrink(videos: Task) -> None:
    assert (middles(videos, "growing")[1].diff(dim=1) > 0).all()
    assert (middles(videos, "shrinking")[1].diff(dim=1) < 0).all()


@pytest.mark.parametrize(("motion", "sign"), [("clockwise", 1), ("anticlockwise", -1)])
def test_turning_digits_turn_that_way(videos: Task, motion: str, sign: int) -> None:
    """A frame is nearer to the one before it turned by some angle that way than to the same turned the other way."""
    loader = videos.validation
    light = loader.images[loader.targets == MOTIONS.index(motion)][:, 0].float()  # type: ignore[attr-defined]
    place, _ = middles(videos, motion)

    def turned(angle: float) -> Tensor:
        frame, (x, y) = light[:, 0], place[:, 0].unbind(1)
        cos, sin = torch.full_like(x, math.cos(angle)), torch.full_like(x, math.sin(angle))
        rows = [cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y]
        grid = functional.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), [len(x), 1, 32, 32], align_corners=False)
        return functional.grid_sample(frame[:, None], grid, align_corners=False)[:, 0]

    right, wrong = ((turned(a) - light[:, 1]).square().sum((1, 2)) for a in (0.3 * sign, -0.3 * sign))
    assert (right < wrong).float().mean() > 0.9


def test_videos_are_the_same_every_time_and_their_classes_even(videos: Task) -> None:
    again = load_task("moving_digits", batch_size=32, seed=5)
    for split in ("train", "validation"):
        ours, theirs = getattr(videos, split), getattr(again, split)
        assert torch.equal(ours.images, theirs.images) and torch.equal(ours.targets, theirs.targets)
        counts = torch.bincount(ours.targets)
        assert counts.max() - counts.min() <= 1
    assert videos.input_shape == (1, 8, 32, 32) and videos.class_names == MOTIONS and videos.classes == 10
    inputs = torch.cat([batch for batch, _ in videos.train])
    assert abs(float(inputs.mean())) < 0.02 and abs(float(inputs.std()) - 1) < 0.02


def test_frames_have_the_size_that_is_asked_for() -> None:
    assert load_task("moving_digits", image_size=20).input_shape == (1, 8, 20, 20)
    with pytest.raises(FileError, match="16 pixels"):
        load_task("moving_digits", image_size=8)
