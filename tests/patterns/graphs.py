"""Networks on graphs, sets and point clouds; distances between learned features."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Net, Pattern, tokens

Gather = Callable[[Tensor, Tensor, Tensor], Tensor]  # (messages, where they go, the nodes) -> nodes


def index_add(messages: Tensor, where: Tensor, nodes: Tensor) -> Tensor:
    return torch.zeros(nodes.size(0), messages.size(1), dtype=nodes.dtype).index_add_(0, where, messages)


def scatter_add(messages: Tensor, where: Tensor, nodes: Tensor) -> Tensor:
    return torch.zeros_like(nodes).scatter_add(0, where[:, None].expand_as(messages), messages)


def scatter_mean(messages: Tensor, where: Tensor, nodes: Tensor) -> Tensor:
    wide = where.unsqueeze(-1).expand_as(messages)
    return messages.new_zeros(nodes.size(0), messages.size(1)).scatter_reduce(0, wide, messages, "mean")


def scatter_max(messages: Tensor, where: Tensor, nodes: Tensor) -> Tensor:
    wide = where.unsqueeze(-1).expand_as(messages)
    return torch.zeros_like(nodes).scatter_reduce_(0, wide, messages, "amax", include_self=False)


def segments(messages: Tensor, where: Tensor, nodes: Tensor) -> Tensor:
    return torch.segment_reduce(messages, "sum", lengths=torch.bincount(where, minlength=nodes.size(0)), axis=0)


def put(messages: Tensor, where: Tensor, nodes: Tensor) -> Tensor:
    return torch.zeros_like(nodes).index_put((where,), messages, accumulate=True)


def graph_net(gather: Gather) -> Callable[[], nn.Module]:
    """Messages along edges, gathered where they arrive, normalised over channels."""

    def run(net: Net, x: Tensor, edges: Tensor) -> Tensor:
        x, (source, target) = net.stem(x).relu(), edges
        return net.head(net.norm(gather(net.message(x.index_select(0, source)), target, x) + x))

    return lambda: Net(run, stem=nn.Linear(4, 8), message=nn.Linear(8, 8), norm=nn.LayerNorm(8), head=nn.Linear(8, 4))


def graph() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 4), torch.tensor([[0, 1, 2, 3, 4, 0], [0, 1, 1, 2, 3, 4]])


def attention(net: Net, x: Tensor, edges: Tensor) -> Tensor:
    """GAT: a softmax over each node's incoming edges, written with index_add."""
    x, (source, target) = net.stem(x).view(-1, net.heads, net.width), edges
    weight = F.leaky_relu((x * net.a).sum(-1)[source] + (x * net.b).sum(-1)[target]).exp()
    total = torch.zeros(x.size(0), net.heads, dtype=x.dtype).index_add_(0, target, weight)
    out = torch.zeros_like(x).index_add_(0, target, x[source] * (weight / (total[target] + 1e-9)).unsqueeze(-1))
    return net.head(out.flatten(1))


def nearest(net: Net, x: Tensor) -> Tensor:
    """DGCNN: features of the nearest points and their differences, the maximum over neighbours."""
    y, near = net.stem(x), torch.cdist(x, x).topk(3, largest=False)[1]
    batch, count, width = y.shape
    index = near.unsqueeze(-1).expand(batch, count, 3, width)
    around = torch.gather(y.unsqueeze(1).expand(batch, count, count, width), 2, index)
    centre = y.unsqueeze(2).expand(batch, count, 3, width)
    return net.head(net.edge(torch.cat([centre, around - centre], -1)).relu().max(2)[0])


def points(net: Net, x: Tensor) -> Tensor:
    """PointNet: the maximum over points, told to every point."""
    y = net.one(x).relu()
    return net.head(torch.cat([y, net.two(y).max(2, keepdim=True)[0].repeat(1, 1, y.shape[2])], 1))


def sparse(net: Net, x: Tensor) -> Tensor:
    """A constant sparse adjacency, by torch.sparse.mm and by @."""
    adjacency = torch.eye(5, dtype=x.dtype).roll(1, 0).to_sparse()
    x = net.stem(x).relu()
    return net.head(torch.sparse.mm(adjacency, x) + adjacency @ x)


def distances(net: Net, x: Tensor) -> tuple[Tensor, ...]:
    """Distances to prototypes, of every kind, between features that are never read by a weight."""
    a, b = net.one(x), net.two(x)
    near = torch.cdist(a, net.prototypes) + torch.cdist(a, b, p=1.0)
    return near, F.pairwise_distance(a, b), F.cosine_similarity(a.unsqueeze(2), net.prototypes, dim=-1)


GATHERS = (index_add, scatter_add, scatter_mean, scatter_max, segments, put)

PATTERNS = [
    *(Pattern(name=f"graph_{gather.__name__}", make=graph_net(gather), example=graph, expect=1) for gather in GATHERS),
    Pattern(
        name="graph_attention",
        make=lambda: Net(
            attention,
            heads=2,
            width=4,
            stem=nn.Linear(4, 8),
            a=nn.Parameter(torch.randn(1, 2, 4)),
            b=nn.Parameter(torch.randn(1, 2, 4)),
            head=nn.Linear(8, 4),
        ),
        example=graph,
        expect=2,
    ),
    Pattern(
        name="nearest_points",
        make=lambda: Net(nearest, stem=nn.Linear(4, 8), edge=nn.Linear(16, 6), head=nn.Linear(6, 4)),
        example=tokens(4, 4),
        expect=2,
    ),
    Pattern(
        name="points_maximum",
        make=lambda: Net(points, one=nn.Conv1d(4, 8, 1), two=nn.Conv1d(8, 12, 1), head=nn.Conv1d(20, 4, 1)),
        example=tokens(4, 4),
        expect=2,
    ),
    Pattern(
        name="sparse_adjacency",
        make=lambda: Net(sparse, stem=nn.Linear(4, 8), head=nn.Linear(8, 4)),
        example=lambda: torch.randn(5, 4),
        expect=1,
    ),
    Pattern(
        name="distances",
        make=lambda: Net(
            distances, one=nn.Linear(4, 8), two=nn.Linear(4, 8), prototypes=nn.Parameter(torch.randn(4, 8))
        ),
        example=tokens(4, 4),
        expect=1,
    ),
]
