"""Numbers that the course published, and what this package gives in their place."""
import json
import os
from pathlib import Path

import numpy as np
import pytest

from cs231n_lit import layers, optim
from cs231n_lit.classifiers.cnn import ThreeLayerConvNet
from cs231n_lit.classifiers.fc_net import FullyConnectedNet, TwoLayerNet
from cs231n_lit.convolution import conv_backward_naive, conv_forward_naive
from cs231n_lit.data_utils import get_CIFAR10_data
from cs231n_lit.fast_layers import conv_backward_fast, conv_forward_fast, max_pool_backward_fast, max_pool_forward_fast
from cs231n_lit.gradient_check import eval_numerical_gradient_array
from cs231n_lit.layer_utils import conv_relu_backward, conv_relu_forward, conv_relu_pool_backward, conv_relu_pool_forward
from cs231n_lit.normalization import batchnorm_forward
from cs231n_lit.pooling import max_pool_backward_naive, max_pool_forward_naive
from cs231n_lit.solver import Solver
from cs231n_lit.spatial_norm import (spatial_batchnorm_backward, spatial_batchnorm_forward, spatial_groupnorm_backward,
                                     spatial_groupnorm_forward)

VALUES = json.loads((Path(__file__).parent / "fixtures/course_values.json").read_text(encoding="utf-8"))
CONV = [(conv_forward_naive, conv_backward_naive), (conv_forward_fast, conv_backward_fast)]
POOL = [(max_pool_forward_naive, max_pool_backward_naive), (max_pool_forward_fast, max_pool_backward_fast)]
naive_and_fast = ["naive", "fast"]

needs_cifar = [pytest.mark.slow,
               pytest.mark.skipif(not os.environ.get("CS231N_LIT_CIFAR10"), reason="needs CIFAR-10: set CS231N_LIT_CIFAR10 to its folder")]


def rel_error(a, b):
    "The course's measure, worst entry: it is also written down in the fixture."
    a, b = np.asarray(a, float), np.asarray(b, float)
    return np.max(np.abs(a - b) / np.maximum(1e-8, np.abs(a) + np.abs(b)))


def line(spec):
    "An array that the fixture describes by its first and last number."
    return np.linspace(*spec["linspace"], num=int(np.prod(spec["shape"]))).reshape(spec["shape"])


@pytest.fixture
def seeded():
    "Seed 231, and leave the generator as it was."
    state = np.random.get_state()
    np.random.seed(231)
    yield np.random.randn
    np.random.set_state(state)


def test_every_entry_of_the_fixture_has_a_test():
    "Speed-ups are no facts about answers: benchmarks/ measures them."
    tested = {"affine_forward", "relu_forward", "conv_forward", "max_pool_forward", "two_layer_net", "sgd_momentum", "rmsprop", "adam",
              "spatial_batchnorm_train", "spatial_batchnorm_test", "spatial_groupnorm", "published_gradient_errors", "three_layer_convnet",
              "fully_connected_net", "dropout_forward", "batchnorm_test", "losses"}
    assert set(VALUES) == tested | {"about", "rel_error", "published_fast_layer_speedups"}


def test_affine_forward():
    v = VALUES["affine_forward"]
    out, _ = layers.affine_forward(line(v["x"]), line(v["w"]), line(v["b"]))
    assert rel_error(out, v["out"]) <= v["max_rel_error"]


def test_relu_forward():
    v = VALUES["relu_forward"]
    assert rel_error(layers.relu_forward(line(v["x"]))[0], v["out"]) <= v["max_rel_error"]


@pytest.mark.parametrize("forward, _", CONV, ids=naive_and_fast)
def test_conv_forward(forward, _):
    v = VALUES["conv_forward"]
    out, _ = forward(line(v["x"]), line(v["w"]), line(v["b"]), v["conv_param"])
    assert rel_error(out, v["out"]) <= v["max_rel_error"]


@pytest.mark.parametrize("forward, _", POOL, ids=naive_and_fast)
def test_max_pool_forward(forward, _):
    v = VALUES["max_pool_forward"]
    assert rel_error(forward(line(v["x"]), v["pool_param"])[0], v["out"]) <= v["max_rel_error"]


def test_two_layer_net():
    v = VALUES["two_layer_net"]
    net = TwoLayerNet(v["input_dim"], v["hidden_dim"], v["num_classes"])
    net.params = {name: line(v[name]) for name in ("W1", "b1", "W2", "b2")}
    X = np.linspace(-5.5, 4.5, num=15).reshape(5, 3).T
    assert np.abs(net.loss(X) - v["scores"]).sum() <= v["scores_sum_abs_error"]
    for reg in (0, 1):
        net.reg = reg
        assert abs(net.loss(X, np.array(v["y"]))[0] - v[f"loss_reg_{reg}"]) <= v["loss_abs_error"]


@pytest.mark.parametrize("rule", ["sgd_momentum", "rmsprop", "adam"])
def test_update_rule(rule):
    v = VALUES[rule]
    config = {k: line(c) if isinstance(c, dict) else c for k, c in v["config"].items()}
    next_w, _ = getattr(optim, rule)(line(v["w"]), line(v["dw"]), config)
    assert rel_error(next_w, v["next_w"]) <= v["max_rel_error"]
    for k in config.keys() - {"learning_rate", "t"} & {n[5:] for n in v}:
        assert rel_error(config[k], v[f"next_{k}"]) <= v["max_rel_error"]
    if rule == "adam": assert config["t"] == v["config"]["t"] + 1


def test_losses(seeded):
    v = VALUES["losses"]
    x, y = .001 * seeded(50, 10), np.random.randint(10, size=50)
    assert layers.svm_loss(x, y)[0] == pytest.approx(v["svm_loss"], abs=1e-12)
    assert layers.softmax_loss(x, y)[0] == pytest.approx(v["softmax_loss"], abs=1e-12)


def test_dropout_forward(seeded):
    v = VALUES["dropout_forward"]
    x = seeded(500, 500) + 10
    assert x.mean() == pytest.approx(v["input_mean"], rel=1e-14)
    for p, zeros, mean in zip(v["keep"], v["zeros"], v["means"]):
        out, _ = layers.dropout_forward(x, {"mode": "train", "p": p})
        assert (out == 0).mean() == zeros
        assert out.mean() == pytest.approx(mean, rel=1e-13)


def test_batchnorm_test(seeded):
    v = VALUES["batchnorm_test"]
    W1, W2, bn_param = seeded(50, 60), seeded(60, 3), {"mode": "train"}
    activations = lambda: np.maximum(0, seeded(200, 50) @ W1) @ W2
    for _ in range(50): batchnorm_forward(activations(), np.ones(3), np.zeros(3), bn_param)
    out, _ = batchnorm_forward(activations(), np.ones(3), np.zeros(3), {**bn_param, "mode": "test"})
    np.testing.assert_allclose(out.mean(axis=0), v["means"], atol=1e-8)
    np.testing.assert_allclose(out.std(axis=0), v["stds"], atol=1e-8)


def channel_statistics(x):
    return x.mean(axis=(0, 2, 3)), x.std(axis=(0, 2, 3))


def test_spatial_batchnorm_train(seeded):
    v = VALUES["spatial_batchnorm_train"]
    x = 4 * seeded(2, 3, 4, 5) + 10
    np.testing.assert_allclose(channel_statistics(x), [v["mean_before"], v["std_before"]], atol=1e-8)
    out, _ = spatial_batchnorm_forward(x, np.ones(3), np.zeros(3), {"mode": "train"})
    np.testing.assert_allclose(channel_statistics(out), [np.zeros(3), v["std_after"]], atol=1e-8)
    out, _ = spatial_batchnorm_forward(x, np.array(v["gamma"]), np.array(v["beta"]), {"mode": "train"})
    np.testing.assert_allclose(channel_statistics(out), [v["mean_after_affine"], v["std_after_affine"]], atol=1e-8)


def test_spatial_batchnorm_test(seeded):
    v, bn_param = VALUES["spatial_batchnorm_test"], {"mode": "train"}
    images = lambda: 2.3 * seeded(10, 4, 11, 12) + 13
    for _ in range(50): spatial_batchnorm_forward(images(), np.ones(4), np.zeros(4), bn_param)
    out, _ = spatial_batchnorm_forward(images(), np.ones(4), np.zeros(4), {**bn_param, "mode": "test"})
    np.testing.assert_allclose(channel_statistics(out), [v["means"], v["stds"]], atol=1e-8)


def test_spatial_groupnorm(seeded):
    v = VALUES["spatial_groupnorm"]
    x, groups = 4 * seeded(2, 6, 4, 5) + 10, lambda a: a.reshape(2 * v["G"], -1)
    np.testing.assert_allclose(groups(x).mean(axis=1), v["mean_before"], atol=1e-8)
    np.testing.assert_allclose(groups(x).std(axis=1), v["std_before"], atol=1e-8)
    out, _ = spatial_groupnorm_forward(x, np.ones((1, 6, 1, 1)), np.zeros((1, 6, 1, 1)), v["G"], {"mode": "train"})
    np.testing.assert_allclose(groups(out).mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(groups(out).std(axis=1), v["std_after"], atol=1e-8)


def gradient_errors(forward, backward, arrays, out_shape):
    "The course's gradient check: errors of the gradients with respect to `arrays`, by name."
    dout = np.random.randn(*out_shape)
    gradients = backward(dout, forward(**arrays)[1])
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    numeric = [eval_numerical_gradient_array(lambda a: forward(**{**arrays, name: a})[0], arrays[name], dout) for name in arrays]
    return {f"d{name}": rel_error(g, n) for name, g, n in zip(arrays, gradients, numeric)}


def images(randn, *shape, filters):
    return dict(x=randn(*shape), w=randn(*filters), b=randn(filters[0]))


def conv_case(randn, conv): return gradient_errors(lambda x, w, b: conv[0](x, w, b, {"stride": 1, "pad": 1}), conv[1],
                                                  images(randn, 4, 3, 5, 5, filters=(2, 3, 3, 3)), (4, 2, 5, 5))


def pool_case(randn, pool): return gradient_errors(lambda x: pool[0](x, {"pool_height": 2, "pool_width": 2, "stride": 2}), pool[1],
                                                  dict(x=randn(3, 2, 8, 8)), (3, 2, 4, 4))


def conv_relu_case(randn, _): return gradient_errors(lambda x, w, b: conv_relu_forward(x, w, b, {"stride": 1, "pad": 1}), conv_relu_backward,
                                                     images(randn, 2, 3, 8, 8, filters=(3, 3, 3, 3)), (2, 3, 8, 8))


def conv_relu_pool_case(randn, _):
    pool_param = {"pool_height": 2, "pool_width": 2, "stride": 2}
    return gradient_errors(lambda x, w, b: conv_relu_pool_forward(x, w, b, {"stride": 1, "pad": 1}, pool_param), conv_relu_pool_backward,
                           images(randn, 2, 3, 16, 16, filters=(3, 3, 3, 3)), (2, 3, 8, 8))


def batchnorm_case(randn, _):
    arrays = dict(x=5 * randn(2, 3, 4, 5) + 12, gamma=randn(3), beta=randn(3))
    return gradient_errors(lambda x, gamma, beta: spatial_batchnorm_forward(x, gamma, beta, {"mode": "train"}), spatial_batchnorm_backward,
                           arrays, (2, 3, 4, 5))


def groupnorm_case(randn, _):
    arrays = dict(x=5 * randn(2, 6, 4, 5) + 12, gamma=randn(1, 6, 1, 1), beta=randn(1, 6, 1, 1))
    return gradient_errors(lambda x, gamma, beta: spatial_groupnorm_forward(x, gamma, beta, 2, {}), spatial_groupnorm_backward, arrays, (2, 6, 4, 5))


@pytest.mark.parametrize("entry, case, layer", [
    ("conv_backward", conv_case, CONV[0]), ("conv_backward", conv_case, CONV[1]),
    ("max_pool_backward", pool_case, POOL[0]), ("max_pool_backward", pool_case, POOL[1]),
    ("conv_relu", conv_relu_case, None), ("conv_relu_pool", conv_relu_pool_case, None),
    ("spatial_batchnorm", batchnorm_case, None), ("spatial_groupnorm", groupnorm_case, None)],
    ids=["conv-naive", "conv-fast", "pool-naive", "pool-fast", "conv_relu", "conv_relu_pool", "batchnorm", "groupnorm"])
def test_published_gradient_errors(seeded, entry, case, layer):
    "Of the same order as published, or smaller. Most of the error is the numeric gradient's own."
    errors, published = case(seeded, layer), VALUES["published_gradient_errors"][entry]
    assert errors.keys() == published.keys()
    assert {k: e for k, e in errors.items() if e > 10 * published[k]} == {}


def test_fully_connected_net(seeded):
    v, size = VALUES["fully_connected_net"], dict(input_dim=15, num_classes=10, weight_scale=5e-2, dtype=np.float64)
    for published, settings in [("first_losses_by_reg", lambda k: dict(reg=float(k))),
                                ("first_losses_by_dropout_keep_ratio_with_seed_123", lambda k: dict(dropout_keep_ratio=float(k), seed=123)),
                                ("first_losses_by_dropout_keep_ratio_with_seed_123", lambda k: dict(dropout=float(k), seed=123))]:
        np.random.seed(231)
        X, y = seeded(2, 15), np.random.randint(10, size=2)
        for setting, loss in v[published].items():
            assert FullyConnectedNet([20, 30], **size, **settings(setting)).loss(X, y)[0] == pytest.approx(loss, abs=1e-12)


def test_three_layer_convnet_first_losses(seeded):
    v = VALUES["three_layer_convnet"]
    for shape in [(2, 3, 8, 8), (3, 3, 3, 3), (3,), (2, 3, 8, 8)]: seeded(*shape)
    net, X, y = ThreeLayerConvNet(), seeded(50, 3, 32, 32), np.random.randint(10, size=50)
    for reg, loss, rounded in zip((0, .5), v["initial_losses_printed"]["losses"], (v["initial_loss_no_reg"], v["initial_loss_reg_0.5"])):
        net.reg = reg
        got = net.loss(X, y)[0]
        assert got == pytest.approx(loss, abs=1e-6)
        assert got == pytest.approx(rounded, abs=5e-4)


@pytest.fixture(scope="module")
def cifar10(): return get_CIFAR10_data()


def first(data, n):
    return {**data, "X_train": data["X_train"][:n], "y_train": data["y_train"][:n]}


class TestOnCIFAR10:
    pytestmark = needs_cifar

    def test_dropout_on_500_images(self, seeded, cifar10):
        losses = []
        for keep in (1, .25):
            solver = Solver(FullyConnectedNet([500], dropout_keep_ratio=keep), first(cifar10, 500), num_epochs=25, batch_size=100, update_rule="adam",
                            optim_config={"learning_rate": 5e-4}, verbose=False)
            solver.train()
            losses.append(solver.loss_history[0])
        assert losses == pytest.approx(VALUES["fully_connected_net"]["dropout_on_500_images"]["loss_iteration_1"], abs=2e-6)

    def test_three_layer_convnet(self, seeded, cifar10):
        "One hundred images by heart, then, without seeding again, one epoch over all."
        v, adam = VALUES["three_layer_convnet"], dict(batch_size=50, update_rule="adam", optim_config={"learning_rate": 1e-3}, verbose=False)
        few = first(cifar10, 100)
        solver = Solver(ThreeLayerConvNet(weight_scale=1e-2), few, num_epochs=15, **adam)
        solver.train()
        assert solver.loss_history[0] == pytest.approx(v["overfit_100"]["loss_iteration_1"], abs=6e-7)
        assert solver.train_acc_history[-1] >= v["overfit_100"]["final_train_accuracy_at_least"]
        assert solver.val_acc_history[-1] == pytest.approx(v["overfit_100"]["val_accuracy_about"], abs=.04)
        best = v["overfit_100"]["accuracy_with_best_validation_parameters"]
        assert solver.check_accuracy(few["X_val"], few["y_val"]) == pytest.approx(best["validation"], abs=.03)

        solver = Solver(ThreeLayerConvNet(weight_scale=.001, hidden_dim=500, reg=.001), cifar10, num_epochs=1, **adam)
        solver.train()
        assert len(solver.loss_history) == v["one_epoch"]["iterations"]
        assert solver.loss_history[0] == pytest.approx(v["one_epoch"]["loss_iteration_1"], abs=6e-7)
        assert solver.best_val_acc == pytest.approx(min(v["one_epoch"]["published_val_accuracy"]), abs=.035)
        assert solver.train_acc_history[-1] == pytest.approx(min(v["one_epoch"]["published_train_accuracy"]), abs=.05)
