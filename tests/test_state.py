"""A net's state is whole: best, saved, loaded, gone on with, for every kind of net; and files that lack a part are refused."""
import itertools
import pickle

import numpy as np
import pytest

from cs231n_lit.checkpoint import get_state, load_checkpoint, load_state, save_checkpoint, set_state
from cs231n_lit.classifiers.cnn import ThreeLayerConvNet
from cs231n_lit.classifiers.fc_net import FullyConnectedNet, TwoLayerNet
from cs231n_lit.solver import Solver


def examples(seed=0, shape=(2, 6, 6), C=3):
    rng = np.random.default_rng(seed)
    part = lambda N: (rng.standard_normal((N, *shape)), rng.integers(C, size=N))
    (X, y), (Xv, yv) = part(40), part(30)
    return {"X_train": X, "y_train": y, "X_val": Xv, "y_val": yv}


data = examples()
KINDS = {"two-layer": lambda: TwoLayerNet(72, 6, 3, weight_scale=0.1, reg=0.01)}
for norm, keep, dtype in itertools.product([None, "batchnorm", "layernorm"], [1, 0.6], ["float32", "float64"]):
    KINDS[f"fc-{norm}-{keep}-{dtype}"] = lambda n=norm, k=keep, t=dtype: FullyConnectedNet([7, 5], 72, 3, k, n, 0.01, 0.1, t)
for dtype in "float32", "float64":
    KINDS[f"conv-{dtype}"] = lambda t=dtype: ThreeLayerConvNet((2, 6, 6), 3, 3, 5, 3, 0.1, 0.01, t)
every_kind = pytest.mark.parametrize("kind", KINDS)
BATCHNORM = "fc-batchnorm-0.6-float64"


def solver(kind, seed=1, **options):
    np.random.seed(seed)
    return Solver(KINDS[kind](), data, "adam", {"learning_rate": 0.05}, verbose=False, **{"lr_decay": 0.8, "batch_size": 8, "num_epochs": 6} | options)


def bits(tree):
    if isinstance(tree, dict): return {k: bits(v) for k, v in tree.items()}
    if isinstance(tree, (list, tuple)): return [bits(v) for v in tree]
    return np.asarray(tree).tobytes()


def everything(s):
    names = "epoch iteration best_val_acc best_params best_bn_params loss_history train_acc_history val_acc_history optim_configs"
    return bits([{k: getattr(s, k) for k in names.split()}, get_state(s.model), np.random.get_state(legacy=False)])


@every_kind
def test_best_saved_loaded_and_predicting_nets_agree_to_the_last_bit(kind, tmp_path):
    before_the_end = 0
    for seed in range(8):
        if seed > 1 and before_the_end: break
        s = solver(kind, seed, checkpoint_name=tmp_path / "run")
        s.train()
        before_the_end += s.val_acc_history[-1] < s.best_val_acc
        assert s.check_accuracy(data["X_val"], data["y_val"]) == s.best_val_acc == max(s.val_acc_history)
        scores = s.model.loss(data["X_val"])
        s.model.save(tmp_path / "net.npz")
        for file in "net.npz", "run_epoch_6.npz":
            again = KINDS[kind]()
            assert again.load(tmp_path / file) is True
            assert bits(again.loss(data["X_val"])) == bits(scores) and again.loss(data["X_val"]).dtype == scores.dtype
        predicted = again.predict(data["X_val"])
        assert predicted.tolist() == scores.argmax(1).tolist() and np.mean(predicted == data["y_val"]) == s.best_val_acc
        assert np.allclose(again.predict_proba(data["X_val"]).sum(1), 1)
    assert before_the_end, "in no run was the best net another one than the last"


@every_kind
def test_a_loaded_net_can_be_trained_on(kind, tmp_path):
    s = solver(kind)
    s.train()
    s.model.save(tmp_path / "net.npz")
    again = KINDS[kind]()
    again.load(tmp_path / "net.npz")
    X, y = data["X_train"], data["y_train"]
    if getattr(again, "use_dropout", False): s.model.dropout_param["seed"] = again.dropout_param["seed"] = 0
    assert bits(s.model.loss(X, y)) == bits(again.loss(X, y)) and bits(get_state(s.model)) == bits(get_state(again))


# Going on

@every_kind
def test_two_calls_of_three_epochs_are_one_of_six(kind):
    whole, halves = solver(kind), None
    whole.train()
    expected = everything(whole)
    halves = solver(kind, num_epochs=3)
    for _ in range(2): halves.train()
    assert everything(halves) == expected


class Stop(Exception): pass


def stopped_at(monkeypatch, kind, place, at, error):
    "A solver that is stopped once, at the given place, the `at`-th time it passes there; and then goes on."
    s, passed = solver(kind), 0
    def stop():
        nonlocal passed
        passed += 1
        if passed == at: raise error
    loss, look = s.model.loss, s.check_accuracy
    def interrupted(X, y=None):
        if place == "before the loss" and y is not None: stop()
        out = loss(X, y)
        if place == "after the loss" and y is not None: stop()
        if place == "in an accuracy" and y is None: stop()
        return out
    s.model.loss = interrupted
    if place == "callback": s.callback = lambda _: stop()
    with pytest.raises(error): s.train()
    if s.best_params: assert look(data["X_val"], data["y_val"]) == s.best_val_acc
    s.train()
    assert passed > at
    return s


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
@pytest.mark.parametrize("place, at", [("callback", 1), ("callback", 13), ("callback", 15), ("before the loss", 1), ("before the loss", 17), ("after the loss", 22), ("in an accuracy", 1), ("in an accuracy", 6)])
def test_a_run_that_is_interrupted_goes_on_as_if_it_had_not_been(place, at, error, monkeypatch):
    whole = solver(BATCHNORM)
    whole.train()
    expected = everything(whole)
    assert everything(stopped_at(monkeypatch, BATCHNORM, place, at, error)) == expected


def test_a_checkpoint_written_after_training_is_of_the_last_step_and_of_the_best(tmp_path):
    whole = solver(BATCHNORM)
    whole.train()
    expected = everything(whole)
    half = solver(BATCHNORM, num_epochs=3)
    half.train()
    half.save(tmp_path / "half.npz")
    again = Solver.resume(tmp_path / "half.npz", KINDS[BATCHNORM](), data, num_epochs=6)
    again.train()
    assert everything(again) == expected


def test_a_checkpoint_of_an_interrupted_look_goes_on_with_it(tmp_path):
    whole = solver(BATCHNORM)
    whole.train()
    expected = everything(whole)
    s = solver(BATCHNORM)
    look = s.check_accuracy
    def interrupted(*a):
        if s.epoch == 2: raise KeyboardInterrupt
        return look(*a)
    s.check_accuracy = interrupted
    with pytest.raises(KeyboardInterrupt): s.train()
    s.save(tmp_path / "cut.npz")
    again = Solver.resume(tmp_path / "cut.npz", KINDS[BATCHNORM](), data)
    again.train()
    assert everything(again) == expected


def test_parameters_changed_between_two_calls_are_kept():
    s = solver(BATCHNORM, num_epochs=2)
    s.train()
    s.model.params["W1"][:] = 7
    seen = []
    loss = s.model.loss
    def watched(X, y=None):
        seen.append(s.model.params["W1"].max())
        return loss(X, y)
    s.model.loss = watched
    s.train()
    assert seen[0] == 7


# Files that lack a part, or are of another net

def refused(net, path, words):
    before = bits(get_state(net))
    with pytest.raises(ValueError, match=f"^{type(net).__name__}.load: .*{words}"): net.load(path)
    assert bits(get_state(net)) == before


def test_parameters_alone_are_refused_by_a_net_with_batch_norm_only(tmp_path):
    for kind in KINDS:
        net = KINDS[kind]()
        with open(tmp_path / "old.npz", "wb") as f: np.savez(f, **net.params)
        np.save(tmp_path / "course.npy", net.params)
        for file in "old.npz", "course.npy":
            other = KINDS[kind]()
            if "batchnorm" in kind: refused(other, tmp_path / file, "no running means and variances")
            else:
                assert other.load(tmp_path / file) is True
                assert bits(other.params) == bits(net.params) and {w.dtype for w in other.params.values()} == {w.dtype for w in net.params.values()}


@pytest.mark.parametrize("own, others", [("batchnorm", "layernorm"), ("layernorm", "batchnorm")])
def test_the_other_norm_is_refused(own, others, tmp_path):
    KINDS[f"fc-{others}-1-float64"]().save(tmp_path / "net.npz")
    refused(KINDS[f"fc-{own}-1-float64"](), tmp_path / "net.npz", f"normalization '{others}', but this one has '{own}'")
    Solver(KINDS[f"fc-{others}-1-float64"](), data).save(tmp_path / "run.npz")
    with pytest.raises(ValueError, match=f"normalization '{others}', but this one has '{own}'"): Solver.resume(tmp_path / "run.npz", KINDS[f"fc-{own}-1-float64"](), data)


@pytest.mark.parametrize("change", [lambda p: p.pop("running_var"), lambda p: p.update(running_mean=np.zeros(3)), lambda p: p.clear()])
def test_averages_that_do_not_fit_are_refused(change, tmp_path):
    s = solver(BATCHNORM, num_epochs=1)
    s.train()
    state = {"model": get_state(s.model)}
    change(state["model"]["bn_params"][1])
    save_checkpoint(tmp_path / "net.npz", state)
    refused(KINDS[BATCHNORM](), tmp_path / "net.npz", "running averages of the shapes")


def test_a_net_that_was_never_trained_is_loaded_as_one(tmp_path):
    KINDS[BATCHNORM]().save(tmp_path / "net.npz")
    s = solver(BATCHNORM, num_epochs=1)
    s.train()
    assert s.model.load(tmp_path / "net.npz") is True
    assert not any(k.startswith("running") for p in s.model.bn_params for k in p)


def earlier(path):
    "Rewrite a solver's checkpoint as the version before wrote it."
    state = load_checkpoint(path)
    for k in "best_bn_params", "_due": state["progress"].pop(k)
    for k in "name", "arguments": state["model"].pop(k)
    save_checkpoint(path, state)


@pytest.mark.parametrize("kind", [BATCHNORM, "fc-layernorm-0.6-float32", "conv-float32", "two-layer"])
def test_checkpoints_of_earlier_versions_are_read_where_they_are_whole(kind, tmp_path):
    whole = solver(kind, checkpoint_name=tmp_path / "run")
    whole.train()
    expected = everything(whole)
    for epoch in 2, 6:
        file = tmp_path / f"run_epoch_{epoch}.npz"
        earlier(file)
        net = KINDS[kind]()
        if kind == BATCHNORM:
            refused(net, file, "no running means and variances")
            with pytest.raises(ValueError, match="an earlier version wrote it without the running averages"): Solver.resume(file, net, data)
        else:
            assert net.load(file) is True
            s = Solver.resume(file, net, data, checkpoint_name=None)
            s.train()
            assert everything(s) == expected


class Evil:
    def __init__(self, path): self.path = path
    def __reduce__(self): return type(self.path).touch, (self.path,)


@pytest.mark.parametrize("value, words", [
    (lambda mark: {"W1": Evil(mark)}, "asks for"), (lambda mark: {"W1": np.zeros(3, int)}, "of type int64"), (lambda mark: {"W1": np.array([None])}, "of type object"),
    (lambda mark: {"W1": 3.0}, "not a file of saved parameters"), (lambda mark: [1, 2], "not a dictionary|not a file"), (lambda mark: np.zeros((3, 2)), "it is one array")])
def test_pickles_of_something_else_are_refused_and_not_run(value, words, tmp_path):
    np.save(tmp_path / "a.npy", value(tmp_path / "mark"))
    refused(KINDS["two-layer"](), tmp_path / "a.npy", words)
    assert not (tmp_path / "mark").exists()


def test_every_cut_of_a_pickled_file_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", TwoLayerNet(4, 3, 2).params)
    whole = (tmp_path / "a.npy").read_bytes()
    for n in range(0, len(whole), 7):
        (tmp_path / "a.npy").write_bytes(whole[:n])
        with pytest.raises(ValueError, match="is not a file of saved parameters"): load_state(tmp_path / "a.npy")


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_of_each_order_and_protocol(protocol, tmp_path):
    params = {"a": np.asfortranarray(np.arange(6.).reshape(2, 3)), "b": np.arange(3, dtype=">f4"), "c": np.array(2, "f4"), "d": np.zeros((0, 2))}
    with open(tmp_path / "a.npy", "wb") as f:
        np.lib.format.write_array_header_1_0(f, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(np.array(params, dtype=object), f, protocol=protocol)
    back = load_state(tmp_path / "a.npy")["params"]
    assert back.keys() == params.keys() and all(np.array_equal(back[k], params[k]) and back[k].dtype == params[k].dtype.newbyteorder("=") for k in params)


def test_checkpoints_of_something_else_are_refused(tmp_path):
    for state in {}, {"model": 3}, {"model": {"W1": np.ones(2)}}:
        save_checkpoint(tmp_path / "a.npz", state)
        refused(KINDS["two-layer"](), tmp_path / "a.npz", "it is a checkpoint, but has no net")


def test_a_state_is_copied_both_ways():
    net = KINDS[BATCHNORM]()
    net.loss(data["X_train"], data["y_train"])
    state = get_state(net)
    expected = bits(state)
    other = KINDS[BATCHNORM]()
    set_state(other, state)
    for model in net, other:
        for w in model.params.values(): w += 1
        for p in model.bn_params: p["running_mean"] += 1
    assert bits(state) == expected
