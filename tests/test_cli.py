"""The command line: what a run writes, how it goes on, and how it fails."""
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from cs231n_lit.checkpoint import load_checkpoint, save_checkpoint
from cs231n_lit.cli import main
from cs231n_lit.data_utils import CLASSES, get_pictures_data, load_pictures
from cs231n_lit.runs import load_run
from cs231n_lit.solver import accuracy

SMALL = ["--num-filters", "2", "--filter-size", "3", "--hidden-dim", "5", "--batch-size", "900", "--num-train-samples", "50",
         "--num-val-samples", "50", "--print-every", "4"]


def run(tmp_path, *options): return main(["train", "--runs", str(tmp_path), *SMALL, *options])


def arrays(path):
    with np.load(path, allow_pickle=False) as saved: return dict(saved)


def test_a_run_writes_everything(tmp_path, capsys):
    assert run(tmp_path, "--num-epochs", "2") == 0
    folder = tmp_path / "pictures-001"
    assert {p.name for p in folder.iterdir()} == {".lock", "checkpoint_epoch_2.npz", "curves.png", "filters.png", "history.json", "net.npz", "settings.json"}
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
    (["--data", "cifar10", "--cifar10-dir", "nowhere"], "nowhere"),
    (["--data", "cifar"], "--data cifar: needs to be pictures, cifar10, or a folder"),
    (["--batch-size", "9", "--runs", __file__], f"--runs {__file__}: a file is in the way"),
])
def test_mistakes_are_told_in_a_line(tmp_path, capsys, options, message):
    assert main(["train", "--runs", str(tmp_path / "runs"), *options]) == 1
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and said.startswith("cs231n-lit train: ") and "Traceback" not in said
    assert not (tmp_path / "runs").exists(), "a run that never began leaves nothing behind"


@pytest.mark.parametrize("words, message", [
    (["train", "--update-rule", "adma"], "argument --update-rule: invalid choice: 'adma' (choose from "),
    (["train", "--num-filters", "0"], "argument --num-filters: needs a whole number of at least 1; got '0'"),
    (["train", "--batch-size", "-5"], "argument --batch-size: needs a whole number of at least 1; got '-5'"),
    (["train", "--batch-size", "2.5"], "argument --batch-size: needs a whole number of at least 1; got '2.5'"),
    (["train", "--reg", "-1"], "argument --reg: needs a number of at least 0; got '-1'"),
    (["train", "--learning-rate", "0"], "argument --learning-rate: needs a number above 0; got '0'"),
    (["train", "--learning-rate", "nan"], "argument --learning-rate: needs a number above 0; got 'nan'"),
    (["train", "--shift", "-1"], "argument --shift: needs a whole number of at least 0"),
    (["train", "--learning-rat", "1"], "unrecognized arguments: --learning-rat 1 (did you mean --learning-rate?)"),
    (["sweep", "--trial", "3"], "unrecognized arguments: --trial 3 (did you mean --trials?)"), (["status", "--zzz"], "unrecognized arguments: --zzz\n"), (["evaluate"], "the following arguments are required: RUN"),
    (["predict", "a"], "the following arguments are required: IMAGE"),
    (["fly"], "invalid choice: 'fly'"), ([], "required: command"),
])
def test_wrong_options_are_named_with_the_usage_of_their_command(words, message, capsys):
    with pytest.raises(SystemExit) as stop: main(words)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said
    assert said.startswith(f"usage: cs231n-lit {words[0] if words and words[0] != 'fly' else '[-h]'} ")


def test_a_folder_of_runs_is_not_made_in_a_run(tmp_path, capsys):
    assert run(tmp_path, "--num-epochs", "1") == 0
    before = {p: p.read_bytes() for p in (tmp_path / "pictures-001").iterdir()}
    assert main(["train", "--runs", str(tmp_path / "pictures-001"), *SMALL, "--num-epochs", "1"]) == 1
    assert "this is the folder of a run, not one for runs" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in (tmp_path / "pictures-001").iterdir()} == before


# Going on

def history(folder): return json.loads((folder / "history.json").read_text())


def test_a_run_goes_on_with_more_epochs_and_adds_up_its_time(tmp_path, capsys):
    assert run(tmp_path, "--num-epochs", "3") == run(tmp_path, "--num-epochs", "1") == 0
    whole, folder = tmp_path / "pictures-001", tmp_path / "pictures-002"
    seconds = history(folder)["seconds"]
    assert main(["train", "--resume", str(folder), "--num-epochs", "3", "--print-every", "7"]) == 0
    a, b = (arrays(f / "checkpoint_epoch_3.npz") for f in (whole, folder))
    assert all(np.array_equal(a[k], b[k]) for k in a if k != "checkpoint")
    assert history(folder)["seconds"] > seconds > 0 and history(folder)["loss_history"] == history(whole)["loss_history"]
    settings = json.loads((folder / "settings.json").read_text())
    assert (settings["num_epochs"], settings["print_every"]) == (3, 7)
    capsys.readouterr()
    before = history(folder)
    assert main(["train", "--resume", str(folder)]) == 0
    assert "All 3 epochs are done; --num-epochs 8 would go on" in capsys.readouterr().out
    assert {k: v for k, v in history(folder).items() if k != "seconds"} == {k: v for k, v in before.items() if k != "seconds"}
    assert main(["train", "--resume", str(folder), "--num-epochs", "2"]) == 1
    assert f"--num-epochs 2: {folder} has 3 epochs already" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--learning-rate", "0.1"], ["--batch-size", "5"], ["--data", "cifar10"], ["--seed", "1"], ["--runs", "elsewhere"], ["--flip"], ["--num-filters", "2"]])
def test_what_cannot_change_is_refused_by_name(options, tmp_path, capsys):
    (tmp_path / "settings.json").write_text("{}")
    assert main(["train", "--resume", str(tmp_path), *options]) == 1
    assert capsys.readouterr().err.startswith(f"cs231n-lit train: {options[0]} cannot change when a run is resumed")
    assert [p.name for p in tmp_path.iterdir()] == ["settings.json"]


def test_two_processes_never_train_one_run(tmp_path, capsys):
    "The second is told and changes nothing; once the first has ended, or was killed, the run is free again."
    command = [sys.executable, "-m", "cs231n_lit", "train"]
    with subprocess.Popen([*command, "--runs", str(tmp_path), *SMALL, "--num-epochs", "2000", "--print-every", "1"], stdout=subprocess.PIPE, text=True) as first:
        while "(Epoch 0 " not in first.stdout.readline(): pass
        folder = tmp_path / "pictures-001"
        for _ in range(2):
            second = subprocess.run([*command, "--resume", str(folder), "--num-epochs", "3000"], capture_output=True, text=True)
            assert second.returncode == 1 and second.stderr == f"cs231n-lit train: {folder}: another process is training this run\n"
        assert json.loads((folder / "settings.json").read_text())["num_epochs"] == 2000
        first.kill()
    epochs = load_checkpoint(next(folder.glob("checkpoint_*.npz")))["progress"]["epoch"]
    assert main(["train", "--resume", str(folder), "--num-epochs", str(epochs + 1)]) == 0


def test_resuming_what_is_no_run(tmp_path, capsys):
    for folder in "nowhere", str(tmp_path):
        assert main(["train", "--resume", folder]) == 1
        assert f"{folder} is not the folder of a run" in capsys.readouterr().err


# What it is for

@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    assert run(place, "--num-epochs", "1") == 0
    return place / "pictures-001"


def test_evaluate(trained, capsys):
    assert main(["evaluate", str(trained)]) == 0
    printed = capsys.readouterr().out
    assert f"validation accuracy  {accuracy(load_run(trained).net, *validation()):.3f} of 1000 images" in printed
    assert f"test accuracy        {history(trained)['test_accuracy']:.3f} of 1000 images" in printed
    assert all(f"\n{name} " in printed for name in CLASSES["pictures"])
    assert all((trained / f"{name}.png").read_bytes()[:4] == b"\x89PNG" for name in ("confusion", "examples"))


def validation():
    data = get_pictures_data(dtype=np.float32)
    return data["X_val"], data["y_val"]


def test_predict_on_files_and_folders(trained, tmp_path, capsys):
    for name in "a.png", "b.jpg": Image.fromarray(load_pictures()[3]).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not for it")
    assert main(["predict", str(trained), str(tmp_path), str(tmp_path / "a.png"), "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == [str(tmp_path / n) for n in ("a.png", "b.jpg", "a.png")]
    assert lines[0] == lines[2] and lines[0].count("%") == 2
    assert load_run(trained).predict([tmp_path / "a.png"])[0] == lines[0].split()[1]
    assert (trained / "predictions.png").exists()
    assert main(["predict", str(trained), str(tmp_path / "notes.txt"), "nowhere.png", str(tmp_path / "a.png")]) == 1
    out, err = capsys.readouterr()
    assert "notes.txt: not a picture that can be read" in err and "nowhere.png" in err and str(tmp_path / "a.png") in out
    assert main(["predict", str(trained), str(tmp_path / "notes.txt")]) == 1
    assert "no picture to look at" in capsys.readouterr().err


def test_predict_on_the_test_images(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(trained), "test"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("test image ")]
    assert len(lines) == 1000
    assert 1 - sum("(wrong: " in line for line in lines) / 1000 == pytest.approx(history(trained)["test_accuracy"])
    assert (trained / "confusion.png").exists()


def test_own_pictures(tmp_path, capsys):
    for name, k in ("dog", 3), ("tea", 4):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for n in range(12): Image.fromarray(load_pictures()[k][n:, 5 * n:]).save(tmp_path / "mine" / name / f"{n}.png")
    assert main(["train", "--runs", str(tmp_path), *SMALL[:6], "--data", str(tmp_path / "mine"), "--batch-size", "5", "--num-epochs", "4", "--flip", "--shift", "2"]) == 0
    folder = tmp_path / "mine-001"
    assert load_run(folder).classes == ["dog", "tea"] and load_run(folder).net.arguments["num_classes"] == 2
    assert main(["train", "--resume", str(folder), "--num-epochs", "6"]) == 0
    assert main(["evaluate", str(folder)]) == 0
    assert main(["predict", str(folder), str(tmp_path / "mine" / "dog")]) == 0
    (tmp_path / "mine" / "dog" / "0.png").write_text("")
    assert main(["train", "--runs", str(tmp_path), "--data", str(tmp_path / "mine")]) == 1
    assert "0.png: not a picture that can be read" in capsys.readouterr().err


def test_runs_of_the_version_before(trained, tmp_path, capsys):
    "They had no net.npz, and fewer settings; their checkpoints had the best parameters only."
    folder = shutil.copytree(trained, tmp_path / "old")
    (folder / "net.npz").unlink()
    settings = json.loads((folder / "settings.json").read_text())
    for k in "flip", "shift": settings.pop(k)
    (folder / "settings.json").write_text(json.dumps(settings))
    state = load_checkpoint(file := folder / "checkpoint_epoch_1.npz")
    for k in "best_bn_params", "_due": state["progress"].pop(k)
    for k in "name", "arguments": state["model"].pop(k)
    for k in "flip", "shift": state["settings"].pop(k)
    save_checkpoint(file, state)
    old = load_run(folder)
    assert old.mean is None and old.classes[3] == "cat" and np.array_equal(old.net.params["W1"], load_run(trained).net.params["W1"])
    assert main(["predict", str(folder), str(folder / "curves.png")]) == 1
    assert f"cs231n-lit train --resume {folder} adds it" in capsys.readouterr().err
    assert main(["train", "--resume", str(folder)]) == 0
    assert np.array_equal(load_run(folder).mean, load_run(trained).mean)
    assert main(["predict", str(folder), str(folder / "curves.png")]) == 0


def test_a_run_killed_at_any_moment_can_be_loaded_and_goes_on(tmp_path):
    "Or it says that it has no net yet."
    for n, seconds in enumerate([0.3, 1, 2], 1):
        options = ["train", "--runs", str(tmp_path), *SMALL, "--num-epochs", "12"]
        with subprocess.Popen([sys.executable, "-m", "cs231n_lit", *options], stdout=subprocess.PIPE, text=True) as p:
            p.stdout.readline()
            time.sleep(seconds)
            p.kill()
        folder = tmp_path / f"pictures-{n:03d}"
        try: load_run(folder)
        except ValueError as e: assert "has no net yet" in str(e)
    assert main(["train", "--resume", str(folder), "--num-epochs", "12", "--threads", "1"]) == 0
    assert history(folder)["best_val_acc"] == load_run(folder).history["validation_accuracy"]


def test_damaged_runs_are_refused(trained, tmp_path):
    for name, text, words in ("settings.json", "{", "is not the folder of a run"), ("history.json", "{", "history.json is damaged"), ("net.npz", "GIF89a", "is not a checkpoint|not a file"):
        folder = shutil.copytree(trained, tmp_path / name)
        (folder / name).write_text(text)
        with pytest.raises(ValueError, match=words): load_run(folder)


def test_as_a_module():
    said = subprocess.run([sys.executable, "-m", "cs231n_lit", "--help"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("usage: cs231n-lit ") and "predict" in said


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
