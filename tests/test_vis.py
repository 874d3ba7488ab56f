"""Pictures: what they show is what the layers compute, wrong input is refused in words, and nothing heavy is imported early."""
import io

import imageio.v3 as iio
import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")
import matplotlib.pyplot as plt

from cs231n_lit import vis_utils as vu
from cs231n_lit.convolution import conv_backward_naive, conv_forward_naive
from cs231n_lit.pooling import max_pool_backward_naive, max_pool_forward_naive


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture
def shown(monkeypatch):
    "The arrays of each frame, by title, instead of pictures."
    frames = []
    monkeypatch.setattr(vu, "_equation", lambda figure, parts, *_, **__: frames.append({p[0]: np.array(p[1]) for p in parts if isinstance(p, tuple)}))
    def film(draw, count, *_, **__):
        for k in range(count): draw(matplotlib.figure.Figure(), k)
    monkeypatch.setattr(vu, "film", film)
    return frames


def whole(*arrays):
    return [a[None, None].astype(float) for a in arrays]


@pytest.mark.parametrize("stride, pad, w_shape", [(1, 0, (3, 3)), (1, 1, (2, 3)), (2, 1, (3, 2)), (3, 0, (1, 1))])
def test_animated_convolution_is_the_layer(shown, stride, pad, w_shape):
    rng = np.random.default_rng(0)
    x, w = rng.integers(-3, 4, (5, 6)), rng.integers(-2, 3, w_shape)
    vu.animate_convolution(x, w, stride, pad)
    out, cache = conv_forward_naive(*whole(x, w), np.zeros(1), {"stride": stride, "pad": pad})
    assert len(shown) == out.size
    assert np.array_equal(shown[-1]["their sums"], out[0, 0])
    assert np.isnan(shown[0]["their sums"]).sum() == out.size - 1
    assert all(np.nansum(f["products"]) == v for f, v in zip(shown, out[0, 0].flat))

    shown.clear()
    dout = rng.integers(-2, 3, out.shape[2:])
    vu.animate_conv_backward(x, w, dout, stride, pad)
    dx, dw, _ = conv_backward_naive(*whole(dout), cache)
    H, W = x.shape
    assert np.array_equal(shown[-1]["dx"][pad:pad + H, pad:pad + W], dx[0, 0])
    assert np.array_equal(shown[-1]["dw"], dw[0, 0])


@pytest.mark.parametrize("pool, stride", [((2, 2), 2), ((3, 3), 2), ((2, 3), 1)])
def test_animated_pooling_is_the_layer(shown, pool, stride):
    x = np.random.default_rng(1).integers(0, 4, (5, 5))  # many ties
    out, cache = max_pool_forward_naive(*whole(x), {"pool_height": pool[0], "pool_width": pool[1], "stride": stride})
    dout = np.arange(1, out.size + 1).reshape(out.shape[2:])
    vu.animate_max_pool(x, dout, pool, stride)
    assert np.array_equal(shown[-1]["out"], out[0, 0])
    assert np.array_equal(shown[-1]["dx"], max_pool_backward_naive(*whole(dout), cache)[0, 0])


def test_animations_are_small_gifs_that_loop():
    gif = vu.animate_convolution(np.eye(5), np.ones((3, 3))).gif
    assert len(gif) < 300_000
    frames = iio.imread(io.BytesIO(gif), extension=".gif", index=None)
    assert frames.shape[0] == 9 and frames.shape[-1] == 3
    assert iio.immeta(io.BytesIO(gif), extension=".gif")["loop"] == 0


def test_animation_is_shown_and_saved(tmp_path):
    a = vu.animate([np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)], alt='black & "white"')
    assert a._repr_html_().startswith('<img src="data:image/gif;base64,') and 'alt="black &amp; &quot;white&quot;"' in a._repr_html_()
    a.save(tmp_path / "a.gif")
    assert (tmp_path / "a.gif").read_bytes() == a.gif and a.gif[:4] == b"GIF8"


def test_grid_by_definition():
    rng = np.random.default_rng(2)
    X = rng.normal(size=(5, 3, 4, 2))
    grid = vu.visualize_grid(X, ubound=10.0, padding=2)
    assert grid.shape == (3 * 3 + 4, 3 * 4 + 4, 2)
    for n in range(5):
        r, c = n // 3 * 5, n % 3 * 6
        assert np.allclose(grid[r:r + 3, c:c + 4], 10 * (X[n] - X[n].min()) / (X[n].max() - X[n].min()))
    assert grid[3:5].sum() == 0 and grid[10:, 12:].sum() == 0


@pytest.mark.parametrize("X", [np.full((4, 2, 2, 3), 7.0), np.zeros((1, 1, 1, 1)), np.arange(12).reshape(1, 2, 2, 3), np.ones((3, 2, 2, 1), ">f4"),
                               np.asfortranarray(np.random.default_rng(0).random((2, 3, 3, 3)))])
def test_grid_stays_in_its_range(X):
    before = X.copy()
    with np.errstate(all="raise"):
        grid = vu.visualize_grid(X)
    assert np.isfinite(grid).all() and grid.min() >= 0 and grid.max() <= 255.0001
    assert np.array_equal(X, before)


def test_show_functions_draw_once_and_return_nothing():
    class run: loss_history, train_acc_history, val_acc_history = [2, 1], [0.1, 0.5], [0.1, 0.4]
    for show in (lambda: vu.show_matrix([[1, np.nan], [-3, 0]], highlight=[(0, 0, 1, 2), (1, 1, 1, 1, "red")]),
                 lambda: vu.show_matrix([1.5, 2]), lambda: vu.show_matrix(np.zeros((2, 2))),
                 lambda: vu.show_equation(("a", [[1, 2]]), "+", [[3, 4]], "=", ("c", [[4, 6]]), highlight={"c": [(0, 0, 1, 1)]}),
                 lambda: vu.show_images([np.zeros((4, 4)), np.ones((3, 4, 4)), np.zeros((4, 4, 3), np.uint8)], ["a", "b"], columns=2),
                 lambda: vu.show_filters(np.random.default_rng(0).random((5, 1, 3, 3))),
                 lambda: vu.plot_history(run), lambda: vu.plot_history({"a": run, "b": run})):
        before = len(plt.get_fignums())
        assert show() is None
        assert len(plt.get_fignums()) == before + 1
        plt.gcf().canvas.draw()


def test_matrix_says_its_numbers():
    vu.show_matrix([[1, -2.5], [np.nan, 0.0]])
    assert [t.get_text() for t in plt.gca().texts] == ["1", "\u22122.5", "", "0"]


def test_curves_are_the_histories():
    class run: loss_history, train_acc_history, val_acc_history = [3.0, 2.0, 1.0], [0.1, 0.6], [0.2, 0.4]
    vu.plot_history(run)
    loss, accuracy = plt.gcf().axes
    assert loss.lines[0].get_ydata().tolist() == [3, 2, 1] and loss.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert {line.get_label(): list(line.get_ydata()) for line in accuracy.lines} == {"training": [0.1, 0.6], "validation": [0.2, 0.4]}
    assert loss.get_xlabel() == "iteration" and accuracy.get_ylabel() == "accuracy"


@pytest.mark.parametrize("call, error, words", [
    (lambda: vu.visualize_grid(np.zeros((2, 3, 3))), ValueError, r"Xs needs 4 axes \(N, H, W, C\) but has 3"),
    (lambda: vu.visualize_grid(np.zeros((0, 3, 3, 3))), ValueError, r"at least one image with at least one pixel; Xs is \(0, 3, 3, 3\)"),
    (lambda: vu.visualize_grid(np.zeros((2, 0, 3, 3))), ValueError, "at least one pixel"),
    (lambda: vu.visualize_grid(np.zeros((2, 2, 3, 3)), padding=-1), ValueError, "padding needs to be at least 0; got -1"),
    (lambda: vu.visualize_grid("no"), TypeError, "Xs needs real numbers"),
    (lambda: vu.show_filters(np.zeros((2, 5, 3, 3))), ValueError, r"needs 1 or 3 channels .* has 5"),
    (lambda: vu.show_filters(np.zeros((2, 3, 3))), ValueError, "w needs 4 axes"),
    (lambda: vu.show_matrix(np.zeros((2, 2, 2))), ValueError, r"a needs 2 axes \(H, W\) but has 3"),
    (lambda: vu.show_images([np.zeros(4)]), ValueError, r"an image needs the shape .* got \(4,\)"),
    (lambda: vu.show_images([]), ValueError, "images needs at least one image; got none"),
    (lambda: vu.animate([]), ValueError, "frames needs 1 to 40 pictures; got 0"),
    (lambda: vu.film(None, 0), ValueError, "count needs to be at least 1; got 0"),
    (lambda: vu.animate_filters([np.zeros((2, 3))]), ValueError, "w needs 4 axes"),
    (lambda: vu.animate_convolution(np.eye(2), np.eye(3)), ValueError, "window of 3 x 3 does not fit into x, 2 x 2 with padding 0"),
    (lambda: vu.animate_convolution(np.eye(4), np.eye(3), stride=0), ValueError, "stride needs to be at least 1; got 0"),
    (lambda: vu.animate_convolution(np.zeros((1, 4, 4)), np.eye(3)), ValueError, r"x needs 2 axes \(H, W\) but has 3"),
    (lambda: vu.animate_convolution(np.zeros((20, 20)), np.eye(3)), ValueError, "count is 324, but a page has room for at most 40 frames"),
    (lambda: vu.animate_conv_backward(np.eye(4), np.eye(3), np.eye(3)), ValueError, r"dout needs the output's shape \(2, 2\) but is \(3, 3\)"),
    (lambda: vu.animate_max_pool(np.eye(4), np.eye(3)), ValueError, r"dout needs the output's shape \(2, 2\) but is \(3, 3\)"),
    (lambda: vu.animate_max_pool(np.eye(4), np.eye(1), (5, 5)), ValueError, "window of 5 x 5 does not fit"),
])
def test_wrong_input_is_refused_in_words(call, error, words):
    with pytest.raises(error, match=words):
        call()
