"""Flips and shifts: what they draw and how often, what they leave alone, and that a run with them goes on to the last bit."""
import numpy as np
import pytest

from cs231n_lit.classifiers.cnn import ThreeLayerConvNet
from cs231n_lit.solver import Solver, augment
from test_resume import check, small


def moved(image, down, right):
    "An image moved by so many pixels, zeros moving in."
    out, (_, H, W) = np.zeros_like(image), image.shape
    out[:, max(0, down):H + min(0, down), max(0, right):W + min(0, right)] = image[:, max(0, -down):H - max(0, down), max(0, -right):W - max(0, right)]
    return out


def ways(image, shift, flips):
    "All that can become of an image, by (mirrored, down, right)."
    steps = range(-shift, shift + 1)
    return {(flip, down, right): moved(image[..., ::-1] if flip else image, down, right) for flip in flips for down in steps for right in steps}


@pytest.mark.parametrize("flip, shift", [(True, 0), (False, 1), (False, 2), (True, 2), (True, 3)])
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 5, 4), (2, 4, 7)])
def test_each_way_is_drawn_equally_often(flip, shift, shape):
    "Every mirrored and moved picture comes up as often as the others, no other comes up, and what moves in is zero."
    image = np.arange(1., 1 + np.prod(shape)).reshape(shape)
    expected = ways(image, shift, (False, True) if flip else (False,))
    N = 400 * len(expected)
    drawn = augment(np.repeat(image[None], N, axis=0), flip, shift, np.random.default_rng(0))
    names = {a.tobytes(): name for name, a in expected.items()}
    counts = dict.fromkeys(expected, 0)
    for a in drawn: counts[names[a.tobytes()]] += 1
    chi2 = sum((c - 400)**2 / 400 for c in counts.values())
    freedom = len(expected) - 1
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)


def test_images_of_a_batch_go_their_own_ways_and_stay_in_order():
    X = np.arange(1, 101.)[:, None, None, None] * np.ones((100, 2, 6, 6))
    out = augment(X, True, 2, np.random.default_rng(1))
    assert np.array_equal(out.max(axis=(1, 2, 3)), np.arange(1, 101))  # image n is still at n, and its label with it
    assert np.array_equal(out[:, 0], out[:, 1])                        # all channels of an image move together
    assert len({(a != 0).tobytes() for a in out}) > 20


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("flip, shift", [(True, 0), (False, 2), (True, 2), (False, 0)])
def test_type_shape_and_arguments_stay(dtype, flip, shift):
    X = np.random.default_rng(0).integers(1, 9, (5, 3, 6, 7)).astype(dtype)
    before = X.copy()
    out = augment(X, flip, shift, np.random.default_rng(0))
    assert out.dtype == dtype and out.shape == X.shape and np.array_equal(X, before)
    assert (out is X) == (not flip and not shift)


def test_the_largest_shift_there_is():
    out = augment(np.ones((500, 1, 3, 5)), shift=2, rng=np.random.default_rng(0))
    assert {int(a.sum()) for a in out} <= {h * w for h in (1, 2, 3) for w in (3, 4, 5)}
    assert min(a.sum() for a in out) == 3 and max(a.sum() for a in out) == 15
    for shift in 3, 4, 99:
        with pytest.raises(ValueError, match=f"augment: shift needs to be less than the images' height and width, 3 x 5; got {shift}"): augment(np.ones((1, 1, 3, 5)), shift=shift)


def test_an_empty_batch(): assert augment(np.ones((0, 3, 8, 8)), True, 2).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("options, error, words", [
    ({"shift": -1}, ValueError, "shift needs to be at least 0"), ({"shift": 1.5}, TypeError, "shift needs a whole number"),
    ({"flip": True, "X": np.ones((4, 8))}, ValueError, r"X needs 4 axes \(N, C, H, W\)"), ({"shift": 1, "X": [[1, 2], [3]]}, ValueError, "X is not a regular array")])
def test_what_is_refused(options, error, words):
    with pytest.raises(error, match=f"augment: {words}"): augment(**{"X": np.ones((2, 1, 4, 4))} | options)


def test_seeds():
    "The same seed, the same pictures: NumPy's global generator unless another one is given, which then draws alone."
    X = np.random.default_rng(0).random((20, 1, 8, 8))
    first, again, other = (augment(X, True, 2, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    np.random.seed(5)
    a, after = augment(X, True, 2), np.random.random()
    np.random.seed(5)
    assert np.array_equal(augment(X, True, 2), a) and np.random.random() == after
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    augment(X, True, 2, np.random.default_rng(0))
    assert np.array_equal(np.random.get_state()[1], before)


class Watching:
    "A model that keeps what it was asked about."
    def __init__(self): self.params, self.trained, self.looked_at = {"w": np.zeros(2)}, [], []

    def loss(self, X, y=None):
        (self.looked_at if y is None else self.trained).append(X.copy())
        return np.tile([0., 1], (len(X), 1)) if y is None else (1.0, {"w": np.zeros(2)})


def test_the_solver_augments_what_it_trains_on_and_nothing_else():
    X = np.arange(1., 1 + 12 * 16).reshape(12, 1, 4, 4)
    data = {"X_train": X, "y_train": np.arange(12) % 2, "X_val": X[:5] + 1000, "y_val": np.zeros(5, int)}
    before, model = X.copy(), Watching()
    np.random.seed(0)
    solver = Solver(model, data, batch_size=6, num_epochs=20, num_train_samples=None, verbose=False, flip=True, shift=1)
    solver.train()
    own = {a.tobytes() for image in X for a in ways(image, 1, (False, True)).values()}
    trained = [a.tobytes() for batch in model.trained for a in batch]
    assert set(trained) <= own and len(set(trained)) > 100
    plain = {a.tobytes() for a in X} | {a.tobytes() for a in data["X_val"]}
    assert {a.tobytes() for batch in model.looked_at for a in batch} == plain
    assert np.array_equal(X, before)


@pytest.mark.parametrize("options, words", [({"shift": 6}, "shift needs to be less than"), ({"shift": -1}, "Solver: shift needs to be at least 0")])
def test_the_solver_refuses_at_once(options, words):
    with pytest.raises(ValueError, match=words): Solver(ThreeLayerConvNet((2, 6, 6), 3, 3, 5, 3), small(2, 6, 6), **options)
    with pytest.raises(ValueError, match="X needs 4 axes"): Solver(Watching(), small(4), flip=True)


@pytest.mark.parametrize("flip, shift", [(True, 0), (False, 2), (True, 2)])
def test_a_run_goes_on_to_the_last_bit(flip, shift, tmp_path):
    check(lambda: ThreeLayerConvNet((2, 6, 6), 3, 3, 5, 3, reg=0.01), small(2, 6, 6), "adam", tmp_path, flip=flip, shift=shift)
