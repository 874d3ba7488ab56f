"""Mistakes that nobody listed: spoil the solutions one thing at a time, and ask `check`.

Which mutants change an answer is decided by other inputs than those of `check`: random sizes, strides, paddings and options. Run it as a
script for the figures of each exercise: python tests/test_exercises_mutants.py [exercises].
"""
import ast
import importlib.util
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from cs231n_lit import _probes, exercises
from cs231n_lit._probes import EXERCISES, Case, Plain, ours
from cs231n_lit.exercises import check

spec = importlib.util.spec_from_file_location("mutate", Path(__file__).resolve().parent.parent / "scripts" / "mutate.py")
mutate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutate)


def sizes(rng, n, high=4): return tuple(int(k) for k in rng.integers(1, high + 1, n))


def arrays(rng, **shapes): return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def wild_norm(ex, rng, shape, key):
    running = ex.module and key == "bn_param"
    D = shape[1]
    options = {} if rng.random() < 0.3 else {"eps": float(rng.choice([1e-3, 0.1, 2]))}
    scale = float(rng.choice([1, 1e-2]))
    if running:
        options["mode"] = "test" if not ex.forward and rng.random() < 0.4 else "train"
        if rng.random() < 0.6: options |= {"momentum": float(rng.uniform(0.1, 1)), "running_mean": rng.normal(size=D), "running_var": rng.uniform(0.1, 2, D)}
    gamma, beta = rng.uniform(0.5, 2, D), rng.normal(size=D)
    args = {"x": scale * rng.normal(size=shape) + rng.normal() * (scale == 1), "gamma": gamma, "beta": beta}
    if "groupnorm" not in ex.name: return args | {key: options}
    G = int(rng.choice([g for g in range(1, D + 1) if D % g == 0]))
    return args | {"gamma": gamma.reshape(1, -1, 1, 1), "beta": beta.reshape(1, -1, 1, 1), "G": G, key: options}


def wild(ex, rng):
    "An input of an exercise, of any size."
    stem, shape4 = ex.name, sizes(rng, 4)
    if stem.startswith("affine"):
        dims, M = sizes(rng, int(rng.integers(2, 5))), int(rng.integers(1, 5))
        return arrays(rng, x=dims, w=(int(np.prod(dims[1:])), M), b=(M,))
    if stem.startswith("relu"): return {"x": rng.normal(size=sizes(rng, int(rng.integers(1, 5))))}
    if stem.endswith("_loss"):
        N, C = int(rng.integers(1, 6)), int(rng.integers(2, 6))
        return {"x": rng.normal(0, rng.choice([0.1, 1, 5]), (N, C)) + rng.choice([0, 800, -800]), "y": rng.integers(0, C, N)}
    if stem == "conv_output_size":
        window, pad = int(rng.integers(1, 6)), int(rng.integers(0, 4))
        return {"size": window + int(rng.integers(0, 9)), "window": window, "stride": int(rng.integers(1, 5)), "pad": pad}
    if stem.startswith("conv"):
        HH, WW, S, P = (*sizes(rng, 2), int(rng.integers(1, 4)), int(rng.integers(0, 4)))
        N, C, F = sizes(rng, 3, 3)
        x = N, C, max(1, HH - 2 * P) + int(rng.integers(0, 4)), max(1, WW - 2 * P) + int(rng.integers(0, 4))
        return arrays(rng, x=x, w=(F, C, HH, WW), b=(F,)) | {"conv_param": {"stride": S, "pad": P}}
    if stem.startswith("max_pool"):
        HH, WW, S = *sizes(rng, 2, 3), int(rng.integers(1, 4))
        x = *sizes(rng, 2, 2), HH + int(rng.integers(0, 5)), WW + int(rng.integers(0, 5))
        return {"x": rng.normal(size=x), "pool_param": {"pool_height": HH, "pool_width": WW, "stride": S}}
    if stem.startswith("batchnorm"): return wild_norm(ex, rng, sizes(rng, 2, 6), "bn_param")
    if stem.startswith("layernorm"): return wild_norm(ex, rng, sizes(rng, 2, 6), "ln_param")
    if stem.startswith("spatial_batchnorm"): return wild_norm(ex, rng, shape4, "bn_param")
    if stem.startswith("spatial_groupnorm"): return wild_norm(ex, rng, (shape4[0], int(rng.choice([1, 2, 4, 6])), *shape4[2:]), "gn_param")
    return None


def wild_cases(ex, seed, many=40):
    "Many of them; update rules, dropout and nets have their own cases, with other numbers."
    rng, made = np.random.default_rng(seed), []
    for k in range(many):
        args = wild(ex, rng)
        if args is None: return [c for s in range(100, 106) for c in _probes.cases(ex, s) if not c.remark]
        dout = None
        if ex.forward: dout = rng.normal(size=ours(ex.forward)(*__import__("copy").deepcopy(args).values())[0].shape)
        made.append(Case("wild", args, dout))
    return made


def seen(ex, function, case):
    try: return ex.observe(Plain(function), ex, case, ours(ex.forward) if ex.forward else None)
    except Exception as error: return {"trouble": type(error).__name__}


def changes_an_answer(ex, function, cases, right):
    "Does the function answer otherwise than the right one, on any of these?"
    with exercises._put_back(), exercises._time_limit(5):
        try: return any(exercises._wrong(seen(ex, function, case), expected, case) for case, expected in zip(cases, right))
        except exercises._TimeUp: return True


def mutants(name, source):
    "Each mutant of a function's source: the line that was spoiled, and the function."
    module = import_module("cs231n_lit." + EXERCISES[name].module)
    tree, scope = ast.parse(source), vars(module)
    for holder, key, (body, at), where in mutate.places(tree, scope):
        whole, known = holder[key], set()
        for part in mutate.spoiled(whole, scope):
            before, holder[key] = ast.unparse(tree), part
            after = ast.unparse(tree)
            if after not in known | {before}:
                known.add(after)
                line = next((a for b, a in zip(before.splitlines(), after.splitlines()) if a != b), "left out: " + ast.unparse(body[at]))
                own = dict(scope)
                try: exec(compile(ast.fix_missing_locations(ast.parse(after)), f"<{name}>", "exec"), own)
                except Exception: pass
                else: yield line.strip(), own[name]
            holder[key] = whole


def verdicts(name):
    "How many mutants change an answer, and those of them that `check` calls right."
    ex = EXERCISES[name]
    cases = wild_cases(ex, 5)
    right = [seen(ex, ours(name), case) for case in cases]
    changing, missed = 0, []
    for source in {exercises._own_source(name), exercises.solution(name)}:
        for line, function in mutants(name, source):
            if not changes_an_answer(ex, function, cases, right): continue
            changing += 1
            if check(function, name=name, seconds=5).passed: missed.append(line)
    return changing, missed


@pytest.mark.slow
def test_mutants_that_change_an_answer_are_noticed():
    "98 of 100 at least, over all exercises, and none of them is most of one exercise."
    total = [verdicts(name) for name in EXERCISES]
    changing, missed = sum(n for n, _ in total), [line for _, lines in total for line in lines]
    assert changing > 800 and len(missed) <= 0.02 * changing, missed


@pytest.mark.parametrize("name", ["affine_backward", "relu_backward", "batchnorm_backward_alt"])
def test_mutants_of_some_exercises_are_noticed(name):
    changing, missed = verdicts(name)
    assert changing >= 5 and missed == []


if __name__ == "__main__":
    all_changing = all_missed = 0
    for name in sys.argv[1:] or EXERCISES:
        changing, missed = verdicts(name)
        all_changing, all_missed = all_changing + changing, all_missed + len(missed)
        print(f"{name}: {changing - len(missed)} of {changing} noticed", *(f"   missed: {line}" for line in missed), sep="\n", flush=True)
    print(f"{all_changing - all_missed} of {all_changing} noticed: {1 - all_missed / all_changing:.2%}")
