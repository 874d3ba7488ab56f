"""The pages' cells, run in a real browser through their own buttons, with no network: they show what the pages show.

Python and its packages come from the npm package `pyodide` and from a folder of wheels: CS231N_LIT_WHEELS, shared/pyodide beside the clone, or what `make docs VENDOR=1` has fetched.
All cells of all pages take a long while: `make test-browser`, which with NOTE=1 writes down what it counted and how long cells took; the pages show that. Here a page's worth of them runs, and
everything that the buttons can do.
"""
import ast
import base64
import collections
import hashlib
import html
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import CHROMIUM, DOCS, needs_browser
from PIL import Image, ImageFilter

from cs231n_lit import _browser

ROOT = Path(__file__).resolve().parent.parent
TOOL, NOTED, BROWSER_PAGE = ROOT / "scripts/run_cells.py", ROOT / "cs231n_lit/data/pages/browser_cells.json", ROOT / "nbs/28_browser.ipynb"
WHEELS = Path(os.environ.get("CS231N_LIT_WHEELS") or next((d for d in (ROOT.parent / "shared/pyodide", DOCS / "run/engine") if list(d.glob("numpy-*wasm32.whl"))), "no wheels"))
PAGES = sorted(p.relative_to(DOCS / "run").with_suffix("").as_posix() for p in (DOCS / "run").rglob("*.json") if p.name != "engine.json")
LONG = 60  # seconds of computing after which a cell is stopped, and counted as too long
NUMBER = re.compile(r"[-+−]?\d+\.?\d*(?:e[-+]?\d+)?")

spec = importlib.util.spec_from_file_location("run_cells", TOOL)
run_cells = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_cells)

needs_wheels = pytest.mark.skipif(not list(WHEELS.glob("numpy-*wasm32.whl")), reason="no wheels for the browser were found: `make docs VENDOR=1` fetches them, "
                                  "or name a folder with Pyodide's wheels of NumPy and matplotlib in the environment variable CS231N_LIT_WHEELS")
def browser_test(f): return needs_browser(needs_wheels(f))

SHOWN = """n => {
  const box = document.querySelectorAll("[data-run]")[n], bar = box.querySelector(".run-bar"), all = [...box.children];
  const nodes = all.slice(all.indexOf(bar) + 1).map(e => e.cloneNode(true));
  nodes.forEach(e => e.querySelectorAll("figcaption, script, style").forEach(x => x.remove()));
  nodes.forEach(e => e.querySelectorAll("td, th").forEach(x => x.append(" ")));
  return {text: nodes.map(e => e.textContent).join(" ").replace(/\\s+/g, " ").trim(), state: bar.textContent,
          pictures: nodes.flatMap(e => [...(e.matches("img") ? [e] : e.querySelectorAll("img"))]).map(i => i.src)};
}"""


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    "The site's folder with Python beside it."
    assert PAGES, "docs/ holds no site: run `make docs` first"
    site = tmp_path_factory.mktemp("site") / "docs"
    shutil.copytree(DOCS, site)
    try: run_cells.vendor(site, WHEELS)
    except (SystemExit, subprocess.CalledProcessError) as e: pytest.skip(f"Python for the browser is not at hand: {e}")
    return site


@pytest.fixture(scope="module")
def base(sites, serve): return serve(sites)


class Tab:
    "A page in a window of its own; what goes wrong in it is in `said`, what it asked for in `asked`."
    def __init__(self, browser, address, **options):
        self.window, self.processes = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}), browser.new_browser_cdp_session()
        self.page, self.said, self.asked = self.window.new_page(), [], []
        self.page.set_default_timeout(300e3)  # on a busy computer a page may take its time
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("console", lambda message: self.said.extend([message.text] if message.type == "error" else []))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def cell(self, n): return self.page.locator("[data-run]").nth(n)

    def button(self, n, name): return self.cell(n).get_by_role("button", name=f"{name} cell {n + 1}", exact=True)

    def shown(self, n): return self.page.evaluate(SHOWN, n)

    def wait(self, n, seconds=300):
        "Until cell `n` runs no more."
        self.button(n, "Run").wait_for(timeout=1e3 * seconds)
        return self.shown(n)

    def reveal(self, n):
        "Open the tab or the fold that the cell is in."
        self.cell(n).evaluate("""e => {
          const box = e.closest(".tab-pane:not(.active), .collapse:not(.show)");
          if (box) [...document.querySelectorAll("[data-bs-target]")].find(button => box.matches(button.dataset.bsTarget))?.click();
        }""")

    def run(self, n, seconds=300):
        self.reveal(n)
        self.button(n, "Run").click()
        return self.wait(n, seconds)

    def seconds(self):
        "Processor time that pages and workers have taken so far: on a busy computer, what an idle one would need."
        return sum(p["cpuTime"] for p in self.processes.send("SystemInfo.getProcessInfo")["processInfo"] if p["type"] == "renderer")

    def run_or_stop(self, n):
        "Run a cell, and stop it when it has computed for too long: what it shows then, and the seconds it took."
        self.reveal(n)
        began = self.seconds()
        self.button(n, "Run").click()
        while not self.button(n, "Run").count():
            if self.seconds() - began > LONG: return self.button(n, "Stop").click(), LONG
            self.page.wait_for_timeout(100)
        return self.shown(n), self.seconds() - began

    def edit(self, n, code):
        "Change a cell's code, as typed."
        if not self.cell(n).locator("textarea").is_visible(): self.button(n, "Edit").click()
        self.cell(n).locator("textarea").fill(code)


@pytest.fixture
def tab(browser, base):
    opened = []
    def open_page(name, **options): return opened.append(Tab(browser, f"{base}/{name}.html", **options)) or opened[-1]
    yield open_page
    for one in opened: one.window.close()


def about(page): return json.loads((DOCS / f"run/{page}.json").read_text(encoding="utf-8"))["cells"]


def shown_cells(page):
    "Ids of the cells marked in a page's HTML, in order."
    return re.findall(r'data-run="([^"]+)"', (DOCS / f"{page}.html").read_text(encoding="utf-8"))


# ------------------------------------------------------------ what is equal

def numbers_agree(a, b):
    "Equal to six digits, or to 1.5 units of the last one written; or both errors of rounding, below 1e-6."
    x, y = (float(t.replace("−", "-")) for t in (a, b))
    unit = max(10. ** -len(t.partition(".")[2]) if "." in t and "e" not in t else 0 for t in (a, b))
    return abs(x - y) <= max(1e-6 * max(abs(x), abs(y)), 1.5 * unit * (unit < 1)) or max(abs(x), abs(y)) < 1e-6


def texts_agree(a, b):
    "The same words, and numbers that agree. In a browser whole numbers have 32 bits, and NumPy says so, or where they have 64."
    a, b = (re.sub(r", dtype=int(?:32|64)|int(?=64|32)(64|32)", lambda m: "" if m[0].startswith(",") else "int", t) for t in (a, b))
    return NUMBER.sub("#", a) == NUMBER.sub("#", b) and all(map(numbers_agree, NUMBER.findall(a), NUMBER.findall(b)))


def picture(source):
    "The first picture of a data: address."
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGBA").convert("RGB")


def outside(a, b):
    "The share of pixels of `a` that have a colour which `b` has not within 4 pixels of the same place: more than a tenth above its brightest there, or below its darkest."
    low, high = (np.asarray(b.filter(extreme(9)), float) for extreme in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
    return np.mean(np.maximum(low - a, a - high).max(-1) > 25.5)


def pictures_agree(a, b):
    "The same size to 2 %, and the same colours in the same places to 4 pixels, but for one pixel in 500: other versions of matplotlib set letters otherwise, and all else moves with them."
    a, b = picture(a), picture(b)
    size = np.minimum(a.size, b.size)
    if any(size < 0.98 * np.maximum(a.size, b.size) - 2): return False
    a, b = (p.crop((0, 0, *size)) for p in (a, b))
    return max(outside(a, b), outside(b, a)) <= 0.002


def test_what_is_equal():
    "A wrong digit is noticed, rounding is not."
    assert texts_agree("dx 1.1e-11 ✓ out [1.5, −2.25]", "dx 3e-12 ✓ out [1.5, -2.25]".replace("-2", "−2"))
    assert texts_agree("loss: 1.500600", "loss: 1.500601")
    for a, b in (("1.5", "1.7"), ("x 1", "y 1"), ("0.98", "1.1e-11"), ("100", "101"), ("1.5006", "1.5009"), ("1, 2", "1")): assert not texts_agree(a, b)


# ------------------------------------------------------------ what the build writes

def test_every_page_with_code_can_run():
    "Each cell that shows code is marked, and known to the page's JSON with its own code."
    assert len(PAGES) > 20
    for page in PAGES:
        cells = {c["id"]: c for c in about(page)}
        text = (DOCS / f"{page}.html").read_text(encoding="utf-8")
        assert shown_cells(page) and set(shown_cells(page)) <= set(cells), page
        assert text.count("page.js") == 1
        assert len(re.findall(r'class="cell\b[^>]*>\s*<div class="(?:code-copy|sourceCode)', text)) == len(shown_cells(page)), page


def test_reasons():
    "What keeps a cell from running is one of a few things, on pages about them; all other cells run."
    reasons = {(page, c["why"]) for page in PAGES for c in about(page) if c.get("why")}
    assert {why for _, why in reasons} <= {"PyTorch", "compiled code", "threads", "processes", "a network", "the repository's files", "a finer clock"}
    total = sum(len(shown_cells(page)) for page in PAGES)
    assert sum(bool(c.get("why")) for page in PAGES for c in about(page)) < 0.2 * total


def test_the_script_is_small():
    assert sum((DOCS / "run" / name).stat().st_size for name in ("page.js", "style.css")) <= 30e3


def cells(*sources, pictures=()):
    made = [nbformat.v4.new_code_cell(source, id=f"c{k}") for k, source in enumerate(sources)]
    for k in pictures: made[k].outputs = [nbformat.v4.new_output("display_data", {"image/png": "x"})]
    return nbformat.v4.new_notebook(cells=made)


def known(tmp_path, *sources, **more):
    nbformat.write(cells(*sources, **more), tmp_path / "page.ipynb")
    return {c["id"]: c for c in run_cells.cells_of(tmp_path / "page.ipynb")}


def test_drawing_is_left_out_unless_it_is_needed(tmp_path):
    c = known(tmp_path, "#| hide\nimport numpy as np\nimport matplotlib.pyplot as plt", "x = 1", "plt.plot(x)\ny = 2", "def draw(): plt.plot(y)", "x + 1", "y + 1", "draw()", pictures=[2])
    assert [c[k]["optional"] for k in ("c0-0", "c0-1", "c1", "c2", "c3")] == [False, True, False, True, False]
    assert c["c4"]["also"] == []
    assert c["c5"]["also"] == c["c6"]["also"] == ["c0-1", "c2"]


def test_only_the_last_cell_that_made_a_name_is_run_for_it(tmp_path):
    "Not one further up, which would make something else of it; but one that what was made is added to."
    c = known(tmp_path, "x = 1", "x = 2", "total = [x for x in (3, 4)]", "total += [x]", "x + 1", "total", pictures=[0, 1, 2, 3])
    assert c["c4"]["also"] == ["c1"] and c["c5"]["also"] == ["c1", "c2", "c3"]


def test_a_loop_brings_its_own_names(tmp_path):
    "Unless what it goes through is called the same."
    c = known(tmp_path, "x = 1", "for x in (1, 2): print(x)", "x = (1, 2)", "for x in x: print(x)", pictures=[0, 2])
    assert c["c1"]["also"] == [] and c["c3"]["also"] == ["c2"]


def test_what_needs_a_thread_cannot_run(tmp_path):
    "What starts one cannot, nor what calls that; what only defines it can."
    c = known(tmp_path, "import threading\ndef go(): threading.Thread(target=print).start()", "def start(): go()", "start()", "def go(): pass", "go()", "#| browser: own\nstart()",
              "#| browser: a kitchen\n1", "from time import perf_counter\ndef seconds(): return perf_counter()", "t = seconds()", "t")
    assert [c[f"c{k}"]["why"] for k in range(7)] == ["", "", "threads", "", "", "", "a kitchen"]
    assert [bool(c[f"c{k}"]["own"]) for k in (4, 5, 7, 8, 9)] == [False, True, True, True, True]


QUARTO = """<div id="cell-2" class="cell" data-execution_count="1">
<div class="sourceCode cell-code" id="cb1"><pre class="sourceCode python code-with-copy"><code class="sourceCode python"><span id="cb1-1"><a href="#cb1-1" aria-hidden="true" tabindex="-1"></a>x <span class="op">=</span> <span class="st">"a &lt; b"</span></span>
<span id="cb1-2"><a href="#cb1-2" aria-hidden="true" tabindex="-1"></a>x</span></code><button title="Copy to Clipboard" class="code-copy-button"><i class="bi"></i></button></pre></div>
<div class="cell-output cell-output-display" data-execution_count="1">
<pre><code>'a &lt; b'</code></pre>
</div>
</div>"""


def test_quartos_cells_are_found(tmp_path):
    page, marked = run_cells.mark(QUARTO, list(known(tmp_path, "#| hide\ny = 1", "x = \"a < b\"\nx").values()))
    assert marked == ["c1"] and '<div data-run="c1" id="cell-2" class="cell"' in page


def test_cells_of_quartos_page_are_found(tmp_path):
    "In a page of Quarto's structures every cell with code is marked, each one before its own code."
    page = (ROOT / "tests/fixtures/quarto/pooling.html").read_text(encoding="utf-8")
    codes = [html.unescape(re.sub("<[^>]+>", "", code)).strip() for code in re.findall(r'<code class="sourceCode python">(.*?)</code>', page, re.S)]
    page, marked = run_cells.mark(page, list(known(tmp_path, *codes).values()))
    assert len(marked) == len(codes) >= 3
    places = [m.start() for m in re.finditer(" data-run=", page)], [m.start() for m in re.finditer('<code class="sourceCode python">', page)]
    assert all(a < b for a, b in zip(*places)) and all(b < a for a, b in zip(places[0][1:], places[1]))


@browser_test
def test_quartos_cells_run(tab, base, tmp_path, sites):
    nbformat.write(cells("#| hide\ny = 1", "x = \"a < b\"\nx"), tmp_path / "page.ipynb")
    page = f'<!doctype html><html lang="en"><head><title>Quarto</title><link rel="icon" href="data:,"></head><body><main class="content">{QUARTO}</main></body></html>'
    (sites / "quarto.html").write_text(run_cells.with_run(sites, "quarto.html", page, tmp_path / "page.ipynb"), encoding="utf-8")
    t = tab("quarto")
    before = t.shown(0)
    assert before["text"] == t.run(0)["text"] == "'a < b'"
    t.edit(0, "x * 2")
    assert t.run(0)["text"] == "'a < ba < b'"
    t.button(0, "Reset").click()
    assert t.shown(0)["text"] == before["text"] and t.said == []


# ------------------------------------------------------------ every cell of a page

def as_before(cell, before, after):
    "Did a cell show what the page shows, or end without an error where that is this computer's own?"
    ran = "ran in " in after["state"] and "raised" not in after["state"] and len(before["pictures"]) == len(after["pictures"])
    return ran and (bool(cell.get("own")) or texts_agree(before["text"], after["text"]) and all(map(pictures_agree, before["pictures"], after["pictures"])))


def run_whole_page(tab, page):
    "Run the cells of a page from top to bottom with its own buttons: what was counted, and the cells that show something else."
    t, known, differ = tab(page), {c["id"]: c for c in about(page)}, {}
    count = {"cells": 0, "equal": 0, "own": 0, "lack": collections.Counter(), "seconds": {}, "stopped": []}
    for n, name in enumerate(shown_cells(page)):
        cell, before = known[name], t.shown(n)
        count["cells"] += 1
        if cell.get("why"):
            assert f"needs {cell['why']}" in before["state"]
            count["lack"][cell["why"]] += 1
            continue
        after, seconds = (None, LONG) if set(cell["also"]) & set(count["stopped"]) else t.run_or_stop(n)
        if after and (said := re.search(r"ran in (?:less than )?([\d.]+) s", after["state"])): seconds = min(seconds, float(said[1]))  # without the engine's start and the cells above
        if seconds >= 10: count["seconds"][name] = round(seconds)
        if after is None:
            count["stopped"].append(name)
            count["lack"]["time"] += 1
        elif as_before(cell, before, after): count["own" if cell.get("own") else "equal"] += 1
        else: differ[n + 1] = name, cell["code"][:200], after["state"], before["text"][:600], after["text"][-600:], len(before["pictures"]), len(after["pictures"])
    assert t.said == []
    return count, differ


def shape(node):
    "What Python reads of some code: no comments, docstrings or spaces; the same in every version."
    if isinstance(node, list): return [shape(n) for n in node]
    if not isinstance(node, ast.AST): return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None: fields["body"] = node.body[1:]
    return [type(node).__name__, *([name, shape(value)] for name, value in fields.items() if value not in (None, []))]


def fingerprint(sources):
    "One number for the code of some cells, which a change of words leaves as it is."
    return hashlib.sha256(json.dumps([shape(ast.parse(source)) for source in sources]).encode()).hexdigest()[:16]


def code_of(page): return fingerprint(c["code"] for c in about(page))


def noted(): return json.loads(NOTED.read_text(encoding="utf-8"))


def note(page, count):
    "Write down what was counted on a page, in the pages' order, and what code was run; then run the table of all pages again."
    known = noted() | {page: {**count, "code": code_of(page)}}
    NOTED.write_text(json.dumps({p: known[p] for p in sorted(known, key=PAGES.index)}, indent=1) + "\n", encoding="utf-8")
    notebook, cell, table = table_of_counts()
    cell.outputs[0].data["text/markdown"] = table
    nbformat.write(notebook, BROWSER_PAGE)


def table_of_counts():
    "The page about the browser, its cell with the table of what was counted, and the table as it is now."
    notebook, shown = nbformat.read(BROWSER_PAGE, 4), []
    session = _browser.Session(shown.append)
    cell = next(c for c in notebook.cells if c.cell_type == "code" and "browser_cells.json" in c.source)
    for c in notebook.cells:
        if c is cell or c.cell_type == "code" and run_cells.code_of(c.source).startswith(("import ", "from ")): assert session.run(run_cells.code_of(c.source), c.id), shown[-1]
    return notebook, cell, shown[-1]["data"]["text/markdown"]


@browser_test
def test_a_page_shows_what_it_showed(tab):
    count, differ = run_whole_page(tab, "checks")
    assert differ == {} and count["equal"] == count["cells"] > 10


@browser_test
@pytest.mark.slow
@pytest.mark.parametrize("page", os.environ.get("PAGES", "").split() or PAGES)
def test_every_page_shows_what_it_showed(tab, page):
    count, differ = run_whole_page(tab, page)
    assert differ == {}
    if os.environ.get("NOTE"): note(page, count)


@pytest.mark.parametrize("page", PAGES)
def test_no_cell_is_unaccounted_for(page):
    "Every cell that a page shows has run in a browser as it is now, or says what it lacks there."
    known, ids, again = {c["id"]: c for c in about(page)}, shown_cells(page), f"run them there and write down what was counted: make test-browser NOTE=1 PAGES={page}"
    count, lacking = noted().get(page), collections.Counter(known[i]["why"] for i in ids if known[i].get("why"))
    assert count, f"The cells of {page} have not been run in a browser; {again}"
    assert count["code"] == code_of(page), f"Code in the cells of {page} has changed since they were run in a browser; {again}"
    assert len(ids) == count["cells"] == count["equal"] + count["own"] + sum(count["lack"].values()), f"{page} shows other cells than those that were run in a browser; {again}"
    assert {k: n for k, n in count["lack"].items() if k != "time"} == lacking and count["lack"].get("time", 0) == len(count["stopped"]), f"Other cells of {page} lack something in a browser than when they were run; {again}"


def test_the_table_has_what_was_noted():
    "On the page about the browser; and no page is noted that there is no more."
    assert set(noted()) <= set(PAGES), f"take what is no page out of {NOTED}"
    _, cell, table = table_of_counts()
    assert cell.outputs[0].data["text/markdown"] == table, f"run the cell of {BROWSER_PAGE.name} with the table of pages again"


def test_words_change_no_fingerprint():
    "Comments, docstrings and spaces do not; a digit, an operator or the order of cells does."
    code = 'def f(x,  # a number\n      y=1):\n    "Words."\n    return x + y'
    same = fingerprint([code, "f(2)"])
    assert same == fingerprint(['def f(x, y=1):\n    "Other words."\n\n    return (x + y)', "f( 2 )  # three"]) == fingerprint(["def f(x, y=1): return x + y", "f(2)"])
    for other in ([code, "f(3)"], ["f(2)", code], [code], [code.replace("x +", "x -"), "f(2)"], [code.replace("1)", "1.0)"), "f(2)"], [code + "\n", "f(2)", "'words'"]): assert fingerprint(other) != same


# ------------------------------------------------------------ the buttons

@browser_test
def test_nothing_is_fetched_before_a_click(tab, base):
    t = tab("pooling")
    t.page.wait_for_timeout(300)
    assert [url for url in t.asked if "/run/" in url] == [f"{base}/run/style.css", f"{base}/run/page.js"]
    assert t.page.workers == []


@browser_test
def test_run_above_edit_reload_reset(tab):
    "A cell in the middle of the page runs what it needs; a change stays until it is taken back."
    t, n = tab("gradient_check"), 9
    before = t.shown(n)
    code = t.cell(n).locator("code").first.inner_text()
    after = t.run(n)
    assert texts_agree(before["text"], after["text"]) and "ran in" in after["state"]
    assert "ran in" in t.page.locator(".run-live").text_content()
    t.edit(n, "print('changed')\n[1, 2]")
    t.page.keyboard.press("Control+Enter")
    t.page.wait_for_function("n => document.querySelectorAll('[data-run]')[n].querySelector('.run-out')?.textContent.includes('[1, 2]')", arg=n)
    t.wait(n)
    assert t.shown(n)["text"] == "changed [1, 2]" and "changed" in t.shown(n)["state"]
    t.page.reload()
    assert t.cell(n).locator("code").first.inner_text().strip() == "print('changed')\n[1, 2]"
    assert t.shown(n)["text"] == before["text"] and "changed" in t.shown(n)["state"]
    t.button(n, "Reset").click()
    assert t.cell(n).locator("code").first.inner_text() == code and "changed" not in t.shown(n)["state"]
    t.page.reload()
    assert t.cell(n).locator("code").first.inner_text() == code
    assert t.said == []


@browser_test
def test_reset_brings_the_committed_output_back(tab):
    t = tab("gradient_check")
    n = next(k for k in range(20) if t.shown(k)["pictures"])
    content = lambda: t.cell(n).evaluate("e => [...e.children].filter(c => !c.matches('.run-bar')).map(c => c.outerHTML).join('')")
    before, shown = content(), t.shown(n)
    after = t.run(n)
    assert content() != before and len(after["pictures"]) == len(shown["pictures"]) and all(map(pictures_agree, shown["pictures"], after["pictures"]))
    assert t.cell(n).locator("figcaption").count() == before.count("<figcaption")
    t.button(n, "Reset").click()
    assert content() == before


@browser_test
def test_typing(tab):
    "Indentation is kept, a colon adds to it, Tab and Shift+Tab move lines, Escape leaves; by keyboard alone."
    t = tab("checks")
    t.button(1, "Edit").focus()
    t.page.keyboard.press("Enter")
    editor, keys = t.cell(1).locator("textarea"), t.page.keyboard
    editor.fill("")
    keys.type("def f(x):")
    keys.press("Enter")
    keys.type("y = x")
    keys.press("Enter")
    keys.type("return y")
    assert editor.input_value() == "def f(x):\n    y = x\n    return y"
    keys.press("Shift+Tab")
    assert editor.input_value() == "def f(x):\n    y = x\nreturn y"
    keys.press("Control+a")
    keys.press("Tab")
    assert editor.input_value() == "    def f(x):\n        y = x\n    return y"
    keys.press("Shift+Tab")
    keys.press("Control+z")
    assert editor.input_value().startswith("    def")
    assert t.cell(1).locator("code .kw").all_inner_texts() == ["def", "return"]
    keys.press("Escape")
    assert t.page.evaluate("document.activeElement.getAttribute('aria-label')") == "Edit cell 2" and not editor.is_visible()


@browser_test
def test_errors_stop_and_keys(tab):
    t = tab("checks")
    t.edit(0, "x = 1\ny = x / 0\n")
    t.page.keyboard.press("Shift+Enter")
    after = t.wait(0)
    assert after["text"].startswith("Traceback (most recent call last): File \"cell 1\", line 2") and "ZeroDivisionError" in after["state"]
    assert "machinery" not in after["text"] and "_browser" not in after["text"]
    assert t.page.evaluate("[...CSS.highlights.get('run-error')].map(r => r.toString().trim())") == ["y = x / 0"]
    assert t.page.evaluate("document.activeElement === document.querySelectorAll('[data-run]')[1].querySelector('textarea')")
    t.edit(0, "while True: print('on and on')")
    t.page.keyboard.press("Control+Enter")
    t.cell(0).locator(".run-out", has_text="on and on").wait_for()
    t.page.wait_for_timeout(500)
    t.button(0, "Stop").click()
    assert "stopped" in t.shown(0)["state"]
    for _ in range(60):
        if not t.page.workers: break
        t.page.wait_for_timeout(250)  # the browser says a while later that a busy worker is gone
    assert t.page.workers == []
    assert len(t.shown(0)["text"]) < 110_000
    t.edit(0, "x = 7")
    t.edit(1, "x * 6")
    after = t.run(1)
    assert after["text"] == "42" and "raised" not in after["state"]
    assert t.said == []


@browser_test
def test_two_tabs(browser, base):
    "What is changed in one is changed in the other; each has a Python of its own."
    one = Tab(browser, f"{base}/checks.html")
    other = Tab.__new__(Tab)
    other.page = one.window.new_page()
    other.page.goto(f"{base}/checks.html")
    one.edit(0, "z = 5\nz")
    other.page.locator(".run-changed").wait_for()
    assert one.run(0)["text"] == other.run(0)["text"] == "5"
    one.edit(1, "z")
    other.edit(2, "z + 1")
    assert (one.run(1)["text"], other.run(2)["text"]) == ("5", "6")
    one.window.close()


@browser_test
def test_phone(tab):
    "Nothing sticks out when cells have run, and buttons are large enough for a finger."
    t = tab("checks", viewport={"width": 390, "height": 800})
    t.edit(0, "print('wide ' * 100)\n{k: list(range(k)) for k in range(20)}")
    t.run(0)
    assert t.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sizes = t.page.evaluate("[...document.querySelectorAll('.run-bar button')].filter(b => b.offsetParent).map(b => Math.min(b.offsetWidth, b.offsetHeight))")
    assert min(sizes) >= 24


@browser_test
def test_memory(tab):
    "Fifty pictures take no more memory than five."
    t, heap = tab("pooling"), "import pyodide_js\npyodide_js._module.HEAPU8.length"
    n, sizes = next(k for k in range(20) if t.shown(k)["pictures"]), []
    for runs in (5, 45):
        for _ in range(runs): t.run(n)
        t.edit(0, heap)
        sizes.append((int(t.run(0)["text"]), t.page.evaluate("performance.memory.usedJSHeapSize")))
        t.button(0, "Reset").click()
    assert sizes[1][0] <= 1.3 * sizes[0][0]
    assert sizes[1][1] <= 1.3 * sizes[0][1] + 2e7


@browser_test
def test_out_of_reach(tab):
    "One quiet line; the page's own results stand. When the network is back, the next click works."
    t = tab("checks")
    t.page.route("**/run/engine/**", lambda route: route.abort())
    before = t.shown(3)["text"]
    after = t.run(3)
    assert "out of reach" in after["state"] and after["text"] == before
    t.page.unroute("**/run/engine/**")
    assert "ran in" in t.run(3)["state"]


@browser_test
def test_damaged_files_are_refused(tab):
    t = tab("checks")
    t.page.route("**/run/engine/numpy*", lambda route: route.fulfill(body=b"not a wheel"))
    assert "not the file that was pinned" in t.run(3)["state"]


@needs_browser
def test_from_a_folder_and_without_scripts(browser):
    "From a folder a click leads to one line; without JavaScript a page has no buttons."
    t = Tab(browser, (DOCS / "checks.html").as_uri())
    assert "from a folder" in t.run(3)["state"] and t.said == []
    t.window.close()
    t = Tab(browser, (DOCS / "checks.html").as_uri(), java_script_enabled=False)
    assert t.page.locator(".run-bar").count() == 0
    t.window.close()


BARE = """<script type="module">
const code = `import {loadPyodide} from "${location.origin}/run/engine/pyodide.mjs";
  const python = await loadPyodide({indexURL: "${location.origin}/run/engine/"}), site = python.runPython("import site; site.getsitepackages()[0]");
  for (const name of FILES) python.unpackArchive(await (await fetch(name)).arrayBuffer(), "zip", {extractDir: site});
  python.runPython("import importlib; importlib.invalidate_caches(); import numpy, cs231n_lit.checks, fastcore.test");
  postMessage(1);`;
window.go = () => new Promise(done => new Worker(URL.createObjectURL(new Blob([code], {type: "text/javascript"})), {type: "module"}).onmessage = done);
</script>"""


@browser_test
def test_first_result_is_soon_there(tab, base, sites):
    "From the first click to the result: at most 2.5 times what a bare page takes to load the same, in turn and at best of three."
    (sites / "run/engine/pyodide-lock.json").write_text(json.dumps({"info": json.loads((ROOT / "scripts/engine.json").read_text())["info"], "packages": {}}))
    wheel = next((sites / "run/engine").glob("numpy*.whl")).name
    files = [f"{base}/run/engine/{wheel}", f"{base}/run/cs231n_lit.zip", f"{base}/run/fastcore.zip"]
    (sites / "bare.html").write_text(BARE.replace("FILES", json.dumps(files)))
    times = {"bare": [], "ours": []}
    for _ in range(3):
        bare = tab("bare")
        start = time.monotonic()
        bare.page.evaluate("go()")
        times["bare"].append(time.monotonic() - start)
        bare.window.close()
        ours = tab("checks")
        start = time.monotonic()
        ours.run(0)
        times["ours"].append(time.monotonic() - start)
        ours.window.close()
    print({name: round(min(t), 2) for name, t in times.items()})
    assert min(times["ours"]) <= 2.5 * min(times["bare"])


# ------------------------------------------------------------ exercises, in place

def exercises_of(page): return json.loads((DOCS / f"run/{page}.json").read_text(encoding="utf-8")).get("exercises", {})


WITH_EXERCISES = [page for page in PAGES if exercises_of(page)]


class Exercise:
    "An exercise, opened on its page."
    def __init__(self, t, name):
        self.page, self.name, self.box = t.page, name, t.page.locator(f"#exercise-{name}")
        if not self.box.is_visible(): t.page.get_by_role("button", name=f"Write {name} yourself", exact=True).first.click()
        self.editor = self.box.locator("textarea")
        self.editor.wait_for()

    def button(self, label): return self.box.get_by_role("button", name=label, exact=True)

    def check(self, code):
        "What is said of some code: the line beside the buttons, and the report."
        self.editor.fill(code)
        self.page.keyboard.press("Control+Enter")
        self.button(f"Check exercise {self.name}").wait_for()
        return self.box.locator(".run-state").text_content(), self.box.locator(".run-out").text_content()


def test_every_exercise_has_a_place():
    from cs231n_lit.exercises import EXERCISES
    assert {name for page in WITH_EXERCISES for name in exercises_of(page)["stubs"]} == set(EXERCISES)
    for page in WITH_EXERCISES:
        text = (DOCS / f"{page}.html").read_text(encoding="utf-8")
        for name, stub in exercises_of(page)["stubs"].items():
            assert text.count(f'id="write-{name}"') == 1 and "NotImplementedError" in stub["code"] and "press Check" in stub["code"]
            assert exercises_of(page)["notebook"]["cells"][stub["report"]]["source"] == f"check({name})"


@browser_test
def test_an_exercise_in_place(tab):
    "From the first look to the solution, by keyboard; what is solved is remembered and can be taken along."
    t, name = tab("layers"), "relu_backward"
    opener = t.page.get_by_role("button", name=f"Write {name} yourself", exact=True).first
    opener.focus()
    t.page.keyboard.press("Enter")
    e = Exercise(t, name)
    assert t.page.evaluate("document.activeElement.ariaLabel").startswith(f"Code of exercise {name}") and t.page.workers == []
    assert opener.get_attribute("aria-expanded") == "true"
    state, report = e.check(e.editor.input_value())
    assert state == "not right yet" and "not written yet" in report and "cells below" not in report
    state, report = e.check("def relu_backward(dout, cache):\n    return dout * (dout > 0)")
    assert state == "not right yet" and "The mask is taken from dout." in report
    assert e.box.locator(".run-out a").first.get_attribute("href") == t.page.url.split("#")[0] + "#relu"
    for n in range(1, 6): e.button(f"Hint for {name}").click()
    hints = e.box.locator(".run-hints > li")
    assert hints.count() == 5 and "x > 0" in hints.nth(4).inner_text() and "#!" not in hints.nth(4).inner_text() and e.button(f"Hint for {name}").is_disabled()
    state, report = e.check("def relu_backward(dout, cache):\n    return dout * (cachee > 0)")
    assert state == "not right yet" and "NameError" in report and "cachee" in report
    state, report = e.check("def relu_backward(dout, cache):\n    return dout * (cache > 0")
    assert state.startswith("SyntaxError") and 'File "your relu_backward", line 2' in report
    state, report = e.check("def relu_forward(dout, cache): return dout")
    assert "name 'relu_backward' is not defined" in state
    solved = "def relu_backward(dout, cache):\n    return dout * (cache > 0)"
    assert e.check(solved)[0] == "right"
    assert "exercise relu_backward: right" in t.page.locator(".run-live").text_content().lower()
    e.button(f"Close exercise {name}").click()
    assert t.page.evaluate("document.activeElement.ariaLabel") == f"Write {name} yourself" and not e.box.is_visible()
    t.page.goto(t.page.url.split("#")[0] + f"#write-{name}")
    t.page.reload()
    e = Exercise(t, name)
    assert e.editor.input_value() == solved and "✓ solved" in t.page.locator(f"[data-exercise={name}] .run-bar").text_content()
    assert "1 of 8 solved" in t.page.locator(".run-exercises").text_content()
    with t.page.expect_download() as download: t.page.get_by_role("button", name="Take the exercises of this page along as a notebook").click()
    taken = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert download.value.suggested_filename == "layers.ipynb"
    stub = exercises_of("layers")["stubs"][name]
    assert taken["cells"][stub["at"]]["source"] == solved and taken["cells"][stub["report"]]["outputs"][0]["data"]["text/plain"].startswith("relu_backward: right.")
    nbformat.validate(nbformat.from_dict(taken))
    assert t.said == []


@browser_test
def test_an_exercise_that_never_ends(tab):
    t = tab("pooling")
    e = Exercise(t, "max_pool_forward_naive")
    e.editor.fill("def max_pool_forward_naive(x, pool_param):\n    while True: pass")
    t.page.keyboard.press("Control+Enter")
    e.box.locator(".run-state", has_text="running").wait_for()
    t.page.wait_for_timeout(500)
    e.button("Stop exercise max_pool_forward_naive").click()
    assert "stopped" in e.box.locator(".run-state").text_content()
    assert "not written yet" in e.check(exercises_of("pooling")["stubs"]["max_pool_forward_naive"]["code"])[1]


@browser_test
@pytest.mark.parametrize("page", [pytest.param(p, marks=() if p == "pooling" else pytest.mark.slow) for p in WITH_EXERCISES])
def test_check_in_the_browser(tab, page):
    "Of every exercise the stub, the solution and a mistake get their words there, as they do elsewhere."
    from cs231n_lit.exercises import mistakes, solution
    t = tab(page)
    for name, stub in exercises_of(page)["stubs"].items():
        e, mistake = Exercise(t, name), [m for m in mistakes(name).values() if re.search(rf"^(def|class) {name}\b", m.source, re.M)][-1]
        assert "not written yet" in e.check(stub["code"])[1], name
        state, report = e.check(mistake.source)
        assert state == "not right yet" and mistake.why.replace("`", "") in report, (name, mistake.key, report)
        assert e.check(solution(name))[0] == "right", (name, e.box.locator(".run-out").text_content())  # last: a backward pass is judged with one's own forward pass
    assert t.said == []


@browser_test
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_exercise_on_a_phone(tab, axe, scheme):
    "Nothing sticks out, no serious finding of axe-core, enough contrast, fingers meet the buttons."
    from test_browser import AXE, CONTRAST, CUT_OFF
    t = tab("pooling", viewport={"width": 390, "height": 800}, color_scheme=scheme)
    before = t.page.evaluate(CONTRAST)
    e = Exercise(t, "max_pool_forward_naive")
    e.check("def max_pool_forward_naive(x, pool_param):\n    return np.zeros((1, 1)), 'a long line of words that has no end, ' + 'and another one that is as long as that'")
    for _ in range(5): e.button("Hint for max_pool_forward_naive").click()
    e.box.scroll_into_view_if_needed()
    assert t.page.evaluate(CUT_OFF) == [0, []] and t.page.evaluate(CONTRAST) == before == {}
    t.page.evaluate(axe)
    assert t.page.evaluate(AXE, {"rules": {"color-contrast": {"enabled": False}}}) == []
    sizes = t.page.evaluate("[...document.querySelectorAll('.run-bar button')].filter(b => b.offsetParent).map(b => Math.min(b.offsetWidth, b.offsetHeight))")
    assert min(sizes) >= 24


CALLOUT = """<div class="callout callout-style-default callout-tip callout-titled" title="{0}"><div class="callout-header d-flex align-content-center" data-bs-toggle="collapse"><div class="callout-icon-container"><i class="callout-icon"></i></div>
<div class="callout-title-container flex-fill"><span class="screen-reader-only">Tip</span>{0}</div></div><div id="callout-{1}" class="callout-collapse collapse"><div class="callout-body-container callout-body">{2}</div></div></div>"""


@browser_test
def test_exercises_in_quartos_pages(tab, base, sites, tmp_path):
    "The button, the hints and the solution are found in the structures that Quarto writes."
    notebook = ROOT / "nbs/07_pooling.ipynb"
    source = next(c["code"] for c in run_cells.cells_of(notebook) if c["code"].startswith("def max_pool_backward_naive"))
    cell = f'<div id="cell-9" class="cell"><div class="sourceCode cell-code" id="cb1"><pre class="sourceCode python"><code class="sourceCode python">{html.escape(source)}</code></pre></div></div>'
    hints, solution = "<ol type='1'><li>one</li><li>two <math><mi>x</mi></math></li></ol>", '<div class="sourceCode" id="cb2"><pre class="sourceCode python"><code class="sourceCode python">def f():\n    #: wrong: why\n    #! return 2\n    return 1</code></pre></div>'
    names = [CALLOUT.format(f"{name}: {kind}", n, text) for name in ("max_pool_forward_naive", "max_pool_backward_naive") for n, (kind, text) in enumerate([("hints", hints), ("a solution, and the mistakes that check knows", solution)])]
    section = f'<section id="write-it-yourself" class="level2"><h2 class="anchored">Write it yourself</h2>{"".join(names)}</section>'
    page = f'<!doctype html><html lang="en"><head><title>Quarto</title><link rel="icon" href="data:,"></head><body><main class="content">{cell}{section}</main></body></html>'
    (sites / "quarto-pooling.html").write_text(run_cells.with_run(sites, "quarto-pooling.html", page, notebook), encoding="utf-8")
    t = tab("quarto-pooling")
    e = Exercise(t, "max_pool_backward_naive")
    for _ in range(3): e.button("Hint for max_pool_backward_naive").click()
    assert [" ".join(li.text_content().split()) for li in e.box.locator(".run-hints > li").all()] == ["one", "two x", "A solution:def f(): return 1"]
    assert t.page.locator(".run-exercises button").count() == 3 and t.said == []


def test_the_scripts_are_small():
    assert sum(p.stat().st_size for p in (ROOT / "scripts/browser").iterdir()) <= 30_000
