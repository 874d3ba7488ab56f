"""The command line: what a run writes, how it goes on, and how it fails."""
import json
import subprocess
import sys

import numpy as np
import pytest

from cs231n_lit.cli import main

SMALL = ["--num-filters", "2", "--filter-size", "3", "--hidden-dim", "5", "--batch-size", "900", "--num-train-samples", "50",
         "--num-val-samples", "50", "--print-every", "4"]


def run(tmp_path, *options): return main(["train", "--runs", str(tmp_path), *SMALL, *options])


def arrays(path):
    with np.load(path, allow_pickle=False) as saved: return dict(saved)


def test_a_run_writes_everything(tmp_path, capsys):
    assert run(tmp_path, "--num-epochs", "2") == 0
    folder = tmp_path / "pictures-001"
    assert {p.name for p in folder.iterdir()} == {"checkpoint_epoch_2.npz", "curves.png", "filters.png", "history.json", "settings.json"}
    history = json.loads((folder / "history.json").read_text())
    assert len(history["loss_history"]) == 20 and len(history["val_acc_history"]) == 3
    assert all(0 <= history[k] <= 1 for k in ("validation_accuracy", "test_accuracy", "training_accuracy"))
    printed = capsys.readouterr().out
    assert "(Iteration 1 / 20) loss: 2.30" in printed and "(Epoch 2 / 2) train acc:" in printed and "test accuracy" in printed
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_runs_never_share_a_folder(tmp_path):
    for _ in range(2): assert run(tmp_path, "--num-epochs", "1") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures-001", "pictures-002"]


def test_an_interrupted_run_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    assert run(tmp_path / "a", "--num-epochs", "3") == 0
    from cs231n_lit.solver import Solver
    step = Solver._step
    def interrupted(solver):
        if solver.iteration == 15: raise KeyboardInterrupt
        step(solver)
    monkeypatch.setattr(Solver, "_step", interrupted)
    assert run(tmp_path / "b", "--num-epochs", "3") == 130
    monkeypatch.undo()
    assert main(["train", "--resume", str(tmp_path / "b" / "pictures-001")]) == 0
    a, b = (arrays(tmp_path / x / "pictures-001" / "checkpoint_epoch_3.npz") for x in "ab")
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[k], b[k]) for k in a if k != "checkpoint")


def test_settings_reach_the_net_and_the_solver(tmp_path):
    assert run(tmp_path, "--num-epochs", "1", "--learning-rate", "0.5", "--update-rule", "sgd", "--reg", "0.25", "--seed", "7") == 0
    settings = json.loads((tmp_path / "pictures-001" / "settings.json").read_text())
    assert (settings["learning_rate"], settings["update_rule"], settings["reg"], settings["seed"]) == (0.5, "sgd", 0.25, 7)


@pytest.mark.parametrize("options, message", [
    (["--update-rule", "adamw"], "Invalid update_rule"),
    (["--num-filters", "0"], "num_filters needs to be at least 1"),
    (["--batch-size", "-5"], "batch_size needs to be at least 1"),
    (["--reg", "-1"], "reg needs a number of at least 0"),
    (["--data", "cifar10", "--cifar10-dir", "nowhere"], "nowhere"),
    (["--resume", "nowhere"], "is not the folder of a run"),
])
def test_mistakes_are_told_in_a_line(tmp_path, capsys, options, message):
    assert main(["train", "--runs", str(tmp_path / "runs"), *options]) == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and "Traceback" not in said
    assert not (tmp_path / "runs").exists(), "a run that never began leaves nothing behind"


def test_unknown_options_and_no_command_exit_with_usage(capsys):
    for words in (["train", "--learning-rat", "x"], [], ["fly"]):
        with pytest.raises(SystemExit) as stop: main(words)
        assert stop.value.code == 2
    assert "usage: cs231n-lit" in capsys.readouterr().err


def test_status_tells_what_is_in_use(capsys):
    assert main(["status"]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("cs231n_lit", "numpy", "compiled", "isa", "threads", "cifar10"))


def test_a_terminal_shows_a_bar_instead_of_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run(tmp_path, "--num-epochs", "1") == 0
    out, err = capsys.readouterr()
    assert "10/10" in err and "validation 0." in err and "(Iteration" not in out


def test_download_says_where_the_data_are(capsys, monkeypatch):
    monkeypatch.setattr("cs231n_lit.data_utils.download_cifar10", lambda folder: f"{folder}/cifar")
    assert main(["download", "--to", "here"]) == 0
    assert capsys.readouterr().out == "here/cifar\n"


def test_an_interrupted_command_ends_without_a_word(capsys, monkeypatch):
    def interrupted(folder): raise KeyboardInterrupt
    monkeypatch.setattr("cs231n_lit.data_utils.download_cifar10", interrupted)
    assert main(["download"]) == 130
    assert capsys.readouterr() == ("", "")


def test_the_console_command_and_its_help():
    said = subprocess.run([sys.executable, "-c", "import sys; from cs231n_lit.cli import main; sys.exit(main(['train', '--help']))"],
                          capture_output=True, text=True, check=True).stdout
    assert all(option in said for option in ("--data", "--learning-rate", "--num-filters", "--resume", "default: pictures"))
