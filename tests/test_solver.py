"""The training loop: its books, its random draws, what it prints, what it refuses, and checkpoints that survive."""
import io
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import training_run
from cs231n_lit import optim
from cs231n_lit.classifiers.fc_net import FullyConnectedNet
from cs231n_lit.solver import Solver, accuracy, load_checkpoint, save_checkpoint

ONE = np.ones(3)
RULES = ["sgd", "sgd_momentum", "rmsprop", "adam"]


class Linear:
    "Scores X w; the loss is half the mean square of the scores less the one-hot labels."
    def __init__(self, D=4, C=3):
        self.params = {"w": np.arange(D * C, dtype=float).reshape(D, C) / 10, "b": np.zeros(C)}

    def loss(self, X, y=None):
        scores = X @ self.params["w"] + self.params["b"]
        if y is None: return scores
        d = (scores - np.eye(scores.shape[1])[y]) / len(X)
        return 0.5 * len(X) * np.sum(d**2), {"w": X.T @ d, "b": d.sum(0)}


class Scripted:
    "Losses, gradients and accuracies as told: the share of the right answers on the n-th look at validation is `accuracies[n]`."
    def __init__(self, losses=None, accuracies=None):
        self.params, self.losses, self.accuracies = {"w": np.zeros(1)}, losses, accuracies
        self.steps = self.looks = 0

    def loss(self, X, y=None):
        if y is None:
            scores = np.tile([0., 1.], (len(X), 1))
            if len(X) == 10:  # the validation set
                scores[:round(10 * self.accuracies[self.looks])] = [1, 0]
                self.looks += 1
            return scores
        self.steps += 1
        return (self.losses[self.steps - 1] if self.losses else 1.0), {"w": -np.ones(1)}


def small(N=20, V=10, D=4, C=3, seed=0):
    rng = np.random.default_rng(seed)
    return {"X_train": rng.standard_normal((N, D)), "y_train": rng.integers(C, size=N),
            "X_val": rng.standard_normal((V, D)), "y_val": rng.integers(C, size=V)}


def zeros(N=6, V=10):
    "Data whose labels are all 0, for the scripted model."
    return {"X_train": np.zeros((N, 1)), "y_train": np.zeros(N, int), "X_val": np.zeros((V, 1)), "y_val": np.zeros(V, int)}


def same(a, b):
    if isinstance(a, dict): return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray): return a.dtype == b.dtype and np.array_equal(a, b)
    return a == b


def everything(solver):
    names = "epoch iteration best_val_acc best_params best_bn_params loss_history train_acc_history val_acc_history optim_configs"
    model = {k: getattr(solver.model, k) for k in ("params", "bn_params") if hasattr(solver.model, k)}
    return {k: getattr(solver, k) for k in names.split()} | model | {"random": np.random.get_state(legacy=False)}


# The course's loop, written again

def plain_loop(model, d, rule, config, lr_decay, batch_size, num_epochs, num_train_samples, num_val_samples):
    "What a Solver has to do, in one piece. Returns losses, accuracies and the best parameters."
    def measure(X, y, n):
        if n is not None and len(X) > n:
            chosen = np.random.choice(len(X), n)
            X, y = X[chosen], y[chosen]
        return np.mean([np.argmax(model.loss(x[None])) == t for x, t in zip(X, y)])

    losses, train, val, best, best_params = [], [], [], 0, None
    configs = {p: dict(config) for p in model.params}
    N = len(d["X_train"])
    per_epoch = max(N // batch_size, 1)
    for t in range(num_epochs * per_epoch):
        batch = np.random.choice(N, batch_size)
        loss, grads = model.loss(d["X_train"][batch], d["y_train"][batch])
        losses.append(loss)
        for p in model.params: model.params[p], configs[p] = getattr(optim, rule)(model.params[p], grads[p], configs[p])
        last = (t + 1) % per_epoch == 0
        if last:
            for c in configs.values(): c["learning_rate"] *= lr_decay
        if t == 0 or last:
            train.append(measure(d["X_train"], d["y_train"], num_train_samples))
            val.append(measure(d["X_val"], d["y_val"], num_val_samples))
            if val[-1] > best: best, best_params = val[-1], {p: w.copy() for p, w in model.params.items()}
    return losses, train, val, best_params or model.params


@given(rule=st.sampled_from(RULES), N=st.integers(1, 30), V=st.integers(1, 12), batch_size=st.integers(1, 12), num_epochs=st.integers(0, 3),
       lr_decay=st.sampled_from([1, 0.5, 0]), num_train_samples=st.sampled_from([None, 1, 5, 1000]), num_val_samples=st.sampled_from([None, 3, 12]))
@settings(max_examples=40, deadline=None)
def test_the_loop_written_again_agrees_to_the_last_bit(rule, N, V, batch_size, num_epochs, lr_decay, num_train_samples, num_val_samples):
    d, options = small(N, V), dict(lr_decay=lr_decay, batch_size=batch_size, num_epochs=num_epochs,
                                   num_train_samples=num_train_samples, num_val_samples=num_val_samples)
    np.random.seed(3)
    expected = plain_loop(Linear(), d, rule, {"learning_rate": 0.1}, **options)
    after = np.random.get_state(legacy=False)
    np.random.seed(3)
    solver = Solver(model := Linear(), d, rule, {"learning_rate": 0.1}, verbose=False, **options)
    solver.train()
    assert same([solver.loss_history, solver.train_acc_history, solver.val_acc_history, model.params], list(expected))
    assert same(np.random.get_state(legacy=False), after)


@pytest.mark.parametrize("rule", RULES)
def test_each_parameter_goes_its_own_way(rule):
    "What the rule alone makes of each parameter's gradients is what the Solver makes of it."
    seen = []
    class Recorded(Linear):
        def loss(self, X, y=None):
            out = super().loss(X, y)
            if y is not None: seen.append(out[1])
            return out
    solver = Solver(model := Recorded(), small(C=3), rule, {"learning_rate": 0.1}, num_epochs=4, batch_size=20, verbose=False)
    solver.best_val_acc = 2  # never beaten: the last parameters stay
    solver.train()
    for p in model.params:
        w, config = Linear().params[p], {"learning_rate": 0.1}
        for grads in seen: w, config = getattr(optim, rule)(w, grads[p], config)
        assert np.array_equal(model.params[p], w)
        assert same(solver.optim_configs[p], config)


# Defaults

def test_defaults(capsys):
    solver = Solver(Scripted(accuracies=[0] * 11), zeros(250))
    assert solver.update_rule is optim.sgd
    assert (solver.optim_config, solver.lr_decay, solver.batch_size, solver.num_epochs) == ({}, 1, 100, 10)
    assert (solver.num_train_samples, solver.num_val_samples, solver.checkpoint_name) == (1000, None, None)
    assert (solver.print_every, solver.verbose, solver.callback) == (10, True, None)
    assert (solver.iterations_per_epoch, solver.num_iterations) == (2, 20)
    assert (solver.epoch, solver.iteration, solver.best_val_acc, solver.best_params) == (0, 0, 0, {})
    assert solver.loss_history == solver.train_acc_history == solver.val_acc_history == []
    assert solver.optim_configs == {"w": {}}
    solver.train()
    assert solver.optim_configs == {"w": {"learning_rate": 1e-2}}


def test_default_batch_size_of_the_accuracy_is_100():
    sizes = []
    class Seen:
        def loss(self, X):
            sizes.append(len(X))
            return np.eye(2)[np.zeros(len(X), int)]
    assert accuracy(Seen(), np.zeros((250, 1)), np.r_[np.zeros(200, int), np.ones(50, int)]) == 0.8
    assert sizes == [100, 100, 50]
    s = Solver(Scripted(accuracies=[0]), zeros())
    s.model, sizes[:] = Seen(), []
    s.check_accuracy(np.zeros((150, 1)), np.zeros(150, int))
    s.check_accuracy(np.zeros((150, 1)), np.zeros(150, int), 40, 30)
    assert sizes == [100, 50, 30, 10]


# Draws, lines, times

def test_the_random_draws(monkeypatch):
    calls, choice = [], np.random.choice
    monkeypatch.setattr(np.random, "choice", lambda *a, **k: calls.append(a) or choice(*a, **k))
    Solver(Linear(), small(20, 10), num_epochs=2, batch_size=10, num_train_samples=19, num_val_samples=9, verbose=False).train()
    step, look = (20, 10), [(20, 19), (10, 9)]
    assert calls == [step, *look, step, *look, step, step, *look]
    calls.clear()
    Solver(Linear(), small(20, 10), num_epochs=1, batch_size=10, num_train_samples=20, num_val_samples=10, verbose=False).train()
    assert calls == [step, step]


def test_printed_lines(capsys):
    model = Scripted([1.23456789, 1, 2, 3, 4, 5, 6], [0.1, 0.2, 0.3])
    Solver(model, zeros(6), batch_size=2, num_epochs=2, print_every=3).train()
    assert capsys.readouterr().out == (
        "(Iteration 1 / 6) loss: 1.234568\n(Epoch 0 / 2) train acc: 0.000000; val_acc: 0.100000\n"
        "(Epoch 1 / 2) train acc: 0.000000; val_acc: 0.200000\n(Iteration 4 / 6) loss: 3.000000\n(Epoch 2 / 2) train acc: 0.000000; val_acc: 0.300000\n")


def test_nothing_is_printed_when_not_verbose_nor_written_without_a_name(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Solver(Linear(), small(), num_epochs=1, print_every=1, verbose=False).train()
    assert capsys.readouterr() == ("", "") and list(tmp_path.iterdir()) == []


def test_one_iteration_an_epoch_is_looked_at_once():
    solver = Solver(Scripted(accuracies=[0, 0]), zeros(3), batch_size=100, num_epochs=2, verbose=False)
    solver.train()
    assert (solver.iterations_per_epoch, len(solver.loss_history), len(solver.val_acc_history)) == (1, 2, 2)


def test_the_callback_comes_after_each_iteration():
    seen = []
    solver = Solver(Scripted(accuracies=[0] * 3), zeros(6), batch_size=2, num_epochs=2, verbose=False,
                    callback=lambda s: seen.append((s.iteration, s.epoch, len(s.loss_history), len(s.val_acc_history), s.model.params["w"][0])))
    solver.train()
    rates = np.cumsum([0.01] * 6)
    assert seen == [(i, e, i, n, pytest.approx(w)) for i, e, n, w in zip(range(1, 7), [0, 0, 1, 1, 1, 2], [1, 1, 2, 2, 2, 3], rates)]


# The best parameters

@pytest.mark.parametrize("accuracies, best, steps", [
    ([0.1, 0.5, 0.3], 0.5, 3), ([0.5, 0.5, 0.5], 0.5, 1), ([0.1, 0.2, 0.3], 0.3, 6), ([0, 0, 0], 0, 6), ([0, 0.1, 0], 0.1, 3)])
def test_best_parameters(accuracies, best, steps):
    solver = Solver(Scripted(accuracies=accuracies), zeros(6), optim_config={"learning_rate": 1}, batch_size=2, num_epochs=2, verbose=False)
    solver.train()
    assert solver.best_val_acc == best and solver.val_acc_history == accuracies
    assert solver.model.params["w"].tolist() == [steps]


def test_best_parameters_are_copies():
    def in_place(w, dw, config):
        w -= dw
        return w, config | {"learning_rate": 1}
    solver = Solver(Scripted(accuracies=[0.5, 0.1, 0.1]), zeros(6), in_place, batch_size=2, num_epochs=2, verbose=False)
    solver.train()
    assert solver.model.params["w"].tolist() == [1]
    solver.model.params["w"] += 5
    assert solver.best_params["w"].tolist() == [1]


def test_train_again_counts_on(capsys):
    solver = Solver(Scripted(accuracies=[0.1] * 7), zeros(6), batch_size=2, num_epochs=2, print_every=100)
    for _ in range(3): solver.train()
    assert (solver.epoch, solver.num_epochs, solver.iteration, len(solver.loss_history), len(solver.val_acc_history)) == (6, 6, 18, 18, 7)
    printed = capsys.readouterr().out
    assert "(Epoch 2 / 2)" in printed and "(Epoch 3 / 4)" in printed and "(Epoch 6 / 6)" in printed


def test_epochs_set_by_hand_are_a_total():
    solver = Solver(Scripted(accuracies=[0.1] * 9), zeros(6), num_epochs=2, verbose=False)
    solver.train()
    solver.num_epochs = 5
    solver.train()
    assert solver.epoch == 5
    solver.train()
    assert solver.epoch == 7


def test_no_epochs():
    solver = Solver(model := Linear(), small(), num_epochs=0)
    solver.train()
    assert same(model.params, Linear().params) and solver.loss_history == []


@pytest.mark.parametrize("rule", RULES)
def test_the_callers_config_is_left_alone(rule):
    config = {"learning_rate": 0.1}
    for given in config, MappingProxyType(config): Solver(Linear(), small(), rule, given, lr_decay=0.5, num_epochs=2, verbose=False).train()
    assert config == {"learning_rate": 0.1}


def test_memories_in_the_callers_config_are_left_alone_and_not_shared():
    class Twins(Scripted):
        def __init__(self):
            super().__init__(accuracies=[0, 0, 0])
            self.params["b"] = np.zeros(1)
        def loss(self, X, y=None):
            out = super().loss(X, y)
            return out if y is None else (out[0], {"w": -np.ones(1), "b": np.ones(1)})
    config = {"learning_rate": 1, "velocity": np.array([2.]), "momentum": 0.5}
    solver = Solver(model := Twins(), zeros(6), "sgd_momentum", config, batch_size=6, num_epochs=2, verbose=False)
    config["velocity"] += 5
    solver.train()
    assert config["velocity"].tolist() == [7] and solver.optim_config["velocity"].tolist() == [2]
    assert (model.params["w"].tolist(), model.params["b"].tolist()) == ([4], [-1])


def test_learning_rates_decay_at_each_epochs_end():
    rates = []
    solver = Solver(Scripted(accuracies=[0] * 4), zeros(4), optim_config={"learning_rate": 1}, lr_decay=0.5, batch_size=2, num_epochs=3, verbose=False,
                    callback=lambda s: rates.append(s.optim_configs["w"]["learning_rate"]))
    solver.train()
    assert rates == [1, 0.5, 0.5, 0.25, 0.25, 0.125]


def test_histories_hold_plain_floats():
    class Single(Linear):
        def loss(self, X, y=None):
            out = super().loss(X, y)
            return out if y is None else (np.float32(out[0]), out[1])
    solver = Solver(Single(), small(), num_epochs=1, verbose=False)
    solver.train()
    assert {type(x) for x in solver.loss_history + solver.train_acc_history + solver.val_acc_history} == {float}


def test_settings_become_plain_numbers():
    "A checkpoint's text can hold those."
    solver = Solver(Linear(), small(), lr_decay=np.float32(0.5), batch_size=np.int8(3), verbose=np.False_)
    assert [type(v) for v in (solver.lr_decay, solver.batch_size, solver.verbose)] == [float, int, bool]


def test_lists_will_do_for_data():
    d = {k: v.tolist() for k, v in small().items()}
    Solver(Linear(), d | {"X_test": None, 3: "more"}, num_epochs=1, verbose=False).train()


# Bad input

d = small()
BAD = [
    (dict(bach_size=5), ValueError, 'Unrecognized arguments "bach_size"'),
    (dict(x=1, y=2), ValueError, 'Unrecognized arguments "x", "y"'),
    (dict(update_rule="adma"), ValueError, 'Invalid update_rule "adma"'),
    (dict(update_rule="np"), ValueError, 'Invalid update_rule "np"'),
    (dict(update_rule=None), ValueError, 'Invalid update_rule "None"'),
    (dict(optim_config=None), TypeError, "Solver: optim_config needs to be a dictionary; got NoneType"),
    (dict(optim_config=0.1), TypeError, "Solver: optim_config needs to be a dictionary; got float"),
    (dict(data=None), TypeError, "Solver: data needs to be a dictionary; got NoneType"),
    (dict(data={}), ValueError, "Solver: data needs the key 'X_train'; it has []"),
    *[(dict(data={k: v for k, v in d.items() if k != key}), ValueError, f"Solver: data needs the key '{key}'") for key in d],
    (dict(data={**d, "y_train": d["y_train"][:5]}), ValueError, "Solver: y_train has N = 5 but X_train has N = 20"),
    (dict(data={**d, "y_val": d["y_val"][:5]}), ValueError, "Solver: y_val has N = 5 but X_val has N = 10"),
    (dict(data={**d, "y_val": np.zeros((10, 3))}), ValueError, "Solver: y_val needs 1 axes (N) but has 2"),
    (dict(data={**d, "X_train": np.array(3)}), ValueError, "Solver: X_train needs at least 1 axes (N) but has 0"),
    (dict(data=small(N=0)), ValueError, "Solver: the number of examples in X_train needs to be at least 1; got 0"),
    (dict(data=small(V=0)), ValueError, "Solver: the number of examples in X_val needs to be at least 1; got 0"),
    *[(dict([(key, value)]), error, f"Solver: {key} needs") for key in ("batch_size", "num_train_samples", "num_val_samples", "print_every")
      for value, error in [(0, ValueError), (-1, ValueError), (2.5, TypeError), ("5", TypeError)]],
    (dict(batch_size=None), TypeError, "Solver: batch_size needs"), (dict(print_every=None), TypeError, "Solver: print_every needs"),
    (dict(num_epochs=-1), ValueError, "Solver: num_epochs needs to be at least 0; got -1"), (dict(num_epochs=1.5), TypeError, "Solver: num_epochs needs"),
    (dict(lr_decay=-1), ValueError, "Solver: lr_decay needs"), (dict(lr_decay="1"), TypeError, "Solver: lr_decay needs"),
    (dict(lr_decay=np.nan), ValueError, "Solver: lr_decay needs"), (dict(checkpoint_name=5), TypeError, "Solver: checkpoint_name needs to be a path: expected str"),
    (dict(update_rule=np.zeros(2)), ValueError, 'Invalid update_rule "[0. 0.]"'), (dict(callback=1), TypeError, "Solver: callback needs to be a function"),
    (dict(model=object()), TypeError, "Solver: model needs `params`; got <object"),
    (dict(model=SimpleNamespace(params={})), TypeError, "Solver: model needs `loss`; got namespace(params={})"),
]


@pytest.mark.parametrize("change, error, text", BAD, ids=[f"{i}-{text}" for i, (_, _, text) in enumerate(BAD)])
def test_bad_settings(change, error, text):
    with pytest.raises(error) as e: Solver(**({"model": Linear(), "data": d} | change))
    assert str(e.value).startswith(text)


BAD_LOOKS = [
    ((np.zeros((3, 4)), np.zeros(2)), ValueError, "check_accuracy: y has N = 2 but X has N = 3"),
    ((np.zeros((0, 4)), np.zeros(0)), ValueError, "check_accuracy: the number of examples in X needs to be at least 1; got 0"),
    ((np.zeros((3, 4)), np.zeros((3, 1))), ValueError, "check_accuracy: y needs 1 axes"),
    ((np.zeros((3, 4)), np.ones(3)), TypeError, "check_accuracy: y needs whole numbers as labels"),
    ((np.zeros((3, 4)), np.array([0, 1, 3])), ValueError, "check_accuracy: y needs labels from 0 to 2"),
    ((np.zeros((3, 4)), np.zeros(3), 0), ValueError, "check_accuracy: num_samples needs"),
    ((np.zeros((3, 4)), np.zeros(3), 1.5), TypeError, "check_accuracy: num_samples needs"),
    ((np.zeros((3, 4)), np.zeros(3), None, 0), ValueError, "check_accuracy: batch_size needs"),
    ((np.zeros((3, 4)), np.zeros(3), None, None), TypeError, "check_accuracy: batch_size needs"),
]


@pytest.mark.parametrize("args, error, text", BAD_LOOKS, ids=[text for _, _, text in BAD_LOOKS])
def test_bad_looks(args, error, text):
    with pytest.raises(error) as e: Solver(Linear(), d).check_accuracy(*args)
    assert str(e.value).startswith(text)


def test_a_model_that_cannot_be_measured_is_named():
    with pytest.raises(TypeError, match="check_accuracy: model needs `loss`; got None"): accuracy(None, d["X_val"], d["y_val"])


def test_a_missing_gradient_is_named():
    class Forgetful(Linear):
        def loss(self, X, y=None):
            out = super().loss(X, y)
            return out if y is None else (out[0], {"w": out[1]["w"]})
    with pytest.raises(ValueError, match=r"^Solver: the gradients of model.loss needs the key 'b'; it has \['w'\]"):
        Solver(Forgetful(), d).train()


# Runs that end early

@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf, np.float32(np.nan)], ids=str)
def test_a_loss_that_is_no_number_stops_the_run(loss):
    model = Scripted([1, 1, 1, 1, loss, 1], [0.1, 0.4])
    solver = Solver(model, zeros(6), "adam", {"learning_rate": 0.25}, batch_size=2, num_epochs=2, verbose=False)
    with pytest.raises(FloatingPointError) as e: solver.train()
    assert str(e.value) == (f"Solver: the loss is {loss} at iteration 5 / 6. Try a smaller learning rate (it is 0.25) or smaller initial weights, "
                            "and look for NaN and infinity in X_train")
    assert solver.loss_history == [1, 1, 1, 1] and solver.iteration == 4 and model.steps == 5
    assert solver.best_val_acc == 0.4 and model.params["w"] == pytest.approx([0.75])


def test_a_first_loss_that_is_no_number_changes_no_parameter():
    solver = Solver(model := Scripted([np.nan], []), zeros(), verbose=False)
    with pytest.raises(FloatingPointError, match=r"the loss is nan at iteration 1 / 10\. .*\(it is None\)"): solver.train()
    assert model.params["w"].tolist() == [0]


@pytest.fixture
def interruptible():
    "Ctrl-C as in a terminal: a process started in the background ignores it."
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_keeps_history_and_best_parameters(interruptible):
    class Interrupted(Scripted):
        def loss(self, X, y=None):
            if self.steps == 4 and y is not None: signal.raise_signal(signal.SIGINT)
            return super().loss(X, y)
    solver = Solver(model := Interrupted(accuracies=[0.3, 0.2, 0.1]), zeros(6), optim_config={"learning_rate": 1}, batch_size=2, num_epochs=2, verbose=False)
    with pytest.raises(KeyboardInterrupt): solver.train()
    assert (len(solver.loss_history), solver.iteration, solver.epoch) == (4, 4, 1)
    assert solver.best_val_acc == 0.3 and model.params["w"].tolist() == [1]
    model.steps = 10
    solver.train()
    assert (len(solver.loss_history), solver.epoch) == (6, 2)
    assert model.params["w"].tolist() == [1] and solver._last["params"]["w"].tolist() == [6]


# Checkpoints

def net(**options):
    options = {"normalization": "batchnorm", "dropout_keep_ratio": 0.7} | options
    return FullyConnectedNet([5, 4], input_dim=4, num_classes=3, **options)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("options", [{}, {"normalization": "layernorm", "dtype": np.float64}, {"normalization": None, "dropout_keep_ratio": 1}],
                         ids=["batchnorm-dropout", "layernorm-dropout", "plain"])
def test_resumed_runs_end_as_the_uninterrupted_one(rule, options, tmp_path):
    np.random.seed(1)
    solver = Solver(net(reg=0.1, **options), d, rule, {"learning_rate": 0.05}, lr_decay=0.7, batch_size=7, num_epochs=3, num_train_samples=15, num_val_samples=8,
                    checkpoint_name=tmp_path / "run", print_every=3, verbose=False)
    solver.train()
    expected = everything(solver)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"run_epoch_{e}.npz" for e in range(4)]
    for e in range(4):
        np.random.seed(e)
        resumed = Solver.resume(tmp_path / f"run_epoch_{e}.npz", net(seed=e, **options), d)  # dropout goes on as saved, not as the seed says
        assert (resumed.epoch, resumed.iteration) == (e, max(1, 2 * e))
        assert resumed.model.reg == 0.1
        assert (resumed.update_rule, resumed.optim_config, resumed.print_every, resumed.verbose) == (getattr(optim, rule), {"learning_rate": 0.05}, 3, False)
        assert resumed.checkpoint_name == str(tmp_path / "run")
        resumed.train()
        assert same(everything(resumed), expected)


@pytest.mark.parametrize("at", [1, 2, 5, 6])
def test_a_checkpoint_of_ones_own_anywhere(at, tmp_path):
    "Also in the middle of an epoch, and with half a pair of normal numbers waiting in the generator."
    def stop(solver):
        np.random.randn()
        if solver.iteration == at: solver.save(tmp_path / "mine.npz")
    options = dict(batch_size=7, num_epochs=3, verbose=False, callback=stop)
    solver = Solver(net(), d, "adam", **options)
    solver.train()
    expected = everything(solver)
    saved = load_checkpoint(tmp_path / "mine.npz")
    assert (saved["random"]["has_gauss"], saved["progress"]["iteration"]) == (at % 2, at)
    resumed = Solver.resume(tmp_path / "mine.npz", net(), d, callback=lambda s: np.random.randn())
    resumed.train()
    assert same(everything(resumed), expected)


def test_settings_can_change(tmp_path):
    Solver(net(), d, "adam", num_epochs=1, batch_size=5, checkpoint_name=f"{tmp_path}/run", verbose=False).train()
    resumed = Solver.resume(tmp_path / "run_epoch_1.npz", net(), d, num_epochs=2, checkpoint_name=None)
    resumed.train()
    assert (resumed.epoch, len(resumed.loss_history), resumed.checkpoint_name) == (2, 8, None)
    with pytest.raises(ValueError, match='Unrecognized arguments "epochs"'): Solver.resume(tmp_path / "run_epoch_1.npz", net(), d, epochs=2)


def own_rule(w, dw, config): return w - 0.1 * dw, config


def test_a_rule_of_ones_own_has_to_be_named_again(tmp_path):
    solver = Solver(net(), d, own_rule, {"learning_rate": 0.1}, num_epochs=1, batch_size=5, checkpoint_name=tmp_path / "run", verbose=False)
    solver.train()
    with pytest.raises(ValueError, match='Invalid update_rule "own_rule"'): Solver.resume(tmp_path / "run_epoch_0.npz", net(), d)
    resumed = Solver.resume(tmp_path / "run_epoch_0.npz", net(), d, update_rule=own_rule)
    resumed.train()
    assert same(resumed.model.params, solver.model.params)
    solver.update_rule = __import__("functools").partial(own_rule)
    solver.save(tmp_path / "partial.npz")


@pytest.mark.parametrize("model, data, text", [
    (lambda: net(normalization=None), d, "its parameters: "), (lambda: net(dtype=np.float64), d, "its parameters: "),
    (lambda: FullyConnectedNet([5, 5], 4, 3, normalization="batchnorm"), d, "its parameters: "), (net, small(19), "its number of training examples: 20; given: 19"),
    (net, {}, "Solver: data needs the key")])
def test_what_does_not_fit_is_refused_and_changes_nothing(model, data, text, tmp_path):
    Solver(net(), d, num_epochs=1, checkpoint_name=tmp_path / "run", verbose=False).train()
    model = model()
    before, state = {p: w.copy() for p, w in model.params.items()}, np.random.get_state(legacy=False)
    with pytest.raises(ValueError) as e: Solver.resume(tmp_path / "run_epoch_1.npz", model, data)
    start = f"Solver.resume: {tmp_path / 'run_epoch_1.npz'} does not fit: " if data else ""
    assert str(e.value).startswith(start + text)
    assert same(model.params, before) and same(np.random.get_state(legacy=False), state)


leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5),
                   st.builds(lambda shape, dtype: np.ones(shape, dtype), st.sampled_from([(1,), (0,), (2, 3)]), st.sampled_from(["f4", "f8", "i8", "?", "U3", "u4"])),
                   st.builds(np.float32, st.floats(width=32, allow_nan=False)), st.builds(np.int64, st.integers(-9, 9)))
trees = st.recursive(leaves, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=2), t, max_size=3), max_leaves=8)


@given(state=st.dictionaries(st.text("abc", min_size=1, max_size=2), trees, max_size=3))
@settings(max_examples=60, deadline=None)
def test_states_come_back_as_they_were(state, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "state.npz"
    with mock.patch("os.fsync"): save_checkpoint(path, state)
    back = load_checkpoint(path)
    assert same(back, state)
    types = lambda t: [types(v) for v in (t.values() if isinstance(t, dict) else t)] if isinstance(t, (dict, list)) else type(t)
    assert types(back) == types(state)


def test_arrays_are_there_by_name_for_anyone(tmp_path):
    Solver(Linear(), d, "adam", num_epochs=1, checkpoint_name=tmp_path / "run", verbose=False).train()
    with np.load(tmp_path / "run_epoch_1.npz", allow_pickle=False) as f:
        assert {"model/params/w", "progress/best_params/b", "progress/optim_configs/w/m", "random/state/key"} <= set(f.files)
        head = json.loads(str(f["checkpoint"]))
    assert (head["format"], head["version"]) == ("cs231n_lit checkpoint", 1)
    assert head["state"]["settings"]["update_rule"] == "adam" and head["state"]["num_train"] == 20


@pytest.mark.parametrize("thing", [np.array([print]), np.array([{}, None])], ids=["functions", "objects"])
def test_python_objects_are_not_saved(thing, tmp_path):
    with pytest.raises(TypeError, match=r"^save_checkpoint: /a/1 holds Python objects; only numbers and text can be saved$"): save_checkpoint(tmp_path / "a.npz", {"a": [0, thing]})
    with pytest.raises(TypeError): save_checkpoint(tmp_path / "a.npz", {"a": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("state, name", [({"checkpoint": ONE}, "checkpoint"), ({"file": ONE}, "file"), ({"allow_pickle": ONE}, "allow_pickle"), ({"a": {"b": ONE}, "a/b": ONE}, "a/b")])
def test_names_that_are_taken_are_refused(state, name, tmp_path):
    with pytest.raises(ValueError, match=f"^save_checkpoint: each array needs a name of its own, but '{name}' is taken"): save_checkpoint(tmp_path / "a.npz", state)
    assert list(tmp_path.iterdir()) == []


def test_arrays_are_found_by_their_path(tmp_path):
    save_checkpoint(tmp_path / "a.npz", {"X": {"y": [ONE, 2 * ONE]}})
    with np.load(tmp_path / "a.npz") as f: assert f.files == ["checkpoint", "X/y/0", "X/y/1"] and np.array_equal(f["X/y/1"], 2 * ONE)


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_paths_of_each_kind(kind, tmp_path):
    path = kind(str(tmp_path / "a.npz"))
    save_checkpoint(path, {"a": 1})
    assert load_checkpoint(path) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_what_is_no_path_is_named():
    with pytest.raises(TypeError, match="^save_checkpoint: path needs to be a path: "): save_checkpoint(5, {})
    with pytest.raises(TypeError, match="^load_checkpoint: path needs to be a path: "): load_checkpoint(5)


# Files that are damaged, foreign or hostile

def good(tmp_path):
    path = tmp_path / "good.npz"
    save_checkpoint(path, {"a": np.arange(6.), "b": [1, {"c": np.eye(2)}]})
    return path.read_bytes()


def refused(path, *words):
    with pytest.raises(ValueError) as e: load_checkpoint(path)
    assert str(e.value).startswith(f"load_checkpoint: {path} is not a checkpoint that can be read: ")
    for word in words: assert word in str(e.value)


def test_a_damaged_shape_is_noticed(tmp_path):
    "NumPy alone would read two numbers of six and never come to the checksum."
    (tmp_path / "good.npz").write_bytes(good(tmp_path).replace(b"(6,), }", b"(2,), }"))
    refused(tmp_path / "good.npz", "a.npy is damaged")


def test_every_truncation_is_noticed(tmp_path):
    data, path = good(tmp_path), tmp_path / "cut.npz"
    for n in [*range(0, len(data), 37), len(data) - 1]:
        path.write_bytes(data[:n])
        refused(path)


def test_a_flipped_byte_is_noticed_or_without_effect(tmp_path):
    data, path = good(tmp_path), tmp_path / "flipped.npz"
    state, noticed = load_checkpoint(tmp_path / "good.npz"), 0
    for n in random.Random(0).sample(range(len(data)), 300):
        path.write_bytes(data[:n] + bytes([data[n] ^ 0x41]) + data[n + 1:])
        try: back = load_checkpoint(path)
        except ValueError as e: noticed += str(e).startswith(f"load_checkpoint: {path} is not a checkpoint that can be read: ")
        else:
            assert same(back, state)
            noticed += 1
    assert noticed == 300


class Evil:
    "Unpickled, it would leave a file behind."
    def __init__(self, path): self.path = path
    def __reduce__(self): return Path.touch, (self.path,)


def head(**changes):
    return np.array(json.dumps({"format": "cs231n_lit checkpoint", "version": 1, "state": {}} | changes))


def foreign(tmp_path):
    mark = tmp_path / "touched"
    evil = np.array([Evil(mark)], dtype=object)
    bomb = io.BytesIO()
    np.savez_compressed(bomb, checkpoint=head(), a=np.zeros(10**6))
    def npz(**arrays):
        np.savez(f := io.BytesIO(), **arrays)
        return f.getvalue()
    def text(value): return npz(checkpoint=np.array(value))
    header = npz(checkpoint=head(state={"array": "a"}), a=np.zeros(3)).replace(b"'shape': (3,), }", b"'shape': (9**9,)")
    np.save(npy := io.BytesIO(), np.zeros(3))
    return {"empty": (b"", "not a zip file"), "text": (b"hello", "not a zip file"), "npy": (npy.getvalue(), "not a zip file"),
            "pickle": (pickle.dumps(Evil(mark)), "not a zip file"), "object": (npz(checkpoint=head(state={"array": "a"}), a=evil), "allow_pickle=False"),
            "other-npz": (npz(W1=np.zeros(3)), "checkpoint"), "no-json": (text("hello"), "JSON"), "json-list": (text("[1]"), ""), "no-state": (text('{"format": "cs231n_lit checkpoint", "version": 1}'), "state"),
            "format": (npz(checkpoint=head(format="other")), "its format is 'other', version 1; this package reads 'cs231n_lit checkpoint', version 1"),
            "version-2": (npz(checkpoint=head(version=2)), "version 2; this"), "version-0": (npz(checkpoint=head(version=0)), "version 0; this"),
            "no-array": (npz(checkpoint=head(state={"array": "a"})), "'a'"), "bomb": (bomb.getvalue(), "it is compressed"), "header": (header, "")}


@pytest.mark.parametrize("kind", ["empty", "text", "npy", "pickle", "object", "other-npz", "no-json", "json-list", "no-state", "format", "version-2", "version-0", "no-array", "bomb", "header"])
def test_foreign_files(kind, tmp_path):
    data, word = foreign(tmp_path)[kind]
    path = tmp_path / "foreign.npz"
    path.write_bytes(data)
    refused(path, word)
    assert not (tmp_path / "touched").exists()


def test_no_file_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError): load_checkpoint(tmp_path / "none.npz")
    refused(tmp_path, "IsADirectoryError")


def test_a_state_of_something_else_cannot_be_resumed(tmp_path):
    path = tmp_path / "a.npz"
    Solver(Linear(), d).save(path)
    state = load_checkpoint(path)
    for key in state:
        save_checkpoint(path, {k: v for k, v in state.items() if k != key})
        with pytest.raises(ValueError, match=f"^Solver.resume: .*a.npz needs the key '{key}'"): Solver.resume(path, Linear(), d)


def test_a_rule_without_a_name_has_to_be_given_again(tmp_path):
    Solver(Linear(), d, rule := partial(optim.sgd)).save(tmp_path / "a.npz")
    with pytest.raises(ValueError, match='Invalid update_rule ""'): Solver.resume(tmp_path / "a.npz", Linear(), d)
    assert Solver.resume(tmp_path / "a.npz", Linear(), d, update_rule=rule).update_rule is rule


@pytest.mark.parametrize("state, path, key", [({1: 2}, "/", "1"), ({"a": [{None: 2}]}, "/a/0", "None"), ({"a": {"array": 1}}, "/a", "'array'")])
def test_keys_that_would_not_come_back_are_refused(state, path, key, tmp_path):
    with pytest.raises(ValueError, match=f"save_checkpoint: {path} cannot have the key {key}: "): save_checkpoint(tmp_path / "a.npz", state)


# Writing that fails

def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    before = good(tmp_path)
    def full(*_): raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"): save_checkpoint(tmp_path / "good.npz", {"a": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["good.npz"] and (tmp_path / "good.npz").read_bytes() == before


def test_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    events, replace, fsync = [], os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda f: (events.append(("fsync", os.fstat(f).st_size)), fsync(f)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(("replace", os.path.getsize(a))), replace(a, b)))
    save_checkpoint(tmp_path / "a.npz", {"a": np.zeros(1000)})
    size = (tmp_path / "a.npz").stat().st_size
    assert events == [("fsync", size), ("replace", size)]


def test_a_folder_that_is_not_there(tmp_path):
    solver = Solver(Linear(), d, checkpoint_name=tmp_path / "none" / "run", verbose=False)
    with pytest.raises(FileNotFoundError, match="none"): solver.train()


# Kills at random moments

def train(folder, epochs, kill_after=None):
    "Train in another process. Was it killed before its end?"
    script = str(Path(__file__).with_name("training_run.py"))
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, script, str(folder), str(epochs)], stdout=subprocess.PIPE, text=True, env=environment) as p:
        assert p.stdout.readline() == "go\n"
        if kill_after is not None:
            time.sleep(kill_after)
            p.kill()
    return p.returncode == -signal.SIGKILL


def kill_and_resume(tmp_path, kills, epochs, longest):
    "Kill a run again and again, resume it each time from its newest checkpoint; it has to end as one that never stopped."
    folder, whole, rng, killed, halves = tmp_path / "run", tmp_path / "whole", random.Random(0), 0, 0
    for f in (folder, whole): f.mkdir()
    training_run.main(whole, epochs)
    expected = np.load(whole / "done.npy")
    while killed < kills or not (folder / "done.npy").exists():
        killed += train(folder, epochs, rng.uniform(0, longest) if killed < kills else None)
        halves += len(list(folder.glob("*.tmp")))
        newest = training_run.latest(folder)
        if newest is not None: load_checkpoint(newest)
        if (folder / "done.npy").exists():
            assert np.array_equal(np.load(folder / "done.npy"), expected)
            if killed < kills:
                for path in folder.iterdir(): path.unlink()
    return halves


kills = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs signals that cannot be caught")


@kills
def test_kills_while_writing(tmp_path):
    kill_and_resume(tmp_path, kills=3, epochs=12, longest=0.1)


@kills
@pytest.mark.slow
def test_a_hundred_kills_while_writing(tmp_path):
    assert kill_and_resume(tmp_path, kills=100, epochs=60, longest=0.2) > 0, "no kill hit a write"
