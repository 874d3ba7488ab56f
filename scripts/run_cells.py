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
from pathlib import Path
from urllib.request import urlopen

import nbformat

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


# What a browser lacks, by the text that needs it. A cell that needs such a cell cannot run either.
LACKING = {"the repository's files": r"""["']\.\./|\w\.ipynb["']""", "processes": r"\bsubprocess\.|\bmultiprocessing\.|\bos\.fork\b|^ *import resource",
           "threads": r"threading\.Thread\(|ThreadPool|\bset_num_threads\([2-9]", "compiled code": r"\bfour_ways\(", "a network": r"HTTPServer\b|\burlopen\("}
# What shows something else on another computer, by the names it uses, and what the page says of it.
OWN = {"get_data": "on the package's photographs, as CIFAR-10 is not here"} | dict.fromkeys(("time", "timeit", "perf_counter", "status", "cpu_count"), "with this computer's own numbers")


def reason(source):
    "What some code needs that a browser lacks; nothing if it can run there, as what installs the package where it is missing."
    if 'find_spec("cs231n_lit")' in source: return ""
    return next((need for need, text in LACKING.items() if re.search(text, source, re.M)), "")


def names(tree):
    "The names that some code binds at its top level, those it uses anywhere, and those that it uses at once: outside of functions."
    binds, uses, at_once, later = set(), set(), set(), (ast.FunctionDef, ast.ClassDef, ast.Lambda)
    def visit(node, now, own):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): binds.update({node.name} if now else ())
        elif isinstance(node, (ast.Import, ast.ImportFrom)): binds.update((a.asname or a.name).split(".")[0] for a in node.names if now)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and now: binds.add(node.id)
        elif isinstance(node, ast.Name) and node.id not in own:
            uses.add(node.id)
            if now: at_once.add(node.id)
        body = [node.body] if isinstance(node, ast.Lambda) else node.body if isinstance(node, later) else []
        inner = own | {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)} if body else own
        for child in ast.iter_child_nodes(node): visit(child, now and child not in body, inner if child in body else own)
    visit(tree, True, set())
    return binds, uses, at_once


def entry(cell, source, suffix=""):
    "What is known of a cell, or of one line of it."
    flags = directives(cell.source)
    binds, uses, at_once = names(ast.parse(source))
    pictures = any(kind.startswith("image/") or "<img" in str(data) for o in cell.outputs for kind, data in o.get("data", {}).items() if kind != "text/plain")
    mark = flags.get("browser", "")
    why = "PyTorch" if flags.get("eval") == "false" else mark if mark not in ("", "own", "true") else "" if mark else reason(source)
    return {"id": cell.id + suffix, "code": source, "shown": not flags.keys() & {"hide", "export", "default_exp"} and flags.get("echo") != "false", "why": why,
            "own": OWN["time"] if mark == "own" else "", "optional": pictures or "slow" in flags or bool(HEAVY.search(source)), "slow": "slow" in flags,
            "binds": binds, "uses": uses, "at_once": at_once, "marked": bool(mark)}


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
            own = next((known[name] for name in known if name in uses), "")
            cell["own"] = cell["own"] or own
            known = {name: text for name, text in known.items() if name in OWN or name not in binds} | ({name: own for name in binds} if own else {})
    return cells


def connect(cell, above):
    "Add the ids of the optional cells that a cell needs: itself, or by those that run before it. What it needs and cannot run keeps it from running."
    def needed(wanted, seeds):
        "Cells that bind a name that is wanted, from below, each with what it wants; functions want nothing before they are wanted."
        for other in reversed(above):
            if other["binds"] & wanted or (seeds and not other["optional"] and not other["why"]):
                yield other
                wanted |= other["uses"] if other["binds"] & wanted else other["at_once"]
    cell["also"] = sorted({c["id"] for c in needed(set(cell["uses"]), True) if c["optional"] and not c["why"]})
    latest = {name: c for c in above for name in c["binds"] & cell["uses"]}.values()
    if not cell["why"] and not cell["marked"]: cell["why"] = next((c["why"] for c in latest if c["why"]), "")


# ------------------------------------------------------------ a page's HTML

def tidy(code):
    "Code as it is compared: smalldocs' pages name notebooks without their numbers, in code too."
    return re.sub(r"\b\d\d[a-z]*_(\w+\.ipynb)", r"\1", "\n".join(line.rstrip() for line in code.strip("\n").splitlines()))


def mark(page, cells):
    "A page's HTML with the cells that show code marked, and the ids of the marked ones."
    shown, marked, pieces, done = [c for c in cells if c["shown"]], [], [], 0
    for m in CODE.finditer(page):
        code = tidy(html.unescape(re.sub(r"<[^>]+>", "", m[1])))
        cell = next((c for c in shown if tidy(c["code"]) == code), None)
        starts = list(CELL.finditer(page, done, m.start()))
        if cell is None or not starts: continue
        shown = shown[shown.index(cell) + 1:]
        note = "trains for minutes" if cell["slow"] else ""
        flags = f' data-run="{cell["id"]}"' + f' data-run-not="{html.escape(cell["why"])}"' * bool(cell["why"]) + f' data-run-note="{note}"' * bool(note)
        place = starts[-1].end()
        pieces += [page[done:place], flags]
        done = place
        marked.append(cell["id"])
    return "".join([*pieces, page[done:]]), marked


def with_run(docs, name, page, notebook):
    "One page's HTML with its cells marked and the script that runs them; its cells go into docs/run."
    cells = cells_of(notebook)
    page, marked = mark(page, cells)
    missing = [c["code"] for c in cells if c["shown"] and c["id"] not in marked]
    if missing: print(f"{name}: {len(missing)} cells were not found in the page and get no Run button; the first: {missing[0][:100]!r}", file=sys.stderr)
    if not marked: return page
    target = docs / "run" / Path(name).with_suffix(".json")
    target.parent.mkdir(parents=True, exist_ok=True)
    keep = ("id", "code", "why", "own", "optional", "slow", "also")
    target.write_text(json.dumps({"cells": [{k: c[k] for k in keep if c[k] or k in ("id", "code", "also")} for c in cells]}, ensure_ascii=False), encoding="utf-8")
    up, own = "../" * name.count("/"), Path(name).with_suffix(".json").as_posix()
    return page.replace("</head>", f'<link rel="stylesheet" href="{up}run/style.css"><script src="{up}run/page.js" data-cells="{own}"></script></head>', 1)


# ------------------------------------------------------------ what the engine needs

def pinned(data, **more): return {"sha256": base64.b64encode(hashlib.sha256(data).digest()).decode(), "bytes": len(data), **more}


def zipped(files):
    "A zip of (name, bytes) pairs that is the same for the same files."
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in sorted(files): z.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def package_zip():
    "The package's Python files and photographs."
    kept = [p for p in (ROOT / "cs231n_lit").rglob("*") if p.is_file() and p.suffix not in (".so", ".pyd", ".pyc")]
    return zipped([(p.relative_to(ROOT).as_posix(), p.read_bytes()) for p in kept])


def distribution_zip(name):
    "The Python files of an installed package that is pure Python."
    files = [f for f in distribution(name).files if not f.parts[0].startswith("..") and f.suffix not in (".pyc", ".so")]
    return zipped([(f.as_posix(), f.locate().read_bytes()) for f in files if f.locate().is_file()])


PURE = {"fastcore": "fastcore", "imageio": "imageio", "tqdm": "tqdm"}  # distribution: what one imports


def write_engine(docs, settings):
    "docs/run: the script, the worker, the package, and the list of all files with their hashes."
    run = docs / "run"
    run.mkdir(exist_ok=True)
    for part in PARTS.iterdir(): shutil.copy(part, run)
    pins = json.loads(PINS.read_text(encoding="utf-8"))
    for name, data, more in [("cs231n_lit.zip", package_zip(), {"first": True}), *((f"{d}.zip", distribution_zip(d), {}) for d in PURE)]:
        (run / name).write_bytes(data)
        pins["files"][name] = pinned(data, here=True, **more)
    pins["packages"] |= {module: f"{name}.zip" for name, module in PURE.items()}
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
