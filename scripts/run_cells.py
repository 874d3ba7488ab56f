"""Give the pages' cells a Run button: what the browser needs to run them goes into docs/run.

Each page gets one small JSON file with all code of its notebook, hidden cells included; the cells that show code
are marked in its HTML, whichever renderer wrote it. The package goes along as a zip of Python files. The engine,
Pyodide, and the wheels stay where settings.ini says (`browser_engine`), or are put beside the site: `make docs VENDOR=1`.
`engine.json` pins each file by its SHA-256.
"""
import ast
import base64
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import nbformat

from cs231n_lit.exercises import _scope

ROOT = Path(__file__).resolve().parent.parent
PARTS, PINS = ROOT / "scripts/browser", ROOT / "scripts/engine.json"
DIRECTIVE = re.compile(r"^#\| *([\w-]+)(:?) *(.*)$", re.M)
CODE = re.compile(r'<pre class="[^"]*sourceCode[^"]*"[^>]*>(.*?)</pre>', re.S)
CELL = re.compile(r'<div(?=[^>]*\bclass="cell\b)')
HEAVY = re.compile(r"^\s*(?:import|from) (?:matplotlib|imageio|PIL)\b", re.M)  # what is fetched only where it is needed


# ------------------------------------------------------------ a notebook's cells

def directives(source):
    "The `#|` lines of a cell: name to value, with their names as nbdev and Quarto read them."
    return {name: value.strip().strip('"') for name, _, value in DIRECTIVE.findall(source)}


def code_of(source):
    "A cell's code as a page shows it."
    return re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip("\n")


# What a browser lacks, by the text that needs it. A cell that calls what such a cell defines cannot run either; one that only defines it can.
LACKING = {"the repository's files": r"""["']\.\./|\w\.ipynb["']""", "processes": r"\bsubprocess\.|\bmultiprocessing\.|\bos\.fork\b|^ *import resource",
           "threads": r"threading\.Thread\(|ThreadPool|\bset_num_threads\([2-9]", "compiled code": r"\bfour_ways\(", "a network": r"HTTPServer\b|\burlopen\("}
# What shows something else on another computer, by the names it uses, and what the page says of it.
OWN = {"get_data": "on the package's photographs, as CIFAR-10 is not here"} | dict.fromkeys(("time", "timeit", "perf_counter", "status", "cpu_count"), "with this computer's own numbers")


def reason(source):
    "What some code needs that a browser lacks; nothing if it can run there, as what installs the package where it is missing."
    if 'find_spec("cs231n_lit")' in source: return ""
    return next((need for need, text in LACKING.items() if re.search(text, source, re.M)), "")


def calls(definition):
    "Does a decorator call what it decorates, as `@fault(1)` on a page about faults does? `@lru_cache(1)` and its like only keep it."
    return any(isinstance(d, ast.Call) and ast.unparse(d.func) not in ("lru_cache", "dataclass") for d in getattr(definition, "decorator_list", ()))


def named(tree): return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


def names(tree):
    "The names that some code binds at its top level, those it needs from above, and those that it needs at once: not only when a function of its own is called."
    binds, uses, at_once = set(), set(), set()
    for statement in tree.body:
        tables = [(_scope(statement), True)]
        own = {s.get_name() for s in tables[0][0].get_symbols() if s.is_assigned() or s.is_imported()}
        added = {n.target.id for n in ast.walk(statement) if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name) and n.target.id in own}  # `x += 1` needs an x
        looped = named(statement.target) - named(statement.iter) if isinstance(statement, ast.For) else set()  # bound before the loop's body asks for them
        for table, now in tables:
            wanted = ({s.get_name() for s in table.get_symbols() if s.is_referenced() and (table is tables[0][0] or s.is_global())} | added) - binds - looped
            uses |= wanted
            at_once |= wanted if now else set()
            tables += [(child, now and (calls(statement) or child.get_type() == "class" or child.get_name() == "genexpr")) for child in table.get_children()]
        binds |= own
    return binds, uses, at_once


def at_once(tree):
    "The text of what runs when a cell runs: without imports and the bodies of functions and classes, but those whose decorator calls them."
    later = lambda n: isinstance(n, (ast.Import, ast.ImportFrom, ast.ClassDef)) or isinstance(n, ast.FunctionDef) and not calls(n)
    return "\n".join(ast.unparse(n) for n in tree.body if not later(n))


def entry(cell, source, suffix=""):
    "What is known of a cell, or of one line of it."
    flags, tree = directives(cell.source), ast.parse(source)
    binds, uses, now = names(tree)
    pictures = any(kind.startswith("image/") or "<img" in str(data) for o in cell.outputs for kind, data in o.get("data", {}).items() if kind != "text/plain")
    mark = flags.get("browser", "")
    told = "PyTorch" if flags.get("eval") == "false" else mark if mark not in ("", "own", "optional", "true") else ""
    return {"id": cell.id + suffix, "code": source, "shown": not flags.keys() & {"hide", "export", "default_exp"} and flags.get("echo") != "false",
            "why": told or ("" if mark else reason(at_once(tree))), "lacks": told or ("" if mark else reason(source)),
            "own": OWN["time"] if mark == "own" else "", "optional": pictures or "slow" in flags or mark == "optional" or bool(HEAVY.search(source)),
            "binds": binds, "uses": uses, "at_once": now, "marked": bool(mark)}


def cells_of(notebook):
    "All code of a notebook, in order; hidden imports one by one, so that a heavy one is fetched only where it is needed."
    found = []
    for cell in nbformat.read(notebook, 4).cells:
        source = code_of(cell.source) if cell.cell_type == "code" else ""
        if not source or re.search(r"^(import nbdev|from nbdev|show_doc\()", source, re.M): continue
        tree = ast.parse(source)
        imports = all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in tree.body) and directives(cell.source).keys() & {"hide", "export"}
        found += [entry(cell, ast.unparse(n), f"-{k}") for k, n in enumerate(tree.body)] if imports else [entry(cell, source)]
    for at, cell in enumerate(found): connect(cell, found[:at])
    return with_own(found)


def with_own(cells):
    "Mark the cells whose result is one of this computer's own, line by line: what is made from such a result is own as well, until its name is bound again."
    known = dict(OWN)
    for cell in cells:
        for line in ast.parse(cell["code"]).body:
            binds, uses, _ = names(ast.Module([line], []))
            binds |= {n.value.id for n in ast.walk(line) if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store) and isinstance(n.value, ast.Name)} & uses  # filled, as in `nets[rule] = ...`
            own = next((known[name] for name in known if name in uses), "")
            cell["own"] = cell["own"] or own
            known = {name: text for name, text in known.items() if name in OWN or name not in binds} | ({name: own for name in binds} if own else {})
    return cells


def connect(cell, above):
    "Add the ids of the optional cells that a cell needs: itself, or by those that run before it; and what it lacks with them."
    def needed(wanted, seeds):
        "Cells that bind a name that is wanted, from below, each with what it wants; functions want nothing before they are wanted."
        for other in reversed(above):
            found = other["binds"] & wanted
            if found or (seeds and not other["optional"] and not other["why"]):
                yield other
                wanted -= found  # what is above binds something else by this name
                wanted |= other["uses"] if found else other["at_once"]
    cell["also"] = sorted({c["id"] for c in needed(set(cell["uses"]), True) if c["optional"] and not c["why"]})
    if cell["marked"]: return
    latest = {name: c["lacks"] for c in above for name in c["binds"] & cell["uses"]}
    cell["lacks"] = cell["lacks"] or next(filter(None, latest.values()), "")
    cell["why"] = cell["why"] or next((lack for name, lack in latest.items() if lack and name in cell["at_once"]), "")


# ------------------------------------------------------------ a page's HTML

def tidy(code):
    "Code as it is compared: smalldocs' pages name notebooks without their numbers, in code too."
    return re.sub(r"\b\d\d[a-z]*_(\w+\.ipynb)", r"\1", "\n".join(line.rstrip() for line in code.strip("\n").splitlines()))


def duration(cell, seen):
    "What a cell that takes a while says before one clicks: how long it took in a browser."
    seconds = seen.get("seconds", {}).get(cell["id"], 0)
    if seconds < 10: return ""
    about = f"{round(seconds, -1):.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
    return f"takes {'more than' if cell['id'] in seen.get('stopped', ()) else 'about'} {about} here"


def mark(page, cells, exercises=(), seen={}):
    "A page's HTML with the cells that show code marked, and the ids of the marked ones; those that define an exercise, and that take long, say so."
    shown, marked, pieces, done = [c for c in cells if c["shown"]], [], [], 0
    for m in CODE.finditer(page):
        code = tidy(html.unescape(re.sub(r"<[^>]+>", "", m[1])))
        cell = next((c for c in shown if tidy(c["code"]) == code), None)
        starts = list(CELL.finditer(page, done, m.start()))
        if cell is None or not starts: continue
        shown = shown[shown.index(cell) + 1:]
        note, exercise = duration(cell, seen), next((name for name in exercises if re.search(rf"^(def|class) {name}\b", code, re.M)), "")
        flags = f' data-run="{cell["id"]}"' + "".join(f' data-{name}="{html.escape(value)}"' for name, value in (("run-not", cell["why"]), ("run-note", note), ("exercise", exercise)) if value)
        begin, place = starts[-1].span()
        pieces += [page[done:begin], f'<span id="write-{exercise}"></span>' * bool(exercise), page[begin:place], flags]
        done = place
        marked.append(cell["id"])
    rest = [name for name in exercises if f'<span id="write-{name}">' not in "".join(pieces)]  # those without a function on the page
    spans = "".join(f'<span id="write-{name}"></span>' for name in rest)
    return "".join([*pieces, re.sub(r'<(?:h2|section)[^>]* id="write-it-yourself"', spans + r"\g<0>", page[done:], count=1)]), marked


def with_run(docs, name, page, notebook):
    "One page's HTML with its cells marked and the script that runs them; its cells go into docs/run."
    cells, exercises = cells_of(notebook), exercises_of(notebook)
    page, marked = mark(page, cells, exercises.get("stubs", ()), measured().get(Path(name).with_suffix("").as_posix(), {}))
    missing = [c["code"] for c in cells if c["shown"] and c["id"] not in marked]
    if missing: print(f"{name}: {len(missing)} cells were not found in the page and get no Run button; the first: {missing[0][:100]!r}", file=sys.stderr)
    if not marked: return page
    target = docs / "run" / Path(name).with_suffix(".json")
    target.parent.mkdir(parents=True, exist_ok=True)
    keep = ("id", "code", "why", "own", "optional", "also")
    about = {"cells": [{k: c[k] for k in keep if c[k] or k in ("id", "code", "also")} for c in cells]} | ({"exercises": exercises} if exercises else {})
    target.write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
    up, own = "../" * name.count("/"), Path(name).with_suffix(".json").as_posix()
    more = f' data-exercises="{" ".join(exercises["stubs"])}"' if exercises else ""
    return page.replace("</head>", f'<link rel="stylesheet" href="{up}run/style.css"><script src="{up}run/page.js" data-cells="{own}"{more}></script></head>', 1)


def exercises_of(notebook):
    "What a page's exercises need: its notebook as one to write in, and where in it each function and its check stand; nothing if it has none."
    from cs231n_lit import exercises
    module = next((e.module for e in exercises.EXERCISES.values() if exercises._pages()[e.module][0] == Path(notebook).resolve()), None)
    if module is None: return {}
    page = exercises._title(module)
    made, stubs = exercises.notebook(page), {}
    code = [c["source"] if c["cell_type"] == "code" else "" for c in made["cells"]]
    for name in (e.name for e in exercises.EXERCISES.values() if e.module == module):
        at = next(k for k, source in enumerate(code) if re.search(rf"^(def|class) {name}\b", source, re.M))
        stubs[name] = {"code": code[at].replace(", then run the cell below", ", then press Check"), "at": at, "report": code.index(f"check({name})")}
    return {"module": module, "file": f"{page}.ipynb", "site": exercises._SITE, "stubs": stubs, "notebook": made}


def measured():
    "What was noted when all cells were run in a browser, page to counts and seconds."
    return json.loads((ROOT / "cs231n_lit/data/pages/browser_cells.json").read_text(encoding="utf-8"))


# ------------------------------------------------------------ what the engine needs

def pinned(data, **more): return {"sha256": base64.b64encode(hashlib.sha256(data).digest()).decode(), "bytes": len(data), **more}


def zipped(files):
    "A zip of (name, bytes) pairs that is the same for the same files."
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in sorted(files): z.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def package_zip():
    "The package's Python files and photographs, and the text of the pages with exercises, as in the wheel."
    kept = [p for p in (ROOT / "cs231n_lit").rglob("*") if p.is_file() and p.suffix not in (".so", ".pyd", ".pyc")]
    return zipped([(p.relative_to(ROOT).as_posix(), p.read_bytes()) for p in kept] + exercise_pages())


def exercise_pages():
    "The notebooks that `check` and `hint` read, without their outputs: (name, bytes) pairs."
    paths = [p for p in (ROOT / "nbs").glob("[0-9]*.ipynb") if ": a solution, and the mistakes" in p.read_text(encoding="utf-8")]
    def bare(path): return {"cells": [{k: v for k, v in c.items() if k != "outputs"} for c in nbformat.read(path, 4).cells]}
    return [(f"cs231n_lit/pages/{p.name}", json.dumps(bare(p), ensure_ascii=False).encode()) for p in paths]


def distribution_zip(name, only="."):
    "The Python files of an installed package that is pure Python, or some of them."
    files = [f for f in distribution(name).files if not f.parts[0].startswith("..") and f.suffix not in (".pyc", ".so") and "test" not in f.parts and re.match(only, f.as_posix())]
    return zipped([(f.as_posix(), f.locate().read_bytes()) for f in files if f.locate().is_file()])


PURE = {"fastcore": ".", "imageio": ".", "tqdm": ".", "joblib": ".", "threadpoolctl": ".", "filelock": ".",  # distribution, which is what one imports: what of it is needed
        "cython": r"cython\.py|Cython/(__init__|Shadow)\.py"}  # kernels are Python, too: this is what they import when they are not compiled


def write_engine(docs, settings):
    "docs/run: the script, the worker, the package, and the list of all files with their hashes."
    run = docs / "run"
    run.mkdir(exist_ok=True)
    for part in PARTS.iterdir(): shutil.copy(part, run)
    pins = json.loads(PINS.read_text(encoding="utf-8"))
    pure = {d: only for d, only in PURE.items() if find_spec(d) or print(f"{d} is not installed: cells that import it will not run in the browser", file=sys.stderr)}
    for name, data, more in [("cs231n_lit.zip", package_zip(), {"first": True}), *((f"{d}.zip", distribution_zip(d, only), {}) for d, only in pure.items())]:
        (run / name).write_bytes(data)
        pins["files"][name] = pinned(data, here=True, **more)
    pins["packages"] |= {name: f"{name}.zip" for name in pure}
    (run / "engine.json").write_text(json.dumps({"base": settings["browser_engine"], **pins}))


def engine_files(version, folder=ROOT / "build"):
    "The core of the engine, file name to bytes, from the npm package."
    archive = folder / f"pyodide-{version}.tgz"
    if not archive.exists():
        if not shutil.which("npm"): raise SystemExit(f"To put Python beside the site, npm is needed, or the npm package pyodide {version} as {archive}")
        folder.mkdir(exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", f"pyodide@{version}"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(archive) as tar: return {Path(m.name).name: tar.extractfile(m).read() for m in tar if m.isfile()}


def wheel(name, pin, base, folder):
    "A wheel's own name and its bytes: out of a folder, in the version that is there, else from the engine's address."
    if folder:
        own = sorted(Path(folder).glob(f"{name.split('-')[0]}-*{'-'.join(name.rsplit('-', 3)[1:])}"))
        if not own: raise SystemExit(f"{folder} holds no wheel such as {name}")
        return own[-1].name, own[-1].read_bytes()
    with urlopen(base + name, timeout=60) as answer: data = answer.read()
    if pinned(data)["sha256"] != pin["sha256"]: raise SystemExit(f"{base}{name} is not the file that scripts/engine.json pins")
    return name, data


def vendor(docs, wheels=None):
    "Put the engine beside the site, with the wheels of a folder, or those that are pinned."
    engine = json.loads((docs / "run/engine.json").read_text())
    core, target = engine_files(engine["version"]), docs / "run/engine"
    target.mkdir(exist_ok=True)
    renamed, files = {}, {}
    for name, pin in engine["files"].items():
        if pin.get("here"): files[name] = pin; continue
        own, data = wheel(name, pin, engine["base"], wheels) if name.endswith(".whl") else (name, core[name])
        if name in core and pinned(data)["sha256"] != pin["sha256"]: raise SystemExit(f"{name} is not the file that scripts/engine.json pins")
        renamed[name], files[own] = own, {**pin, **pinned(data)}
        (target / own).write_bytes(data)
    packages = {module: renamed.get(name, name) for module, name in engine["packages"].items()}
    (docs / "run/engine.json").write_text(json.dumps({**engine, "base": "engine/", "packages": packages, "files": files}))
