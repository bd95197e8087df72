"""Detection: boxes, loss and average precision by brute force, and Group Fisher on heads that a pyramid shares."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import espalier as es
from espalier.core import ModelError
from espalier.graph.probes.joined import joined
from espalier.methods.pruning.group_fisher import GroupFisher
from espalier.recipes import Measure, Prune, Recipe, Train, Training
from espalier.tasks import Task, load_task
from espalier.tasks.detection import AveragePrecision, DetectionLoss, Levels, overlaps

from .method_context import context, goal

SMALL = Levels(16, (4, 8), (6.0, float("inf")))  # 16 + 4 positions


def outputs_for(boxes: Tensor, classes: int, levels: Levels) -> Tensor:
    """Return outputs that say the same boxes (batch, positions, 4) with no class at all."""
    points, strides, _ = levels.places(boxes.device)
    reach = torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], 2) / strides[:, None]
    empty = torch.full((*boxes.shape[:2], classes), -20.0)
    return torch.cat([empty, reach.clamp(min=1e-6).log()], 2).transpose(1, 2)


def test_boxes_are_distances_from_positions() -> None:
    points, strides, level = SMALL.places(torch.device("cpu"))
    assert points[:2].tolist() == [[2, 2], [6, 2]] and points[16:18].tolist() == [[4, 4], [12, 4]]
    assert strides.tolist() == [4] * 16 + [8] * 4 and level.tolist() == [0] * 16 + [1] * 4
    wanted = torch.cat([points - torch.tensor([1.0, 2.0]), points + torch.tensor([3.0, 4.0])], 1)[None]
    _, boxes = SMALL.split(outputs_for(wanted, 3, SMALL), 3)
    torch.testing.assert_close(boxes, wanted)
    with pytest.raises(ModelError, match=r"answers \(batch, 7, 20\), not \(1, 6, 20\)"):
        SMALL.split(torch.zeros(1, 6, 20), 3)


def test_overlap_of_boxes() -> None:
    a, b = torch.tensor([0.0, 0, 4, 4]), torch.tensor([[2.0, 2, 6, 6], [0, 0, 4, 4], [5, 5, 6, 6], [0, 0, 2, 4]])
    assert overlaps(a, b).tolist() == pytest.approx([4 / 28, 1, 0, 0.5])


def test_an_object_is_for_its_level_near_its_centre() -> None:
    loss = DetectionLoss(3, SMALL)
    targets = torch.tensor([[[1.0, 4, 4, 8, 8], [2, 0, 0, 15, 15], [-1, 0, 0, 16, 16]]])
    owner = loss.assigned(targets)[0]
    assert owner[:16].reshape(4, 4).tolist() == [[-1, -1, -1, -1], [-1, 0, -1, -1], [-1, -1, -1, -1], [-1] * 4]
    assert owner[16:].tolist() == [1, 1, 1, 1]  # the large one, by the coarse level alone
    two = torch.tensor([[[1.0, 1, 1, 15, 15], [2, 2, 2, 12, 12]]])
    assert loss.assigned(two)[0, 16:].tolist() == [1, 0, 0, 0]  # the smaller one where it reaches


def test_the_loss_is_its_formula() -> None:
    torch.manual_seed(0)
    loss, outputs = DetectionLoss(3, SMALL), torch.randn(2, 7, 20)
    targets = torch.tensor([[[1.0, 4, 4, 8, 8], [2, 0, 0, 15, 15]], [[0, 3, 3, 7, 7], [-1, 0, 0, 0, 0]]])
    owner = loss.assigned(targets)
    scores, boxes = SMALL.split(outputs, 3)
    total, count = 0.0, 0
    for image in range(2):
        for place in range(20):
            mine = int(owner[image, place])
            count += mine >= 0
            for number in range(3):
                p = float(torch.sigmoid(scores[image, place, number]))
                if mine >= 0 and int(targets[image, mine, 0]) == number:
                    total -= 0.25 * (1 - p) ** 2 * math.log(p)
                else:
                    total -= 0.75 * p**2 * math.log(1 - p)
            if mine >= 0:
                total += 1 - float(overlaps(boxes[image, place], targets[image, mine, 1:]))
    assert count and float(loss(outputs, targets)) == pytest.approx(total / count, rel=1e-5)


def by_sorting(scores: list[float], right: list[bool], objects: int) -> float:
    """Return the area below precision's envelope, one box at a time."""
    order = sorted(range(len(scores)), key=lambda one: -scores[one])
    points, hits = [], 0
    for rank, one in enumerate(order, 1):
        hits += right[one]
        points.append((hits / objects, hits / rank))
    area, last = 0.0, 0.0
    for recall, _ in points:
        area += (recall - last) * max(precision for r, precision in points if r >= recall)
        last = recall
    return area


def test_average_precision_is_the_area_below_its_envelope() -> None:
    metric = AveragePrecision(2, SMALL)
    points, _, _ = SMALL.places(torch.device("cpu"))
    boxes = torch.cat([points - 1.5, points + 1.5], 1)[None].repeat(3, 1, 1)
    outputs = outputs_for(boxes, 2, SMALL)
    truth = torch.full((3, 3, 5), -1.0)
    scores, right = [0.95, 0.85, 0.75, 0.65, 0.55], [True, False, True, True, False]
    places = [(0, 0), (0, 5), (1, 3), (2, 10), (2, 15)]
    for number, ((image, place), score, good) in enumerate(zip(places, scores, right, strict=True)):
        outputs[image, 0, place] = math.log(score / (1 - score))
        if good:
            truth[image, number % 3] = torch.tensor([0.0, *boxes[image, place].tolist()])
    truth[0, 1] = torch.tensor([0.0, 12, 12, 15, 15])  # never found
    counts = metric.count(outputs, truth)
    assert metric.values(counts) == {"average_precision": pytest.approx(by_sorting(scores, right, 4))}
    parts = [metric.count(outputs[i : i + 1], truth[i : i + 1]) for i in range(3)]
    assert torch.equal(sum(parts[1:], parts[0]), counts)
    twice = metric.count(torch.cat([outputs[:1], outputs[:1]]), torch.cat([truth[:1], truth[:1]]))
    assert torch.equal(twice, 2 * metric.count(outputs[:1], truth[:1]))


def test_a_second_box_of_an_object_is_wrong_or_merged() -> None:
    metric = AveragePrecision(1, SMALL)
    points, _, _ = SMALL.places(torch.device("cpu"))
    same = torch.tensor([4.0, 4, 12, 12]).expand(1, 20, 4)  # all positions say one box
    outputs = outputs_for(same, 1, SMALL)
    inside = [place for place, (x, y) in enumerate(points.tolist()) if 4 < x < 12 and 4 < y < 12]
    outputs[0, 0, inside] = 3.0
    counts = metric.count(outputs, torch.tensor([[[0.0, 4, 4, 12, 12]]]))
    assert counts.sum().tolist() == 2 and metric.values(counts)["average_precision"] == 1.0


@pytest.fixture(scope="module")
def scenes() -> Task:
    return load_task("scenes", batch_size=32)


def test_scenes_are_always_the_same_and_their_boxes_hold_digits(scenes: Task) -> None:
    again = load_task("scenes", batch_size=32)
    (x, y), (a, b) = next(iter(scenes.validation)), next(iter(again.validation))
    assert torch.equal(x, a) and torch.equal(y, b) and scenes.kind == "detection" and x.shape[1:] == (1, 64, 64)
    real = y[y[..., 0] >= 0]
    sides = real[:, 3:] - real[:, 1:3]
    assert int(sides.min()) >= 8 and int(sides.max()) <= 24 and float((sides[:, 0] - sides[:, 1]).abs().max()) == 0
    image, box = x[0, 0], y[0][y[0, :, 0] >= 0][0, 1:].int().tolist()
    assert float(image[box[1] : box[3], box[0] : box[2]].mean()) > 0.15 > float(image.mean())


def test_shared_heads_are_summed_over_levels_before_squaring(scenes: Task) -> None:
    """One mask of a head's tower serves all three levels: its gradient is their sum, and only that is squared."""
    torch.manual_seed(0)
    model = es.model("espalier:pyramid_detector").eval()
    x, y = next(iter(scenes.validation))
    x, y = x[:4], y[:4]
    graph = es.trace(model, x)
    mask = torch.ones(4, graph.sizes["class_tower.weight:0"], requires_grad=True)
    total = torch.zeros(())
    for one in range(4):  # the loss is by objects' positions: a sum over samples only if each is alone
        handle = model.class_head.register_forward_pre_hook(
            lambda module, args, one=one: (args[0] * mask[one : one + 1, :, None, None],)
        )
        total = total + scenes.loss(model(x[one : one + 1]), y[one : one + 1])
        handle.remove()
    total.backward()
    assert mask.grad is not None
    method = GroupFisher()
    state = method.start(model, graph, context(goal(graph.cost().macs // 2)))
    for one in range(4):
        outputs = model(x[one : one + 1])
        method.penalty(state, (x[one : one + 1], y[one : one + 1]), outputs)
        scenes.loss(outputs, y[one : one + 1]).backward()
    state.drain()
    state.close()
    expected = mask.grad.double().square().sum(0)
    torch.testing.assert_close(state.sums["class_tower.weight:0"], expected, rtol=1e-4, atol=1e-12)
    assert set(state.sums) == set(graph.groups) and "sideways.0.weight:0" in joined(graph)
    assert functional.relu(expected).sum() > 0


@pytest.mark.slow
def test_a_detector_is_pruned_and_still_finds_digits(scenes: Task) -> None:
    torch.manual_seed(0)
    model = es.model("espalier:pyramid_detector")
    short = replace(scenes, validation=[next(iter(scenes.validation))])
    how = {"optimizer": "adamw", "clip_norm": 5.0}
    train = Train.model_validate({"epochs": 3, "lr": 0.004, **how})
    training = Training.model_validate({"epochs": 2, "lr": 0.001, **how})
    prune = Prune(method="group_fisher", macs=0.5, options={"every_steps": 10}, finetune=training)
    result = es.compress(model, short, Recipe(steps=(train, prune, Measure(latency=False)), batch_size=32))
    assert result.run.after.macs <= 0.5 * result.run.before.macs  # type: ignore[operator]
    assert result.run.metric == "average_precision" and result.run.after.accuracy > 0.05  # type: ignore[operator]
    assert "cut equals masked, the outputs within" in result.run.proof
