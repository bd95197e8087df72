"""Findings for the tests of the study's report: one of everything, and one whose words are hostile."""

from __future__ import annotations

from espalier.core.findings import Bar, Bars, Findings, Heat, Lines, Mark, Section, Strip, Table


def made(word: str = "magnitude") -> Findings:
    """Return findings with every kind of part; ``word`` is in all their texts."""
    marks = (Mark(value=91.5, series=0, title=f"{word} 0"), Mark(value=93.0, series=1, title=f"{word} 1"))
    strip = Strip(title=f"Accuracy {word}", rows=((word, marks), ("random", marks[:1])), series=(word, "arm"))
    heat = Heat(title="Tau", labels=(word, "random"), values=((1.0, -0.25), (-0.25, None)), note=word)
    bars = Bars(title="Criticality", rows=(Bar(label=word, value=-1.5, low=-3.0, high=0.5, title=word),))
    lines = Lines(title="Curves", x_label=word, y_label="points", lines=((word, ((1.0, 50.0), (2.0, 80.0))),))
    table = Table(title="Means", head=(word, "value"), rows=((word, "1.00 [0.50, 1.50]"),), note=word)
    empty = Strip(title="None", rows=(), series=())
    return Findings(
        name=word,
        kind="heuristics",
        lead=f"{word} wins.",
        sections=(Section(title=word, text=word, parts=(strip, heat, bars, lines, table, empty)),),
        numbers={"reduction": float("nan"), "cells": [[0.5, float("inf")]]},
        notes=(word,),
        study=f'name = "{word}"',
        environment={word: word},
    )
