"""How good are the tests of the compiled kernels? Spoil one thing at a time in their sources and see whether a layer comes out wrong.

    python scripts/mutate_kernels.py                   all of them
    python scripts/mutate_kernels.py tile pool_plane   those in these modules, or in functions whose names begin so

Spoiled are the bounds of loops (one more, one less), comparisons, sums, differences and products, whole numbers in subscripts, the choice of `min` and
`max`, conditions, and statements that store or call something (left out): zeroing is one of them. All mutants are compiled at once, into a copy of the
package in build/mutate: `on(17)` in its sources is true while mutant 17 is alive. For each one, a forked process runs layers of tests/kernel_cases.py
that come by its place, on vectors of 16, 32 and 64 bytes, until one of them is wrong, crashes or does not end. Printed are the mutants that survive
and the score. Those in tests/equivalent_mutants.txt, where a reason is given for each, do not count. Linux and macOS only.
"""
import ast
import copy
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "build" / "mutate"
LAYERS = {"conv": 150, "pool": 50, "norm": 50, "affine": 60, "relu": 5, "step": 15}  # random layers of each kind
AT_MOST = 80  # layers for one mutant
SWAPS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
         ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add, ast.And: ast.Or, ast.Or: ast.And}
SWITCH = """import cython

MUTANT = cython.declare(cython.int, 0)
REACHED = cython.declare(cython.char[20000])

@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def on(k: cython.int) -> cython.bint:
    REACHED[k] = 1
    return MUTANT == k

def mutant(k: cython.int):
    "Bring mutant k to life."
    global MUTANT
    MUTANT = k

def reached():
    "The mutants whose places were come by since this was asked last."
    found = [k for k in range(20000) if REACHED[k]]
    for k in found: REACHED[k] = 0
    return found
"""


def changed(node, **fields):
    "A copy of the node with other fields."
    new = copy.copy(node)
    vars(new).update(fields)
    return new


def on(k): return ast.Call(ast.Name("on", ast.Load()), [ast.Constant(k)], [])


def off(k): return ast.UnaryOp(ast.Not(), on(k))


def one_off(node): return [ast.BinOp(node, op, ast.Constant(1)) for op in (ast.Add(), ast.Sub())]


class Spoiler(ast.NodeTransformer):
    "Puts a switch wherever a module's functions can be spoiled."
    def __init__(self, module, first): self.module, self.names, self.function, self.subscript, self.first = module, {}, [], 0, first

    def name(self, whole, part=None):
        "The number of a new mutant, whose name says what was spoiled."
        self.names[k := self.first + len(self.names)] = f"{self.module}.{'.'.join(self.function)}: " + (f"{ast.unparse(whole)} -> {ast.unparse(part)}" if part else f"without {ast.unparse(whole)}")
        return k

    def switched(self, whole, parts, inner):
        "The node, with a mutant for each of the parts in its place; `inner` is the node with switches inside."
        for part in parts: inner = ast.IfExp(on(self.name(whole, part)), copy.deepcopy(part), inner)
        return inner

    def visit_FunctionDef(self, node):
        self.function.append(node.name)
        body = [self.visit(part) for part in node.body]
        self.function.pop()
        return changed(node, body=body)

    def visit_ClassDef(self, node):
        self.function.append(node.name)
        body = [self.visit(part) if isinstance(part, ast.FunctionDef) else part for part in node.body]
        self.function.pop()
        return changed(node, body=body)

    def visit_AnnAssign(self, node): return changed(node, value=node.value and self.visit(node.value))

    def visit_BinOp(self, node):
        swap = SWAPS.get(type(node.op))
        text = any(isinstance(part, ast.Constant | ast.List | ast.Tuple) and not isinstance(getattr(part, "value", None), int | float) for part in (node.left, node.right))
        return self.switched(node, [changed(node, op=swap())] if swap and self.function and not text else [], self.generic_visit(copy.deepcopy(node)))

    def truth(self, node):
        "A condition with switches inside, and one that makes `or` of its `and`, or the reverse."
        inner = self.visit(copy.deepcopy(node))
        if not isinstance(node, ast.BoolOp) or not self.function: return inner
        k = self.name(node, changed(node, op=SWAPS[type(node.op)]()))
        return ast.BoolOp(ast.Or(), [ast.BoolOp(ast.And(), [on(k), changed(node, op=SWAPS[type(node.op)]())]), ast.BoolOp(ast.And(), [off(k), inner])])

    def visit_Compare(self, node):
        swap = SWAPS.get(type(node.ops[0]))
        return self.switched(node, [changed(node, ops=[swap(), *node.ops[1:]])] if swap and self.function else [], self.generic_visit(copy.deepcopy(node)))

    def visit_Subscript(self, node):
        inner = changed(node, value=self.visit(node.value))
        if isinstance(node.slice, ast.Slice | ast.Tuple) or not self.function: return changed(inner, slice=self.generic_visit(node.slice))
        return changed(inner, slice=self.switched(node.slice, one_off(node.slice) if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int) else [], self.visit(copy.deepcopy(node.slice))))

    def visit_Call(self, node):
        name = ast.unparse(node.func)
        if name.startswith("cython."): return node
        inner = self.generic_visit(copy.deepcopy(node))
        if name == "range" and self.function:
            bounds = [self.switched(a, one_off(a), b) if k < 2 else b for k, (a, b) in enumerate(zip(node.args, inner.args))]
            return changed(inner, args=bounds)
        return self.switched(node, node.args if name in ("min", "max") and len(node.args) == 2 and not node.keywords else [], inner)

    def condition(self, node):
        if ast.unparse(node.test) == "not cython.compiled": return node
        test, inner = self.truth(node.test), self.generic_visit(changed(copy.deepcopy(node), test=ast.Constant(True)))
        if isinstance(node, ast.While) or not self.function: return changed(inner, test=test)
        always, never = self.name(node.test, ast.Constant(True)), self.name(node.test, ast.Constant(False))
        return changed(inner, test=ast.BoolOp(ast.Or(), [on(always), ast.BoolOp(ast.And(), [off(never), test])]))

    visit_If = visit_While = condition

    def left_out(self, node):
        "The statement, unless its mutant lives."
        inner = self.generic_visit(copy.deepcopy(node))
        if not self.function: return inner
        return ast.If(off(self.name(node)), [inner], [])

    visit_AugAssign = left_out

    def visit_Expr(self, node): return self.left_out(node) if isinstance(node.value, ast.Call) else node

    def visit_Assign(self, node):
        targets = getattr(node.targets[0], "elts", node.targets)
        return self.left_out(node) if isinstance(targets[0], ast.Subscript) else self.generic_visit(node)

    def visit_Global(self, node): return node


def sources():
    "The modules that are compiled, in the copy."
    names = re.search(r"^SOURCES = (\{.*?\})", (ROOT / "setup.py").read_text(), re.M | re.S)[1]
    return [COPY / "cs231n_lit" / "kernels" / f"{name}.py" for name in dict.fromkeys(sum(ast.literal_eval(names).values(), []))]


def spoil(wanted):
    "Put the switches into the copy's sources; each mutant's name by its number."
    names = {}
    for path in sources():
        tree, spoiler = ast.parse(path.read_text(encoding="utf8")), Spoiler(path.stem, 1 + len(names))
        for k, node in enumerate(tree.body):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (not wanted or any(path.stem == w or node.name.startswith(w) for w in wanted)): tree.body[k] = spoiler.visit(node)
        path.write_text(ast.unparse(ast.fix_missing_locations(tree)) + "\n", encoding="utf8")
        names |= spoiler.names
    return names


def build(wanted):
    "The copy, with switches, compiled for each width of vectors, with AVX2 at most; the mutants' names."
    shutil.rmtree(COPY / "cs231n_lit", ignore_errors=True)
    shutil.copytree(ROOT / "cs231n_lit", COPY / "cs231n_lit", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in "settings.ini", "README.md": shutil.copy(ROOT / name, COPY)
    (COPY / "setup.py").write_text(re.sub(r"(?m)^(SOURCES = .*)$", r"\1\nSOURCES = {k: ['switch', *v] for k, v in SOURCES.items()}", (ROOT / "setup.py").read_text()))
    (COPY / "cs231n_lit/kernels/switch.py").write_text(SWITCH)
    names = spoil(wanted)
    done = subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=COPY, capture_output=True, text=True,
                          env={**os.environ, "CS231N_LIT_CFLAGS": "-O1 -march=x86-64-v3"})
    if done.returncode or "left out" in done.stderr: sys.exit(f"The mutants could not be compiled:\n{done.stdout[-3000:]}{done.stderr[-9000:]}")
    return names


def draw(kernels):
    "Layers (case, kernels): awkward ones, and random ones that are the same each time."
    from hypothesis import HealthCheck, Phase, given, settings
    import kernel_cases as cases
    found = []
    for k, shapes in enumerate(cases.AWKWARD):
        for way in [name for name, way in kernels.ways.items() if way.supports(*shapes)]:
            found.append((cases.Conv(*shapes, way, dtype=["float32", "float64"][k % 2], threads=1 + k % 3, eager=True), kernels))
    for kind, n in LAYERS.items():
        few = settings(max_examples=n, deadline=None, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        few(given(cases.layers(kernels)[kind])(lambda case: found.append((case, kernels))))()
    return found


def forked(work, seconds):
    "What work() returns in a forked process, or None if it fails, crashes or does not end."
    out, into = os.pipe()
    if not (pid := os.fork()):
        try:
            os.close(out)
            resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
            signal.setitimer(signal.ITIMER_REAL, seconds)
            for stream in 1, 2: os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            with open(into, "wb") as f: pickle.dump(work(), f)
            os._exit(0)
        finally: os._exit(1)
    os.close(into)
    with open(out, "rb") as f: answer = f.read()
    return pickle.loads(answer) if not os.waitpid(pid, 0)[1] else None


def survey(layers):
    "For each mutant the layers that come by its place, the quick ones first; all layers are right while no mutant lives."
    def all_of_them():
        by, took = {}, {}
        for k, (case, kernels) in enumerate(layers):
            start = time.process_time()
            case.check(kernels)
            took[k] = time.process_time() - start
            for module in kernels.modules:
                for m in module.reached(): by.setdefault(m, []).append(k)
        return {m: sorted(found, key=took.get) for m, found in by.items()}, max(took.values())
    return forked(all_of_them, 3600) or sys.exit("a layer is wrong without any mutant")


def survives(number, layers, seconds):
    "Are these layers right although this mutant lives?"
    def work():
        for case, kernels in layers:
            for module in kernels.modules: module.mutant(number)
            case.check(kernels)
        return True
    return forked(work, seconds) is not None


def main(wanted):
    names = build(wanted)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a forked process has only one thread
    sys.path[:0] = [str(COPY), str(ROOT / "tests")]
    import kernel_cases
    assert kernel_cases.fast.__file__.startswith(str(COPY))
    layers = [layer for ending in ("v3", "v4", "v1") for layer in draw(kernel_cases.Kernels(ending))]
    by, longest = survey(layers)
    listed = {line for line in (ROOT / "tests/equivalent_mutants.txt").read_text().splitlines() if not line.startswith((" ", "#"))}
    count = {"noticed": 0, "survived": 0, "equivalent": 0}
    for number, name in names.items():
        found = by.get(number, [])
        some = found[:AT_MOST // 2] + found[AT_MOST // 2::max(1, len(found) // (AT_MOST // 2))][:AT_MOST // 2]  # quick ones, and some of the others
        if name in listed: fate = "equivalent"
        elif survives(number, [layers[k] for k in some], 20 + 100 * longest):
            fate = "survived"
            print("survived" if found else "never reached", name, flush=True)
        else: fate = "noticed"
        count[fate] += 1
    total = count["noticed"] + count["survived"]
    print(f"{len(layers)} layers: {count['noticed']} of {total} mutants of the kernels noticed, {count['noticed'] / total:.1%}; {count['equivalent']} more are equivalent")


if __name__ == "__main__": main(sys.argv[1:])
