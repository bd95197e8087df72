"""The command line: exit codes, one clear message each, nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from espalier import cli
from espalier.cli import COMMANDS, main
from espalier.recipes.folders.folder import read_run

SOURCE = str(Path(cli.__file__).parents[2])  # child processes find the package where this one did
COMMAND = [sys.executable, "-c", "from espalier.cli import main; main()"]
LEDGER = {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"}
QUICK = ["--epochs", "1", "--score-batches", "1", "--batch-size", "128"]


@pytest.fixture(autouse=True)
def _children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([SOURCE, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))


def only_run(root: Path) -> Path:
    """Return the one run folder in ``root``, which also holds the ledger."""
    (folder,) = (path for path in root.iterdir() if path.name not in LEDGER)
    return folder


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def test_help_answers_without_torch() -> None:
    script = "import sys; from espalier.cli import main\ntry: main(['--help'])\nfinally: print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert all(name in out for name in COMMANDS)
    assert "'torch'" not in out and "'tyro'" not in out


@pytest.mark.skipif(os.name != "posix", reason="pipes")
@pytest.mark.parametrize("command", [["--help"], ["trace", "espalier:digits_cnn"]])
def test_a_reader_that_goes_is_no_mistake(command: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "espalier", *command], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_without_torch(name: str) -> None:
    script = (
        "import sys; from espalier.cli import main\ntry: main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script, name, "--help"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"usage: espalier {name}" in out and out.endswith("False\n")
    assert f"examples:\n  espalier {name}" in out and "--json" in out


USER_FILE = """
import torch
from torch import nn

def broken():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 4, 3)
        def forward(self, x):
            return self.a(x).mean((2, 3))
    return Broken()

def frozen():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3))

def explosive():
    class Explosive(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 16), nn.Linear(16, 10)
        def forward(self, x):
            return self.b(self.a(x.flatten(1))) * 1e30
    return Explosive()
"""

OWN_FILE = """
import torch
from torch import nn

def net(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 32), nn.ReLU(), nn.Linear(32, classes))

class Leaves(nn.Linear):
    def __init__(self):
        super().__init__(2, 2)
    def forward(self, x):
        raise SystemExit(0)

def example():
    return torch.zeros(2, 3, 16, 16)
"""


def test_image_folders_are_read_as_the_users_example_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN_FILE)
    for i in range(40):
        folder = Path("images", "ab"[i % 2])
        folder.mkdir(parents=True, exist_ok=True)
        image.new("RGB", (20, 24), (6 * i, 255 - 6 * i, 0)).save(folder / f"{i}.png")
    line = ["compress", "own.py:net", "--data", "imagefolder:images", "--macs", "0.5", "--criterion", "magnitude"]
    assert run(*line, "--epochs", "0") == 0
    folder = only_run(Path("runs"))
    macs = 768 * 32 + 32 * 2
    assert read_run(folder).before.macs == macs
    assert run(*line, "--epochs", "0", "--image-size", "24") == 2
    assert "Try --image-size 16. The cause" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("user.py").write_text(USER_FILE)
    line = ["compress", "user.py:explosive", "--data", "digits", "--macs", "0.5", "--criterion", "magnitude"]
    assert run(*line, *QUICK, "--lr", "1e10", "--epochs", "3") == 2
    assert "learning rate" in capsys.readouterr().err
    folder = only_run(Path("runs"))
    assert read_run(folder).status == "failed" and "learning rate" in read_run(folder).notes[-1]
    assert (folder / "report.html").exists()


def test_compress_does_the_whole_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["compress", "espalier:digits_cnn", "--data", "digits", "--macs", "0.6", "--out", str(tmp_path)]
    assert run(*line, *QUICK, "--rounds", "2", "--keep", "stem.0*", "--keep", "block1.conv1*") == 0
    found = capsys.readouterr()
    assert "MACs" in found.out and "report.html" in found.out
    assert (found.out + found.err).count("looks untrained") == 1
    folder = only_run(tmp_path)
    names = {path.name for path in folder.iterdir()}
    assert names == {"recipe.toml", "run.json", "report.html", "model.safetensors", "plan.json"}
    found = read_run(folder)
    assert found.status == "finished" and found.model == "espalier:digits_cnn" and len(found.history) == 3
    assert found.before.macs and found.after.macs and 0.59 <= found.after.macs / found.before.macs <= 0.6
    kept = {width.group: (width.before, width.after) for width in found.widths}
    assert all(before == after for name, (before, after) in kept.items() if name.startswith(("stem", "block1")))
    assert any(after < before for before, after in kept.values())
    assert "cuts proved" in found.proof


def test_the_saved_model_loads_in_a_new_process(tmp_path: Path) -> None:
    line = ["compress", "espalier:digits_cnn", "--data", "digits", "--macs", "0.3", "--out", str(tmp_path)]
    assert run(*line, *QUICK, "--criterion", "magnitude") == 0
    folder = only_run(tmp_path)
    script = (
        "import espalier as es, torch, sys\n"
        "small = es.load(sys.argv[1], es.model('espalier:digits_cnn'))\n"
        "print(sum(p.numel() for p in small.parameters()), small.eval()(torch.zeros(2, 1, 8, 8)).shape)"
    )
    command = [sys.executable, "-c", script, str(folder / "model.safetensors")]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out == f"{read_run(folder).after.params} torch.Size([2, 10])\n"


def test_trace_prints_groups_reasons_and_share(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("trace", "espalier:digits_cnn") == 0
    out = capsys.readouterr().out
    assert "stem.0.weight:0" in out and "output of the model" in out and "% of" in out
    assert max(map(len, out.splitlines())) <= 100  # logs and mails are read in narrow windows
    assert run("trace", "espalier:digits_cnn", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert {"groups", "ties", "frozen", "notes", "prunable_share", "cost"} == set(data)
    assert [group["size"] for group in data["groups"]] == [32, 32, 64, 64]
    assert data["groups"][0]["slots"][0] == {"tensor": "stem.0.weight", "dim": 0, "role": "producer"}


def test_report_is_written_again_from_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["compress", "espalier:digits_cnn", "--data", "digits", "--macs", "0.7", "--out", str(tmp_path)]
    assert run(*line, *QUICK, "--criterion", "random") == 0
    folder = only_run(tmp_path)
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert run("report", str(folder)) == 0
    assert capsys.readouterr().out.endswith(f"{folder / 'report.html'}\n")
    assert (folder / "report.html").read_text() == before


def listen() -> None:
    """A shell's background jobs ignore SIGINT, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_leaves_a_consistent_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "CI": "1"}
    command = [*COMMAND, "demo", "--out", str(tmp_path)]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listen,
    ) as process:
        deadline = time.time() + 120
        while (
            process.poll() is None
            and time.time() < deadline
            and not any(read_run(f.parent).history for f in tmp_path.glob("*/run.json"))
        ):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in error and "Traceback" not in error
    folder = only_run(tmp_path)
    found = read_run(folder)
    assert found.status == "interrupted" and found.history and found.finished
    assert "interrupted" in (folder / "report.html").read_text()
    names = {path.name for path in folder.iterdir()}
    assert names - {"dense.safetensors", "plan.json"} == {"recipe.toml", "run.json", "report.html", "checkpoints"}
    script = "import espalier as es, sys; es.load(sys.argv[1], es.model('espalier:digits_cnn'))"
    checkpoints = [path for path in (folder / "checkpoints").glob("*.safetensors") if "training" not in path.name]
    assert checkpoints
    for path in checkpoints:
        subprocess.run([sys.executable, "-c", script, str(path)], check=True)
