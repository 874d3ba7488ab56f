"""The nets: gradients of every kind, types, seeds, penalties, files, and bad input."""
import numpy as np
import pytest

from cs231n_lit.classifiers.cnn import ThreeLayerConvNet
from cs231n_lit.classifiers.fc_net import FullyConnectedNet, TwoLayerNet, l2_penalty
from cs231n_lit.gradient_check import eval_numerical_gradient, max_error

rng = np.random.default_rng


def numeric_error(net, X, y, name, h=1e-6):
    numeric = eval_numerical_gradient(lambda _: net.loss(X, y)[0], net.params[name], verbose=False, h=h)
    return max_error(net.loss(X, y)[1][name], numeric)


@pytest.mark.parametrize("normalization", [None, "batchnorm", "layernorm"])
@pytest.mark.parametrize("keep", [1, 0.7])
@pytest.mark.parametrize("hidden, seed", [([7], 0), ([6, 5, 4], 1)])
def test_fully_connected_gradients(normalization, keep, hidden, seed):
    net = FullyConnectedNet(hidden, 6, 3, keep, normalization, reg=0.2, weight_scale=0.7, dtype=np.float64, seed=9, rng=rng(seed))
    X, y = rng(seed + 10).standard_normal((8, 2, 3)), rng(seed).integers(0, 3, 8)
    for name in net.params:  # away from the kink: a dead layer under a zero bias would sit on it
        if name[0] == "b": net.params[name] += rng(seed + 20).standard_normal(net.params[name].shape)
    grads = net.loss(X, y)[1]
    assert grads.keys() == net.params.keys()
    for name, grad in grads.items():
        if np.abs(grad).max() < 1e-9: assert normalization == "batchnorm" and name[0] == "b" and name[:4] != "beta"
        else: assert numeric_error(net, X, y, name) < 1e-5, name


@pytest.mark.parametrize("input_dim, filters, size", [((3, 6, 8), 2, 3), ((1, 5, 7), 3, 4), ((2, 4, 4), 1, 1)])
def test_convnet_gradients(input_dim, filters, size):
    net = ThreeLayerConvNet(input_dim, filters, size, 5, 4, weight_scale=0.5, reg=0.1, dtype=np.float64, rng=rng(0))
    X, y = rng(1).standard_normal((3, *input_dim)), np.array([0, 3, 1])
    for name in net.params: assert numeric_error(net, X, y, name) < 1e-5, name


def nets(dtype=np.float32):
    yield TwoLayerNet(12, 5, 4, rng=rng(0)), np.float64
    yield FullyConnectedNet([5], 12, 4, 0.5, "batchnorm", dtype=dtype, rng=rng(0)), dtype
    yield ThreeLayerConvNet((3, 2, 2), 2, 1, 5, 4, dtype=dtype, rng=rng(0)), dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types_and_inputs_are_kept(dtype):
    X, y = rng(2).standard_normal((6, 3, 2, 2)), np.arange(6) % 4
    before = X.copy()
    for net, expected in nets(dtype):
        loss, grads = net.loss(X, y)
        assert all(w.dtype == expected for w in net.params.values())
        assert all(g.dtype == expected and g.shape == net.params[n].shape for n, g in grads.items())
        assert net.loss(X).shape == (6, 4)
        assert np.array_equal(X, before)


def test_the_global_seed_and_a_generator_both_fix_the_weights():
    for kind in (lambda **o: TwoLayerNet(6, 5, 4, **o), lambda **o: FullyConnectedNet([5], 6, 4, **o), lambda **o: ThreeLayerConvNet((1, 4, 4), 2, 3, 5, 4, **o)):
        pairs = []
        for _ in range(2):
            np.random.seed(231)
            pairs.append(kind().params)
        state = np.random.get_state()[1].copy()
        pairs += [kind(rng=rng(5)).params for _ in range(2)]
        assert np.array_equal(state, np.random.get_state()[1]), "a generator leaves the global one alone"
        for a, b in (pairs[:2], pairs[2:]):
            assert all(np.array_equal(a[n], b[n]) for n in a)


def test_weights_are_drawn_in_order_from_the_global_generator():
    np.random.seed(231)
    net = FullyConnectedNet([5], 6, 4, weight_scale=0.3, dtype=np.float64)
    np.random.seed(231)
    assert np.array_equal(net.params["W1"], 0.3 * np.random.randn(6, 5))
    assert np.array_equal(net.params["W2"], 0.3 * np.random.randn(5, 4))


def test_dropout_has_two_names_and_one_means_none():
    assert FullyConnectedNet([5], dropout=0.5).dropout_param["p"] == FullyConnectedNet([5], dropout_keep_ratio=0.5).dropout_param["p"] == 0.5
    assert FullyConnectedNet([5], dropout=1).use_dropout is False
    assert FullyConnectedNet([5], dropout_keep_ratio=0.25, seed=7).dropout_param["seed"] == 7


def test_the_penalty_counts_weights_only():
    params = {"W1": np.array([3.0]), "b1": np.array([9.0]), "gamma1": np.array([9.0]), "beta1": np.array([9.0]), "W2": np.array([4.0])}
    assert l2_penalty(params, 2.0) == 25.0
    for net, _ in nets():
        X, y = np.zeros((2, 3, 2, 2)), np.array([0, 1])
        plain, g0 = net.loss(X, y)
        net.reg = 3.0
        with_penalty, g1 = net.loss(X, y)
        assert with_penalty - plain == pytest.approx(l2_penalty(net.params, 3.0), rel=1e-3, abs=1e-6)
        for n in g0: assert np.allclose(g1[n] - g0[n], 3.0 * net.params[n] if n[0] == "W" else 0, atol=1e-6)


def test_parameters_assigned_by_hand_are_used():
    net = TwoLayerNet(3, 2, 2)
    net.params = {"W1": np.eye(3, 2), "b1": np.zeros(2), "W2": np.eye(2), "b2": np.array([0.0, 1.0])}
    assert np.array_equal(net.loss(np.array([[2.0, -1.0, 5.0]])), [[2.0, 1.0]])


def test_scores_do_not_depend_on_the_company(tmp_path):
    for net, _ in nets():
        X = rng(3).standard_normal((5, 3, 2, 2))
        net.loss(X, np.zeros(5, int))
        assert np.allclose(net.loss(X[:1]), net.loss(X)[:1], atol=1e-6)


def test_saving_and_loading(tmp_path):
    for net, _ in nets():
        file = str(tmp_path / "best_two_layer_net.npy")
        net.save(file)
        saved = {n: w.copy() for n, w in net.params.items()}
        net.params = {n: w + 1 for n, w in net.params.items()}
        assert net.load(file) is True
        assert all(np.array_equal(net.params[n], w) and net.params[n].dtype == w.dtype for n, w in saved.items())
        assert net.load(str(tmp_path / "none.npy")) is False
    with pytest.raises(ValueError, match="but this net has"): TwoLayerNet(4, 3, 2).load(file)


X3, y3 = np.zeros((3, 12)), np.zeros(3, int)
BAD = [
    (lambda: FullyConnectedNet([5], normalization="batch"), ValueError, "normalization needs to be one of"),
    (lambda: FullyConnectedNet([5], dropout_keep_ratio=0), ValueError, "dropout_keep_ratio needs a number above 0"),
    (lambda: FullyConnectedNet([5], dropout_keep_ratio=1.5), ValueError, "dropout_keep_ratio"),
    (lambda: FullyConnectedNet([0]), ValueError, "hidden_dims"),
    (lambda: FullyConnectedNet(5), TypeError, "hidden_dims"),
    (lambda: FullyConnectedNet([2.5]), TypeError, "hidden_dims"),
    (lambda: FullyConnectedNet([5], input_dim=-1), ValueError, "input_dim"),
    (lambda: FullyConnectedNet([5], num_classes=0), ValueError, "num_classes"),
    (lambda: FullyConnectedNet([5], weight_scale=-1), ValueError, "weight_scale"),
    (lambda: FullyConnectedNet([5], weight_scale="a"), TypeError, "weight_scale"),
    (lambda: FullyConnectedNet([5], reg=-0.1), ValueError, "reg"),
    (lambda: FullyConnectedNet([5], dtype=np.int64), TypeError, "dtype"),
    (lambda: TwoLayerNet(hidden_dim=0), ValueError, "hidden_dim"),
    (lambda: TwoLayerNet(reg=np.nan), ValueError, "reg"),
    (lambda: TwoLayerNet(num_classes=1.0), TypeError, "num_classes"),
    (lambda: ThreeLayerConvNet(filter_size=0), ValueError, "filter_size"),
    (lambda: ThreeLayerConvNet(num_filters=-2), ValueError, "num_filters"),
    (lambda: ThreeLayerConvNet(input_dim=(3, 32)), ValueError, "input_dim"),
    (lambda: ThreeLayerConvNet(input_dim=(3, 1, 1)), ValueError, "window"),
    (lambda: TwoLayerNet(12, 5, 4).loss(np.zeros((3, 11))), ValueError, "11"),
    (lambda: TwoLayerNet(12, 5, 4).loss(X3, [0, 1]), ValueError, "y"),
    (lambda: TwoLayerNet(12, 5, 4).loss(X3, [0, 1, 4]), ValueError, "labels from 0 to 3"),
    (lambda: TwoLayerNet(12, 5, 4).loss(X3, [0.0, 1.0, 2.0]), TypeError, "whole numbers"),
    (lambda: FullyConnectedNet([5], 12).loss(np.array([["a"] * 12])), TypeError, "real numbers"),
    (lambda: ThreeLayerConvNet().loss(np.zeros((2, 32, 32, 3))), ValueError, r"X needs the net's input shape \(2, 3, 32, 32\)"),
    (lambda: ThreeLayerConvNet().loss(np.zeros(7)), ValueError, "X"),
    (lambda: ThreeLayerConvNet().loss(np.float64(7)), ValueError, "X"),
]


@pytest.mark.parametrize("call, error, message", BAD, ids=range(len(BAD)))
def test_bad_input_is_told_in_words(call, error, message):
    with pytest.raises(error, match=message): call()
