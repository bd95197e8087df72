"""The coverage benchmark's records as markdown tables."""

from __future__ import annotations

from collections.abc import Iterable

COLLECTIONS = ("torchvision", "timm", "transformers")
HEAD = (
    "model",
    "params (M)",
    "groups",
    "prunable",
    "trace (s)",
    "half of every group: MACs, params left",
    "cut + proof (s)",
    "asked 0.50 of MACs",
    "torch-pruning",
)


def report(records: Iterable[dict]) -> str:
    """Return the summary, one table a collection, and every failure with its reason."""
    own, peer = {}, {}
    for record in records:
        (own if record["tool"] == "espalier" else peer)[record["name"]] = record
    parts = ["## Summary\n", summary(own, peer)]
    for collection in COLLECTIONS:
        names = [name for name in own if name.startswith(collection)]
        if names:
            parts += [f"\n## {collection}\n", table([row(own[name], peer.get(name)) for name in names])]
    parts += ["\n## Does not run on the reference machine\n", failures(own.values(), dense=True)]
    parts += ["\n## Failures: espalier\n", failures(own.values(), dense=False)]
    parts += ["\n## Failures: torch-pruning\n", failures(peer.values(), dense=False)]
    return "\n".join(parts)


def summary(own: dict[str, dict], peer: dict[str, dict]) -> str:
    """Return the shares a collection, of the models whose dense forward pass runs."""
    rows = []
    for collection in (*COLLECTIONS, ""):
        ours = [r for name, r in own.items() if name.startswith(collection) and "dense" in r]
        theirs = [r for name, r in peer.items() if name.startswith(collection) and "dense" in r]
        if not ours and not theirs:
            continue
        rows.append(
            [
                collection or "all",
                str(len(ours)),
                share("trace" in r for r in ours),
                share("cut" in r for r in ours),
                share(r.get("trace", {}).get("share", 0.0) >= 0.99 for r in ours),
                share(0.48 <= r.get("budget", {}).get("macs_ratio", 0.0) <= 0.50 for r in ours),
                share("forward" in r and "failed" not in r for r in theirs),
            ]
        )
    head = [
        "",
        "models that run",
        "traced",
        "cut and proved",
        ">= 99 % prunable",
        "MACs in 0.48-0.50",
        "torch-pruning ran",
    ]
    return table(rows, head)


def share(flags: Iterable[bool]) -> str:
    """Return "37 of 40 (92.5 %)"."""
    all_flags = list(flags)
    return f"{sum(all_flags)} of {len(all_flags)} ({100 * sum(all_flags) / max(1, len(all_flags)):.1f} %)"


def row(own: dict, peer: dict | None) -> list[str]:
    """Return the cells of one model."""
    dense, trace, cut, budget = (own.get(stage, {}) for stage in ("dense", "trace", "cut", "budget"))
    return [
        own["name"].partition(":")[2],
        number(dense.get("params", 0) / 1e6, 2) if dense else "",
        str(trace.get("groups", "")),
        f"{100 * trace['share']:.1f} %" if trace else "",
        number(trace.get("seconds"), 2),
        f"{cut['macs_ratio']:.2f}, {cut['params_ratio']:.2f}" if cut else "failed",
        number(cut.get("seconds"), 1),
        number(budget.get("macs_ratio"), 3) or "failed",
        verdict(peer),
    ]


def verdict(peer: dict | None) -> str:
    """Return whether the peer's pruned network ran, and what it left of the MACs."""
    if peer is None:
        return ""
    if "failed" in peer or "forward" not in peer:
        return "failed"
    return f"ran ({peer['forward']['macs_ratio']:.2f} of MACs)"


def number(value: float | None, digits: int) -> str:
    """Return a number, or nothing."""
    return "" if value is None else f"{value:.{digits}f}"


def failures(records: Iterable[dict], *, dense: bool) -> str:
    """Return one line a failure: those of the dense network itself, or the others."""
    lines = []
    for record in records:
        failed = record.get("failed")
        if failed and ("dense" not in record) == dense:
            reason = failed["reason"].replace("|", "/")
            lines.append(f"- `{record['name']}` ({failed['during']}): {reason}")
    return "\n".join(lines) or "none"


def table(rows: list[list[str]], head: Iterable[str] = HEAD) -> str:
    """Return a markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
