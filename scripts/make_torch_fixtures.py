"""Write cs231n_lit/data/pages/torch.npz: what PyTorch computes for each layer of this package, in float64 on small arrays.

The pages and tests compare with this file, so that nobody needs PyTorch to read or check them. Remake it with

    pip install torch
    python scripts/make_torch_fixtures.py

Keys are `case/name`, with the package's own names: `conv_s2p1/x`, `conv_s2p1/dout`, `conv_s2p1/dx` …
Where PyTorch defines something differently, the comment beside the case says so.
"""
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

arrays = {}
rng = np.random.default_rng(231)
randn = lambda *shape: rng.standard_normal(shape)


def save(case, **named):
    for name, value in named.items():
        value = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        arrays[f"{case}/{name}"] = value.copy()


def layer(case, f, dout=None, settings={}, **inputs):
    "Run `f` on the inputs, send `dout` back, and save inputs, settings, output and the gradient of every input."
    leaves = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in inputs.items()}
    out = f(**leaves)
    dout = randn(*out.shape) if dout is None else dout
    out.backward(torch.as_tensor(dout))
    save(case, **settings, **inputs, out=out, dout=dout, **{f"d{k}": v.grad for k, v in leaves.items()})


# Affine and ReLU. At exactly 0 PyTorch's ReLU has gradient 0, as ours.
layer("affine", lambda x, w, b: F.linear(x.flatten(1), w.T, b), x=randn(4, 2, 3), w=randn(6, 5), b=randn(5))
layer("relu", lambda x: F.relu(x), x=randn(4, 5))
layer("relu_kink", lambda x: F.relu(x), x=np.array([-2., -1e-300, -0., 0., 1e-300, 2.]))

# Dropout with a given mask: PyTorch's own p is the probability of DROPPING a number and its random numbers are others.
keep = rng.random((4, 5)) < 0.6
layer("dropout", lambda x: x * torch.tensor(keep) / 0.6, settings=dict(keep=keep, p=0.6), x=randn(4, 5))


def loss(case, f, x, y):
    leaf = torch.tensor(x, requires_grad=True)
    value = f(leaf, torch.tensor(y))
    value.backward()
    save(case, x=x, y=y, loss=value, dx=leaf.grad)


# Losses. PyTorch's multi-margin loss divides by the number of classes too: ours is C times as large.
loss("softmax", F.cross_entropy, randn(6, 4), rng.integers(4, size=6))
loss("softmax_huge", F.cross_entropy, 1e4 * randn(3, 4), np.array([0, 1, 3]))
loss("svm", lambda x, y: F.multi_margin_loss(x, y) * x.shape[1], randn(6, 4), rng.integers(4, size=6))


# Batch norm. PyTorch's momentum is one minus ours, and its running variance is the unbiased one (over N - 1):
# `var_unbiased` is that factor N / (N - 1). Everything else agrees. Saved are the running values after one batch,
# starting from zeros as this package does.
def batchnorm(case, x):
    C = x.shape[1]
    mean, var = torch.zeros(C, dtype=torch.float64), torch.zeros(C, dtype=torch.float64)
    M = x.size // C
    layer(case, lambda x, gamma, beta: F.batch_norm(x, mean, var, gamma, beta, training=True, momentum=0.1, eps=1e-5),
          x=x, gamma=randn(C), beta=randn(C))
    save(case, running_mean=mean, running_var=var, var_unbiased=M / (M - 1))
    t = lambda name: torch.tensor(arrays[f"{case}/{name}"])
    save(case, out_test=F.batch_norm(t("x"), mean, var, t("gamma"), t("beta"), training=False, eps=1e-5))


batchnorm("batchnorm", 3 * randn(6, 4) + 2)
batchnorm("spatial_batchnorm", 3 * randn(2, 3, 4, 5) + 2)
layer("layernorm", lambda x, gamma, beta: F.layer_norm(x, (5,), gamma, beta, 1e-5), x=3 * randn(4, 5) + 2, gamma=randn(5), beta=randn(5))
for G in 1, 2, 6:
    layer(f"groupnorm_G{G}", lambda x, gamma, beta: F.group_norm(x, G, gamma, beta, 1e-5), settings=dict(G=G),
          x=3 * randn(2, 6, 3, 4) + 2, gamma=randn(6), beta=randn(6))

# Convolution: case, x, w, stride, padding.
for case, x, w, stride, pad in [("conv", (2, 3, 5, 5), (4, 3, 3, 3), 1, 1), ("conv_s2p1", (2, 3, 7, 5), (2, 3, 3, 3), 2, 1),
                                ("conv_nonsquare", (2, 2, 6, 7), (3, 2, 2, 3), 2, 0), ("conv_s3p0", (1, 2, 8, 5), (3, 2, 2, 2), 3, 0),
                                ("conv_p2", (2, 1, 4, 3), (2, 1, 4, 3), 1, 2), ("conv_1x1", (2, 3, 4, 4), (5, 3, 1, 1), 1, 0)]:
    layer(case, lambda x, w, b: F.conv2d(x, w, b, stride, pad), settings=dict(stride=stride, pad=pad),
          x=randn(*x), w=randn(*w), b=randn(w[0]))

# Max pooling: case, x, window, stride. Ties: the first in row-major order gets the whole gradient, as here.
ties = rng.integers(0, 3, (2, 2, 5, 5)).astype(float)
for case, x, (height, width), stride in [("pool", randn(2, 3, 4, 6), (2, 2), 2), ("pool_overlap", randn(2, 3, 7, 5), (3, 3), 2),
                                         ("pool_nonsquare", randn(2, 2, 5, 7), (2, 3), 1), ("pool_ties", ties, (3, 3), 2),
                                         ("pool_gaps", randn(1, 2, 8, 5), (2, 2), 3)]:
    layer(case, lambda x: F.max_pool2d(x, (height, width), stride),
          settings=dict(pool_height=height, pool_width=width, stride=stride), x=x)


# Optimisers: w before, one gradient a step, w after each step. SGD with momentum: PyTorch keeps the velocity without
# the learning rate in it (v = mu v + dw, w -= lr v); with a constant learning rate the weights are the same.
# RMSProp and Adam agree with ours as they are.
def optimiser(case, make, **settings):
    w = torch.tensor(start := randn(3, 4), requires_grad=True)
    dws, ws, rule = randn(5, 3, 4), [], make([w])
    for dw in dws:
        w.grad = torch.tensor(dw)
        rule.step()
        ws.append(w.detach().numpy().copy())
    save(case, w=start, dw=dws, next_w=ws, **settings)


optimiser("sgd", lambda w: torch.optim.SGD(w, lr=0.1), learning_rate=0.1)
optimiser("sgd_momentum", lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9), learning_rate=0.1, momentum=0.9)
optimiser("rmsprop", lambda w: torch.optim.RMSprop(w, lr=0.1, alpha=0.9, eps=1e-8), learning_rate=0.1, decay_rate=0.9, epsilon=1e-8)
optimiser("adam", lambda w: torch.optim.Adam(w, lr=0.1, betas=(0.8, 0.95), eps=1e-8), learning_rate=0.1, beta1=0.8, beta2=0.95, epsilon=1e-8)


# Nets: `X`, `y`, `reg`, the parameters (`W1`, `b1` …), `scores` (training mode), `loss` and `dW1`, `db1` …
# The loss has 0.5 · reg · sum(W²) over the W's, which PyTorch would call weight decay.
def net(case, scores, X, classes, reg, **params):
    y = rng.integers(classes, size=len(X))
    leaves = {k: torch.tensor(v, requires_grad=True) for k, v in params.items()}
    out = scores(torch.tensor(X), leaves)
    value = F.cross_entropy(out, torch.tensor(y)) + 0.5 * reg * sum((v ** 2).sum() for k, v in leaves.items() if k[0] == "W")
    value.backward()
    save(case, X=X, y=y, reg=reg, **params, scores=out, loss=value, **{f"d{k}": v.grad for k, v in leaves.items()})


def fully_connected(norm=None):
    def scores(X, p):
        last = sum(k[0] == "W" for k in p)
        for i in range(1, last):
            X = X.flatten(1) @ p[f"W{i}"] + p[f"b{i}"]
            if norm: X = norm(X, p[f"gamma{i}"], p[f"beta{i}"])
            X = F.relu(X)
        return X @ p[f"W{last}"] + p[f"b{last}"]
    return scores


def params(*dims, norm=False):
    out = {}
    for i, (D, M) in enumerate(zip(dims, dims[1:]), 1):
        out |= {f"W{i}": randn(D, M) / np.sqrt(D), f"b{i}": 0.1 * randn(M)}
        if norm and i < len(dims) - 1: out |= {f"gamma{i}": 1 + 0.1 * randn(M), f"beta{i}": 0.1 * randn(M)}
    return out


net("two_layer", fully_connected(), randn(5, 2, 3), 4, 0.3, **params(6, 8, 4))
net("fc", fully_connected(), randn(5, 6), 4, 0.3, **params(6, 8, 7, 4))
net("fc_batchnorm", fully_connected(lambda X, g, b: F.batch_norm(X, None, None, g, b, training=True, eps=1e-5)),
    randn(5, 6), 4, 0.3, **params(6, 8, 7, 4, norm=True))
net("fc_layernorm", fully_connected(lambda X, g, b: F.layer_norm(X, X.shape[1:], g, b, 1e-5)),
    randn(5, 6), 4, 0.3, **params(6, 8, 7, 4, norm=True))


def convnet(X, p):
    X = F.max_pool2d(F.relu(F.conv2d(X, p["W1"], p["b1"], padding=p["W1"].shape[-1] // 2)), 2)
    return F.relu(X.flatten(1) @ p["W2"] + p["b2"]) @ p["W3"] + p["b3"]


net("convnet", convnet, randn(3, 2, 6, 6), 5, 0.3, W1=0.5 * randn(3, 2, 3, 3), b1=0.1 * randn(3),
    W2=randn(27, 7) / 5, b2=0.1 * randn(7), W3=randn(7, 5) / 2, b3=0.1 * randn(5))

# Layers in a row: an affine layer or a convolution, perhaps a norm, ReLU, perhaps a pool.
affine, conv = lambda x, w, b: F.linear(x.flatten(1), w.T, b), lambda x, w, b: F.conv2d(x, w, b, padding=1)
batch_norm = lambda a, gamma, beta: F.batch_norm(a, None, None, gamma, beta, training=True, eps=1e-5)
images, rows = dict(x=(2, 3, 6, 7), w=(4, 3, 3, 2), b=(4,)), dict(x=(5, 2, 3), w=(6, 4), b=(4,))
norm = dict(gamma=(4,), beta=(4,))
for case, f, shapes in [
        ("affine_relu", lambda x, w, b: F.relu(affine(x, w, b)), rows),
        ("affine_batchnorm_relu", lambda x, w, b, gamma, beta: F.relu(batch_norm(affine(x, w, b), gamma, beta)), rows | norm),
        ("affine_layernorm_relu", lambda x, w, b, gamma, beta: F.relu(F.layer_norm(affine(x, w, b), (4,), gamma, beta, 1e-5)), rows | norm),
        ("conv_relu", lambda x, w, b: F.relu(conv(x, w, b)), images),
        ("conv_bn_relu", lambda x, w, b, gamma, beta: F.relu(batch_norm(conv(x, w, b), gamma, beta)), images | norm),
        ("conv_relu_pool", lambda x, w, b: F.max_pool2d(F.relu(conv(x, w, b)), (2, 3), 2), images)]:
    layer(case, f, **{name: randn(*shape) for name, shape in shapes.items()})

# Optimisers that came later. `adam_l2` is Adam with PyTorch's `weight_decay`, which adds it to the gradient.
optimiser("sgd_nesterov", lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9, nesterov=True), learning_rate=0.1, momentum=0.9)
optimiser("adamw", lambda w: torch.optim.AdamW(w, lr=0.1, betas=(0.8, 0.95), eps=1e-8, weight_decay=0.3),
          learning_rate=0.1, beta1=0.8, beta2=0.95, epsilon=1e-8, weight_decay=0.3)
optimiser("adam_l2", lambda w: torch.optim.Adam(w, lr=0.1, betas=(0.8, 0.95), eps=1e-8, weight_decay=0.3),
          learning_rate=0.1, beta1=0.8, beta2=0.95, epsilon=1e-8, weight_decay=0.3)


# Learning rates of PyTorch's schedules from a rate of 1: at each of 12 steps.
def schedule(case, make, **settings):
    rule = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    clock, rates = make(rule), []
    for _ in range(12):
        rates.append(rule.param_groups[0]["lr"])
        rule.step(), clock.step()
    save(case, rates=rates, **settings)


lr = torch.optim.lr_scheduler
schedule("step_decay", lambda rule: lr.StepLR(rule, 5, 0.1), every=5, factor=0.1)
schedule("exponential_decay", lambda rule: lr.ExponentialLR(rule, 0.8), factor=0.8)
schedule("cosine_decay", lambda rule: lr.CosineAnnealingLR(rule, 12), total=12)
schedule("warm_up", lambda rule: lr.LinearLR(rule, 0.25, 1.0, 3), warm_up=3)

# How a fresh affine layer of PyTorch starts.
torch.manual_seed(0)
linear = torch.nn.Linear(64, 32, dtype=torch.float64)
save("linear", weight=linear.weight, bias=linear.bias)

# Sizes that the stride does not divide: what is left over is dropped. And several NaNs in a window: on a CPU the last one takes the gradient, ours is the first.
layer("conv_rest", lambda x, w, b: F.conv2d(x, w, b, 3, 1), settings=dict(stride=3, pad=1), x=randn(2, 2, 6, 5), w=randn(3, 2, 2, 3), b=randn(3))
layer("pool_rest", lambda x: F.max_pool2d(x, (2, 3), 2), settings=dict(pool_height=2, pool_width=3, stride=2), x=randn(2, 2, 5, 6))
layer("pool_nan", lambda x: F.max_pool2d(x, 2, 2), dout=np.full((1, 1, 1, 1), 5.), x=np.array([[[[np.nan, 1], [2, np.nan]]]]))

path = Path(__file__).resolve().parent.parent / "cs231n_lit/data/pages/torch.npz"
path.parent.mkdir(exist_ok=True)
np.savez_compressed(path, torch_version=np.array(torch.__version__), **arrays)
print(f"{path}: {len(arrays)} arrays, {path.stat().st_size // 1024} KB")
