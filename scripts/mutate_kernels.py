"""How good are the tests of the compiled kernels? Make one number in their sources wrong by one and see whether a layer comes out wrong.

    python scripts/mutate_kernels.py                  all of them
    python scripts/mutate_kernels.py tile winograd    those of some pages
    python scripts/mutate_kernels.py --every 4        one in four

One too many and one too few are tried at the bounds of loops, in comparisons, in `min` and `max`, in steps of counters, in subscripts of C arrays, in what
is added to pointers and in the sizes of work space; what is set to zero is left as it was. Functions that only say which way is the faster are left alone:
any answer of theirs is right. The kernels are not compiled for each mutant: `range(n)` becomes `range(0 + on(7), n + on(8) - on(9))`, so that one build, in
build/mutate, holds all of them, and a number chooses. For each mutant a forked process runs small layers of tests/kernel_cases.py until one is wrong, or
crashes as it does behind the end of a C array, or time is up: first those that noticed the mutants before. Vectors have 32 bytes; mutants that survive are
tried with 64, and then, on Linux with GCC, in a second build where AddressSanitizer stops at every number that is read beside an array. Printed are those
that survive all this, and each page's score. Those in tests/equivalent_mutants.txt, where a reason is given for each, do not count. Linux and macOS only.
"""
import argparse
import ast
import copy
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import sanitize

ROOT = Path(__file__).resolve().parent.parent
COPY, STRICT = ROOT / "build" / "mutate", ROOT / "build" / "mutate_strict"
FLAGS = {COPY: "-O1 -fsanitize=bounds -fsanitize-undefined-trap-on-error"}
FLAGS[STRICT] = FLAGS[COPY] + " -fsanitize=address"
LAYERS = {"conv": 160, "affine": 40, "pool": 50, "norm": 50, "relu": 6, "step": 12}  # random layers of each kind
LEFT_ALONE = {"vector_bytes", "registers", "itemsize", "pointer", "in_turn",  # the build's own
              "pays_winograd", "pays_strips", "pays_four_rows", "strips_in_use"}  # any answer is right
SWITCH = '''
MUTANT = cython.declare(Int, 0)

@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def on(k: Int) -> Int: return 1 if MUTANT == k else 0

def set_mutant(k: Int):
    "Bring mutant k to life."
    global MUTANT
    MUTANT = k

def unzeroed(a, k: Int):
    "What np.zeros gives, or, while mutant k is alive, something else."
    if on(k): a.fill(float("nan") if a.dtype.kind == "f" else 1)
    return a
'''


def alive(k): return ast.Call(ast.Name("on", ast.Load()), [ast.Constant(k)], [])


def dead(k): return ast.BinOp(ast.Constant(1), ast.Sub(), alive(k))


def is_array(annotation): return annotation is not None and re.search(r"pointer|\[\d+\]|\[::1\]|\[:, ::1\]", ast.unparse(annotation)) is not None


class Spoiler(ast.NodeTransformer):
    "Puts switches into a module; `names` holds what each mutant is, by its number."
    def __init__(self, module, first, attributes):
        self.module, self.first, self.names, self.attributes = module, first, {}, attributes
        self.function, self.statement, self.arrays, self.counters = [], None, set(), set()

    def number(self, was, now):
        line, header = self.statement
        self.names[k := self.first + len(self.names)] = self.module, line, f"kernels.{self.module}.{'.'.join(self.function)}: {header} [{was} -> {now}]"
        return k

    def off(self, node, *by, of=None):
        "The node with switches: one more, one less."
        inner = self.visit(copy.deepcopy(node))
        for d in by:
            op = ast.Add if d > 0 else ast.Sub
            was = ast.unparse(of or node)
            now = ast.unparse(ast.BinOp(node, op(), ast.Constant(1)))
            inner = ast.BinOp(inner, op(), alive(self.number(was, now)))
        return inner

    def without(self, node, was):
        "A statement that a mutant leaves out."
        return ast.If(dead(self.number(was, "left out")), [node], [])

    def is_pointer(self, node):
        match node:
            case ast.Name(name): return name in self.arrays
            case ast.Attribute(attr=name): return name in self.attributes
            case ast.BinOp(left=left, op=ast.Add()): return self.is_pointer(left)
            case ast.IfExp(body=body, orelse=orelse): return self.is_pointer(body) or self.is_pointer(orelse)
            case ast.Call(func=ast.Name("pointer")): return True
            case ast.Call(func=ast.Attribute(attr="declare" | "address")): return True
            case ast.Subscript(value=ast.Name("row" | "strip" | "result")): return True
        return False

    def visit(self, node):
        if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef | ast.ClassDef): self.statement = node.lineno, " ".join(line.strip() for line in ast.unparse(node).split("\n")[:2])
        return super().visit(node)

    def visit_ClassDef(self, node):
        if node.name == "Pointer": return node
        self.function.append(node.name)
        node.body = [self.visit(part) if isinstance(part, ast.FunctionDef) else part for part in node.body]
        self.function.pop()
        return node

    def visit_FunctionDef(self, node):
        if node.name in LEFT_ALONE: return node
        kept = self.arrays, self.counters
        if not self.function or self.function[-1][0].isupper(): self.arrays, self.counters = set(), set()
        self.arrays |= {a.arg for a in node.args.args if is_array(a.annotation)}
        for part in ast.walk(node):
            match part:
                case ast.AnnAssign(target=ast.Name(name), annotation=annotation):
                    if is_array(annotation): self.arrays.add(name)
                    elif ast.unparse(annotation) == "Int" and part.value: self.counters.add(name)
        for _ in range(2):
            for part in ast.walk(node):
                match part:
                    case ast.Assign(targets=[ast.Tuple(names)], value=ast.Tuple(values)): pairs = zip(names, values)
                    case ast.Assign(targets=[target], value=value): pairs = [(target, value)]
                    case _: continue
                self.arrays |= {t.id for t, v in pairs if isinstance(t, ast.Name) and self.is_pointer(v)}
        self.function.append(node.name)
        node.body = [new for part in node.body for new in self.statements(part)]
        self.function.pop()
        self.arrays, self.counters = kept
        return node

    def statements(self, node):
        new = self.visit(node)
        return [] if new is None else new if isinstance(new, list) else [new]

    def visit_AnnAssign(self, node):
        node.value = node.value and self.visit(node.value)
        return node

    def visit_If(self, node): return None if ast.unparse(node.test) == "not cython.compiled" else self.generic_visit(node)

    def visit_IfExp(self, node): return self.visit(node.body) if ast.unparse(node.test) == "cython.compiled" else self.generic_visit(node)

    def visit_Assign(self, node):
        was, targets, constant = ast.unparse(node), node.targets, isinstance(node.value, ast.Constant) and node.value.value in (0, 0.) and not isinstance(node.value.value, bool)
        if ast.unparse(targets[0]) == "self.space": node.value = self.off(node.value, -1)
        else: node = self.generic_visit(node)
        return self.without(node, was) if constant and isinstance(targets[0], ast.Subscript) else node

    def visit_AugAssign(self, node):
        if isinstance(node.target, ast.Name) and node.target.id in self.counters and isinstance(node.op, ast.Add): node.value = self.off(node.value, 1, -1)
        else: node = self.generic_visit(node)
        return node

    def visit_BinOp(self, node):
        if not isinstance(node.op, ast.Add) or not self.is_pointer(node.left): return self.generic_visit(node)
        return ast.BinOp(self.visit(node.left), node.op, self.off(node.right, 1, -1))

    def visit_Subscript(self, node):
        if isinstance(node.slice, ast.Slice):
            part = node.slice
            value = self.visit(node.value)
            lower, upper = (self.off(b, 1, -1) if b and not isinstance(b, ast.Constant) else b for b in (part.lower, part.upper))
            return ast.Subscript(value, ast.Slice(lower, upper, part.step), node.ctx)
        if not self.is_pointer(node.value): return self.generic_visit(node)
        value = self.visit(node.value)
        if isinstance(node.slice, ast.Tuple): index = ast.Tuple([*node.slice.elts[:-1], self.off(node.slice.elts[-1], 1, -1)], ast.Load())
        else: index = self.off(node.slice, 1, -1)
        return ast.Subscript(value, index, node.ctx)

    def visit_Compare(self, node):
        if len(node.ops) > 1: return self.generic_visit(node)
        if isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE): return ast.Compare(self.visit(node.left), node.ops, [self.off(node.comparators[0], 1, -1)])
        k = self.number(ast.unparse(node), "the contrary")
        return ast.Compare(self.generic_visit(node), [ast.NotEq()], [alive(k)])

    def visit_Call(self, node):
        name, args = ast.unparse(node.func), node.args
        if name.startswith("cython."): return node
        if name == "range":
            if len(args) == 1: return ast.Call(node.func, [self.off(ast.Constant(0), 1), self.off(args[0], 1, -1)], [])
            return ast.Call(node.func, [self.off(args[0], 1, -1), self.off(args[1], 1, -1), *args[2:]], [])
        if name in ("min", "max") and len(args) == 2:
            ups = [k for k in (self.number(ast.unparse(node), ast.unparse(node) + end) for end in (" + 1", " - 1"))]
            inner = self.generic_visit(node)
            return ast.BinOp(ast.BinOp(inner, ast.Add(), alive(ups[0])), ast.Sub(), alive(ups[1]))
        if name == "zero":
            k = self.number(ast.unparse(node), "left out")
            start = self.visit(args[0]) if isinstance(args[0], ast.BinOp) else ast.BinOp(args[0], ast.Add(), self.off(ast.Constant(0), 1, -1))
            return ast.Call(node.func, [start, ast.BinOp(self.off(args[1], 1, -1), ast.Mult(), dead(k))], [])
        if name == "np.zeros":
            was, inner = ast.unparse(node), self.generic_visit(node)
            return ast.Call(ast.Name("unzeroed", ast.Load()), [inner, ast.Constant(self.number(was, "not zero"))], [])
        if name == "round_up": return ast.Call(node.func, [self.off(args[0], -1), *map(self.visit, args[1:])], [])
        if name in ("aligned", "scratch_space"): return ast.Call(node.func, [self.off(args[0], -1), *map(self.visit, args[1:])], node.keywords)
        return self.generic_visit(node)


def page(module): return next((ROOT / "nbs" / "kernels").glob(f"[0-9]*_{module}.ipynb")).name


def groups():
    "The modules of each group that are joined and compiled."
    return ast.literal_eval(re.search(r"^SOURCES = (\{.*?\})", (ROOT / "setup.py").read_text(), re.M | re.S)[1])


def spoil():
    "The kernels' sources with switches, by module, and each mutant by its number."
    names, texts, modules = {}, {}, list(dict.fromkeys(sum(groups().values(), [])))
    trees = {module: ast.parse((ROOT / "cs231n_lit" / "kernels" / f"{module}.py").read_text()) for module in modules}
    attributes = {part.target.id for tree in trees.values() for c in tree.body if isinstance(c, ast.ClassDef) for part in c.body
                  if isinstance(part, ast.AnnAssign) and is_array(part.annotation)}
    for module, tree in trees.items():
        spoiler = Spoiler(module, 1 + len(names), attributes)
        tree.body = [spoiler.visit(part) if isinstance(part, ast.FunctionDef | ast.ClassDef) else part for part in tree.body]
        names |= spoiler.names
        text = re.sub(r"^(def (?:vector_bytes|registers)\(\) -> Int:)\n    ", r"\1 ", ast.unparse(ast.fix_missing_locations(tree)), flags=re.M)  # as setup.py looks for them
        texts[module] = re.sub(r"^(Int = .*\n)", rf"\1{SWITCH}", text, flags=re.M)
    return texts, names


def build(folder, texts, isas):
    "A copy of the package with these sources, compiled."
    began = time.monotonic()
    shutil.rmtree(folder / "cs231n_lit", ignore_errors=True)
    shutil.copytree(ROOT / "cs231n_lit", folder / "cs231n_lit", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for file in "setup.py", "settings.ini", "pyproject.toml": shutil.copy2(ROOT / file, folder)
    for module, text in texts.items(): (folder / "cs231n_lit" / "kernels" / f"{module}.py").write_text(text)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    flags = FLAGS[folder] + " -march=x86-64-v3" * (isas != ["v1"])
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "CS231N_LIT_CFLAGS": flags, "CS231N_LIT_TARGETS": " ".join(isas)})
    if done.returncode or "left out" in done.stderr: sys.exit(f"The kernels could not be built:\n{done.stdout}{done.stderr[:3000]}")
    print(f"{folder.name}: {time.monotonic() - began:.0f} s to build", flush=True)


def drawn(kernels):
    "Layers of each group of modules, the same every time."
    import kernel_cases
    from hypothesis import HealthCheck, Phase, given, settings
    kernel_cases.WORK = 1 << 14
    found = {kind: [] for kind in LAYERS}
    for kind, count in LAYERS.items():
        for_all = settings(max_examples=count, deadline=None, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        for_all(given(kernel_cases.layers(kernels)[kind])(lambda case: found[kind].append(case)))()
    awkward = [kernel_cases.Conv(*shapes, way, dtype=("float32", "float64")[n % 2], threads=1 + (n + k) % 3, eager=k % 2 == 0, seed=k)
               for n, shapes in enumerate(kernel_cases.AWKWARD) for k, way in enumerate([None, *(name for name, way in kernels.ways.items() if way.supports(*shapes))])]
    ends = [*kernel_cases.ends("float32"), *kernel_cases.ends("float64"), *kernel_cases.NOTHING]
    of_layers = kernel_cases.Pool, kernel_cases.Norm, kernel_cases.Relu, kernel_cases.Step
    small = [case for case in awkward if case.work() < 5e6]
    return {"conv": [case for case in ends if not isinstance(case, of_layers)] + small + found["conv"] + found["affine"],
            "layers": [case for case in ends if isinstance(case, of_layers)] + found["pool"] + found["norm"] + found["relu"] + found["step"]}


def fate(k, cases, kernels, seconds):
    "What becomes of the layers in a forked process where mutant k lives: 0 all are right, 1 one is wrong, less than 0 a crash or no end."
    shared = mmap.mmap(-1, 8)
    if not (pid := os.fork()):
        signal.setitimer(signal.ITIMER_PROF, seconds)  # of work; and if it sleeps:
        signal.setitimer(signal.ITIMER_REAL, 300 + 10 * seconds)
        for out in 1, 2: os.dup2(os.open(os.devnull, os.O_WRONLY), out)
        try:
            for module in kernels.modules: module.set_mutant(k)
            for n, case in enumerate(cases):
                shared[:] = n.to_bytes(8)
                case.check(kernels)
            os._exit(0)
        except BaseException: os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status: cases.insert(0, cases.pop(int.from_bytes(shared[:])))
    return status


def survivors(names, isa):
    "The mutants whose layers all come out right, and how many were noticed by the clock alone."
    import kernel_cases
    kernels = kernel_cases.Kernels(isa)
    cases, group_of, slow, left = drawn(kernels), {m: g for g, modules in groups().items() for m in modules}, 0, []
    cases["both"] = cases["layers"] + cases["conv"]
    began, before = time.monotonic(), os.times()
    if fate(0, cases["both"], kernels, 600): sys.exit(f"{isa}: a layer goes wrong without any mutant: {cases['both'][0]}")
    seconds = 1 + 3 * (os.times().children_user - before.children_user)
    for k, (module, *_) in names.items():
        code = fate(k, cases["both" if module in ("tile", "memory") else group_of[module]], kernels, seconds)
        slow += code in (-signal.SIGALRM, -signal.SIGPROF)
        if not code:
            left.append(k)
            print(f"{isa}: all right with {names[k][-1]}   ({page(module)}, line {names[k][1]} of {module}.py)", flush=True)
    print(f"{isa}: {len(names) - len(left)} of {len(names)} mutants noticed ({slow} by the clock) with {len(cases['both'])} layers in {time.monotonic() - began:.0f} s", flush=True)
    return left


def listed():
    return {line for line in (ROOT / "tests" / "equivalent_mutants.txt").read_text().splitlines() if not line.startswith((" ", "#"))}


def inside(names, folder, isas):
    "What runs in a process of its own, with a copy of the package: mutants come in a file, and those that survive go there."
    sys.path[:0] = [str(ROOT / "tests")]
    import cs231n_lit
    assert cs231n_lit.__file__.startswith(str(folder)), "another package than the copy"
    left = {int(k): names[int(k)] for k in (folder / "left.txt").read_text().split()}
    for isa in isas: left = {k: names[k] for k in survivors(left, isa)}
    (folder / "left.txt").write_text(" ".join(map(str, left)))


def outside(left, names, texts, folder, isas, env):
    "Which of these mutants survive in a build of its own."
    build(folder, texts, isas)
    (folder / "left.txt").write_text(" ".join(map(str, left)))
    subprocess.run([sys.executable, __file__, "--inside", folder.name, *isas], env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(folder), **env}, check=True)
    return [int(k) for k in (folder / "left.txt").read_text().split()]


def main(args):
    sys.path[:0] = [str(ROOT / "build" / args.inside if args.inside else ROOT)]
    texts, names = spoil()
    if args.inside: return inside(names, ROOT / "build" / args.inside, args.pages)
    from cs231n_lit.kernels.compiled import choices
    isas, known = ["v3", "v4"] if "v3" in choices() else ["v1"], listed()
    chosen = [k for k, name in names.items() if not args.pages or name[0] in args.pages][::args.every]
    counted = {k: names[k] for k in chosen if names[k][-1] not in known}
    left = outside(counted, names, texts, COPY, isas, {})
    if left and sys.platform == "linux": left = outside(left, names, texts, STRICT, isas[-1:], sanitize.environment())
    for k in left: print(f"survived {names[k][-1]}")
    for module in [*dict.fromkeys(name[0] for name in counted.values()), "kernels"]:
        of_these = [k in left for k, name in counted.items() if module in (name[0], "kernels")]
        print(f"{module}: {of_these.count(False)} of {len(of_these)} mutants noticed, {of_these.count(False) / len(of_these):.1%}")
    print(f"{len(chosen) - len(counted)} more are equivalent")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="*", help="modules of cs231n_lit/kernels")
    parser.add_argument("--every", type=int, default=1, help="one in so many mutants")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    main(parser.parse_args())
