"""Sweeps: the same table from any number of workers, every trial exactly once however often it is killed, and words for what is wrong."""
import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from cs231n_lit.sweep import Range, Trial, attempt, best_trial, draw, grid, load_trials, parse_space, sweep, train_net, trial_seed

pytest.importorskip("joblib", reason="sweeps need joblib: pip install 'cs231n_lit[sweep]'")
SPACE = {"rate": "1e-3..1 log", "filters": [16, 32], "units": "10..500"}
HERE = Path(__file__).resolve().parent
signals = pytest.mark.skipif(os.name != "posix", reason="needs process groups and their signals")


def toy(settings, trial):
    "A score that depends on the settings and on random numbers; large rates diverge."
    time.sleep(0.03)
    if settings["rate"] > 0.5: raise FloatingPointError("too large a rate")
    return {"score": float(np.random.rand()) + settings["rate"] * (trial.budget or 1), "curve": np.arange(3) / 10}


def deadly(settings, trial):
    "The system ends the process of trial 3."
    if trial.number == 3: os.kill(os.getpid(), signal.SIGKILL)
    return settings["rate"]


def faulty(settings, trial):
    return {0: lambda: 1 / 0, 1: lambda: sys.exit("bye"), 2: lambda: "no number", 3: lambda: {"other": 1}, 4: lambda: np.nan, 5: lambda: np.float32(.5)}[trial.number]()


def slow(settings, trial):
    time.sleep(0.4)
    return np.random.rand()


def table(records): return [{k: v for k, v in r.items() if k != "seconds"} for r in records]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory): return table(sweep(toy, SPACE, 12, out=tmp_path_factory.mktemp("sweep") / "one", jobs=1))


@pytest.mark.parametrize("jobs", [2, 4])
def test_workers_change_nothing(undisturbed, tmp_path, jobs):
    assert table(sweep(toy, SPACE, 12, out=tmp_path / "s", jobs=jobs)) == undisturbed


def test_threads_change_nothing(undisturbed, tmp_path):
    import joblib
    with joblib.parallel_config("threading", n_jobs=3): assert table(sweep(toy, SPACE, 12, out=tmp_path / "s")) == undisturbed


def test_more_trials_keep_the_first(undisturbed, tmp_path):
    sweep(toy, SPACE, 5, out=tmp_path / "s")
    assert table(sweep(toy, SPACE, 12, out=tmp_path / "s")) == undisturbed


def test_order_of_the_space_changes_nothing():
    assert all(draw(SPACE, 7, i) == draw(dict(reversed(SPACE.items())), 7, i) for i in range(20))


def test_seeds_are_of_the_trial_alone():
    assert len({trial_seed(s, i) for s in range(30) for i in range(30)}) == 900
    assert draw(SPACE, 0, 1) != draw(SPACE, 1, 0)


def test_cluster_gives_the_same_and_survives_its_workers(undisturbed, tmp_path):
    distributed = pytest.importorskip("distributed", reason="pip install 'cs231n_lit[sweep]' distributed")
    import joblib
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, distributed.Client(cluster) as client:
        with joblib.parallel_config("dask"): assert table(sweep(toy, SPACE, 12, out=tmp_path / "s")) == undisturbed
        workers = [w.pid for w in (n.process for n in cluster.workers.values())]
        killer = subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(1); os.kill({workers[0]}, 9)"])
        with joblib.parallel_config("dask"): killed = table(sweep(slow, SPACE, 8, out=tmp_path / "k"))
        killer.wait()
        assert client.nthreads()
    assert killed == table(sweep(slow, SPACE, 8, out=tmp_path / "u"))


@signals
def test_a_killed_trial_is_recorded_and_harms_no_other(tmp_path):
    records = sweep(deadly, SPACE, 8, out=tmp_path / "s", jobs=2)
    assert [r["status"] for r in records] == ["done"] * 3 + ["killed"] + ["done"] * 4
    assert [r["trial"] for r in records] == list(range(8))


def test_what_goes_wrong_is_recorded(tmp_path):
    records = sweep(faulty, SPACE, 6, out=tmp_path / "s")
    assert [r["status"] for r in records] == ["failed"] * 4 + ["diverged", "done"]
    reasons = ["ZeroDivisionError", "SystemExit", "run needs to return a number", "run needs to return a number", "the score is nan"]
    assert all(text in r["reason"] for text, r in zip(reasons, records))
    assert best_trial(records)["score"] == .5
    with pytest.raises(ValueError, match="no trial of this sweep has a score; the first: ZeroDivisionError"): best_trial(records[:4])


SCRIPT = f"import sys; sys.path[:0] = [{str(HERE)!r}]; from test_sweep import *; sweep(toy, SPACE, 12, out=sys.argv[1], jobs=2)"
SLOWLY = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)  # the background jobs of a shell ignore it\n" + SCRIPT.replace("toy", "slow")


def start(out, script=SCRIPT): return subprocess.Popen([sys.executable, "-c", script, str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def until_done(out, most):
    "Kill the sweep at random moments, `most` times, until it ends by itself; how often it was killed."
    rng, kills = random.Random(0), 0
    while True:
        process = start(out)
        for _ in range(rng.randrange(1, 4)): process.stdout.readline()
        time.sleep(rng.random() / 10)
        if kills < most and process.poll() is None: os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        if process.returncode == 0: return kills
        assert process.returncode == -signal.SIGKILL, errors
        kills += 1


@signals
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_and_resumed(undisturbed, tmp_path, kills):
    "Each run gets one to three trials done before it is killed, so that the sweep ends before all kills are used; another folder then."
    done = 0
    while done < kills:
        out = tmp_path / str(done)
        done += max(1, until_done(out, kills - done))
        assert table(load_trials(out)) == undisturbed


def test_a_torn_line_is_run_again(undisturbed, tmp_path):
    out = tmp_path / "s"
    sweep(toy, SPACE, 12, out=out)
    text = (out / "trials.jsonl").read_bytes()
    for cut in (1, 40, 700):
        (out / "trials.jsonl").write_bytes(text[:-cut])
        assert len(load_trials(out)) in (9, 10, 11)
        assert table(sweep(toy, SPACE, 12, out=out)) == undisturbed


@signals
def test_ctrl_c_ends_it_at_once(tmp_path):
    process = start(tmp_path / "s", SLOWLY)
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode != 0 and time.monotonic() - began < 10  # two seconds on a machine that does nothing else
    kept = load_trials(tmp_path / "s")
    assert 1 <= len(kept) < 12 and {r["status"] for r in kept} == {"done"}
    assert table(kept) == [r for r in table(sweep(slow, SPACE, 12, out=tmp_path / "s", jobs=2)) if r["trial"] in {k["trial"] for k in kept}]


def test_halving_keeps_the_best(tmp_path):
    records = sweep(toy, SPACE, 9, out=tmp_path / "s", budgets=(1, 3, 9), jobs=2)
    first, second, third = ([r for r in records if r["budget"] == b] for b in (1, 3, 9))
    assert (len(first), len(second), len(third)) == (9, 3, 1)
    for before, after in (first, second), (second, third):
        done = sorted((r for r in before if r["status"] == "done"), key=lambda r: -r["score"])
        assert {r["trial"] for r in after} == {r["trial"] for r in done[:len(after)]}
    assert table(sweep(toy, SPACE, 9, out=tmp_path / "again", budgets=(1, 3, 9))) == table(records)


@pytest.mark.parametrize("space, words", [
    ({}, "at least one setting"), ({"rate": "1..0"}, "rate needs a range that goes up"), ({"rate": "0..1 log"}, "logarithm only above 0"),
    ({"rate": "1e-4..1e-2 lin"}, "evenly or 'log', not 'lin'"), ({"rate": "a..b"}, "rate needs a range such as"), ({"rate": []}, "at least one choice"),
    ({"rate": "1..1e999"}, "goes up"), ({"rate": "1..1"}, "goes up"), ([], "at least one trial")])
def test_bad_spaces(tmp_path, space, words):
    with pytest.raises(ValueError, match=words): sweep(toy, space, 3, out=tmp_path / "s")
    assert not (tmp_path / "s" / "trials.jsonl").exists()


@pytest.mark.parametrize("space", ["rate", None, 3, [3]])
def test_spaces_of_another_type(tmp_path, space):
    with pytest.raises(TypeError, match="dictionary"): sweep(toy, space, 3, out=tmp_path / "s")


def test_bad_folders(tmp_path):
    sweep(toy, SPACE, 2, out=tmp_path / "s")
    with pytest.raises(ValueError, match="another sweep, with seed = 0 instead of 1"): sweep(toy, SPACE, 2, out=tmp_path / "s", seed=1)
    with pytest.raises(ValueError, match="another sweep, with run"): sweep(slow, SPACE, 2, out=tmp_path / "s")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is not empty and holds no sweep"): sweep(toy, SPACE, 2, out=tmp_path / "full")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write to"): sweep(toy, SPACE, 2, out=tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="not the folder of a sweep"): load_trials(tmp_path)
    (tmp_path / "s" / "trials.jsonl").write_text("{]\n")
    with pytest.raises(ValueError, match="damaged"): load_trials(tmp_path / "s")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0 and not sys.platform.startswith("linux"), reason="needs Linux")
def test_full_disk(undisturbed, tmp_path):
    "A limit on the size of files stands for the full disk: what is there is whole, and the sweep goes on from it."
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)); {SCRIPT.replace('jobs=2', 'jobs=1')}"
    run = subprocess.run([sys.executable, "-c", limit, str(tmp_path / "s")], capture_output=True, text=True)
    assert run.returncode == 1 and "what it holds is whole" in run.stderr
    kept = table(load_trials(tmp_path / "s"))
    assert 1 <= len(kept) < 12 and kept == undisturbed[:len(kept)]
    assert table(sweep(toy, SPACE, 12, out=tmp_path / "s")) == undisturbed


@signals
def test_two_at_once(tmp_path):
    process = start(tmp_path / "s", SLOWLY)
    process.stdout.readline()
    with pytest.raises(ValueError, match="another process is writing"): sweep(slow, SPACE, 12, out=tmp_path / "s")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def test_without_the_engine(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ImportError, match=r"pip install 'cs231n_lit\[sweep\]'"): sweep(toy, SPACE, 2, out=tmp_path / "s")
    assert parse_space(SPACE)["rate"] == Range(1e-3, 1.0, True) or parse_space(SPACE)["rate"] == Range(1e-3, 1, True)


def test_ranges():
    assert Range(1, 3).at(0) == 1 and Range(1, 3).at(1) == 3 and Range(1e-4, 1e-2, True).at(.5) == pytest.approx(1e-3)
    counts = np.bincount([Range(1, 3).at(u) for u in np.random.default_rng(0).random(3000)], minlength=4)
    assert counts[0] == 0 and abs(counts[1:] - 1000).max() < 100
    assert len(grid({"a": "0..1", "b": [1, 2, 3], "c": "1..100 log"}, 3)) == 27
    assert [g["c"] for g in grid({"c": "1.0..100.0 log"}, 3)] == pytest.approx([1, 10, 100])


def test_nets_go_on_from_their_checkpoint(tmp_path):
    "Two budgets in turn are one training run."
    settings = {"hidden_dims": [8], "learning_rate": 1e-4, "batch_size": 100, "weight_scale": 1e-2, "num_train_samples": 100}
    run = partial(train_net, model="fc", data="pictures")
    halves = [attempt(run, settings, Trial(0, 5, tmp_path / "a", b)) for b in (1, 2)]
    whole = attempt(run, settings, Trial(0, 5, tmp_path / "b", 2))
    assert halves[1]["score"] == whole["score"] and halves[1]["validation"] == whole["validation"]
    assert attempt(run, settings | {"learning_rat": 1}, Trial(0, 5, tmp_path / "c", 1))["reason"].startswith("ValueError: sweep: no setting is called 'learning_rat'")


def test_command(tmp_path, capsys):
    "The best trial's folder is a run; the same command again adds nothing; wrong words are told."
    from cs231n_lit.cli import main
    from cs231n_lit.runs import load_run
    out = tmp_path / "s"
    words = ["sweep", "--model", "fc", "--space", "learning_rate=1e-4,1e-3", "hidden_dims=[[8]]", "update_rule=adam", "num_train_samples=100", "--trials", "3",
             "--epochs", "1", "--jobs", "1", "--out", str(out)]
    assert main(words) == 0 and "Best: trial" in capsys.readouterr().out
    best = best_trial(load_trials(out))
    run = load_run(out / "trials" / f"{best['trial']:04d}")
    assert run.history["best_val_acc"] == best["score"] and [p.name for p in (out / "trials").iterdir()] == [f"{best['trial']:04d}"]
    assert main(["evaluate", str(run.folder)]) == 0 and f"validation accuracy  {best['score']:.3f}" in capsys.readouterr().out
    assert main(words) == 0 and len(load_trials(out)) == 3
    assert main(["sweep", "--show", str(out)]) == 0 and (out / "curves.png").exists()
    for wrong, said in [(["--space", "learning_rat=1"], "no setting is called 'learning_rat'"), (["--model", "fc", "--space", "reg=0"], "model fc needs the setting hidden_dims"), (["--space", "reg"], "--space needs name=range"),
                        (["--show", str(tmp_path)], "not the folder of a sweep"), ([*words[1:], "--seed", "1"], f"cs231n-lit sweep: {out} holds another sweep, with seed = 231")]:
        assert main(["sweep", *wrong]) == 1 and said in capsys.readouterr().err
    for option, needs in {"--trials 0": "at least 1", "--epochs 1 x": "at least 1", "--jobs 0": "at least 1, or -1", "--jobs -2": "at least 1, or -1", "--threads 1.5": "at least 1", "--seed -1": "at least 0"}.items():
        with pytest.raises(SystemExit): main(["sweep", *option.split()])
        assert f"argument {option.split()[0]}: needs a whole number of {needs}; got '{option.split()[-1]}'" in capsys.readouterr().err
