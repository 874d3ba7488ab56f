"""The update rules: against closed forms, against a second implementation in plain Python, on odd and on bad input."""
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs231n_lit import optim
from cs231n_lit.optim import adam, adamw, rmsprop, sgd, sgd_momentum, sgd_nesterov

RULES = [sgd, sgd_momentum, sgd_nesterov, rmsprop, adam, adamw]
DEFAULTS = {"sgd": {"learning_rate": 1e-2},
            "sgd_momentum": {"learning_rate": 1e-2, "momentum": 0.9},
            "sgd_nesterov": {"learning_rate": 1e-2, "momentum": 0.9},
            "rmsprop": {"learning_rate": 1e-2, "decay_rate": 0.99, "epsilon": 1e-8},
            "adam": {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
            "adamw": {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 1e-2}}
STATES = {"sgd": [], "sgd_momentum": ["velocity"], "sgd_nesterov": ["velocity"], "rmsprop": ["cache"], "adam": ["m", "v"], "adamw": ["m", "v"]}


@pytest.fixture(params=["compiled", "NumPy"], autouse=True)
def way(request, monkeypatch):
    "Every test runs with compiled steps, where there are any, and without."
    if request.param == "NumPy": monkeypatch.setattr(optim, "step_in_place", lambda *_: False)
    return request.param


each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda r: r.__name__)
numbers = st.floats(-10, 10).filter(lambda x: x == 0 or abs(x) > 1e-3)
fractions = st.floats(0, 0.999)


def walk(rule, w, gradients, config):
    for g in gradients: w, config = rule(np.asarray(w, float), np.asarray(g, float), config)
    return w, config


def in_plain_python(name, w, gradients, c):
    "The rules once more, for one number, from the formulas: sums over all gradients instead of running values."
    T, lr = len(gradients), c["learning_rate"]
    decayed = lambda rate, values: sum(rate ** (len(values) - 1 - k) * x for k, x in enumerate(values))
    for t in range(1, T + 1):
        seen = gradients[:t]
        squares = [g * g for g in seen]
        if name == "sgd": w -= lr * seen[-1]
        elif name == "sgd_momentum": w -= lr * decayed(c["momentum"], seen)
        elif name == "sgd_nesterov": w -= lr * (c["momentum"] * decayed(c["momentum"], seen) + seen[-1])
        elif name == "rmsprop":
            w -= lr * seen[-1] / (math.sqrt((1 - c["decay_rate"]) * decayed(c["decay_rate"], squares)) + c["epsilon"])
        else:
            b1, b2 = c["beta1"], c["beta2"]
            m = (1 - b1) * decayed(b1, seen) / (1 - b1**t)
            v = (1 - b2) * decayed(b2, squares) / (1 - b2**t)
            w *= 1 - lr * c.get("weight_decay", 0)
            w -= lr * m / (math.sqrt(v) + c["epsilon"])
    return w


def test_names():
    assert set(optim.__all__) >= {"sgd", "sgd_momentum", "sgd_nesterov", "rmsprop", "adam", "adamw"}


@each_rule
@given(w=numbers, gradients=st.lists(numbers, min_size=1, max_size=8), data=st.data())
@settings(max_examples=40, deadline=None)
def test_plain_python_agrees(rule, w, gradients, data):
    c = {k: data.draw(st.floats(1e-4, 5) if k == "learning_rate" else st.floats(1e-8, 2) if k == "epsilon" else fractions, label=k)
         for k in DEFAULTS[rule.__name__]}
    ours, _ = walk(rule, [w], [[g] for g in gradients], dict(c))
    theirs = in_plain_python(rule.__name__, w, gradients, c)
    assert ours[0] == pytest.approx(theirs, rel=1e-9, abs=1e-9)


@each_rule
def test_defaults(rule):
    w, dw = np.array([1., -2.]), np.array([3., 4.])
    next_w, config = rule(w, dw)
    explicit, _ = rule(w, dw, dict(DEFAULTS[rule.__name__]))
    assert np.array_equal(next_w, explicit)
    assert {k: config[k] for k in DEFAULTS[rule.__name__]} == DEFAULTS[rule.__name__]
    assert set(config) == {*DEFAULTS[rule.__name__], *STATES[rule.__name__]} | ({"t"} if rule in (adam, adamw) else set())


@each_rule
def test_parameters_and_memories_are_overwritten(rule):
    w, dw, config = np.array([1., -2.]), np.array([3., 4.]), {}
    next_w, returned = rule(w, dw, config)
    assert returned is config and next_w is w and (w != [1, -2]).all() and dw.tolist() == [3, 4]
    kept = {k: (config[k], config[k].copy()) for k in STATES[rule.__name__]}
    rule(w, dw, config)
    for k, (array, before) in kept.items(): assert config[k] is array and not np.array_equal(array, before)


def fresh(rule):
    "One step from arrays of its own: what has to come out however arrays overlap."
    return rule(np.arange(1., 6), np.arange(1., 6), {k: np.arange(1., 6) for k in STATES[rule.__name__]})


@each_rule
@pytest.mark.parametrize("shared", ["w and dw", "w and states", "dw and states", "states"])
def test_arrays_that_overlap(rule, shared):
    w, dw, state = np.arange(1., 6), np.arange(1., 6), np.arange(1., 6)
    if shared == "w and dw": w = dw
    states = {k: {"w and states": w, "dw and states": dw, "states": state}.get(shared, np.arange(1., 6)) for k in STATES[rule.__name__]}
    out, config = rule(w, dw, states)
    expected, held = fresh(rule)
    assert np.array_equal(out, expected) and dw.tolist() == [1, 2, 3, 4, 5]
    for k in states: assert np.array_equal(config[k], held[k])


@each_rule
def test_arrays_that_overlap_in_part(rule):
    a = np.arange(1., 7)
    out, _ = rule(a[:-1], a[1:])
    expected, _ = rule(np.arange(1., 6), np.arange(2., 7))
    assert np.array_equal(out, expected) and a.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("rule", [sgd, sgd_momentum, rmsprop, adam], ids=lambda r: r.__name__)
def test_the_compiled_step_is_given_everything(rule, monkeypatch):
    calls = []
    monkeypatch.setattr(optim, "step_in_place", lambda *a: calls.append(a) or True)
    w, config = np.ones(3, np.float32), {k: 0.25 for k in DEFAULTS[rule.__name__]}
    out, _ = rule(w, np.ones(3), config)
    (name, arrays, numbers), = calls
    assert {a.dtype for a in arrays} == {w.dtype}
    assert name == {"sgd_momentum": "momentum"}.get(rule.__name__, rule.__name__)
    assert out is w and out.tolist() == [1, 1, 1]
    assert [a is b for a, b in zip(arrays[2:], (config[k] for k in STATES[rule.__name__]))] == [True] * (len(arrays) - 2) and arrays[0] is w
    assert list(numbers) == [0.25] * len(DEFAULTS[rule.__name__]) + [1] * (rule is adam)


def test_states_after_two_steps():
    g = np.array([2., -1.])
    _, c = walk(sgd_momentum, np.zeros(2), [g, g], {"learning_rate": 0.5, "momentum": 0.8})
    np.testing.assert_allclose(c["velocity"], -0.5 * 1.8 * g, rtol=1e-15)
    _, c = walk(rmsprop, np.zeros(2), [g, g], {"decay_rate": 0.75})
    np.testing.assert_allclose(c["cache"], (1 - 0.75**2) * g**2, rtol=1e-15)
    _, c = walk(adam, np.zeros(2), [g, g], {"beta1": 0.5, "beta2": 0.75})
    np.testing.assert_allclose(c["m"], (1 - 0.5**2) * g, rtol=1e-15)
    np.testing.assert_allclose(c["v"], (1 - 0.75**2) * g**2, rtol=1e-15)
    assert c["t"] == 2 and type(c["t"]) is int


@given(g=st.floats(1e-3, 1e3), sign=st.sampled_from([-1, 1]), lr=st.floats(1e-6, 10), steps=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_adam_under_a_constant_gradient_moves_one_rate_a_step(g, sign, lr, steps):
    w, _ = walk(adam, [0], [[sign * g]] * steps, {"learning_rate": lr, "epsilon": 0})
    assert w[0] == pytest.approx(-sign * lr * steps, rel=1e-9)


@each_rule
@pytest.mark.parametrize("make", [
    lambda a: a.astype(">f8"), np.asfortranarray, lambda a: np.repeat(a, 2, 0)[::2], lambda a: a.astype(int).tolist()], ids=["byte-swapped", "Fortran", "strided", "list"])
def test_any_layout_gives_the_same(rule, make):
    w, dw = np.arange(6.).reshape(2, 3), np.ones((2, 3))
    out, config = rule(make(w), make(dw))
    expected, _ = rule(w, dw)
    np.testing.assert_allclose(out, expected, rtol=1e-15)
    assert out.dtype == np.float64 and out.dtype.isnative


@each_rule
def test_read_only_arrays(rule):
    w, dw = np.ones(3), np.ones(3)
    config = {k: np.ones(3) for k in STATES[rule.__name__]}
    for a in (w, dw, *config.values()): a.flags.writeable = False
    before = dict(config)
    out, _ = rule(w, dw, config)
    expected, _ = rule(np.ones(3), np.ones(3), {k: np.ones(3) for k in STATES[rule.__name__]})
    assert np.array_equal(out, expected) and (w == 1).all() and (out != w).all()
    for k, a in before.items(): assert (a == 1).all() and config[k] is not a


@each_rule
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 0, 4)])
def test_shapes_without_much_in_them(rule, shape):
    w, config = rule(np.ones(shape), np.ones(shape), {})
    w, config = rule(w, np.ones(shape), config)
    assert np.shape(w) == shape


@each_rule
@pytest.mark.parametrize("dtype, other, rate", [*product([np.float16, np.float32, np.float64], [np.float32, np.float64], [1e-3, np.float64(1e-3), np.float32(1e-3)])])
def test_parameters_keep_their_type(rule, dtype, other, rate):
    config = {"learning_rate": rate} | {k: np.ones(3, other) for k in STATES[rule.__name__]}
    w, config = rule(np.ones(3, dtype), np.ones(3, other), config)
    assert w.dtype == dtype
    assert all(config[k].dtype == dtype for k in STATES[rule.__name__])


@each_rule
def test_numpys_numbers_do_what_pythons_do(rule):
    w, dw = np.linspace(1, 2, 50, dtype=np.float32), np.linspace(-1, 3, 50, dtype=np.float32)
    python, numpy = (rule(w.copy(), dw, {k: number(v) for k, v in DEFAULTS[rule.__name__].items()})[0] for number in (float, np.float64))
    assert np.array_equal(python, numpy)


@each_rule
def test_integers_become_float64(rule):
    w, _ = rule(np.array([1, 2]), np.array([1, 1]))
    assert w.dtype == np.float64 and (w != [1, 2]).all()


@each_rule
def test_integer_states_are_taken(rule):
    config = {k: np.ones(2, int) for k in STATES[rule.__name__]}
    same = {k: np.ones(2) for k in STATES[rule.__name__]}
    assert np.array_equal(rule(np.ones(2), np.ones(2), config)[0], rule(np.ones(2), np.ones(2), same)[0])


@each_rule
def test_nan_goes_through(rule):
    w, _ = rule(np.zeros(2), np.array([np.nan, 1]))
    assert np.isnan(w[0]) and np.isfinite(w[1])


@pytest.mark.parametrize("rule, number, values", [
    (sgd, "learning_rate", [0, 1, 1e6]), (sgd_momentum, "momentum", [0, 1]), (rmsprop, "decay_rate", [0, 0.5]),
    (rmsprop, "epsilon", [0, 1, 10]), (adam, "beta1", [0]), (adam, "beta2", [0]), (adam, "epsilon", [0, 10]), (adam, "t", [0, 7, np.int64(3)])])
def test_numbers_at_the_edge_are_taken(rule, number, values):
    for value in values:
        w, _ = rule(np.ones(2), np.ones(2), {number: value})
        assert np.isfinite(w).all()


w, bad = np.ones((2, 3)), np.ones(4)
w.flags.writeable = False
BAD = [
    (lambda r: r(w, bad), ValueError, "dw needs the parameters' shape (2, 3) but is (4,)"),
    (lambda r: r(w, w.T), ValueError, "dw needs the parameters' shape (2, 3) but is (3, 2)"),
    (lambda r: r(w, np.ones(1)), ValueError, "dw needs the parameters' shape (2, 3) but is (1,)"),
    (lambda r: r(w, None), TypeError, "dw needs real numbers"),
    (lambda r: r("w", w), TypeError, "w needs real numbers"),
    (lambda r: r(w.astype(complex), w), TypeError, "w needs real numbers"),
    (lambda r: r(w, [[1, 2, 3], [4]]), ValueError, "dw is not a regular array"),
    (lambda r: r(w, w, 0.1), TypeError, "config needs to be a dictionary; got float"),
    (lambda r: r(w, w, [("learning_rate", 1)]), TypeError, "config needs to be a dictionary; got list"),
    (lambda r: r(w, w, {"learning_rte": 0.1}), ValueError, "config has the unknown key 'learning_rte'"),
    (lambda r: r(w, w, {"learning_rate": -0.1}), ValueError, "learning_rate needs a number of at least 0; got -0.1"),
    (lambda r: r(w, w, {"learning_rate": np.nan}), ValueError, "learning_rate needs a number"),
    (lambda r: r(w, w, {"learning_rate": np.inf}), ValueError, "learning_rate needs a number"),
    (lambda r: r(w, w, {"learning_rate": "0.1"}), TypeError, "learning_rate needs a number"),
    (lambda r: r(w, w, {"learning_rate": None}), TypeError, "learning_rate needs a number"),
    (lambda r: r(w, w, {"learning_rate": True}), TypeError, "learning_rate needs a number"),
]


@each_rule
@pytest.mark.parametrize("call, error, text", BAD, ids=[text for _, _, text in BAD])
def test_bad_input(rule, call, error, text):
    with pytest.raises(error) as e: call(rule)
    assert str(e.value).startswith(f"{rule.__name__}: ") and text in str(e.value)


@pytest.mark.parametrize("rule, key", [(r, k) for r in RULES for k in {"momentum", "decay_rate", "beta1", "beta2", "epsilon", "t", "velocity", "cache", "m", "v"}
                                       - DEFAULTS[r.__name__].keys() - set(STATES[r.__name__]) - ({"t"} if r in (adam, adamw) else set())])
def test_keys_of_another_rule_are_refused(rule, key):
    with pytest.raises(ValueError, match=f"{rule.__name__}: config has the unknown key '{key}'"): rule(w, w, {key: 0})


@pytest.mark.parametrize("rule, key, value, error", [
    (r, k, v, e) for r, k in [(sgd_momentum, "momentum"), (rmsprop, "decay_rate"), (adam, "beta1"), (adam, "beta2")]
    for v, e in [(-0.1, ValueError), (1.1, ValueError), (np.nan, ValueError), ("a", TypeError), (None, TypeError)]] +
    [(adam, "beta1", 1, ValueError), (adam, "beta2", 1.0, ValueError), (rmsprop, "epsilon", -1e-8, ValueError), (adam, "epsilon", -1e-8, ValueError),
     (adam, "t", -1, ValueError), (adam, "t", 1.5, TypeError), (adam, "t", "1", TypeError)])
def test_bad_numbers(rule, key, value, error):
    with pytest.raises(error, match=f"{rule.__name__}: {key} needs"): rule(w, w, {key: value})


@pytest.mark.parametrize("rule, key", [(r, k) for r in RULES for k in STATES[r.__name__]])
@pytest.mark.parametrize("value, error, text", [(np.ones(3), ValueError, "needs the parameters' shape (2, 3) but is (3,)"),
                                                (0.0, ValueError, "needs the parameters' shape (2, 3) but is ()"),
                                                (None, TypeError, "needs real numbers"), ("m", TypeError, "needs real numbers")])
def test_bad_states(rule, key, value, error, text):
    with pytest.raises(error) as e: rule(w, w, {key: value})
    assert f"{rule.__name__}: {key} {text}" in str(e.value)


def test_a_refused_step_counts_for_nothing():
    config = {"t": 3}
    with pytest.raises(ValueError): adam(w, bad, config)
    assert config["t"] == 3


@each_rule
def test_pytorch_fixtures(rule):
    path = Path(__file__).resolve().parent.parent / "cs231n_lit/data/pages/torch.npz"
    with np.load(path) as f:
        case = {k.split("/")[1]: f[k] for k in f.files if k.split("/")[0] == rule.__name__}
    w, dws, ws = (case.pop(k) for k in ("w", "dw", "next_w"))
    config = {k: v.item() for k, v in case.items()}
    for dw, theirs in zip(dws, ws):
        w, _ = rule(w, dw, config)
        np.testing.assert_allclose(w, theirs, rtol=1e-12)


@pytest.mark.parametrize("rule", [rmsprop, adam], ids=lambda r: r.__name__)
@pytest.mark.parametrize("gradient", [0, 1e-4, 1, 200])
def test_float16_stays_finite(rule, gradient):
    "The usual epsilon of 1e-8 is 0 in float16, and so is the square of a small gradient."
    w, config = np.ones(3, np.float16), {"learning_rate": 1e-3}
    for _ in range(3): w, _ = rule(w, np.full(3, gradient, np.float16), config)
    assert w.dtype == np.float16 and (w == 1 if gradient == 0 else (w <= 1) & (w > .9)).all()
