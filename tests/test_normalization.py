"""The norms, for matrices and for images, under what no reader's page should show: bad input, odd layouts, random shapes."""
import copy
import re
import warnings
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs231n_lit import fast_layers, layer_utils
from cs231n_lit.gradient_check import eval_numerical_gradient_array, fixture, max_error
from cs231n_lit.layers import affine_forward, relu_forward
from cs231n_lit.normalization import (batchnorm_backward, batchnorm_backward_alt, batchnorm_forward, layernorm_backward,
                                      layernorm_forward)
from cs231n_lit.spatial_norm import (spatial_batchnorm_backward, spatial_batchnorm_forward, spatial_groupnorm_backward,
                                     spatial_groupnorm_forward)

TORCH = Path(__file__).parents[1] / "cs231n_lit/data/pages/torch.npz"
some = settings(max_examples=40, deadline=None, derandomize=True)


def group_norm(G):
    return lambda x, gamma, beta, param: spatial_groupnorm_forward(x, gamma, beta, G, param)


# name: forward pass, backward passes, shape of x, options, axes that share a mean in `grouped(x)`
LAYERS = {
    "batchnorm": (batchnorm_forward, (batchnorm_backward, batchnorm_backward_alt), (5, 3), {"mode": "train"}),
    "layernorm": (layernorm_forward, (layernorm_backward,), (5, 3), {}),
    "spatial_batchnorm": (spatial_batchnorm_forward, (spatial_batchnorm_backward,), (2, 6, 3, 4), {"mode": "train"}),
    "groupnorm, G = 1": (group_norm(1), (spatial_groupnorm_backward,), (2, 6, 3, 4), {}),
    "groupnorm, G = 2": (group_norm(2), (spatial_groupnorm_backward,), (2, 6, 3, 4), {}),
    "groupnorm, G = C": (group_norm(6), (spatial_groupnorm_backward,), (2, 6, 3, 4), {}),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def arguments(name, dtype=float, seed=0, shape=None):
    "x, gamma, beta, options and an upstream gradient for a layer."
    draw, shape = np.random.default_rng(seed), shape or LAYERS[name][2]
    x, dout = draw.normal(2, 3, (2, *shape)).astype(dtype)
    gamma, beta = draw.normal(size=(2, shape[1])).astype(dtype)
    return x, gamma, beta, dict(LAYERS[name][3]), dout


def run(name, x, gamma, beta, param, dout):
    "Output and, for each backward pass, the gradients."
    forward, backwards, *_ = LAYERS[name]
    out, cache = forward(x, gamma, beta, param)
    return out, [backward(dout, cache) for backward in backwards]


def arrays(result):
    "All arrays of a result of `run`, in order."
    out, gradients = result
    return [out, *(g for grads in gradients for g in grads)]


def by_loops(name, x, gamma, beta, eps=1e-5):
    "The forward pass in another way: one set of numbers after the other."
    out = np.zeros_like(x)
    G = {"groupnorm, G = 1": 1, "groupnorm, G = 2": 2, "groupnorm, G = C": x.shape[1]}.get(name)
    N, C = x.shape[:2]
    if "batchnorm" in name: sets = [(slice(None), c) for c in range(C)]
    elif name == "layernorm": sets = [(n,) for n in range(N)]
    else: sets = [(n, slice(g * C // G, (g + 1) * C // G)) for n in range(N) for g in range(G)]
    for s in sets: out[s] = (x[s] - x[s].mean()) / np.sqrt(x[s].var() + eps)
    wide = (C,) + (1,) * (x.ndim - 2)
    return gamma.reshape(wide) * out + beta.reshape(wide)


# Right answers

@each_layer
@given(seed=st.integers(0, 99), data=st.data())
@some
def test_random_shapes_against_loops_and_numeric_gradients(name, seed, data):
    size = lambda low, high: data.draw(st.integers(low, high))
    shape = (size(1, 4), size(1, 4)) if len(LAYERS[name][2]) == 2 else (size(1, 3), 2 * size(1, 2), size(1, 3), size(1, 2))
    x, gamma, beta, param, dout = arguments(name, seed=seed, shape=shape)
    eps = param["eps"] = data.draw(st.sampled_from([1e-5, 1e-2, 1.0, 100.0]))
    forward = group_norm(shape[1]) if name.endswith("C") else LAYERS[name][0]
    f = lambda _: forward(x, gamma, beta, dict(param))[0]
    out, cache = forward(x, gamma, beta, param)
    assert max_error(out, by_loops(name, x, gamma, beta, eps)) < 1e-12
    for backward in LAYERS[name][1]:
        for ours, a in zip(backward(dout, cache), (x, gamma, beta)):
            numeric = eval_numerical_gradient_array(f, a, dout, h=1e-4)
            assert ours.shape == a.shape
            assert np.abs(ours - numeric).max() < 1e-6 * max(1, np.abs(numeric).max())


@each_layer
def test_pytorch(name):
    case = {"groupnorm, G = 1": "groupnorm_G1", "groupnorm, G = 2": "groupnorm_G2", "groupnorm, G = C": "groupnorm_G6"}.get(name, name)
    t = fixture(case, TORCH)
    out, gradients = run(name, t.x, t.gamma, t.beta, dict(LAYERS[name][3]), t.dout)
    assert max_error(out, t.out) < 1e-12
    for grads in gradients:
        for ours, theirs in zip(grads, (t.dx, t.dgamma, t.dbeta), strict=True): assert max_error(ours, theirs) < 1e-12


@pytest.mark.parametrize("name", ["batchnorm", "spatial_batchnorm"])
def test_running_averages(name):
    forward, t = LAYERS[name][0], fixture(name, TORCH)
    param = {"mode": "train"}
    forward(t.x, t.gamma, t.beta, param)
    axes = tuple({0, 1, 2, 3}.intersection(range(t.x.ndim)) - {1})
    assert max_error(param["running_mean"], 0.1 * t.x.mean(axes)) < 1e-12
    assert max_error(param["running_var"], 0.1 * t.x.var(axes)) < 1e-12
    forward(t.x + 1, t.gamma, t.beta, param | {"momentum": 0.25, "running_mean": param["running_mean"]})
    param["momentum"] = 0.25
    forward(t.x + 1, t.gamma, t.beta, param)
    assert max_error(param["running_mean"], 0.025 * t.x.mean(axes) + 0.75 * (t.x + 1).mean(axes)) < 1e-12
    assert max_error(param["running_var"], 0.775 * t.x.var(axes)) < 1e-12
    assert param["running_mean"].shape == (t.x.shape[1],) and set(param) == {"mode", "momentum", "running_mean", "running_var"}


@pytest.mark.parametrize("name", ["batchnorm", "spatial_batchnorm"])
@pytest.mark.parametrize("momentum, part", [(0, 0), (1, 1)])
def test_momentum_at_its_ends(name, momentum, part):
    x, gamma, beta, param, _ = arguments(name)
    old = np.arange(x.shape[1]) + 1.0
    param |= {"momentum": momentum, "running_mean": old, "running_var": old}
    LAYERS[name][0](x, gamma, beta, param)
    mean = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1).mean(1)
    assert max_error(param["running_mean"], part * old + (1 - part) * mean) < 1e-12
    assert param["running_mean"] is not old and (old == np.arange(x.shape[1]) + 1).all()


@pytest.mark.parametrize("name", ["batchnorm", "spatial_batchnorm"])
def test_test_mode(name):
    x, gamma, beta, _, dout = arguments(name)
    C = x.shape[1]
    wide = (C,) + (1,) * (x.ndim - 2)
    mean, var = np.linspace(-1, 1, C), np.linspace(0, 2, C)
    param = {"mode": "test", "eps": 0.1, "running_mean": mean, "running_var": var}
    frozen = MappingProxyType(param)  # test mode writes nothing
    forward, backwards, *_ = LAYERS[name]
    out, cache = forward(x, gamma, beta, frozen)
    slope = (gamma / np.sqrt(var + 0.1)).reshape(wide)
    assert max_error(out, slope * (x - mean.reshape(wide)) + beta.reshape(wide)) < 1e-12
    for backward in backwards:
        dx, dgamma, dbeta = backward(dout, cache)
        assert max_error(dx, slope * dout) < 1e-12
        for ours, a in ((dgamma, gamma), (dbeta, beta)):
            assert max_error(ours, eval_numerical_gradient_array(lambda _: forward(x, gamma, beta, frozen)[0], a, dout)) < 1e-7
    alone = np.concatenate([forward(x[n : n + 1], gamma, beta, frozen)[0] for n in range(len(x))])
    assert (alone == out).all()


@pytest.mark.parametrize("name", ["batchnorm", "spatial_batchnorm"])
def test_test_mode_before_any_training_uses_zeros(name):
    x, gamma, beta, *_ = arguments(name)
    param = {"mode": "test", "eps": 4}
    for f in LAYERS[name][0], getattr(fast_layers, f"{name}_forward_fast", LAYERS[name][0]):
        with pytest.warns(RuntimeWarning, match=f"^{name}_forward(_fast)?: bn_param has no running_mean and running_var yet, so test mode takes zeros and divides by √eps: train first$") as caught:
            assert max_error(f(x, gamma * 0 + 1, beta * 0, param)[0], x / 2) < 1e-12
        assert len(caught) == 1 and param == {"mode": "test", "eps": 4}
    for half in "running_mean", "running_var":
        with pytest.warns(RuntimeWarning): LAYERS[name][0](x, gamma, beta, param | {half: np.ones(x.shape[1])})


@each_layer
def test_what_normalization_cannot_see(name):
    x, gamma, beta, param, dout = arguments(name)
    param["eps"] = 0
    (out, gradients), (out_moved, gradients_moved) = run(name, x, gamma, beta, dict(param), dout), run(name, 7 * x + 5, gamma, beta, dict(param), dout)
    assert max_error(out_moved, out) < 1e-12
    for (dx, *_), (dx_moved, *_) in zip(gradients, gradients_moved):
        assert max_error(7 * dx_moved, dx) < 1e-10
        assert abs(dx.sum()) < 1e-12 * np.abs(dx).max() and abs((dx * x).sum()) < 1e-10 * np.abs(dx).max()


@each_layer
def test_examples_can_change_places(name):
    x, gamma, beta, param, dout = arguments(name)
    order = np.random.default_rng(1).permutation(len(x))
    (out, gradients), (out_2, gradients_2) = run(name, x, gamma, beta, dict(param), dout), run(name, x[order], gamma, beta, dict(param), dout[order])
    assert max_error(out_2, out[order]) < 1e-12
    for (dx, *rest), (dx_2, *rest_2) in zip(gradients, gradients_2):
        assert max_error(dx_2, dx[order]) < 1e-12
        for a, b in zip(rest_2, rest): assert max_error(a, b) < 1e-12


@pytest.mark.parametrize("name", ["layernorm", "groupnorm, G = 2"])
def test_no_batch_needed(name):
    x, gamma, beta, param, dout = arguments(name)
    out, [(dx, *_)] = run(name, x, gamma, beta, param, dout)
    for n in range(len(x)):
        alone, [(dx_alone, *_)] = run(name, x[n : n + 1], gamma, beta, param | {"mode": "test"}, dout[n : n + 1])
        assert (alone == out[n : n + 1]).all() and (dx_alone == dx[n : n + 1]).all()


def test_one_example_in_train_mode_is_its_own_mean():
    x, gamma, beta, param, dout = arguments("batchnorm", shape=(1, 3))
    out, gradients = run("batchnorm", x, gamma, beta, param, dout)
    assert (out == beta).all()
    for dx, dgamma, dbeta in gradients: assert (dx == 0).all() and (dgamma == 0).all() and (dbeta == dout[0]).all()


@each_layer
@pytest.mark.parametrize("constant", [0.0, 3.0, -1e6])
def test_constant_input_gives_beta(name, constant):
    x, gamma, beta, param, dout = arguments(name)
    out, gradients = run(name, np.full_like(x, constant), gamma, beta, param, dout)
    assert max_error(out, np.broadcast_to(beta.reshape((-1,) + (1,) * (x.ndim - 2)), x.shape)) < 1e-12
    assert all(np.isfinite(a).all() for grads in gradients for a in grads)


@each_layer
@pytest.mark.parametrize("eps", [1e-300, 1e-12, 1e-5, 0.3, 1e12, np.float64(0.01), np.float32(0.5), 1])
def test_eps(name, eps):
    x, gamma, beta, param, _ = arguments(name)
    out = LAYERS[name][0](x, gamma, beta, param | {"eps": eps})[0]
    assert np.abs(out - by_loops(name, x, gamma, beta, float(eps))).max() < 1e-12


@each_layer
def test_default_eps(name):
    x, gamma, beta, param, _ = arguments(name)
    assert max_error(LAYERS[name][0](1e-3 * x, gamma, 0 * beta, param)[0], by_loops(name, 1e-3 * x, gamma, 0 * beta, 1e-5)) < 1e-10


@each_layer
def test_empty_batch(name):
    x, gamma, beta, param, dout = arguments(name, shape=(0, *LAYERS[name][2][1:]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out, gradients = run(name, x, gamma, beta, param, dout)
    assert out.shape == x.shape
    for dx, dgamma, dbeta in gradients:
        assert dx.shape == x.shape and (dgamma == np.zeros_like(gamma)).all() and (dbeta == 0).all()


@pytest.mark.parametrize("name", ["batchnorm", "spatial_batchnorm"])
def test_empty_batch_teaches_nothing(name):
    x, gamma, beta, param, _ = arguments(name, shape=(0, *LAYERS[name][2][1:]))
    param |= {"running_mean": gamma, "running_var": beta**2}
    LAYERS[name][0](x, gamma, beta, param)
    assert (param["running_mean"] == gamma).all() and (param["running_var"] == beta**2).all()


@each_layer
@pytest.mark.parametrize("axis", range(1, 4))
def test_other_empty_axes(name, axis):
    shape = list(LAYERS[name][2])
    if axis >= len(shape): return
    shape[axis] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out, gradients = run(name, *arguments(name, shape=tuple(shape)))
    assert out.shape == tuple(shape) and all(dx.shape == tuple(shape) for dx, *_ in gradients)


def test_nan_stays_in_its_own_statistics():
    for name, clean in (("batchnorm", np.s_[:, 1:]), ("layernorm", np.s_[1:]), ("spatial_batchnorm", np.s_[:, 1:]), ("groupnorm, G = 2", np.s_[:, 3:])):
        x, gamma, beta, param, _ = arguments(name)
        right = LAYERS[name][0](x, gamma, beta, dict(param))[0]
        x[(0,) * x.ndim] = np.nan
        out = LAYERS[name][0](x, gamma, beta, dict(param))[0]
        assert (out[clean] == right[clean]).all() and np.isnan(out[(0,) * x.ndim])


# Types and layouts

LAYOUTS = {
    "fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "backwards": lambda a: a[..., ::-1].copy()[..., ::-1],
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "list": lambda a: a.tolist(),
}


@each_layer
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(name, layout):
    x, gamma, beta, param, dout = arguments(name)
    change = LAYOUTS[layout]
    expected = arrays(run(name, x, gamma, beta, dict(param), dout))
    for got, want in zip(arrays(run(name, change(x), change(gamma), change(beta), dict(param), change(dout))), expected, strict=True):
        assert max_error(got, want) < 1e-12 and got.dtype.isnative


@each_layer
def test_float32_stays_float32(name):
    x, gamma, beta, param, dout = arguments(name, np.float32)
    exact = arrays(run(name, *(a.astype(float) for a in (x, gamma, beta)), dict(param), dout.astype(float)))
    param |= {"eps": np.float64(1e-5)} | ({"momentum": np.float64(0.9)} if param else {})
    for got, want in zip(arrays(run(name, x, gamma, beta, param, dout)), exact, strict=True):
        assert got.dtype == np.float32 and max_error(got, want) < 1e-5
    for running in ("running_mean", "running_var"):
        if running in param: assert param[running].dtype == np.float32


@pytest.mark.parametrize("name", ["batchnorm", "spatial_batchnorm"])
@pytest.mark.parametrize("mode", ["train", "test"])
def test_float32_stays_float32_with_averages_of_float64(name, mode):
    x, gamma, beta, _, dout = arguments(name, np.float32)
    param = {"mode": mode, "running_mean": np.zeros(x.shape[1]), "running_var": np.ones(x.shape[1], int)}
    assert {a.dtype for a in arrays(run(name, x, gamma, beta, param, dout))} == {np.dtype(np.float32)}


@each_layer
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_integers(name, dtype):
    x, gamma, beta, param, dout = ((3 * np.abs(a)).astype(dtype) if isinstance(a, np.ndarray) else a for a in arguments(name))
    expected = arrays(run(name, *(a.astype(float) for a in (x, gamma, beta)), dict(param), dout.astype(float)))
    for got, want in zip(arrays(run(name, x, gamma, beta, dict(param), dout)), expected, strict=True):
        assert got.dtype == float and max_error(got, want) < 1e-12


@each_layer
def test_integer_parameters_take_the_type_of_x(name):
    x, _, _, param, dout = arguments(name, np.float32)
    gamma, dout = np.arange(x.shape[1]), dout.astype(int)
    assert {a.dtype for a in arrays(run(name, x, gamma, gamma, param, dout))} == {np.dtype(np.float32)}


@pytest.mark.parametrize("gamma_shape", [(6,), (1, 6, 1, 1)])
@pytest.mark.parametrize("beta_shape", [(6,), (1, 6, 1, 1)])
def test_groupnorm_gives_gradients_back_in_the_shapes_it_got(gamma_shape, beta_shape):
    x, gamma, beta, param, dout = arguments("groupnorm, G = 2")
    out, [(dx, dgamma, dbeta)] = run("groupnorm, G = 2", x, gamma, beta, param, dout)
    out_2, [(dx_2, dgamma_2, dbeta_2)] = run("groupnorm, G = 2", x, gamma.reshape(gamma_shape), beta.reshape(beta_shape), param, dout)
    assert dgamma_2.shape == gamma_shape and dbeta_2.shape == beta_shape
    assert (out_2 == out).all() and (dx_2 == dx).all() and (dgamma_2.ravel() == dgamma).all() and (dbeta_2.ravel() == dbeta).all()


# Nothing is changed, and twice is the same as once

@each_layer
@pytest.mark.parametrize("mode", ["train", "test"])
def test_inputs_and_cache_stay_as_they_are(name, mode):
    x, gamma, beta, param, dout = arguments(name)
    forward, backwards, *_ = LAYERS[name]
    param["mode"] = mode
    if "batchnorm" in name: param |= {"running_mean": np.zeros(x.shape[1]), "running_var": np.ones(x.shape[1])}
    before = copy.deepcopy((x, gamma, beta, dout))
    out, cache = forward(x, gamma, beta, param)
    cached = copy.deepcopy(cache)
    for backward in backwards:
        first, second = backward(dout, cache), backward(dout, cache)
        for a, b in zip(first, second, strict=True): assert (a == b).all() and not np.shares_memory(a, dout)
    for a, b in zip((x, gamma, beta, dout), before): assert (a == b).all()
    for a, b in zip(cache, cached, strict=True): assert np.array_equal(a, b)
    assert not np.shares_memory(out, x) and not any(np.shares_memory(out, a) for a in cache if isinstance(a, np.ndarray))


@each_layer
def test_the_cache_does_not_follow_later_changes_of_x(name):
    x, gamma, beta, param, dout = arguments(name)
    expected = run(name, x, gamma, beta, dict(param), dout)[1][0][0]
    _, cache = LAYERS[name][0](x, gamma, beta, dict(param))
    x[:] = 0
    assert (LAYERS[name][1][0](dout, cache)[0] == expected).all()


@pytest.mark.parametrize("name", ["batchnorm", "spatial_batchnorm"])
def test_running_averages_are_new_arrays(name):
    x, gamma, beta, param, _ = arguments(name)
    old = np.ones(x.shape[1])
    param |= {"running_mean": old, "running_var": old}
    LAYERS[name][0](x, gamma, beta, param)
    assert (old == 1).all() and not np.shares_memory(param["running_mean"], old)


@pytest.mark.parametrize("name", ["layernorm", "groupnorm, G = 2"])
def test_options_of_the_others_are_only_read(name):
    x, gamma, beta, *_ = arguments(name)
    LAYERS[name][0](x, gamma, beta, MappingProxyType({"mode": "train", "eps": 1e-5}))


# Bad input

x2, p3 = np.ones((5, 3)), np.ones(3)
x4, p6 = np.ones((2, 6, 3, 4)), np.ones(6)
train = {"mode": "train"}


def bad_arguments():
    "(what, function, arguments, exception, words of the message)"
    for name, f, x, p, letters, wrong in (
            ("batchnorm_forward", lambda x, g, b, o=train: batchnorm_forward(x, g, b, dict(o) if isinstance(o, dict) else o), x2, p3, "N, D", x4),
            ("layernorm_forward", lambda x, g, b, o={}: layernorm_forward(x, g, b, o), x2, p3, "N, D", x4),
            ("spatial_batchnorm_forward", lambda x, g, b, o=train: spatial_batchnorm_forward(x, g, b, dict(o) if isinstance(o, dict) else o), x4, p6, "N, C, H, W", x2),
            ("spatial_groupnorm_forward", lambda x, g, b, o={}: spatial_groupnorm_forward(x, g, b, 2, o), x4, p6, "N, C, H, W", x2)):
        C, group = len(p), name == "spatial_groupnorm_forward"
        param = {"layernorm_forward": "ln_param", "spatial_groupnorm_forward": "gn_param"}.get(name, "bn_param")
        axes = len(letters.split(","))
        for a in (wrong, x[0], x[None], np.float64(3)):
            yield name, "rank of x", f, (a, p, p), ValueError, rf"x needs {axes} axes \({letters}\) but has {np.ndim(a)}"
        for arg in ("gamma", "beta"):
            for what, a in (("longer", np.ones(C + 1)), ("shorter", p[1:]), ("scalar", 2.0), ("row", p[None]), ("column", p[:, None]), ("empty", p[:0])):
                words = rf"{arg} needs the shape \({C},\) or \(1, {C}, 1, 1\), one number a channel, but is" if group else rf"{arg} (needs 1 axes|has [DC] = )"
                yield name, f"{what} {arg}", f, (x, *((a, p) if arg == "gamma" else (p, a))), ValueError, words
        if not group: yield name, "gamma of four axes", f, (x, p.reshape(1, C, 1, 1), p), ValueError, "gamma needs 1 axes"
        for k, arg in enumerate(("x", "gamma", "beta")):
            for what, a in (("text", "abc"), ("objects", np.array([None, 1])), ("complex", x * 1j), ("None", None)):
                args = [x, p, p]; args[k] = a
                yield name, f"{what} as {arg}", f, args, TypeError, f"{arg} needs real numbers"
            args = [x, p, p]; args[k] = [[1, 2], [3]]
            yield name, f"ragged {arg}", f, args, ValueError, f"{arg} is not a regular array"
        base = {} if param != "bn_param" else train
        for options, error, words in (
                (None, TypeError, f"{param} needs to be a dictionary; got NoneType"), ("train", TypeError, f"{param} needs to be a dictionary; got str"),
                ([], TypeError, f"{param} needs to be a dictionary"), (base | {"epsilon": 1e-5}, ValueError, f"{param} has the unknown key 'epsilon'"),
                (base | {"Mode": "train"}, ValueError, "unknown key 'Mode'"), ({"mode": "training"}, ValueError, "mode needs to be one of 'train', 'test'; got 'training'"),
                ({"mode": None}, ValueError, "mode needs to be one of"), ({"mode": True}, ValueError, "mode needs to be one of"), ({"mode": "TRAIN"}, ValueError, "mode needs to be one of"),
                (base | {"eps": -1e-5}, ValueError, "eps needs a number of at least 0; got -1e-05"), (base | {"eps": "1e-5"}, TypeError, "eps needs a number"),
                (base | {"eps": None}, TypeError, "eps needs a number"), (base | {"eps": np.nan}, ValueError, "eps needs a number"), (base | {"eps": np.inf}, ValueError, "eps needs a number"),
                (base | {"eps": p}, TypeError, "eps needs a number"), (base | {"eps": True}, TypeError, "eps needs a number")):
            yield name, f"options {options}", f, (x, p, p, options), error, words
        if param == "bn_param":
            yield name, "no mode", f, (x, p, p, {}), ValueError, r"bn_param needs the key 'mode'; it has \[\]"
            for momentum, error in ((-0.1, ValueError), (1.1, ValueError), (np.nan, ValueError), ("0.9", TypeError), (None, TypeError), (p, TypeError)):
                yield name, f"momentum {momentum}", f, (x, p, p, train | {"momentum": momentum}), error, "momentum needs a number of at least 0 and at most 1"
            for mode in ("train", "test"):
                for key in ("running_mean", "running_var"):
                    for what, a, error, words in (("longer", np.ones(C + 1), ValueError, rf"{key} needs one number a feature: shape \({C},\) but is \({C + 1},\)"), ("scalar", 1.0, ValueError, f"{key} needs one number a feature"),
                                                  ("row", p[None], ValueError, f"{key} needs one number a feature"), ("None", None, TypeError, f"{key} needs real numbers"), ("text", "x", TypeError, f"{key} needs real numbers")):
                        yield name, f"{what} {key} {mode}", f, (x, p, p, {"mode": mode, key: a}), error, words
                yield name, f"negative variance {mode}", f, (x, p, p, {"mode": mode, "running_var": np.linspace(-1, 1, C)}), ValueError, r"running_var needs to be at least 0; got -1\.0"
    name = "spatial_groupnorm_forward"
    for G, error, words in ((4, ValueError, r"G = 4 groups need to divide the C = 6 channels: x is \(2, 6, 3, 4\)"), (7, ValueError, "G = 7 groups need to divide"), (12, ValueError, "G = 12 groups"),
                            (0, ValueError, "G needs to be at least 1; got 0"), (-2, ValueError, "G needs to be at least 1; got -2"), (2.0, TypeError, r"G needs a whole number, at least 1; got 2\.0"),
                            ("2", TypeError, "G needs a whole number"), (None, TypeError, "G needs a whole number"), (True, TypeError, "G needs a whole number"), ({}, TypeError, "G needs a whole number")):
        yield name, f"G = {G!r}", lambda x, g, b, G=G: spatial_groupnorm_forward(x, g, b, G, {}), (x4, p6, p6), error, words


BAD = list(bad_arguments())


@pytest.mark.parametrize("where, what, f, args, error, words", BAD, ids=[f"{b[0]}: {b[1]}".replace("\n", "")[:80] for b in BAD])
def test_bad_arguments(where, what, f, args, error, words):
    with pytest.raises(error, match=words) as caught: f(*args)
    assert re.match(r"\w+: ", str(caught.value)) and str(caught.value).startswith(where)


@pytest.mark.parametrize("name", ["batchnorm", "spatial_batchnorm"])
def test_refused_options_leave_bn_param_alone(name):
    x, gamma, beta, *_ = arguments(name)
    param = {"mode": "train", "running_var": -np.ones(x.shape[1])}
    with pytest.raises(ValueError): LAYERS[name][0](x, gamma, beta, param)
    assert set(param) == {"mode", "running_var"}


CACHES = {name: LAYERS[name][0](*arguments(name)[:4])[1] for name in LAYERS if name not in ("groupnorm, G = 1", "groupnorm, G = C")}
OTHERS = {"affine": affine_forward(x2, np.ones((3, 4)), np.ones(4))[1], "relu": relu_forward(x2)[1], "None": None, "empty": (), "list": list(CACHES["batchnorm"]),
          "without its name": CACHES["batchnorm"][1:], "five arrays": (x2,) * 5, "five numbers": tuple(range(5)), "five of nothing": (None,) * 5,
          "five texts": ("batch",) * 5, "number": 3, "dictionary": {"mode": "train"}, "array of five": np.ones((5, 3))}


@each_layer
def test_cache_of_another_layer(name):
    own = name if "group" not in name else "groupnorm, G = 2"
    dout = arguments(name)[-1]
    for backward in LAYERS[name][1]:
        for other, cache in (CACHES | OTHERS).items():
            if other == own: continue
            with pytest.raises((TypeError, ValueError), match=f"{backward.__name__}: (the cache's layer|cache) needs to be"): backward(dout, cache)
        with pytest.raises(ValueError, match=r"cache needs to be the tuple \(layer, x_hat, gamma, std, (mode|beta_shape)\) that the forward pass returned; got a tuple of 0"): backward(dout, ())


@each_layer
def test_bad_dout(name):
    x, gamma, beta, param, dout = arguments(name)
    _, cache = LAYERS[name][0](x, gamma, beta, param)
    bad = [dout[1:], dout[:, 1:], dout[None], dout[0], dout.T, np.ones(()), 1.0, dout[..., None], dout[:0], dout.ravel(), np.concatenate([dout, dout])]
    for backward in LAYERS[name][1]:
        for d in bad:
            with pytest.raises(ValueError, match=re.escape(f"{backward.__name__}: dout needs the output's shape {x.shape} but is {np.shape(d)}")): backward(d, cache)
        for d in (None, "dout", dout * 1j, dout.astype(object)):
            with pytest.raises(TypeError, match=f"{backward.__name__}: dout needs real numbers"): backward(d, cache)


# Layers in a row

def row_arguments(name, seed=0):
    draw = np.random.default_rng(seed)
    if name.startswith("affine"): x, w = draw.normal(size=(5, 2, 3)), draw.normal(size=(6, 4))
    else: x, w = draw.normal(size=(2, 3, 6, 7)), draw.normal(size=(4, 3, 3, 2))
    args = [x, w, draw.normal(size=4)]
    if "norm" in name or "bn" in name: args += list(draw.normal(size=(2, 4)))
    arrays = len(args)
    if name.startswith("conv"): args.append({"stride": 1, "pad": 1})
    if "norm" in name or "bn" in name: args.append({"mode": "train"})
    if "pool" in name: args.append({"pool_height": 2, "pool_width": 3, "stride": 2})
    return args, arrays


ROWS = ["affine_relu", "affine_norm_relu", "conv_relu", "conv_bn_relu", "conv_relu_pool"]
each_row = pytest.mark.parametrize("name", ROWS)


def passes(name):
    return getattr(layer_utils, f"{name}_forward"), getattr(layer_utils, f"{name}_backward")


@each_row
def test_rows_against_numeric_gradients(name):
    (forward, backward), (args, count) = passes(name), row_arguments(name)
    out, cache = forward(*args)
    dout = np.random.default_rng(1).normal(size=out.shape)
    for ours, a in zip(backward(dout, cache), args[:count], strict=True):
        numeric = eval_numerical_gradient_array(lambda _: forward(*args)[0], a, dout)
        assert ours.shape == a.shape and np.abs(ours - numeric).max() < 1e-6 * max(1, np.abs(numeric).max())


@each_row
def test_rows_change_nothing_and_stay_float32(name):
    (forward, backward), (args, count) = passes(name), row_arguments(name)
    args[:count] = [a.astype(np.float32) for a in args[:count]]
    before = copy.deepcopy(args[:count])
    out, cache = forward(*args)
    dout = np.ones_like(out)
    first, second = backward(dout, cache), backward(dout, cache)
    assert {a.dtype for a in (out, *first)} == {np.dtype(np.float32)} and (dout == 1).all()
    for a, b in zip((*first, *args[:count]), (*second, *before), strict=True): assert (a == b).all()


@each_row
def test_rows_refuse_the_cache_of_another_row(name):
    _, backward = passes(name)
    out = passes(name)[0](*row_arguments(name)[0])[0]
    for other in [r for r in ROWS if r != name]:
        cache = passes(other)[0](*row_arguments(other)[0])[1]
        with pytest.raises((TypeError, ValueError), match=r"^\w+: "): backward(np.ones_like(out), cache)
    parts = {"affine_norm_relu": "affine_cache, norm_cache, relu_cache, normalization", "conv_bn_relu": "conv_cache, bn_cache, relu_cache",
             "conv_relu_pool": "conv_cache, pool_cache, relu_cache"}.get(name, name.replace("_", "_cache, ") + "_cache")
    for cache in (None, (), [], (1,), np.ones(3)):
        with pytest.raises((TypeError, ValueError), match=rf"{name}_backward: cache needs to be the tuple \({parts}\)"): backward(np.ones_like(out), cache)


@pytest.mark.parametrize("name", ["conv_relu", "conv_bn_relu", "conv_relu_pool"])
def test_rows_leave_out_dx(name):
    (forward, backward), (args, _) = passes(name), row_arguments(name)
    out, cache = forward(*args)
    dout = np.random.default_rng(2).normal(size=out.shape)
    (none, *rest), (dx, *expected) = backward(dout, cache, need_dx=False), backward(dout, cache)
    assert none is None and dx.shape == args[0].shape
    for a, b in zip(rest, expected, strict=True): assert max_error(a, b) < 1e-12


@pytest.mark.parametrize("normalization", ["batchnorm", "layernorm"])
def test_affine_norm_relu_takes_either_norm(normalization):
    args, _ = row_arguments("affine_norm_relu")
    forward = {"batchnorm": batchnorm_forward, "layernorm": layernorm_forward}[normalization]
    a = forward(args[0].reshape(5, 6) @ args[1] + args[2], *args[3:5], {"mode": "train"})[0]
    out, cache = layer_utils.affine_norm_relu_forward(*args, normalization)
    assert max_error(out, np.maximum(a, 0)) < 1e-12
    if normalization == "batchnorm": assert (layer_utils.affine_norm_relu_forward(*args)[0] == out).all()
    with pytest.raises(ValueError, match="the cache's normalization needs to be one of 'batchnorm', 'layernorm'; got 'x'"):
        layer_utils.affine_norm_relu_backward(out, (*cache[:3], "x"))


@pytest.mark.parametrize("normalization", [None, "batch norm", "groupnorm", 1, {}, np.ones(2)])
def test_unknown_normalization(normalization):
    with pytest.raises(ValueError, match="affine_norm_relu_forward: normalization needs to be one of 'batchnorm', 'layernorm'; got"):
        layer_utils.affine_norm_relu_forward(*row_arguments("affine_norm_relu")[0], normalization)
