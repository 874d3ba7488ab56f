"""Exercises: the stub fails, the solutions pass, every known mistake is named as itself, and nothing a learner writes gets the better of `check`."""
import os
import re
import subprocess
import sys

import nbformat
import numpy as np
import pytest

from cs231n_lit import exercises
from cs231n_lit._probes import EXERCISES, ours
from cs231n_lit.exercises import check, hints, mistakes, solution
from right_ways import WAYS

WRITTEN = list(EXERCISES)
CATALOGUE = [(name, key) for name in WRITTEN for key in mistakes(name)]


def compiled(name, source): return exercises._compiled(name, source)


@pytest.mark.parametrize("name", WRITTEN)
def test_solutions_pass(name):
    plain = check(compiled(name, solution(name)))
    assert plain.passed and not plain.remarks, plain
    if name != "conv_forward_im2col":  # whose numbers are the loops'
        own = check(ours(name))
        assert own.passed and not own.remarks, own


@pytest.mark.parametrize("name", WRITTEN)
def test_the_stub_fails(name):
    def stub(*args, **options): raise NotImplementedError("write it")
    report = check(stub, name=name)
    assert not report.passed and not report.written and report.mistake is None


@pytest.mark.parametrize("name, key", CATALOGUE, ids=["-".join(pair) for pair in CATALOGUE])
def test_every_mistake_is_named_as_itself_alone(name, key):
    report = check(compiled(name, mistakes(name)[key].source), name=name)
    assert not report.passed and report.mistake == key, report
    assert mistakes(name)[key].why in "\n".join(report.words) and mistakes(name)[key].why.endswith((".", "`"))


def slug(heading): return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_links_lead_to_headings():
    for name in WRITTEN:
        text = "\n".join(c["source"] for c in exercises._pages()[EXERCISES[name].module][1] if c["cell_type"] == "markdown")
        anchors = {slug(h) for h in re.findall(r"^#+ (.*)", text, re.M)}
        assert {m.link.partition("#")[2] for m in mistakes(name).values()} <= anchors, name


@pytest.mark.parametrize("name", WRITTEN)
def test_hints_are_steps(name):
    steps = hints(name)
    assert len(steps) == 5 and solution(name) in steps[-1]
    assert not any(solution(name).split("\n", 1)[1] in step for step in steps[:-1])
    assert not any(re.search(r"[$\\]|[_^]{", step) for step in steps[:-1]), "TeX, where a terminal shows it"


# ------------------------------------------------------------ what a learner may do to `check`

def test_a_cache_of_ones_own():
    "Whoever writes both functions may keep in the cache what they like."
    def batchnorm_forward(x, gamma, beta, bn_param):
        out, kept = ours("batchnorm_forward")(x, gamma, beta, bn_param)
        return out, {"mine": kept}
    def batchnorm_backward(dout, cache): return ours("batchnorm_backward")(dout, cache["mine"])
    assert check(batchnorm_forward, batchnorm_backward).passed
    assert check((batchnorm_forward, batchnorm_backward)).passed
    alone = check(batchnorm_backward)
    assert not alone.passed and "pass both" in "\n".join(alone.words)


def test_a_mistake_is_named_beside_a_forward_function_with_another_cache():
    "A backward function that reads our cache is judged with ours where it cannot read the reader's own."
    for name in ("batchnorm_backward", "spatial_groupnorm_backward"):
        scope, mistake = {"np": np}, mistakes(name)["no_gamma"]
        exec(solution(EXERCISES[name].forward) + "\n" + mistake.source, scope)
        assert check(scope[name]).mistake == mistake.key


def test_a_wrong_forward_function_comes_first():
    def relu_forward(x): return np.abs(x), x
    def relu_backward(dout, cache): return dout * np.sign(cache)
    report = check(relu_forward, relu_backward)
    assert not report.passed and "check(relu_forward) first" in report.words[0]


@pytest.mark.parametrize("what", ["relu_backward", 3, None, np.zeros(3)])
def test_what_is_no_function_is_refused_in_words(what):
    with pytest.raises(TypeError, match="check: it needs a function"): check(what)


def test_a_name_that_is_no_exercise():
    def relu_backwards(dout, cache): return dout
    with pytest.raises(ValueError, match="is it 'relu_backward'"): check(relu_backwards)
    assert check(relu_backwards, name="relu_backward").mistake == "no_mask"


def test_what_never_ends_is_stopped():
    def relu_backward(dout, cache):
        while True: pass
    report = check(relu_backward, seconds=0.3)
    assert not report.passed and "in time" in report.words[0]


def test_what_never_ends_is_stopped_without_signals(monkeypatch):
    "As on Windows and in a browser."
    monkeypatch.delattr(exercises.signal, "setitimer", raising=False)
    test_what_never_ends_is_stopped()


def test_what_sleeps_for_ever_is_stopped():
    import time
    def relu_backward(dout, cache): time.sleep(60)
    assert "in time" in check(relu_backward, seconds=0.3).words[0]


@pytest.mark.skipif(os.name != "posix", reason="no SIGSTOP")
def test_a_process_that_is_put_to_sleep_wakes_up_to_go_on():
    "As a laptop's or a busy server's are: only the time counts in which it could have worked."
    code = """if True:
        import os, subprocess, sys, time
        import numpy as np
        from cs231n_lit.exercises import check
        asleep = f"import os, signal, time; time.sleep(0.1); os.kill({os.getpid()}, signal.SIGSTOP); time.sleep(4); os.kill({os.getpid()}, signal.SIGCONT)"
        def relu_forward(x):
            if not started: started.append(subprocess.Popen([sys.executable, "-c", asleep])); time.sleep(0.6)
            return np.maximum(x, 0), x
        started = []
        print(check(relu_forward, seconds=1).passed)"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120).stdout.strip() == "True"


@pytest.mark.parametrize("act, says", [("raise SystemExit", "ends the whole program"), ("return f(x)", "without end"), ("pass", "returns nothing"), ("return x", "2 results"),
                                       ("return 'x', x", "array of numbers"), ("return x, x, x", "returns 3"), ("1 / 0", "ZeroDivisionError"), ("return None, x", "None")])
def test_trouble_gets_words(act, says):
    scope = {}
    exec(f"def f(x):\n    {act}", scope)
    report = check(scope["f"], name="relu_forward")
    assert not report.passed and says in "\n".join(report.words)


def test_what_a_function_changes_is_put_back(tmp_path, capsys):
    def relu_forward(x):
        np.random.seed(1); np.seterr(all="raise"); os.chdir(tmp_path); print("x" * 5000)
        return np.maximum(x, 0), x
    state, folder, errors = np.random.get_state()[1].copy(), os.getcwd(), np.geterr()
    report = check(relu_forward)
    assert report.passed and "prints a lot" in report.remarks[0]
    assert np.array_equal(np.random.get_state()[1], state) and os.getcwd() == folder and np.geterr() == errors
    assert capsys.readouterr().out == ""


def test_arguments_are_looked_at_first():
    def affine_forward(x, w): return x @ w, (x, w)
    assert "needs to take (x, w, b); yours takes (x, w)" in check(affine_forward).words[0]


def test_simple_maps():
    "What no list has, but is one simple thing away from the right answer."
    right = ours("affine_backward")
    def scaled(dout, cache): dx, dw, db = right(dout, cache); return dx, 3 * dw, db
    def turned(dout, cache): dx, dw, db = right(dout, cache); return -dx, dw, db
    def swapped(dout, cache): dx, dw, db = right(dout, cache); return dw, dx, db
    def flipped(dout, cache): dx, dw, db = right(dout, cache); return dx, dw[::-1], db
    says = {f: "\n".join(check(f, name="affine_backward").words) for f in (scaled, turned, swapped, flipped)}
    assert "dw: it is 3 times" in says[scaled] and "dx: the sign is wrong" in says[turned]
    assert "another order" in says[swapped] and "dw: it is the wrong way round along axis 0" in says[flipped]


def test_what_nobody_knows_is_not_given_a_name():
    def relu_backward(dout, cache): return np.cos(dout) * (cache > 0.2)
    report = check(relu_backward)
    assert report.mistake is None and "This is not a mistake I know." in report.words


def test_only_the_learners_function_is_called():
    "A stub beside a right function of another name is still a stub."
    def relu_backward(dout, cache): raise NotImplementedError
    def relu_backward_right(dout, cache): return dout * (cache > 0)
    assert not check(relu_backward).written and check(relu_backward_right, name="relu_backward").passed


# ------------------------------------------------------------ notebooks and commands

PAGES = sorted({exercises._title(e.module) for e in EXERCISES.values()})


@pytest.mark.parametrize("page", PAGES)
def test_nothing_of_the_solution_is_left(page):
    made = exercises.notebook(page)
    nbformat.validate(nbformat.from_dict(made))
    names = [e.name for e in EXERCISES.values() if exercises._title(e.module) == page]
    code = "\n".join(c["source"] for c in made["cells"] if c["cell_type"] == "code")
    assert all(c.get("outputs", []) == [] for c in made["cells"])
    for name in names:
        assert f"check({name})" in code and code.count(f"write {name}") >= 1
        lines = {re.sub(r"\s+", " ", line.strip()) for source in (exercises.solution(name), exercises._own_source(name)) for line in source.split("\n")}
        telling = {line for line in lines if re.match(r"(return|\w+(\[.*\])?(, \w+)* [+*-]?=) ?.*[@*/(]", line) and len(line) > 30}
        assert not telling & {re.sub(r"\s+", " ", line.strip()) for line in code.split("\n")}, name


@pytest.mark.parametrize("page", PAGES)
def test_no_cell_of_an_exercise_holds_a_function_that_passes(page):
    made, names = exercises.notebook(page), [e.name for e in EXERCISES.values() if exercises._title(e.module) == page]
    import ast
    for cell in made["cells"]:
        if cell["cell_type"] != "code" or "NotImplementedError" in cell["source"]: continue
        for node in ast.parse(cell["source"]).body:
            if not isinstance(node, ast.FunctionDef): continue
            scope = {"np": np, **{n: ours(n) for n in ()}}
            exec(ast.unparse(node), scope)
            assert not any(check(scope[node.name], name=n, seconds=2).passed for n in names), node.name


def test_the_command_writes_and_never_overwrites(tmp_path, monkeypatch, capsys):
    from cs231n_lit.cli import main
    monkeypatch.chdir(tmp_path)
    assert main(["exercise"]) == 0 and "0 of 8 solved" in capsys.readouterr().out
    assert main(["exercise", "pooling"]) == 0
    written = (tmp_path / "pooling.ipynb").read_text()
    (tmp_path / "pooling.ipynb").write_text("my work")
    assert main(["exercise", "pooling"]) == 1 and "--force" in capsys.readouterr().err
    assert (tmp_path / "pooling.ipynb").read_text() == "my work"
    assert main(["exercise", "pooling", "--force"]) == 0
    assert (tmp_path / "pooling.ipynb").read_text() == written and (tmp_path / "pooling.ipynb.backup1").read_text() == "my work"
    def relu_forward(x): return np.maximum(x, 0), x
    check(relu_forward)
    main(["exercise"])
    assert "✓ relu_forward" in capsys.readouterr().out
    assert main(["exercise", "relu_backward", "--solution"]) == 0 and solution("relu_backward") in capsys.readouterr().out
    assert main(["exercise", "poolin"]) == 1 and "is it pooling" in capsys.readouterr().err


def test_an_unwritten_function_is_ours_in_the_meantime():
    scope = {"__name__": "__main__", "check": check}
    exec("def relu_forward(x): raise NotImplementedError\nreport = check(relu_forward)", scope)
    assert not scope["report"].written and scope["relu_forward"] is ours("relu_forward")


def test_an_unwritten_net_is_ours_in_the_meantime(monkeypatch):
    scope = vars(sys.modules["__main__"])
    class TwoLayerNet:
        def __init__(self, input_dim=3072, hidden_dim=100, num_classes=10, weight_scale=1e-3, reg=0.0): raise NotImplementedError
    TwoLayerNet.__module__ = "__main__"
    monkeypatch.setitem(scope, "TwoLayerNet", TwoLayerNet)
    assert not check(TwoLayerNet).written and scope["TwoLayerNet"] is ours("TwoLayerNet")


def test_hints_come_one_at_a_time():
    exercises._given.clear()
    said = [str(exercises.hint("relu_backward")) for _ in range(7)]
    assert "hint 1 of 5" in said[0] and "hint 5 of 5" in said[4] and said[4] == said[6] and "x > 0" in said[6]


def test_the_notebooks_own_assertions():
    eq, close, fail = exercises.test_eq, exercises.test_close, exercises.test_fail
    eq((np.ones((1, 2)), [3]), ([[1, 1]], [3]))
    eq(np.dtype("float32"), np.float32)
    eq({"a": np.zeros(2)}, {"a": [0, 0]})
    close(np.ones(2), 1 + 1e-9)
    fail(lambda: int("x"), contains="invalid literal", exc=ValueError)
    for wrong in (lambda: eq((np.ones(2), 3), (np.ones(2), 4)), lambda: close(1, 2), lambda: fail(lambda: None), lambda: fail(lambda: int("x"), contains="no such words")):
        with pytest.raises(AssertionError): wrong()


@pytest.mark.slow
@pytest.mark.parametrize("solutions", [True, False], ids=["solution", "stub"])
@pytest.mark.parametrize("page", PAGES)
def test_written_notebooks_run(page, solutions, tmp_path):
    "From top to bottom: where functions are still to be written, ours stand in."
    from nbclient import NotebookClient
    NotebookClient(nbformat.from_dict(exercises.notebook(page, solutions)), timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()


# ------------------------------------------------------------ what public solutions have taught

def test_a_spent_dout_is_a_remark_and_hides_nothing():
    def relu_backward(dout, cache):
        dout[cache <= 0] = 0
        return dout
    report = check(relu_backward)
    assert report.passed and "It changes dout" in report.remarks[0]
    def relu_backward(dout, cache):
        dout[cache >= 0] = 0
        return dout
    assert check(relu_backward).mistake == "mask_turned"


def test_wrong_numbers_come_before_a_changed_input():
    def relu_forward(x):
        x[x < 0] *= 0.01
        return x, x
    report = check(relu_forward)
    assert report.mistake == "leaky" and "differs" in report.words[0] and "Besides, it changes its input x" in "\n".join(report.words)


def test_averages_of_any_shape():
    def spatial_batchnorm_forward(x, gamma, beta, bn_param):
        C, m = x.shape[1], bn_param.get("momentum", 0.9)
        mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        kept = [bn_param.get(n, np.zeros((1, C, 1, 1))) for n in ("running_mean", "running_var")]
        if bn_param["mode"] == "train": bn_param["running_mean"], bn_param["running_var"] = (m * k + (1 - m) * new for k, new in zip(kept, (mean, var)))
        else: mean, var = kept
        return gamma[:, None, None] * (x - mean) / np.sqrt(var + bn_param.get("eps", 1e-5)) + beta[:, None, None], None
    assert check(spatial_batchnorm_forward).passed


def test_what_wrong_inputs_have_in_common_is_said():
    def max_pool_forward_naive(x, param):
        return ours("max_pool_forward_naive")(x, param | {"pool_width": param["pool_height"]})
    assert "It is wrong only where the windows are not square." in check(max_pool_forward_naive).words


def test_another_right_way_with_a_remark():
    def adam(w, dw, config=None):
        config = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "m": 0 * w, "v": 0 * w, "t": 0} | (config or {})
        config["t"] += 1
        b1, b2, t = config["beta1"], config["beta2"], config["t"]
        config["m"], config["v"] = b1 * config["m"] + (1 - b1) * dw, b2 * config["v"] + (1 - b2) * dw * dw
        return w - config["learning_rate"] * np.sqrt(1 - b2**t) / (1 - b1**t) * config["m"] / (np.sqrt(config["v"]) + config["epsilon"]), config
    report = check(adam)
    assert report.passed and report.remarks[0].startswith("Right, too")


@pytest.mark.parametrize("begin, passes", [(0, True), (1, True), (-1, False), (2, False)])
def test_where_adams_count_begins(begin, passes):
    "The course's file began with 1 in some years."
    def adam(w, dw, config=None): return ours("adam")(w, dw, {"t": begin} | (config or {}))
    report = check(adam)
    assert report.passed == passes and bool(report.remarks) == (begin == 1), report


def test_the_courses_empty_functions_are_not_written():
    def affine_forward(x, w, b):
        out = None
        return out, (x, w, b)
    def relu_backward(dout, cache):
        dx, x = None, cache
        return dx
    for f in (affine_forward, relu_backward):
        report = check(f)
        assert not report.passed and not report.written and "None" in report.words[0]


def test_a_net_without_its_normalization_is_told_so():
    class FullyConnectedNet(ours("FullyConnectedNet")):
        def __init__(self, *args, normalization=None, **options): super().__init__(*args, **options)
    assert "It is wrong only where there is any normalization." in check(FullyConnectedNet).words


def test_infinite_time_sets_no_limit():
    def relu_forward(x):
        import sys
        assert sys.gettrace() is before
        return np.maximum(x, 0), x

    before = sys.gettrace()
    assert check(relu_forward, seconds=float("inf")).passed


# ------------------------------------------------------------ other right ways

ALL_WAYS = [pytest.param(name, functions, id=f"{name}-{functions[-1].__name__}") for name, every in WAYS.items() for functions in every]


def test_every_exercise_has_other_right_ways():
    assert set(WAYS) == set(WRITTEN) and min(len({f[-1] for f in every}) for every in WAYS.values()) >= 3


@pytest.mark.parametrize("name, functions", ALL_WAYS)
def test_other_right_ways_raise_no_alarm(name, functions):
    for seed in range(3):
        report = check(*functions, name=name, seed=seed)
        assert report.passed, report


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_other_right_ways_raise_no_alarm_in_a_thousand_runs(name):
    every, alarms = WAYS[name], []
    for run in range(1000):
        functions, seed = every[run % len(every)], 3 + run // len(every)
        if not check(*functions, name=name, seed=seed).passed: alarms.append((functions[-1].__name__, seed))
    assert alarms == []
