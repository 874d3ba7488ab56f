"""Numeric gradients and the proofs under what no reader's page should show: faults half-way, odd layouts, bad input."""
import random
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs231n_lit.gradient_check import (eval_numerical_gradient, eval_numerical_gradient_array, fixture, grad_check_sparse,
                                       judge_gradient, max_error, proofs, rel_error)

TORCH = Path(__file__).parents[1] / "cs231n_lit/data/pages/torch.npz"
few = settings(max_examples=40, deadline=None, derandomize=True)
square = lambda x: np.sum(x ** 2)
CHECKERS = {"array": lambda f, x, **kw: eval_numerical_gradient_array(f, x, 1., **kw), "number": lambda f, x, **kw: eval_numerical_gradient(f, x, False, **kw),
            "sparse": lambda f, x, **kw: grad_check_sparse(f, x, np.zeros(np.shape(x)), **kw), "judge": lambda f, x, **kw: judge_gradient(f, x, np.zeros(np.shape(x)), **kw)}


# Right answers

@given(shape=st.lists(st.integers(0, 3), max_size=3).map(tuple), h=st.sampled_from([1e-6, 1e-5, 1e-3]), seed=st.integers(0, 99))
@few
def test_gradients_of_a_quadratic_form(shape, h, seed):
    draw = np.random.default_rng(seed)
    x, A = draw.normal(size=shape), draw.normal(size=shape)
    before = x.copy()
    grad = eval_numerical_gradient(lambda x: np.sum(A * x * x), x, verbose=False, h=h)
    np.testing.assert_allclose(grad, 2 * A * x, atol=1e-8)
    assert type(grad) is np.ndarray and grad.shape == x.shape and np.array_equal(x, before)


@given(n=st.integers(0, 4), m=st.integers(0, 4), seed=st.integers(0, 99))
@few
def test_upstream_gradients_weigh_the_outputs(n, m, seed):
    draw = np.random.default_rng(seed)
    A, x, df = draw.normal(size=(m, n)), draw.normal(size=n), draw.normal(size=m)
    np.testing.assert_allclose(eval_numerical_gradient_array(lambda x: A @ x, x, df), df @ A, atol=1e-9)
    np.testing.assert_allclose(eval_numerical_gradient_array(lambda x: A @ x, x, df.tolist()), df @ A, atol=1e-9)


def test_the_quotient_is_central():
    "For x³ at 1 with a step of 0.1: 3 + h². Forward, it would be 3.31."
    assert abs(eval_numerical_gradient(lambda x: x ** 3, np.array(1.), verbose=False, h=0.1) - 3.01) < 1e-12
    assert abs(eval_numerical_gradient_array(lambda x: x ** 3, np.array([1.]), np.ones(1), h=0.1)[0] - 3.01) < 1e-12


def test_default_step():
    seen = []
    eval_numerical_gradient(lambda x: seen.append(x[0]) or 0., np.zeros(1), verbose=False)
    eval_numerical_gradient_array(lambda x: seen.append(x[0]) or x, np.zeros(1), np.ones(1))
    grad_check_sparse(lambda x: seen.append(x[0]) or 0., np.zeros(1), np.zeros(1), num_checks=1)
    assert seen == [1e-5, -1e-5] * 3


def test_the_true_step_is_divided_by():
    "Near 1000 a float32 step of 0.001 is really 0.00097656: the slope of a straight line comes out exactly all the same."
    x = np.array([1000.], np.float32)
    grad = eval_numerical_gradient(lambda x: float(x[0]) * 2, x, verbose=False, h=1e-3)
    assert grad.dtype == np.float32 and grad[0] == 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f8"])
def test_type_stays(dtype):
    x = np.array([[1, -2], [3, 0.5]], dtype)
    grad = eval_numerical_gradient(lambda x: np.sum(x.astype(float) ** 2), x, verbose=False, h=1e-2)
    assert grad.dtype == x.dtype
    np.testing.assert_allclose(np.asarray(grad, float), 2 * np.asarray(x, float), rtol=2e-2)


def test_functions_that_return_their_own_buffer():
    x, buffer = np.array([1., 2]), np.zeros(2)
    def f(x):
        buffer[:] = x ** 2
        return buffer
    np.testing.assert_allclose(eval_numerical_gradient_array(f, x, np.ones(2)), [2, 4], atol=1e-9)
    np.testing.assert_allclose(eval_numerical_gradient_array(lambda x: x, x, np.ones(2)), [1, 1], atol=1e-9)
    assert judge_gradient(f, x, 2 * x, np.ones(2)).tolist() == ["right"] * 2
    assert judge_gradient(lambda x: x, x, np.full(2, 3.), np.ones(2)).tolist() == ["wrong"] * 2


LAYOUTS = {"strided": lambda a: np.repeat(np.repeat(a, 2, 0), 2, 1)[::2, ::2], "reversed": lambda a: a[::-1].copy()[::-1],
           "Fortran order": np.asfortranarray, "transposed": lambda a: a.T.copy().T, "no axes": lambda a: np.array(a[0, 0]), "one entry": lambda a: a[:1, :1].copy()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    x = LAYOUTS[layout](np.arange(1., 7).reshape(2, 3))
    before = x.copy()
    np.testing.assert_allclose(eval_numerical_gradient(square, x, verbose=False), 2 * x, atol=1e-9)
    np.testing.assert_allclose(eval_numerical_gradient_array(lambda x: 3 * x, x, x.copy()), 3 * x, atol=1e-9)
    assert (judge_gradient(square, x, 2 * x) == "right").all() and np.array_equal(x, before)


def test_the_array_itself_is_moved():
    x = np.array([1., 2])
    view, params = x[:], {"w": x}
    np.testing.assert_allclose(eval_numerical_gradient(lambda _: square(params["w"]), view, verbose=False), [2, 4], atol=1e-9)


def test_verbose_prints_each_entry(capsys):
    grad = eval_numerical_gradient(square, np.array([[1., 2]]))
    assert capsys.readouterr().out == f"(0, 0) {grad[0, 0]}\n(0, 1) {grad[0, 1]}\n"
    eval_numerical_gradient(square, np.array([[1., 2]]), verbose=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", CHECKERS)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("after", range(5))
def test_x_is_restored_whatever_happens(name, error, after):
    x, calls = np.array([[0.1, 1 / 3], [1e-300, 7.]]), iter(range(100))
    before = x.copy()
    def f(x):
        if next(calls) == after: raise error
        return square(x)
    with pytest.raises(error): CHECKERS[name](f, x)
    assert np.array_equal(x, before)


def test_sparse_checks(capsys):
    random.seed(1)
    x = np.arange(1., 7).reshape(2, 3)
    before, state = x.copy(), np.random.get_state(legacy=False)["state"]["pos"]
    assert grad_check_sparse(square, x, 2 * x, num_checks=4) is None
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and np.array_equal(x, before) and np.random.get_state(legacy=False)["state"]["pos"] == state
    for line in lines:
        numeric, analytic, error = map(float, re.fullmatch(r"numerical: ([\d.]+) analytic: ([\d.]+), relative error: (\S+)", line).groups())
        assert numeric == analytic and analytic / 2 in x and error < 1e-8
    grad_check_sparse(square, x, 3 * x)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and len(set(lines)) > 2
    assert all(abs(float(line.split()[-1]) - 0.2) < 1e-6 for line in lines)


# How far apart

@pytest.mark.parametrize("a, b, expected", [(1, 1, 0), (1, -1, 1), (0, 0, 0), (1e-12, 0, 1e-4), (0, 1e-8, 1), (3, 1, .5), ([], [], 0), ([1, 2], [1, 6], .5),
                                            ([1, 3], 1, .5), (2, [2, 6], .5), (np.uint8(1), np.uint8(3), .5), (5e-9, -5e-9, 1)])
def test_rel_error(a, b, expected):
    assert type(rel_error(a, b)) is float and abs(rel_error(a, b) - expected) < 1e-12 and rel_error(a, b) == rel_error(b, a)


@pytest.mark.parametrize("a, b, expected", [(1, 1, 0), (0, 0, 0), (1, -1, 2), ([1, 10], [2, 10], .1), ([1, 10], [2, -4], 3.5), ([], [], 0), (1, 0, np.inf),
                                            (np.uint8([1]), np.uint8([4]), .75)])
def test_max_error(a, b, expected):
    assert type(max_error(a, b)) is float and max_error(a, b) == expected


def test_max_error_with_a_scale():
    assert max_error([1, 2], [1, 1], 10) == 0.1 and max_error([1e-17], [0], [-4, 2]) == 2.5e-18 and max_error([0.], [0.], 0) == 0


def test_nan_is_an_error():
    assert np.isnan(rel_error([np.nan, 1], [1, 1])) and np.isnan(max_error([np.nan, 1], [1, 1])) and np.isnan(max_error([1, 1], [1, np.nan]))
    with pytest.raises(AssertionError): proofs({"dx": ([np.nan], [1.])})


# Corners

@given(place=st.floats(-1.5, 1.5), bend=st.floats(-3, 3), jump=st.sampled_from([-2., .5, 3]), slope=st.floats(-2, 2))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_right_gradient_is_never_called_wrong(place, bend, jump, slope):
    x = np.array([place * 1e-5, 0.7])
    f = lambda x: jump * np.maximum(x, 0) + slope * x + bend * x ** 2
    assert "wrong" not in judge_gradient(f, x, jump * (x > 0) + slope + 2 * bend * x, np.ones(2))


@given(factor=st.sampled_from([0.5, 0.99, 1.0001, 2, -1]), bend=st.floats(-3, 3), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_wrong_gradient_of_a_smooth_function_is_called_wrong(factor, bend, seed):
    x = np.random.default_rng(seed).uniform(0.5, 1, 4)
    f = lambda x: np.exp(x) + bend * x ** 3
    grad = np.exp(x) + 3 * bend * x ** 2
    verdicts = judge_gradient(f, x, factor * grad, np.ones(4))
    large = np.abs(grad) > 0.05 * np.abs(grad).max()
    assert (verdicts[large] == "wrong").all() and "kink" not in verdicts


@pytest.mark.parametrize("slope, verdict", [(-1e-6, "wrong"), (0, "kink"), (0.3, "kink"), (0.5, "right"), (1, "kink"), (1 + 1e-6, "wrong")])
def test_at_a_corner_any_slope_between_the_sides_will_do(slope, verdict):
    relu = lambda x: np.maximum(x, 0)
    assert judge_gradient(relu, np.zeros(1), np.array([slope]), np.ones(1)).tolist() == [verdict]
    assert judge_gradient(relu, np.zeros(1), -np.array([slope]), -np.ones(1)).tolist() == [verdict]


def test_judging_with_other_steps_and_limits():
    x = np.array([1.])
    cube = lambda x: x ** 3
    assert judge_gradient(cube, x, [3.], [1.], h=0.1, limit=1e-2).tolist() == ["right"]
    assert judge_gradient(cube, x, [3.], [1.], h=0.1).tolist() == ["wrong"]  # 3.01 is what it measures
    assert judge_gradient(cube, x, [3.001], [1.], limit=1e-3).tolist() == ["right"]
    assert judge_gradient(square, x, np.array([np.nan])).tolist() == ["wrong"]
    assert judge_gradient(np.sin, np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2))).shape == (0, 2)


# Proofs

def test_proofs_hold_their_limits():
    b = np.array([1., 2])
    off = lambda e: b + [0, 2 * e]
    table = proofs({"dx": (off(.9e-7), b, off(.9e-7 - .9e-10)), "dw": (b, off(0))}, {"sum": (1 + .9e-10, 1), "zero": (9e-11, 0, 1)})
    assert table.failed == [] and list(table) == [("dx", "numeric gradient"), ("dx", "PyTorch"), ("dw", "numeric gradient"), ("sum", "identity"), ("zero", "identity")]
    for bad, failed in [(({"dx": (off(1.1e-7), b)}, {}), ("dx", "numeric gradient")), (({"dx": (b, b, off(1.1e-10))}, {}), ("dx", "PyTorch")),
                        (({}, {"sum": (1 + 1.1e-10, 1)}), ("sum", "identity")), (({}, {"zero": (1.1e-10, 0, 1)}), ("zero", "identity"))]:
        with pytest.raises(AssertionError, match=re.escape(f"these proofs fail: [{failed}]\n|")): proofs(*bad)
        assert proofs(*bad, strict=False).failed == [failed]
    assert proofs({"dx": (off(1e-3), b)}, limit=1e-2).failed == [] and proofs({}, {"s": (1.001, 1)}, exact=1e-2).failed == []


def test_proofs_as_a_table():
    table = proofs({"dx": ([1.], [2.], [1.])}, {"a = b": (1, 1)}, strict=False)
    assert table._repr_markdown_() == ("|  | numeric gradient | PyTorch | identity |\n| :-- | --: | --: | --: |\n"
                                       "| dx | 5.0e-01 ✗ | 0.0e+00 ✓ |  |\n| a = b |  |  | 0.0e+00 ✓ |")


def test_fixtures():
    t = fixture("conv_s2p1", TORCH)
    assert (t.stride, t.pad) == (2, 1) and type(t.stride) is int and t.x.shape == (2, 3, 7, 5)
    assert not hasattr(fixture("conv", TORCH), "conv_s2p1/x") and type(fixture("softmax", str(TORCH)).loss) is float


# Bad input

def read_only(x):
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("name", CHECKERS)
@pytest.mark.parametrize("x, error, words", [
    ([1., 2], TypeError, "x needs to be a floating-point NumPy array, as its own entries are moved by 1e-05; got list"), (1., TypeError, "got float"),
    (np.float64(1), TypeError, "got float64"), (None, TypeError, "got NoneType"), (np.arange(3), TypeError, "got an array of int64"),
    (np.ones(2, bool), TypeError, "got an array of bool"), (np.ones(2, complex), TypeError, "got an array of complex128"),
    (np.ones(2, object), TypeError, "got an array of object"), (read_only(np.ones(2)), ValueError, "x is read-only, but its own entries have to be moved and put back"),
    (np.broadcast_to(1., 3), ValueError, "x is read-only"), (np.array([1e12]), ValueError, "a step of 1e-05 is lost in rounding at x[0] = 1e+12 (float64): take a larger h"),
    (np.full((1, 2), 3e3, np.float32), ValueError, "a step of 1e-05 is lost in rounding at x[0, 0] = 3000 (float32)"), (np.array(np.inf), ValueError, "lost in rounding at x[] = inf")])
def test_x_is_refused(name, x, error, words):
    where = {"array": "eval_numerical_gradient_array", "number": "eval_numerical_gradient", "sparse": "grad_check_sparse", "judge": "eval_numerical_gradient_array"}[name]
    with pytest.raises(error, match=re.escape(words)) as e: CHECKERS[name](square, x)
    assert str(e.value).startswith((where, "gradient check"))


@pytest.mark.parametrize("name", CHECKERS)
@pytest.mark.parametrize("h, error", [(0, ValueError), (-1e-5, ValueError), (np.nan, ValueError), (np.inf, ValueError), ("1e-5", TypeError), (None, TypeError), (True, TypeError)])
def test_h_is_refused(name, h, error):
    with pytest.raises(error, match="h needs a number above 0"): CHECKERS[name](square, np.ones(2), h=h)


@pytest.mark.parametrize("call, error, words", [
    (lambda x: eval_numerical_gradient(lambda x: x, x), ValueError, "eval_numerical_gradient: f(x) needs to be one number, but its shape is (2,)"),
    (lambda x: grad_check_sparse(lambda x: x, x, x), ValueError, "grad_check_sparse: f(x) needs to be one number, but its shape is (2,)"),
    (lambda x: eval_numerical_gradient(lambda x: (1., {}), x), TypeError, "eval_numerical_gradient: f(x) needs real numbers"),
    (lambda x: eval_numerical_gradient(lambda x: (1., x), x), ValueError, "eval_numerical_gradient: f(x) is not a regular array"),
    (lambda x: eval_numerical_gradient(lambda x: None, x), TypeError, "f(x) needs real numbers"),
    (lambda x: eval_numerical_gradient_array(lambda x: (x, None), x, x), ValueError, "f(x) is not a regular array"),
    (lambda x: eval_numerical_gradient_array(lambda x: x, x, np.ones((2, 1))), ValueError, "eval_numerical_gradient_array: df needs f(x)'s shape (2,) but is (2, 1)"),
    (lambda x: eval_numerical_gradient_array(lambda x: x, x, 1.), ValueError, "df needs f(x)'s shape (2,) but is ()"),
    (lambda x: eval_numerical_gradient_array(lambda x: x, x, None), TypeError, "eval_numerical_gradient_array: df needs real numbers"),
    (lambda x: judge_gradient(lambda x: x, x, x), ValueError, "df needs f(x)'s shape (2,) but is ()"),
    (lambda x: judge_gradient(square, x, x[:, None]), ValueError, "judge_gradient: analytic needs x's shape (2,) but is (2, 1)"),
    (lambda x: judge_gradient(square, x, None), TypeError, "judge_gradient: analytic needs real numbers"),
    (lambda x: grad_check_sparse(square, x, x[:1]), ValueError, "grad_check_sparse: analytic_grad needs x's shape (2,) but is (1,)"),
    (lambda x: grad_check_sparse(square, x, None), TypeError, "grad_check_sparse: analytic_grad needs real numbers"),
    (lambda x: grad_check_sparse(square, x[:0], x[:0]), ValueError, "grad_check_sparse: x has no entry to look at: it is (0,)"),
    (lambda x: grad_check_sparse(square, x, x, num_checks=0), ValueError, "grad_check_sparse: num_checks needs to be at least 1; got 0"),
    (lambda x: grad_check_sparse(square, x, x, num_checks=2.5), TypeError, "grad_check_sparse: num_checks needs a whole number"),
    (lambda x: rel_error(x, x[:1]), ValueError, "rel_error: b needs a's shape (2,) but is (1,)"),
    (lambda x: rel_error(x[:, None], x), ValueError, "rel_error: b needs a's shape (2, 1) but is (2,)"),
    (lambda x: rel_error(None, x), TypeError, "rel_error: a needs real numbers"), (lambda x: rel_error(x, "b"), TypeError, "rel_error: b needs real numbers"),
    (lambda x: max_error(x, x[:1]), ValueError, "max_error: b needs a's shape (2,) but is (1,)"), (lambda x: max_error(x, 1.), ValueError, "max_error: b needs a's shape (2,) but is ()"),
    (lambda x: max_error(None, x), TypeError, "max_error: a needs real numbers"), (lambda x: max_error(x, None), TypeError, "max_error: b needs real numbers"),
    (lambda x: fixture("konv", TORCH), ValueError, "fixture: no case 'konv'; there are adam, adam_l2, adamw, affine, "),
    (lambda x: fixture("con", TORCH), ValueError, "fixture: no case 'con'"),
])
def test_refuses(call, error, words):
    with pytest.raises(error, match=re.escape(words)): call(np.array([1., 2]))
