"""Other right ways to solve each exercise, three and more of each, as students write them: loops, einsum, other formulas, in place on arrays of their
own, caches of their own, wider or narrower types. `check` has to pass them all, on any numbers.

`WAYS[name]` lists the functions of an exercise. A backward function whose cache is its own comes as a pair with its forward function.
"""
import math

import numpy as np
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from cs231n_lit.layer_utils import affine_relu_backward, affine_relu_forward, conv_relu_pool_backward, conv_relu_pool_forward
from cs231n_lit.layers import affine_backward, affine_forward, dropout_backward, dropout_forward, relu_backward, relu_forward, softmax_loss
from cs231n_lit.normalization import batchnorm_backward, batchnorm_forward, layernorm_backward, layernorm_forward

WAYS: dict = {}


def way(name, forward=None):
    "Enter a function as a way to solve an exercise; with the forward function whose cache it takes, where that is not the page's."
    def enter(f):
        WAYS.setdefault(name, []).append((forward, f) if forward else (f,))
        return f
    return enter


# ------------------------------------------------------------ affine

@way("affine_forward")
def affine_rows(x, w, b):
    N = x.shape[0]
    out = x.reshape(N, -1).dot(w) + b
    cache = (x, w, b)
    return out, cache


@way("affine_forward")
def affine_tensordot(x, w, b):
    shaped = w.reshape(*x.shape[1:], -1)
    axes = list(range(1, x.ndim))
    return np.tensordot(x, shaped, axes=(axes, [a - 1 for a in axes])) + b, {"x": x, "w": w}


@way("affine_forward")
def affine_loops(x, w, b):
    out = np.zeros((len(x), w.shape[1]))
    for n in range(len(x)):
        for m in range(w.shape[1]):
            out[n, m] = np.sum(x[n].flatten() * w[:, m]) + b[m]
    return out, [x, w, b]


@way("affine_forward")
def affine_one_more_column(x, w, b):
    flat = x.reshape(len(x), -1)
    return np.hstack([flat, np.ones((len(x), 1), x.dtype)]) @ np.vstack([w, b]), (x, w, b, flat)


@way("affine_backward")
def affine_back_loops(dout, cache):
    x, w, b = cache
    rows, dx, dw, db = x.reshape(len(x), -1), np.zeros((len(x), len(w))), np.zeros(w.shape), np.zeros(b.shape)
    for n, d, m in np.ndindex(*rows.shape, len(b)):
        dx[n, d] += dout[n, m] * w[d, m]
        dw[d, m] += rows[n, d] * dout[n, m]
    for n in range(len(x)): db += dout[n]
    return dx.reshape(x.shape), dw, db


@way("affine_backward")
def affine_back_einsum(dout, cache):
    x, w, b = cache
    return np.einsum("nm,dm->nd", dout, w).reshape(x.shape), np.einsum("nd,nm->dm", x.reshape(len(x), -1), dout), np.einsum("nm->m", dout)


@way("affine_backward")
def affine_back_in_float32(dout, cache):
    x, w, b = (a.astype(np.float32) for a in cache)
    d = dout.astype(np.float32)
    return (d @ w.T).reshape(x.shape), x.reshape(len(x), -1).T @ d, d.sum(0)


@way("affine_backward")
def affine_back_list(dout, cache):
    x, w, _ = cache
    return [np.dot(dout, w.T).reshape(x.shape), np.dot(x.reshape(x.shape[0], -1).T, dout), np.ones(len(dout)) @ dout]


@way("affine_backward", affine_one_more_column)
def affine_back_kept_rows(dout, cache):
    x, w, b, flat = cache
    dx = np.reshape(w.dot(dout.T).T, x.shape)
    dw = dout.T.dot(flat).T
    db = dout.mean(axis=0) * len(x)
    return dx, dw, db


# ------------------------------------------------------------ ReLU

@way("relu_forward")
def relu_maximum(x): return np.maximum(0, x), x


@way("relu_forward")
def relu_copy(x):
    out = x.copy()
    out[out < 0] = 0
    return out, x.copy()


@way("relu_forward")
def relu_by_abs(x): return (x + abs(x)) / 2, x > 0


@way("relu_forward")
def relu_loop(x):
    out = np.array([v if v > 0 else 0 for v in x.ravel()]).reshape(x.shape)
    return out, {"input": x, "mask": out > 0}


@way("relu_backward")
def relu_back_where(dout, cache): return np.where(cache > 0, dout, 0)


@way("relu_backward")
def relu_back_copy(dout, cache):
    dx = np.array(dout, copy=True)
    dx[cache <= 0] = 0
    return dx


@way("relu_backward", relu_by_abs)
def relu_back_mask(dout, cache): return dout * cache


@way("relu_backward", relu_loop)
def relu_back_from_out(dout, cache):
    dx = np.zeros_like(dout)
    dx[cache["mask"]] = dout[cache["mask"]]
    return dx


@way("relu_backward")
def relu_back_spends_dout(dout, cache):
    dout[cache < 0] = 0
    return dout


# ------------------------------------------------------------ dropout

@way("dropout_forward")
def dropout_rand(x, dropout_param):
    p, mode = dropout_param["p"], dropout_param["mode"]
    if "seed" in dropout_param: np.random.seed(dropout_param["seed"])
    mask, out = None, x
    if mode == "train":
        mask = (np.random.rand(*x.shape) < p) / p
        out = x * mask
    return out.astype(x.dtype, copy=False), (dropout_param, mask)


@way("dropout_forward")
def dropout_binomial(x, dropout_param):
    if dropout_param.get("seed") is not None: np.random.seed(dropout_param["seed"])
    if dropout_param["mode"] == "test": return x.copy(), (dropout_param, None)
    keep = np.random.binomial(1, dropout_param["p"], size=x.shape)
    return x * keep / dropout_param["p"], (dropout_param, keep)


@way("dropout_forward")
def dropout_other_side(x, dropout_param):
    rng = np.random.default_rng(dropout_param.get("seed"))
    if dropout_param["mode"] != "train": return x, None
    mask = np.where(rng.random(x.shape) >= 1 - dropout_param["p"], 1 / dropout_param["p"], 0)
    return x * mask, mask


@way("dropout_forward")
def dropout_choice(x, dropout_param):
    np.random.seed(dropout_param.get("seed"))
    out, mask = x, np.ones_like(x)
    if dropout_param["mode"] == "train":
        mask = np.random.choice([0, 1], size=x.shape, p=[1 - dropout_param["p"], dropout_param["p"]]).astype(x.dtype)
        mask /= dropout_param["p"]
        out = np.multiply(x, mask)
    return out, (mask, dropout_param["mode"])


@way("dropout_backward")
def dropout_back(dout, cache):
    dropout_param, mask = cache
    return dout * mask if dropout_param["mode"] == "train" else dout


@way("dropout_backward", dropout_binomial)
def dropout_back_binomial(dout, cache):
    dropout_param, keep = cache
    if dropout_param["mode"] == "test": return dout
    dx = np.zeros_like(dout)
    dx[keep == 1] = dout[keep == 1] / dropout_param["p"]
    return dx


@way("dropout_backward", dropout_other_side)
def dropout_back_mask_only(dout, cache): return dout if cache is None else dout * cache


@way("dropout_backward", dropout_choice)
def dropout_back_in_place(dout, cache):
    mask, _ = cache
    dx = dout.copy()
    dx *= mask
    return dx


# ------------------------------------------------------------ losses

@way("softmax_loss")
def softmax_shifted(x, y):
    shifted = x - np.max(x, axis=1, keepdims=True)
    Z = np.sum(np.exp(shifted), axis=1, keepdims=True)
    log_probs = shifted - np.log(Z)
    N = x.shape[0]
    loss = -np.sum(log_probs[np.arange(N), y]) / N
    dx = np.exp(log_probs)
    dx[np.arange(N), y] -= 1
    dx /= N
    return loss, dx


@way("softmax_loss")
def softmax_probabilities(x, y):
    probs = np.exp(x - x.max(axis=1)[:, None])
    probs /= probs.sum(axis=1)[:, None]
    N = len(y)
    loss = -np.log(probs[range(N), y]).mean()
    onehot = np.eye(x.shape[1])[y]
    return loss, (probs - onehot) / N


@way("softmax_loss")
def softmax_row_by_row(x, y):
    loss, dx = 0.0, np.zeros(x.shape)
    for i in range(len(x)):
        e = np.exp(x[i] - max(x[i]))
        p = e / sum(e)
        loss += math.log(sum(e)) - (x[i, y[i]] - max(x[i]))
        dx[i] = p
        dx[i, y[i]] -= 1
    return loss / len(x), dx / len(x)


@way("softmax_loss")
def softmax_logaddexp(x, y):
    N, every = len(x), np.logaddexp.reduce(x, axis=1)
    dx = np.exp(x - every.reshape(N, 1))
    np.add.at(dx, (np.arange(N), y), -1)
    return np.mean(every - x[np.arange(N), y]), dx * (1 / N)


@way("svm_loss")
def svm_vectorized(x, y):
    N = x.shape[0]
    correct = x[np.arange(N), y]
    margins = np.maximum(0, x - correct[:, np.newaxis] + 1.0)
    margins[np.arange(N), y] = 0
    num_pos = np.sum(margins > 0, axis=1)
    dx = np.zeros_like(x)
    dx[margins > 0] = 1
    dx[np.arange(N), y] -= num_pos
    return np.sum(margins) / N, dx / N


@way("svm_loss")
def svm_loops(x, y):
    loss, dx, (N, C) = 0.0, np.zeros(x.shape), x.shape
    for i in range(N):
        for j in range(C):
            margin = x[i][j] - x[i][y[i]] + 1
            if j != y[i] and margin > 0:
                loss += margin
                dx[i, j] += 1
                dx[i, y[i]] -= 1
    return loss / N, dx / N


@way("svm_loss")
def svm_minus_one(x, y):
    N = len(x)
    margins = (x - x[np.arange(N), y].reshape(-1, 1) + 1).clip(min=0)
    mask = (margins > 0).astype(x.dtype)
    mask[np.arange(N), y] = 1 - mask.sum(axis=1)
    return margins.sum() / N - 1, mask / N


# ------------------------------------------------------------ norms

@way("batchnorm_forward")
def batchnorm_steps(x, gamma, beta, bn_param):
    mode, eps, momentum = bn_param["mode"], bn_param.get("eps", 1e-5), bn_param.get("momentum", 0.9)
    N, D = x.shape
    running_mean = bn_param.get("running_mean", np.zeros(D, dtype=x.dtype))
    running_var = bn_param.get("running_var", np.zeros(D, dtype=x.dtype))
    cache = None
    if mode == "train":
        mu = 1 / N * np.sum(x, axis=0)
        xmu = x - mu
        var = 1 / N * np.sum(xmu**2, axis=0)
        sqrtvar = np.sqrt(var + eps)
        ivar = 1 / sqrtvar
        xhat = xmu * ivar
        out = gamma * xhat + beta
        running_mean = momentum * running_mean + (1 - momentum) * mu
        running_var = momentum * running_var + (1 - momentum) * var
        cache = (xhat, gamma, xmu, ivar, sqrtvar, var, eps)
    elif mode == "test":
        out = gamma * (x - running_mean) / np.sqrt(running_var + eps) + beta
    else:
        raise ValueError('Invalid forward batchnorm mode "%s"' % mode)
    bn_param["running_mean"], bn_param["running_var"] = running_mean, running_var
    return out, cache


@way("batchnorm_forward")
def batchnorm_folded(x, gamma, beta, bn_param):
    m, eps = bn_param.get("momentum", 0.9), bn_param.get("eps", 1e-5)
    if bn_param["mode"] == "train":
        mean, var = x.mean(0, keepdims=True), x.var(0, keepdims=True)
        bn_param["running_mean"] = m * bn_param.get("running_mean", 0) + (1 - m) * mean
        bn_param["running_var"] = m * bn_param.get("running_var", 0) + (1 - m) * var
    else: mean, var = bn_param["running_mean"], bn_param["running_var"]
    scale = gamma / (var + eps) ** 0.5
    return x * scale + (beta - mean * scale), {"x": x, "mean": mean, "var": var, "gamma": gamma, "eps": eps}


@way("batchnorm_forward")
def batchnorm_by_feature(x, gamma, beta, bn_param):
    eps, momentum, D = bn_param.get("eps", 1e-5), bn_param.get("momentum", 0.9), x.shape[1]
    mean, var = bn_param.setdefault("running_mean", np.zeros(D)), bn_param.setdefault("running_var", np.zeros(D))
    out, kept = np.empty(x.shape), []
    for d in range(D):
        mu, s2 = (np.mean(x[:, d]), np.mean((x[:, d] - np.mean(x[:, d])) ** 2)) if bn_param["mode"] == "train" else (mean[d], var[d])
        hat = (x[:, d] - mu) / math.sqrt(s2 + eps)
        out[:, d] = gamma[d] * hat + beta[d]
        kept.append((hat, math.sqrt(s2 + eps), gamma[d]))
        if bn_param["mode"] == "train": mean[d], var[d] = momentum * mean[d] + (1 - momentum) * mu, momentum * var[d] + (1 - momentum) * s2
    return out, kept


def batchnorm_back_steps(dout, cache):
    xhat, gamma, xmu, ivar, sqrtvar, var, eps = cache
    N, D = dout.shape
    dbeta = np.sum(dout, axis=0)
    dgamma = np.sum(dout * xhat, axis=0)
    dxhat = dout * gamma
    divar = np.sum(dxhat * xmu, axis=0)
    dxmu1 = dxhat * ivar
    dsqrtvar = -1.0 / (sqrtvar**2) * divar
    dvar = 0.5 * 1.0 / np.sqrt(var + eps) * dsqrtvar
    dsq = 1.0 / N * np.ones((N, D)) * dvar
    dxmu2 = 2 * xmu * dsq
    dx1 = dxmu1 + dxmu2
    dmu = -1 * np.sum(dx1, axis=0)
    dx2 = 1.0 / N * np.ones((N, D)) * dmu
    return dx1 + dx2, dgamma, dbeta


def batchnorm_back_paper(dout, cache):
    x, mean, var, gamma, eps = (cache[k] for k in ("x", "mean", "var", "gamma", "eps"))
    m, dhat = len(x), dout * gamma
    dvar = (dhat * (x - mean) * -0.5 * (var + eps) ** -1.5).sum(axis=0)
    dmean = (-dhat / np.sqrt(var + eps)).sum(axis=0) + dvar * (-2 * (x - mean)).sum(axis=0) / m
    dx = dhat / np.sqrt(var + eps) + dvar * 2 * (x - mean) / m + dmean / m
    return dx, (dout * (x - mean) / np.sqrt(var + eps)).sum(axis=0), dout.sum(axis=0)


def batchnorm_back_one_line(dout, cache):
    xhat, gamma, _, ivar, *_ = cache
    N = dout.shape[0]
    dbeta, dgamma = dout.sum(0), (xhat * dout).sum(0)
    return gamma * ivar / N * (N * dout - xhat * dgamma - dbeta), dgamma, dbeta


def batchnorm_back_jacobian(dout, cache):
    grads = []
    for d, (hat, std, gamma) in enumerate(cache):
        N = len(hat)
        J = (np.eye(N) - 1 / N - np.outer(hat, hat) / N) / std
        grads.append((gamma * J @ dout[:, d], hat @ dout[:, d], dout[:, d].sum()))
    dx, dgamma, dbeta = zip(*grads)
    return np.stack(dx, axis=1), np.array(dgamma), np.array(dbeta)


for name in ("batchnorm_backward", "batchnorm_backward_alt"):
    way(name, batchnorm_steps)(batchnorm_back_steps)
    way(name, batchnorm_folded)(batchnorm_back_paper)
    way(name, batchnorm_steps)(batchnorm_back_one_line)
    way(name, batchnorm_by_feature)(batchnorm_back_jacobian)


@way("layernorm_forward")
def layernorm_transposed(x, gamma, beta, ln_param):
    eps = ln_param.get("eps", 1e-5)
    x = x.T
    mu, var = np.mean(x, axis=0), np.var(x, axis=0)
    xhat = ((x - mu) / np.sqrt(var + eps)).T
    return gamma * xhat + beta, (xhat, gamma, np.sqrt(var + eps))


@way("layernorm_forward")
def layernorm_by_batchnorm(x, gamma, beta, ln_param):
    one = np.ones(len(x))
    hat, kept = batchnorm_forward(x.T, one, 0 * one, {"mode": "train", "eps": ln_param.get("eps", 1e-5)})
    return hat.T * gamma + beta, (kept, hat.T, gamma)


@way("layernorm_forward")
def layernorm_by_image(x, gamma, beta, ln_param):
    hats, stds = [], []
    for row in x:
        stds.append(np.sqrt(np.mean(row**2) - np.mean(row) ** 2 + ln_param.get("eps", 1e-5)))
        hats.append((row - row.mean()) / stds[-1])
    return np.array(hats) * gamma + beta, (np.array(hats), gamma, np.array(stds))


@way("layernorm_backward", layernorm_transposed)
def layernorm_back_means(dout, cache):
    xhat, gamma, std = cache
    dhat = dout * gamma
    dx = (dhat - dhat.mean(1, keepdims=True) - xhat * (dhat * xhat).mean(1, keepdims=True)) / std[:, None]
    return dx, np.sum(dout * xhat, axis=0), np.sum(dout, axis=0)


@way("layernorm_backward", layernorm_by_batchnorm)
def layernorm_back_by_batchnorm(dout, cache):
    kept, hat, gamma = cache
    dx, _, _ = batchnorm_backward((dout * gamma).T, kept)
    return dx.T, np.einsum("nd,nd->d", dout, hat), dout.sum(axis=0)


@way("layernorm_backward", layernorm_by_image)
def layernorm_back_loops(dout, cache):
    hats, gamma, stds = cache
    dx, dgamma, dbeta, D = np.zeros_like(dout), np.zeros_like(gamma), np.zeros_like(gamma), len(gamma)
    for n in range(len(dout)):
        dgamma += dout[n] * hats[n]
        dbeta += dout[n]
        g = gamma * dout[n]
        dx[n] = 1 / (D * stds[n]) * (D * g - np.sum(g) - hats[n] * np.dot(g, hats[n]))
    return dx, dgamma, dbeta


# ------------------------------------------------------------ convolution

@way("conv_output_size")
def size_by_formula(size, window, stride=1, pad=0): return 1 + (size + 2 * pad - window) // stride


@way("conv_output_size")
def size_by_counting(size, window, stride, pad): return len(range(0, size + 2 * pad - window + 1, stride))


@way("conv_output_size")
def size_by_float(size, window, stride=1, pad=0): return int(np.floor((size + 2.0 * pad - window) / stride)) + 1


@way("conv_output_size")
def size_by_walking(size, window, stride=1, pad=0):
    count, at = 0, -pad
    while at + window <= size + pad:
        count += 1
        at += stride
    return count


def framed(x, P): return np.pad(x, ((0, 0), (0, 0), (P, P), (P, P)), mode="constant")


@way("conv_forward_naive")
def conv_seven_loops(x, w, b, conv_param):
    stride, pad = conv_param["stride"], conv_param["pad"]
    N, C, H, W = x.shape
    F, _, HH, WW = w.shape
    H_out, W_out = int(1 + (H + 2 * pad - HH) / stride), int(1 + (W + 2 * pad - WW) / stride)
    x_pad = np.zeros((N, C, H + 2 * pad, W + 2 * pad))
    x_pad[:, :, pad : pad + H, pad : pad + W] = x
    out = np.zeros((N, F, H_out, W_out))
    for n in range(N):
        for f in range(F):
            for i in range(H_out):
                for j in range(W_out):
                    total = 0
                    for c in range(C):
                        for k in range(HH):
                            for m in range(WW):
                                total += x_pad[n, c, i * stride + k, j * stride + m] * w[f, c, k, m]
                    out[n, f, i, j] = total + b[f]
    return out, (x, w, b, conv_param)


@way("conv_forward_naive")
def conv_window_by_window(x, w, b, conv_param):
    S, P = conv_param["stride"], conv_param["pad"]
    padded, (F, _, HH, WW) = framed(x, P), w.shape
    rows, columns = range(0, padded.shape[2] - HH + 1, S), range(0, padded.shape[3] - WW + 1, S)
    out = np.zeros((len(x), F, len(rows), len(columns)), dtype=x.dtype)
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            out[:, :, i, j] = np.tensordot(padded[:, :, top : top + HH, left : left + WW], w, axes=([1, 2, 3], [1, 2, 3]))
    return out + b.reshape(1, F, 1, 1), (x, padded, w, b, conv_param)


@way("conv_forward_naive")
def conv_tap_by_tap(x, w, b, conv_param):
    S, P = conv_param["stride"], conv_param["pad"]
    padded, (F, _, HH, WW) = framed(x, P), w.shape
    H, W = (padded.shape[2] - HH) // S + 1, (padded.shape[3] - WW) // S + 1
    out = np.zeros((len(x), F, H, W)) + b[:, None, None]
    for i in range(HH):
        for j in range(WW):
            out += np.einsum("nchw,fc->nfhw", padded[:, :, i : i + S * H : S, j : j + S * W : S], w[:, :, i, j])
    return out, {"padded": padded, "w": w, "b": b, "S": S, "P": P, "shape": x.shape}


@way("conv_backward_naive")
def conv_back_window_by_window(dout, cache):
    x, w, b, conv_param = cache
    stride, pad = conv_param["stride"], conv_param["pad"]
    (N, F, H_out, W_out), (_, _, HH, WW) = dout.shape, w.shape
    x_pad = framed(x, pad)
    dx_pad, dw, db = np.zeros_like(x_pad), np.zeros_like(w), np.zeros_like(b)
    for n in range(N):
        for f in range(F):
            db[f] += dout[n, f].sum()
            for i in range(H_out):
                for j in range(W_out):
                    dw[f] += x_pad[n, :, i * stride : i * stride + HH, j * stride : j * stride + WW] * dout[n, f, i, j]
                    dx_pad[n, :, i * stride : i * stride + HH, j * stride : j * stride + WW] += w[f] * dout[n, f, i, j]
    return dx_pad[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]], dw, db


way("conv_backward_naive", conv_seven_loops)(conv_back_window_by_window)


@way("conv_backward_naive", conv_window_by_window)
def conv_back_all_images_at_once(dout, cache):
    x, padded, w, b, conv_param = cache
    S, P, HH, WW = conv_param["stride"], conv_param["pad"], *w.shape[2:]
    dpadded, dw = np.zeros(padded.shape), np.zeros(w.shape)
    for i, j in np.ndindex(dout.shape[2:]):
        here = np.s_[:, :, i * S : i * S + HH, j * S : j * S + WW]
        dpadded[here] += np.tensordot(dout[:, :, i, j], w, axes=1)
        dw += np.tensordot(dout[:, :, i, j].T, padded[here], axes=1)
    H, W = x.shape[2:]
    return dpadded[:, :, P:-P, P:-P] if P > 0 else dpadded, dw, np.sum(dout, axis=(0, 2, 3))


@way("conv_backward_naive", conv_tap_by_tap)
def conv_back_tap_by_tap(dout, cache):
    padded, w, S, P = (cache[k] for k in ("padded", "w", "S", "P"))
    H, W = dout.shape[2:]
    dpadded, dw = np.zeros_like(padded), np.empty_like(w)
    for i, j in np.ndindex(w.shape[2:]):
        here = (slice(None), slice(None), slice(i, i + S * H, S), slice(j, j + S * W, S))
        dw[:, :, i, j] = np.einsum("nfhw,nchw->fc", dout, padded[here])
        dpadded[here] += np.einsum("nfhw,fc->nchw", dout, w[:, :, i, j])
    return dpadded[:, :, P : P + cache["shape"][2], P : P + cache["shape"][3]], dw, dout.sum((0, 2, 3))


@way("conv_forward_im2col")
def im2col_by_view(x, w, b, conv_param):
    S, P = conv_param["stride"], conv_param["pad"]
    windows = sliding_window_view(framed(x, P), w.shape[2:], axis=(2, 3))[:, :, ::S, ::S]
    N, _, H, W = windows.shape[:4]
    rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(N * H * W, -1)
    return (rows @ w.reshape(len(w), -1).T + b).reshape(N, H, W, -1).transpose(0, 3, 1, 2), (x, w, b, conv_param)


@way("conv_forward_im2col")
def im2col_by_index(x, w, b, conv_param):
    S, P, (F, C, HH, WW) = conv_param["stride"], conv_param["pad"], w.shape
    padded = framed(x, P)
    H, W = (padded.shape[2] - HH) // S + 1, (padded.shape[3] - WW) // S + 1
    i0, j0, k = np.tile(np.repeat(np.arange(HH), WW), C), np.tile(np.arange(WW), HH * C), np.repeat(np.arange(C), HH * WW).reshape(-1, 1)
    i = i0.reshape(-1, 1) + S * np.repeat(np.arange(H), W).reshape(1, -1)
    j = j0.reshape(-1, 1) + S * np.tile(np.arange(W), H).reshape(1, -1)
    cols = padded[:, k, i, j].transpose(1, 2, 0).reshape(HH * WW * C, -1)
    out = w.reshape(F, -1) @ cols + b.reshape(-1, 1)
    return out.reshape(F, H, W, len(x)).transpose(3, 0, 1, 2), (x, w, b, conv_param, cols)


@way("conv_forward_im2col")
def im2col_by_strides(x, w, b, conv_param):
    S, P, (F, C, HH, WW) = conv_param["stride"], conv_param["pad"], w.shape
    padded = np.ascontiguousarray(framed(x, P))
    H, W = (padded.shape[2] - HH) // S + 1, (padded.shape[3] - WW) // S + 1
    n, c, h, v = padded.strides
    windows = as_strided(padded, (C, HH, WW, len(x), H, W), (c, h, v, n, S * h, S * v))
    cols = np.ascontiguousarray(windows).reshape(C * HH * WW, -1)
    out = w.reshape(F, -1).dot(cols) + b[:, None]
    return np.ascontiguousarray(out.reshape(F, len(x), H, W).transpose(1, 0, 2, 3)), (x, w, b, conv_param, cols)


# ------------------------------------------------------------ pooling

def pooled_size(x, p): return 1 + (x.shape[2] - p["pool_height"]) // p["stride"], 1 + (x.shape[3] - p["pool_width"]) // p["stride"]


@way("max_pool_forward_naive")
def pool_four_loops(x, pool_param):
    HH, WW, S = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    H_out, W_out = pooled_size(x, pool_param)
    out = np.zeros((*x.shape[:2], H_out, W_out))
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            for i in range(H_out):
                for j in range(W_out):
                    out[n, c, i, j] = np.max(x[n, c, i * S : i * S + HH, j * S : j * S + WW])
    return out, (x, pool_param)


@way("max_pool_forward_naive")
def pool_all_images(x, pool_param):
    HH, WW, S = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    out = np.stack([np.stack([x[:, :, i * S : i * S + HH, j * S : j * S + WW].max(axis=(2, 3)) for j in range(pooled_size(x, pool_param)[1])], -1)
                    for i in range(pooled_size(x, pool_param)[0])], -2)
    return out, (x, pool_param, out)


@way("max_pool_forward_naive")
def pool_by_view(x, pool_param):
    S = pool_param["stride"]
    windows = sliding_window_view(x, (pool_param["pool_height"], pool_param["pool_width"]), axis=(2, 3))[:, :, ::S, ::S]
    flat = windows.reshape(*windows.shape[:4], -1)
    return np.amax(flat, axis=-1), {"x": x, "pool_param": pool_param, "at": flat.argmax(-1)}


@way("max_pool_forward_naive")
def pool_tap_by_tap(x, pool_param):
    S, (H, W) = pool_param["stride"], pooled_size(x, pool_param)
    out = np.full((*x.shape[:2], H, W), -np.inf, dtype=x.dtype)
    for i in range(pool_param["pool_height"]):
        for j in range(pool_param["pool_width"]): np.maximum(out, x[:, :, i : i + S * H : S, j : j + S * W : S], out=out)
    return out, [x, pool_param]


@way("max_pool_backward_naive")
def pool_back_mask(dout, cache):
    x, pool_param = cache
    HH, WW, S = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    dx = np.zeros_like(x)
    for n, c, i, j in np.ndindex(*dout.shape):
        window = x[n, c, i * S : i * S + HH, j * S : j * S + WW]
        dx[n, c, i * S : i * S + HH, j * S : j * S + WW] += (window == window.max()) * dout[n, c, i, j]
    return dx


@way("max_pool_backward_naive", pool_all_images)
def pool_back_from_out(dout, cache):
    x, pool_param, out = cache
    HH, WW, S = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    dx = np.zeros(x.shape)
    for i in range(dout.shape[2]):
        for j in range(dout.shape[3]):
            window = x[:, :, i * S : i * S + HH, j * S : j * S + WW]
            dx[:, :, i * S : i * S + HH, j * S : j * S + WW] += (window == out[:, :, i : i + 1, j : j + 1]) * dout[:, :, i : i + 1, j : j + 1]
    return dx


@way("max_pool_backward_naive", pool_by_view)
def pool_back_add_at(dout, cache):
    x, p, at = cache["x"], cache["pool_param"], cache["at"]
    n, c, i, j = np.indices(dout.shape)
    dx = np.zeros_like(x)
    np.add.at(dx, (n, c, i * p["stride"] + at // p["pool_width"], j * p["stride"] + at % p["pool_width"]), dout)
    return dx


@way("max_pool_backward_naive", pool_four_loops)
def pool_back_unravel(dout, cache):
    x, pool_param = cache
    HH, WW, S = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    dx = x * 0
    for n in range(dout.shape[0]):
        for c in range(dout.shape[1]):
            for i in range(dout.shape[2]):
                for j in range(dout.shape[3]):
                    window = x[n, c, i * S : i * S + HH, j * S : j * S + WW]
                    r, s = np.unravel_index(window.argmax(), window.shape)
                    dx[n, c, i * S + r, j * S + s] += dout[n, c, i, j]
    return dx


# ------------------------------------------------------------ spatial norms

def as_rows(x): return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])


def as_images(rows, shape): return rows.reshape(shape[0], shape[2], shape[3], shape[1]).transpose(0, 3, 1, 2)


@way("spatial_batchnorm_forward")
def spatial_by_rows(x, gamma, beta, bn_param):
    out, cache = batchnorm_forward(as_rows(x), gamma, beta, bn_param)
    return as_images(out, x.shape), cache


@way("spatial_batchnorm_forward")
def spatial_by_swapping(x, gamma, beta, bn_param):
    N, C, H, W = x.shape
    flat = np.swapaxes(x, 0, 1).reshape(C, -1).T
    out, kept = batchnorm_steps(flat, gamma, beta, bn_param)
    return np.swapaxes(out.T.reshape(C, N, H, W), 0, 1), (kept, x.shape)


@way("spatial_batchnorm_forward")
def spatial_wide(x, gamma, beta, bn_param):
    C, eps, m = x.shape[1], bn_param.get("eps", 1e-5), bn_param.get("momentum", 0.9)
    wide = (1, C, 1, 1)
    mean, var = bn_param.get("running_mean", np.zeros(wide)), bn_param.get("running_var", np.zeros(wide))
    if bn_param["mode"] == "train":
        now, spread = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
        bn_param.update(running_mean=m * mean + (1 - m) * now, running_var=m * var + (1 - m) * spread)
        mean, var = now, spread
    hat = (x - mean) / np.sqrt(var + eps)
    return gamma.reshape(wide) * hat + beta.reshape(wide), (hat, gamma.reshape(wide), np.sqrt(var + eps))


@way("spatial_batchnorm_backward", spatial_by_rows)
def spatial_back_by_rows(dout, cache):
    dx, dgamma, dbeta = batchnorm_backward(as_rows(dout), cache)
    return as_images(dx, dout.shape), dgamma, dbeta


@way("spatial_batchnorm_backward", spatial_by_swapping)
def spatial_back_by_swapping(dout, cache):
    kept, (N, C, H, W) = cache
    dx, dgamma, dbeta = batchnorm_back_one_line(np.swapaxes(dout, 0, 1).reshape(C, -1).T, kept)
    return np.swapaxes(dx.T.reshape(C, N, H, W), 0, 1), dgamma, dbeta


@way("spatial_batchnorm_backward", spatial_wide)
def spatial_back_wide(dout, cache):
    hat, gamma, std = cache
    axes, wide = (0, 2, 3), {"axis": (0, 2, 3), "keepdims": True}
    dhat = dout * gamma
    dx = (dhat - dhat.mean(**wide) - hat * (dhat * hat).mean(**wide)) / std
    return dx, (dout * hat).sum(axis=axes), dout.sum(axis=axes)


@way("spatial_groupnorm_forward")
def group_five_axes(x, gamma, beta, G, gn_param):
    N, C, H, W = x.shape
    grouped = x.reshape(N, G, C // G, H, W)
    mean, var = grouped.mean(axis=(2, 3, 4), keepdims=True), grouped.var(axis=(2, 3, 4), keepdims=True)
    std = np.sqrt(var + gn_param.get("eps", 1e-5))
    hat = ((grouped - mean) / std).reshape(x.shape)
    return gamma * hat + beta, (G, hat, std, gamma)


@way("spatial_groupnorm_forward")
def group_by_layernorm(x, gamma, beta, G, gn_param):
    rows = x.reshape(len(x) * G, -1)
    hat, kept = layernorm_forward(rows, np.ones(rows.shape[1]), np.zeros(rows.shape[1]), gn_param)
    hat = hat.reshape(x.shape)
    return hat * gamma.reshape(1, -1, 1, 1) + beta.reshape(1, -1, 1, 1), {"rows": kept, "hat": hat, "gamma": gamma, "G": G}


@way("spatial_groupnorm_forward")
def group_by_loops(x, gamma, beta, G, gn_param):
    out, hat, std, k = np.zeros(x.shape), np.zeros(x.shape), np.zeros((len(x), G)), x.shape[1] // G
    for n in range(len(x)):
        for g in range(G):
            part = x[n, g * k : (g + 1) * k]
            std[n, g] = np.sqrt(part.var() + gn_param.get("eps", 1e-5))
            hat[n, g * k : (g + 1) * k] = (part - part.mean()) / std[n, g]
    for c in range(x.shape[1]): out[:, c] = gamma.flatten()[c] * hat[:, c] + beta.flatten()[c]
    return out, (hat, std, gamma.flatten(), G)


@way("spatial_groupnorm_backward", group_five_axes)
def group_back_five_axes(dout, cache):
    G, hat, std, gamma = cache
    N, C, H, W = dout.shape
    dgamma, dbeta = np.sum(dout * hat, axis=(0, 2, 3), keepdims=True), np.sum(dout, axis=(0, 2, 3), keepdims=True)
    dhat, hat = (dout * gamma).reshape(N, G, -1, H, W), hat.reshape(N, G, -1, H, W)
    M = C // G * H * W
    over = {"axis": (2, 3, 4), "keepdims": True}
    dx = 1 / (M * std) * (M * dhat - dhat.sum(**over) - hat * (dhat * hat).sum(**over))
    return dx.reshape(dout.shape), dgamma, dbeta


@way("spatial_groupnorm_backward", group_by_layernorm)
def group_back_by_layernorm(dout, cache):
    dhat = dout * cache["gamma"].reshape(1, -1, 1, 1)
    dx, _, _ = layernorm_backward(dhat.reshape(len(dout) * cache["G"], -1), cache["rows"])
    dgamma = np.einsum("nchw,nchw->c", dout, cache["hat"])
    return dx.reshape(dout.shape), dgamma.reshape(cache["gamma"].shape), dout.sum((0, 2, 3)).reshape(cache["gamma"].shape)


@way("spatial_groupnorm_backward", group_by_loops)
def group_back_by_loops(dout, cache):
    hat, std, gamma, G = cache
    dx, k = np.zeros(dout.shape), dout.shape[1] // G
    for n in range(len(dout)):
        for g in range(G):
            part = slice(g * k, (g + 1) * k)
            d, h = dout[n, part] * gamma[part, None, None], hat[n, part]
            dx[n, part] = (d - d.mean() - h * np.mean(d * h)) / std[n, g]
    return dx, (dout * hat).sum(axis=(0, 2, 3)), dout.sum(axis=(0, 2, 3))


# ------------------------------------------------------------ update rules

@way("sgd")
def sgd_in_place(w, dw, config=None):
    if config is None: config = {}
    config.setdefault("learning_rate", 1e-2)
    w -= config["learning_rate"] * dw
    return w, config


@way("sgd")
def sgd_new_array(w, dw, config=None):
    config = config or {}
    return w - config.get("learning_rate", 0.01) * dw, config


@way("sgd")
def sgd_entry_by_entry(w, dw, config=None):
    config = {"learning_rate": 1e-2, **(config or {})}
    next_w = np.empty(w.shape)
    for i in np.ndindex(w.shape): next_w[i] = w[i] - config["learning_rate"] * dw[i]
    return next_w, config


@way("sgd_momentum")
def momentum_course(w, dw, config=None):
    if config is None: config = {}
    config.setdefault("learning_rate", 1e-2)
    config.setdefault("momentum", 0.9)
    v = config.get("velocity", np.zeros_like(w))
    v = config["momentum"] * v - config["learning_rate"] * dw
    next_w = w + v
    config["velocity"] = v
    return next_w, config


@way("sgd_momentum")
def momentum_in_place(w, dw, config=None):
    config = {} if config is None else config
    v = config.setdefault("velocity", np.zeros(w.shape))
    v *= config.get("momentum", 0.9)
    v -= config.get("learning_rate", 1e-2) * dw
    w += v.astype(w.dtype)
    return w, config


@way("sgd_momentum")
def momentum_list(w, dw, config=None):
    defaults = {"learning_rate": 1e-2, "momentum": 0.9, "velocity": 0.0}
    config = {**defaults, **(config or {})}
    config["velocity"] = -(config["learning_rate"] * dw - config["momentum"] * config["velocity"])
    return [w + config["velocity"], config]


@way("rmsprop")
def rmsprop_course(w, dw, config=None):
    if config is None: config = {}
    for key, value in (("learning_rate", 1e-2), ("decay_rate", 0.99), ("epsilon", 1e-8), ("cache", np.zeros_like(w))): config.setdefault(key, value)
    config["cache"] = config["decay_rate"] * config["cache"] + (1 - config["decay_rate"]) * dw**2
    return w - config["learning_rate"] * dw / (np.sqrt(config["cache"]) + config["epsilon"]), config


@way("rmsprop")
def rmsprop_moving(w, dw, config=None):
    config = config if config is not None else dict()
    lr, rate, eps = config.get("learning_rate", 1e-2), config.get("decay_rate", 0.99), config.get("epsilon", 1e-8)
    cache = config.get("cache", 0)
    cache = cache + (1 - rate) * (np.square(dw) - cache)
    config["cache"] = cache
    return w + -lr * np.divide(dw, cache**0.5 + eps), config


@way("rmsprop")
def rmsprop_in_place(w, dw, config=None):
    config = {"learning_rate": 1e-2, "decay_rate": 0.99, "epsilon": 1e-8, "cache": np.zeros(w.shape)} | (config or {})
    config["cache"] *= config["decay_rate"]
    config["cache"] += (1 - config["decay_rate"]) * (dw * dw)
    w -= (config["learning_rate"] * dw / (np.sqrt(config["cache"]) + config["epsilon"])).astype(w.dtype)
    return w, config


@way("adam")
def adam_course(w, dw, config=None):
    if config is None: config = {}
    for key, value in (("learning_rate", 1e-3), ("beta1", 0.9), ("beta2", 0.999), ("epsilon", 1e-8), ("m", np.zeros_like(w)), ("v", np.zeros_like(w)), ("t", 0)):
        config.setdefault(key, value)
    config["t"] += 1
    config["m"] = config["beta1"] * config["m"] + (1 - config["beta1"]) * dw
    config["v"] = config["beta2"] * config["v"] + (1 - config["beta2"]) * (dw**2)
    mt, vt = config["m"] / (1 - config["beta1"] ** config["t"]), config["v"] / (1 - config["beta2"] ** config["t"])
    return w - config["learning_rate"] * mt / (np.sqrt(vt) + config["epsilon"]), config


@way("adam")
def adam_in_place(w, dw, config=None):
    config = {} if config is None else config
    b1, b2 = config.get("beta1", 0.9), config.get("beta2", 0.999)
    m, v, t = config.get("m", np.zeros(w.shape)), config.get("v", np.zeros(w.shape)), config.get("t", 0) + 1
    m += (1 - b1) * (dw - m)
    v += (1 - b2) * (dw * dw - v)
    config["m"], config["v"], config["t"] = m, v, t
    w -= (config.get("learning_rate", 1e-3) * (m / (1 - np.power(b1, t))) / (np.sqrt(v / (1 - np.power(b2, t))) + config.get("epsilon", 1e-8))).astype(w.dtype)
    return w, config


@way("adam")
def adam_corrections_first(w, dw, config=None):
    c = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "m": 0.0, "v": 0.0, "t": 0} | (config or {})
    t = c["t"] + 1
    first, second = 1 - c["beta1"] ** t, np.sqrt(1 - c["beta2"] ** t)
    m, v = c["beta1"] * c["m"] + (1 - c["beta1"]) * dw, c["beta2"] * c["v"] + (1 - c["beta2"]) * dw * dw
    return w - c["learning_rate"] * second / first * m / (v**0.5 + second * c["epsilon"]), c | {"m": m, "v": v, "t": t}


# ------------------------------------------------------------ nets

@way("TwoLayerNet")
class TwoLayersByLayers:
    def __init__(self, input_dim=3 * 32 * 32, hidden_dim=100, num_classes=10, weight_scale=1e-3, reg=0.0):
        self.params, self.reg = {}, reg
        self.params["W1"] = np.random.normal(0, weight_scale, (input_dim, hidden_dim))
        self.params["b1"] = np.zeros(hidden_dim)
        self.params["W2"] = np.random.normal(0, weight_scale, (hidden_dim, num_classes))
        self.params["b2"] = np.zeros(num_classes)

    def loss(self, X, y=None):
        W1, b1, W2, b2 = (self.params[n] for n in ("W1", "b1", "W2", "b2"))
        hidden, hidden_cache = affine_relu_forward(X, W1, b1)
        scores, cache = affine_forward(hidden, W2, b2)
        if y is None: return scores
        loss, dscores = softmax_loss(scores, y)
        loss += 0.5 * self.reg * (np.sum(W1 * W1) + np.sum(W2 * W2))
        grads = {}
        dhidden, grads["W2"], grads["b2"] = affine_backward(dscores, cache)
        _, grads["W1"], grads["b1"] = affine_relu_backward(dhidden, hidden_cache)
        grads["W1"] += self.reg * W1
        grads["W2"] += self.reg * W2
        return loss, grads


@way("TwoLayerNet")
class TwoLayersByHand:
    def __init__(self, input_dim=3072, hidden_dim=100, num_classes=10, weight_scale=1e-3, reg=0.0):
        self.D, self.M, self.C, self.reg = input_dim, hidden_dim, num_classes, reg
        self.params = dict(b2=np.zeros(num_classes), b1=np.zeros((hidden_dim,)), W2=np.random.randn(hidden_dim, num_classes) * weight_scale, W1=np.random.randn(input_dim, hidden_dim) * weight_scale)

    def loss(self, X, y=None):
        p, rows = self.params, X.reshape(X.shape[0], -1)
        h = np.maximum(rows @ p["W1"] + p["b1"], 0)
        scores = h @ p["W2"] + p["b2"]
        if y is None: return scores
        loss, d = softmax_shifted(scores, y)
        dh = d @ p["W2"].T
        dh[h == 0] = 0
        grads = {"W2": h.T @ d + self.reg * p["W2"], "b2": d.sum(0), "W1": rows.T @ dh + self.reg * p["W1"], "b1": dh.sum(0)}
        return loss + 0.5 * self.reg * sum(np.linalg.norm(p[n]) ** 2 for n in ("W1", "W2")), grads


@way("TwoLayerNet")
class TwoLayersInAList(TwoLayersByLayers):
    def loss(self, X, y=None):
        caches, out = [], X
        for forward, k in ((affine_forward, 1), (relu_forward, None), (affine_forward, 2)):
            out, cache = forward(out, self.params[f"W{k}"], self.params[f"b{k}"]) if k else forward(out)
            caches.append(cache)
        if y is None: return out
        loss, d = softmax_row_by_row(out, y)
        grads = {}
        d, grads["W2"], grads["b2"] = affine_back_einsum(d, caches.pop())
        d = relu_back_copy(d, caches.pop())
        _, grads["W1"], grads["b1"] = affine_back_einsum(d, caches.pop())
        for n in grads:
            if "W" in n:
                grads[n] = grads[n] + self.reg * self.params[n]
                loss += self.reg / 2 * (self.params[n] ** 2).sum()
        return loss, grads


@way("FullyConnectedNet")
class DeepInDictionaries:
    def __init__(self, hidden_dims, input_dim=3 * 32 * 32, num_classes=10, dropout_keep_ratio=1, normalization=None, reg=0.0, weight_scale=1e-2, dtype=np.float32, seed=None):
        self.normalization, self.use_dropout, self.reg, self.num_layers, self.dtype, self.params = normalization, dropout_keep_ratio != 1, reg, 1 + len(hidden_dims), dtype, {}
        dims = [input_dim, *hidden_dims, num_classes]
        for k in range(1, self.num_layers + 1):
            self.params["W" + str(k)] = weight_scale * np.random.randn(dims[k - 1], dims[k])
            self.params["b" + str(k)] = np.zeros(dims[k])
            if normalization is not None and k < self.num_layers:
                self.params["gamma" + str(k)], self.params["beta" + str(k)] = np.ones(dims[k]), np.zeros(dims[k])
        self.dropout_param = {"mode": "train", "p": dropout_keep_ratio} | ({"seed": seed} if seed is not None else {})
        self.bn_params = [{"mode": "train"} for _ in hidden_dims]
        for n, v in self.params.items(): self.params[n] = v.astype(dtype)

    def loss(self, X, y=None):
        mode = "test" if y is None else "train"
        for param in (self.dropout_param, *self.bn_params): param["mode"] = mode
        out, cache = X.astype(self.dtype), {}
        for k in range(1, self.num_layers):
            out, cache["affine", k] = affine_forward(out, self.params[f"W{k}"], self.params[f"b{k}"])
            norm = {"batchnorm": batchnorm_forward, "layernorm": layernorm_forward}.get(self.normalization)
            if norm: out, cache["norm", k] = norm(out, self.params[f"gamma{k}"], self.params[f"beta{k}"], self.bn_params[k - 1])
            out, cache["relu", k] = relu_forward(out)
            if self.use_dropout: out, cache["dropout", k] = dropout_forward(out, self.dropout_param)
        scores, last = affine_forward(out, self.params[f"W{self.num_layers}"], self.params[f"b{self.num_layers}"])
        if mode == "test": return scores
        loss, d = softmax_loss(scores, y)
        grads = {}
        d, grads[f"W{self.num_layers}"], grads[f"b{self.num_layers}"] = affine_backward(d, last)
        for k in range(self.num_layers - 1, 0, -1):
            if self.use_dropout: d = dropout_backward(d, cache["dropout", k])
            d = relu_backward(d, cache["relu", k])
            back = {"batchnorm": batchnorm_backward, "layernorm": layernorm_backward}.get(self.normalization)
            if back: d, grads[f"gamma{k}"], grads[f"beta{k}"] = back(d, cache["norm", k])
            d, grads[f"W{k}"], grads[f"b{k}"] = affine_backward(d, cache["affine", k])
        for k in range(1, self.num_layers + 1):
            loss += 0.5 * self.reg * np.sum(self.params[f"W{k}"] ** 2)
            grads[f"W{k}"] += self.reg * self.params[f"W{k}"]
        return loss, grads


@way("FullyConnectedNet")
class DeepOlderNames(DeepInDictionaries):
    "As the course had it for some years: the option is called dropout."
    def __init__(self, hidden_dims, input_dim=3072, num_classes=10, dropout=1, normalization=None, reg=0.0, weight_scale=1e-2, dtype=np.float32, seed=None):
        super().__init__(hidden_dims, input_dim, num_classes, dropout, normalization, reg, weight_scale, dtype, seed)


@way("FullyConnectedNet")
class DeepWithClosures(DeepInDictionaries):
    "Each layer leaves behind a function that takes it back."
    def loss(self, X, y=None):
        p, back, grads, out = self.params, [], {}, np.array(X, dtype=self.dtype)
        def affine(out, k):
            out, cache = affine_rows(out, p[f"W{k}"], p[f"b{k}"])
            def take_back(d):
                d, grads[f"W{k}"], grads[f"b{k}"] = affine_back_einsum(d, cache)
                grads[f"W{k}"] += self.reg * p[f"W{k}"]
                return d
            back.append(take_back)
            return out
        def norm(out, k):
            forward, backward = (batchnorm_steps, batchnorm_back_steps) if self.normalization == "batchnorm" else (layernorm_transposed, layernorm_back_means)
            self.bn_params[k - 1]["mode"] = "test" if y is None else "train"
            out, cache = forward(out, p[f"gamma{k}"], p[f"beta{k}"], self.bn_params[k - 1])
            def take_back(d):
                d, grads[f"gamma{k}"], grads[f"beta{k}"] = backward(d, cache)
                return d
            back.append(take_back)
            return out
        for k in range(1, self.num_layers):
            out = affine(out, k)
            if self.normalization: out = norm(out, k)
            back.append(lambda d, mask=out > 0: d * mask)
            out = out * (out > 0)
            if self.use_dropout and y is not None:
                out, cache = dropout_rand(out, self.dropout_param | {"mode": "train"})
                back.append(lambda d, cache=cache: dropout_back(d, cache))
        out = affine(out, self.num_layers)
        if y is None: return out
        loss, d = softmax_probabilities(out, y)
        while back: d = back.pop()(d)
        return loss + sum(0.5 * self.reg * np.sum(p[n] * p[n]) for n in p if n.startswith("W")), grads


@way("ThreeLayerConvNet")
class ConvNetByLayers:
    def __init__(self, input_dim=(3, 32, 32), num_filters=32, filter_size=7, hidden_dim=100, num_classes=10, weight_scale=1e-3, reg=0.0, dtype=np.float32):
        self.params, self.reg, self.dtype = {}, reg, dtype
        C, H, W = input_dim
        self.params["W1"] = np.random.normal(0.0, weight_scale, size=(num_filters, C, filter_size, filter_size))
        self.params["b1"] = np.zeros(num_filters)
        self.params["W2"] = np.random.normal(0.0, weight_scale, size=(num_filters * (H // 2) * (W // 2), hidden_dim))
        self.params["b2"] = np.zeros(hidden_dim)
        self.params["W3"] = np.random.normal(0.0, weight_scale, size=(hidden_dim, num_classes))
        self.params["b3"] = np.zeros(num_classes)
        for k, v in self.params.items(): self.params[k] = v.astype(dtype)

    def loss(self, X, y=None):
        W1, b1, W2, b2, W3, b3 = (self.params[n] for n in ("W1", "b1", "W2", "b2", "W3", "b3"))
        conv_param, pool_param = {"stride": 1, "pad": (W1.shape[2] - 1) // 2}, {"pool_height": 2, "pool_width": 2, "stride": 2}
        a, c1 = conv_relu_pool_forward(X, W1, b1, conv_param, pool_param)
        h, c2 = affine_relu_forward(a, W2, b2)
        scores, c3 = affine_forward(h, W3, b3)
        if y is None: return scores
        loss, d = softmax_loss(scores, y)
        loss += 0.5 * self.reg * (np.sum(W1**2) + np.sum(W2**2) + np.sum(W3**2))
        grads = {}
        d, grads["W3"], grads["b3"] = affine_backward(d, c3)
        d, grads["W2"], grads["b2"] = affine_relu_backward(d, c2)
        _, grads["W1"], grads["b1"] = conv_relu_pool_backward(d, c1)
        for n in ("W1", "W2", "W3"): grads[n] += self.reg * self.params[n]
        return loss, grads


@way("ThreeLayerConvNet")
class ConvNetByHand(ConvNetByLayers):
    def loss(self, X, y=None):
        p = self.params
        pool_param = {"pool_height": 2, "pool_width": 2, "stride": 2}
        a, c1 = conv_tap_by_tap(X.astype(self.dtype), p["W1"], p["b1"], {"stride": 1, "pad": (p["W1"].shape[2] - 1) // 2})
        r, c2 = pool_all_images(np.maximum(a, 0), pool_param)
        h, c3 = affine_loops(r, p["W2"], p["b2"])
        scores, c4 = affine_tensordot(np.maximum(h, 0), p["W3"], p["b3"])
        if y is None: return scores
        loss, d = softmax_logaddexp(scores, y)
        g = {"W3": np.maximum(h, 0).T @ d, "b3": d.sum(0)}
        d = d @ p["W3"].T * (h > 0)
        dr, g["W2"], g["b2"] = affine_back_list(d, c3)
        da = pool_back_mask(dr, (np.maximum(a, 0), pool_param)) * (a > 0)
        _, g["W1"], g["b1"] = conv_back_tap_by_tap(da, c1)
        penalty = 0
        for n in "W1 W2 W3".split():
            penalty += (p[n] ** 2).sum()
            g[n] = g[n] + self.reg * p[n]
        return loss + self.reg * penalty * 0.5, g


@way("ThreeLayerConvNet")
class ConvNetWithGenerator(ConvNetByLayers):
    "Its own generator, other layers, gradients in another order."
    def __init__(self, input_dim=(3, 32, 32), num_filters=32, filter_size=7, hidden_dim=100, num_classes=10, weight_scale=1e-3, reg=0.0, dtype=np.float32, **more):
        draw, (C, H, W) = np.random.default_rng(3), input_dim
        shapes = {"W3": (hidden_dim, num_classes), "W2": (num_filters * H * W // 4, hidden_dim), "W1": (num_filters, C, filter_size, filter_size)}
        self.reg, self.dtype = reg, dtype
        self.params = {n: draw.normal(scale=weight_scale, size=s).astype(dtype) for n, s in shapes.items()} | {"b1": np.zeros(num_filters, dtype), "b2": np.zeros(hidden_dim, dtype), "b3": np.zeros(num_classes, dtype)}

    def loss(self, X, y=None):
        result = super().loss(X, y)
        if y is None: return result
        loss, grads = result
        return float(loss), dict(reversed(list(grads.items())))
