"""Mistakes on the command line: one clear message each, exit code 2, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from .test_cli import OWN_FILE, USER_FILE, run

REFUSED = [
    ("compres", "Did you mean 'compress'?"),
    ("compress espalier:digits_cnn --data digits", "give one of --macs, --params, --activations, --latency-ms, --size"),
    ("compress", "compress needs MODEL and --data; for example: espalier compress"),
    ("compress espalier:digits_cnn --macs 0.5", "compress needs --data; for example"),
    ("compress espalier:digits_cnn --data digits --mac 0.5", "no option --mac; did you mean --macs?"),
    ("compress espalier:digits_cnn --data digits --macs abc", "--macs abc: not a number"),
    ("compress espalier:digits_cnn --data digits --macs", "--macs needs a value: a number"),
    ("compress espalier:digits_cnn --data digits --macs 3.0", "--macs: with a point it is a share in (0, 1]"),
    ("compress espalier:digits_cnn --data digits --macs 0.5 --rounds 0 --lr -1", "than or equal to 1 (it is 0); --lr:"),
    ("compress espalier:digits_cnn --data digits --macs 0.5 --strategy glob", "--strategy glob: did you mean global?"),
    ("compress espalier:digits_cnn --data digits --macs 0.5 --strategy x", "it is one of uniform, global, isomorphic"),
    ("compress espalier:digits_cnn --data digits --macs 0.5 --recover least_square", "did you mean least_squares?"),
    ("compress espalier:digits_cnn --data digits --macs 0.5 --backend eagr", "--backend eagr: did you mean eager?"),
    ("compress espalier:digits_cnn digits --macs 0.5", "compress takes MODEL: 'digits' is one word too many"),
    ("demo --seed 1.5", "--seed 1.5: not a whole number"),
    ("demo --json=yes", "--json takes no value"),
    ("demo 3", "demo takes only options that begin with --: '3' is one word too many"),
    ("runs --x", "runs has no option --x; espalier runs --help lists them"),
    ("bench espalier:digits_cnn --backends eager compile --thread 1", "did you mean --threads?"),
    ("compress espalier:digits_cnn --data digits --macs 1.5", "share in (0, 1]"),
    ("compress espalier:digits_cnn --data digits --macs 1", "1"),
    ("compress espalier:digits_cn --data digits --macs 0.5", "digits_cnn"),
    ("compress nobody:digits_cnn --data digits --macs 0.5", "nobody"),
    (
        "compress espalier:digits_cnn --data digit --macs 0.5",
        "data = 'digit': unknown data source 'digit'. Did you mean 'digits'?\n",
    ),
    ("compress espalier:digits_cnn --data parquet:nowhere --macs 0.5", "data = 'parquet:nowhere': nowhere: no such"),
    ("compress espalier:digits_cnn --data digits --macs 0.5 --criterion tailor", "taylor"),
    ("compress espalier:digits_cnn --data digits --macs 0.5 --keep stm*", "stm"),
    (
        "compress espalier:digits_cnn --data digits --macs 0.5 --weights nowhere.pt",
        "weights = 'nowhere.pt': nowhere.pt",
    ),
    ("compress espalier:digits_cnn --data digits --macs 0.5 --weights user.py", "user.py"),
    ("compress espalier:digits_cnn --data digits --macs 0.5 --round-to 0", "--round-to"),
    ("compress espalier:digits_cnn --data digits --macs 0.5 --lr -1", "lr"),
    ("compress user.py:nobody --data digits --macs 0.5", "nobody"),
    ("compress nowhere.py:broken --data digits --macs 0.5", "nowhere.py"),
    ("compress user.py:broken --data digits --macs 0.5", "channels"),
    ("compress user.py:frozen --data digits --macs 0.5", "output of the model"),
    ("compress user.py:narrow --data digits --macs 0.5", "10 classes"),
    ("compress own.py:net --data digits --macs 0.5", "made for (3, 16, 16). The cause: RuntimeError: mat1"),
    ("compress espalier:cifar_resnet20 --data digits --macs 0.5", "made for (3, 32, 32). The cause"),
    ("compress exits.py:net --data digits --macs 0.5", "exits.py asks Python to exit"),
    ("compress own.py:Leaves --data digits --macs 0.5", "asked Python to exit (SystemExit: 0) during compress"),
    ("compress own.py --data digits --macs 0.5", "say own.py:net, own.py:Leaves"),
    ("trace own.py", "own.py does not say which function of the file gives the model: say own.py:Leaves\n"),
    ("trace needy.py", "and net, Net need arguments: write a function that returns the model and needs none"),
    ("compress espalier:digits_cnn --data needy.py --macs 0.5", "gives the data, and net, Net need arguments"),
    ("trace own.py:net", "own.py:net needs arguments"),
    ("trace own.py:Leaves", "asked Python to exit (SystemExit: 0) during trace"),
    ("trace espalier:digits_cn", "digits_cnn"),
    ("report nowhere", "nowhere"),
    ("bench espalier:digits_cnn --backends openvin", "Did you mean 'openvino'?"),
    (
        "bench espalier:digits_cnn --rounds 1 --batch 0",
        "--batch: input should be greater than or equal to 1 (it is 0); -",
    ),
    ("bench espalier:digits_cnn --threads 0", "--threads: input should be greater than or equal to 1"),
    ("bench espalier:digits_cnn --macs 1.5", "--macs: input should be less than 1"),
    ("export nowhere --batch 0", "--batch: "),
    ("demo --seed 18446744073709551616", "--seed: input should be less than 9223372036854775808"),
    ("run nowhere.toml --seed 9999999999999999999999", "--seed: "),
    ("bench espalier:digits_cnn --threads 5000000000", "--threads: input should be less than or equal to 4096"),
    ("compress espalier:digits_cnn --data digits --macs 0.5 --batch-size 100000000000000000000", "--batch-size: "),
    ("compress espalier:digits_cnn --data digits --macs 0.5 --seed 18446744073709551616", "a whole number below 2**63"),
    ("study nowhere.toml --workers 0", "--workers: "),
    ("run nowhere.toml --seed -4", "--seed: input should be greater than or equal to 0 (it is -4)"),
    ("demo --macs 0 --seed -1", "--macs: input should be greater than 0 (it is 0.0); --seed: "),
    ("compress espalier:digits_cnn --data digits --macs 0.5 --image-size 0", "--image-size: "),
    ("bench nowhere", "nowhere"),
    ("export nowhere", "nowhere"),
    ("resume nowhere", "nowhere"),
    ("runs --out nowhere", "nowhere"),
]


@pytest.mark.parametrize(("line", "message"), REFUSED)
def test_a_mistake_gets_one_clear_message(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("user.py").write_text(USER_FILE)
    Path("own.py").write_text(OWN_FILE)
    Path("exits.py").write_text("raise SystemExit(0)\n")
    Path("needy.py").write_text("def net(x, /, y=1, *, z): ...\nclass Net:\n    def __init__(self, n): ...\n")
    assert run(*line.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("espalier: error: ") and message in error
    assert "Traceback" not in error and error.count("espalier: ") == 1
    assert error.count("\n") == 1 or "cannot be reached" in error  # what keeps a plan from it has a line each
    kept = {"user.py", "own.py", "exits.py", "needy.py", "__pycache__"}
    assert {path.name for path in tmp_path.iterdir()} <= kept
