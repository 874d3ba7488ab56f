"""How good are the tests? Spoil one thing at a time in a module and see whether its tests notice.

    python scripts/mutate.py               all modules below
    python scripts/mutate.py layers optim  only these
    python scripts/mutate.py kernels       the compiled kernels, by scripts/mutate_kernels.py

Spoiled are comparisons, operators, constants, conditions, keyword arguments, returned values, statements and calls (left out); not the text of
error messages, documentation and annotations. No file is changed: pytest collects the tests once, then each mutant is a forked process in which
the module's functions get the spoiled code and the tests run until one fails, which has to fail twice, or time is up. It goes first the next time.
Printed are the mutants that survive and each module's score. Those listed in tests/equivalent_mutants.txt, where a reason is given for each, do
not count. Linux and macOS only.
"""
import ast
import copy
import inspect
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
import types
from importlib import import_module
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a forked process has only one thread
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import pytest  # noqa: E402

TESTS = {"layers": "layers", "normalization": "normalization", "convolution": "convolution", "pooling": "pooling",
         "spatial_norm": "normalization", "optim": "optim", "checkpoint": "solver", "solver": "solver"}
MESSAGE_ONLY = {"where", "name", "what", "kind", "rule"}  # parameters that appear in messages and nowhere else
SWAPS = {ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.LtE], ast.GtE: [ast.Gt, ast.Lt],
         ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is], ast.In: [ast.NotIn], ast.NotIn: [ast.In],
         ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult], ast.FloorDiv: [ast.Mult], ast.Mod: [ast.Mult],
         ast.Pow: [ast.Mult], ast.BitOr: [ast.BitAnd], ast.And: [ast.Or], ast.Or: [ast.And]}


def changed(node, **fields):
    "A copy of the node with other fields."
    new = copy.copy(node)
    vars(new).update(fields)
    return new


def spoiled(node, scope):
    "Each node to put in this one's place; `scope` holds the module's names."
    match node:
        case ast.Compare(ops=ops):
            for k, op in enumerate(ops):
                for swap in SWAPS[type(op)]: yield changed(node, ops=[*ops[:k], swap(), *ops[k+1:]])
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op):
            for swap in SWAPS.get(type(op), []): yield changed(node, op=swap())
        case ast.UnaryOp(operand=operand): yield operand
        case ast.Constant(value=bool(v)): yield changed(node, value=not v)
        case ast.Constant(value=int(v)): yield from (changed(node, value=v + 1), changed(node, value=v - 1))
        case ast.Constant(value=float(v)): yield changed(node, value=v * 2 or 1.0)
        case ast.Constant(value=str(v)):
            yield changed(node, value="XX" + v)
            if " " in v: yield changed(node, value=v.rpartition(" ")[0])
        case ast.Constant(value=None): yield changed(node, value=...)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            for op, value in (ast.Or(), True), (ast.And(), False): yield changed(node, test=ast.BoolOp(op, [test, ast.Constant(value)]))
        case ast.comprehension(ifs=[_, *_]): yield changed(node, ifs=[])
        case ast.Slice(lower=lower, upper=upper):
            if lower: yield changed(node, lower=None)
            if upper: yield changed(node, upper=None)
        case ast.Raise(): yield ast.Pass()
        case ast.Return(value=ast.expr()): yield ast.Return(ast.Constant(None))
        case ast.Call(func=function, args=arguments, keywords=keywords):
            for k, keyword in enumerate(keywords):
                if keyword.arg: yield changed(node, keywords=keywords[:k] + keywords[k+1:])
            names = parameters(function, scope) or arguments
            proper = [a for p, a in zip(names, arguments) if p not in MESSAGE_ONLY and not isinstance(a, ast.Starred)]
            of_module = isinstance(scope.get(ast.unparse(function).split(".")[0]), types.ModuleType)
            if isinstance(function, ast.Attribute) and not of_module: yield function.value
            elif proper: yield proper[0]
            elif keywords: yield ast.Tuple([keyword.value for keyword in keywords], ast.Load())
    match node:
        case ast.AugAssign(): yield ast.Assign([node.target], node.value, lineno=node.lineno)
    match node:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]): yield ast.Pass()


def parameters(function, scope):
    "The names of the parameters of a called function, where it is one of the module's own or imported ones."
    known = scope.get(getattr(function, "id", None))
    return list(inspect.signature(known).parameters) if inspect.isfunction(known) else []


def left_alone(node, scope):
    "The parts of a node that only speak to people, and imports."
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Raise(exc=ast.expr()) | ast.Expr(value=ast.Constant()): yield node
        case ast.Assign(targets=[ast.Name(id="where" | "__all__")]): yield node
        case ast.FunctionDef(): yield node.returns
        case ast.arguments(args=names, defaults=defaults):
            yield from (default for name, default in zip(names[::-1], defaults[::-1]) if name.arg in MESSAGE_ONLY)
        case ast.arg() | ast.AnnAssign(): yield node.annotation
        case ast.Call(func=function, args=arguments):
            yield from (a for p, a in zip(parameters(function, scope), arguments) if p in MESSAGE_ONLY and isinstance(a, ast.Constant | ast.JoinedStr))


def places(node, scope, statement=None, where=""):
    "Every place in the tree: its holder (a node's fields or a list), its key there, the statement and the function around it."
    if isinstance(node, ast.FunctionDef | ast.ClassDef): where += "." + node.name
    skip = [id(part) for part in left_alone(node, scope)]
    if id(node) in skip: return
    for field, value in list(ast.iter_fields(node)):
        holder, keys = (value, range(len(value))) if isinstance(value, list) else (vars(node), [field])
        for key in keys:
            part = holder[key]
            if not isinstance(part, ast.AST) or id(part) in skip: continue
            around = (holder, key) if isinstance(part, ast.stmt) else statement
            yield holder, key, around, where
            yield from places(part, scope, around, where)


def mutants(module):
    "Each mutant as (its name: function and spoiled line, its syntax tree, good until the next one is asked for)."
    tree, scope, seen = ast.parse(inspect.getsource(module)), vars(module), set()
    for holder, key, (body, at), where in places(tree, scope):
        whole = holder[key]
        for part in spoiled(whole, scope):
            before = ast.unparse(body[at])
            holder[key] = part
            after = ast.unparse(body[at])
            line = next((b for a, b in zip(before.splitlines(), after.splitlines()) if a != b), "")
            name = f"{module.__name__.removeprefix('cs231n_lit.')}{where}: " + (line.strip() if line != "pass" else f"without {before}")
            if isinstance(body[at], ast.Expr) and not isinstance(body[at].value, ast.Call): line = ""  # as good as left out
            if line and (name, after) not in seen: yield name, ast.fix_missing_locations(tree)
            seen.add((name, after))
            holder[key] = whole


def transplant(old, new):
    "Give the functions that tests and other modules hold the code of new ones; other values replace the old ones."
    for name, value in new.items():
        was = old.get(name)
        for inner in "fget", "__func__": was, value = getattr(was, inner, was), getattr(value, inner, value)
        if inspect.isfunction(value):
            for part in "__code__", "__defaults__", "__kwdefaults__": setattr(was, part, getattr(value, part))
        elif isinstance(value, type) and value is not was: transplant(vars(was), vars(value))
        elif isinstance(old, dict): old[name] = value


def run(tests):
    "Run the tests until one fails; that one's number, or None."
    for k, (test, following) in enumerate(zip(tests, [*tests[1:], None])):
        test.ihook.pytest_runtest_protocol(item=test, nextitem=following)
        if test.session.testsfailed: return k


def fate(tests, module, tree, seconds=600):
    "What becomes of the tests in a forked process that has this tree for the module: 0 all pass, 1 one fails, less than 0 time is up."
    shared = mmap.mmap(-1, 8)  # the number of the test that fails
    if not (pid := os.fork()):
        signal.setitimer(signal.ITIMER_REAL, seconds)
        for out in 1, 2: os.dup2(os.open(os.devnull, os.O_WRONLY), out)
        try:
            new = {"__name__": module.__name__, "__package__": module.__package__}
            exec(compile(tree, module.__file__, "exec"), new)
            transplant(vars(module), new)
            failed = run(tests)
            shared[:] = (failed or 0).to_bytes(8)
            os._exit(failed is not None)
        finally: os._exit(1)
    status = os.waitpid(pid, 0)[1]
    tests.insert(0, tests.pop(int.from_bytes(shared[:])))
    return os.waitstatus_to_exitcode(status)


def score(tests, module, listed):
    "Print the mutants that survive, and how many do not."
    began = time.monotonic()
    if fate(tests, module, ast.parse(inspect.getsource(module))): sys.exit(f"the tests of {module.__name__} fail without any mutant")
    seconds = 5 + 5 * (time.monotonic() - began)
    noticed = survived = equivalent = slow = 0
    for name, tree in mutants(module):
        if name in listed: equivalent += 1
        elif (code := fate(tests, module, tree, seconds)) < 0 or code and fate(tests[:1], module, tree, seconds): noticed, slow = noticed + 1, slow + (code < 0)
        else:
            survived += 1
            print("survived", name, flush=True)
    print(f"{module.__name__}: {noticed} of {noticed + survived} mutants noticed ({slow} by the clock), {noticed / (noticed + survived):.1%}; "
          f"{equivalent} more are equivalent", flush=True)


class Mutation:
    "A plugin for pytest: when the tests are collected, each module's run for each of its mutants."
    def __init__(self, modules): self.modules = modules

    def pytest_configure(self):
        "Examples that are the same each time, and no time spent on simplifying those that fail."
        from hypothesis import Phase, settings
        settings.register_profile("mutation", derandomize=True, database=None, deadline=None, phases=[Phase.explicit, Phase.generate])
        settings.load_profile("mutation")

    def pytest_runtestloop(self, session):
        listed = {line for line in (ROOT / "tests/equivalent_mutants.txt").read_text().splitlines() if not line.startswith((" ", "#"))}
        for name in self.modules:
            score([test for test in session.items if test.path.stem == f"test_{TESTS[name]}"], import_module(f"cs231n_lit.{name}"), listed)
        return True


if __name__ == "__main__":
    modules = sys.argv[1:] or [*TESTS, "kernels"]
    if "kernels" in modules:
        modules.remove("kernels")
        status = subprocess.run([sys.executable, ROOT / "scripts" / "mutate_kernels.py"]).returncode
        if not modules or status: sys.exit(status)
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{ROOT}/tests/test_{tests}.py" for tests in {TESTS[name]: 0 for name in modules}]
        sys.exit(pytest.main(["-q", "--no-header", "-s", "-p", "no:cacheprovider", f"--basetemp={folder}/tests", *files], [Mutation(modules)]))
