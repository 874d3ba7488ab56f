"""The built site: links that lead somewhere, nothing loaded from elsewhere, formulas that are formulas, light pages."""
import html
import importlib
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.html"))
sys.path.insert(0, str(ROOT / "scripts"))
build = importlib.import_module("build_docs")
NOTEBOOKS = {name: path.relative_to(ROOT).as_posix() for name, path in build.notebooks().items()}  # page of the site: its notebook
LOADED = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "src"), ("iframe", "src")}  # what a browser fetches by itself


class Page(HTMLParser):
    "Collects a page's ids, links, loaded files, and visible text outside of code and mathematics."
    silent = {"script", "style", "pre", "code", "math", "title"}

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loaded, self.text, self.inside, self.formulas = set(), [], [], [], [], 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[k] for k in ("id", "name") if attrs.get(k)}
        self.formulas += tag == "math"
        if tag in self.silent: self.inside.append(tag)
        if tag == "a" and attrs.get("href"): self.links.append(attrs["href"])
        for name, attr in LOADED:
            if tag == name and attrs.get(attr) and attrs.get("rel") not in ("canonical", "prev", "next"): self.loaded.append(attrs[attr])

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag: self.inside.pop()

    def handle_data(self, data):
        if not self.inside: self.text.append(data)


@pytest.fixture(scope="module")
def site():
    "Every page of the site by its path; `make docs` builds it."
    assert PAGES, "docs/ holds no site: run `make docs` first"
    return {p.resolve(): Page(p) for p in PAGES}


def target(path, link):
    "The file an internal link leads to and the anchor in it; None for links to elsewhere."
    parts = urlsplit(link)
    if parts.scheme or link.startswith("//"): return None
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    return (file / "index.html" if file.is_dir() else file), unquote(parts.fragment)


def test_internal_links_and_anchors_lead_somewhere(site):
    broken = []
    for path, page in site.items():
        for link in page.links + page.loaded:
            file, anchor = target(path, link) or (None, "")
            if file is None: continue
            if not file.exists() or (anchor and file in site and anchor not in site[file].ids): broken.append((path.name, link))
    assert broken == []


def test_pages_load_nothing_from_elsewhere(site):
    assert [(p.name, x) for p, page in site.items() for x in page.loaded if re.match(r"(https?:)?//", x)] == []


def test_style_sheets_load_nothing_from_elsewhere():
    sheets = {p.name: re.findall(r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')]+)", p.read_text(encoding="utf-8", errors="replace")) for p in DOCS.rglob("*.css")}
    assert {name: found for name, found in sheets.items() if found} == {}


def test_formulas_are_rendered(site):
    raw = [(p.name, t) for p, page in site.items() for t in page.text if re.search(r"\\(frac|sum|partial|hat|begin|cdot|times)\b|\$\$|\\\(|\\\[", t)]
    assert raw == []
    assert sum(page.formulas for page in site.values()) > 100


def test_links_are_rendered(site):
    "A name in backticks that is a link's text becomes a link by itself, and one in the other is none."
    assert [(p.name, t) for p, page in site.items() for t in page.text if re.search(r"\]\((?:https?:|[\w./]+\.(?:html|ipynb))", t)] == []


def test_pictures_have_alternative_text():
    missing = defaultdict(list)
    for path in PAGES:
        for img in re.findall(r"<img\b[^>]*>", path.read_text(encoding="utf-8")):
            if not re.search(r"\balt=\"[^\"]+\"", img): missing[path.name].append(img[:60])
    assert missing == {}


def test_the_site_is_quartos_where_it_is_installed():
    "Then all tests of the site are tests of its result."
    generator = re.search(r'<meta name="generator" content="(\w+)', (DOCS / "index.html").read_text(encoding="utf-8"))
    assert (generator and generator[1] == "quarto") == bool(shutil.which("quarto"))


def test_pages_are_light(site):
    "A page with all that its HTML loads: 1.5 MB at most, the home page 1 MB."
    weights = {path.name: path.stat().st_size + sum(target(path, x)[0].stat().st_size for x in set(page.loaded) if target(path, x)) for path, page in site.items()}
    assert {name: w for name, w in weights.items() if w > (1e6 if name == "index.html" else 1.5e6)} == {}


def test_animations_are_light():
    written = [len(code) * 3 // 4 for path in PAGES for code in re.findall(r"data:image/gif;base64,([\w+/=]+)", path.read_text(encoding="utf-8"))]
    sizes = written + [path.stat().st_size for path in DOCS.rglob("*.gif")]
    assert sizes and max(sizes) <= 300e3


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_pages_lead_to_their_notebook(name):
    "Reading time, source and a way to run it stand below the title; every link to the repository's notebooks is to this one."
    page, notebook = (DOCS / name).read_text(encoding="utf-8"), NOTEBOOKS[name]
    facts = re.search(r'<p class="page-facts">(\d+) minutes? to read.*?</p>', page, re.S)
    assert int(facts[1]) > 0
    linked = re.findall(r"/(?:blob|edit)/main/(nbs/[\w/]+\.ipynb)|labpath=([\w%]+\.ipynb)", page)
    assert {unquote(name) for pair in linked for name in pair if name} == {notebook}
    assert f"labpath={quote(notebook, safe='')}" in facts[0] and f"/blob/main/{notebook}" in facts[0]


def test_what_scrolls_can_be_reached_by_keyboard():
    "Tables, formulas and long lines of output scroll in their own boxes on a phone."
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        assert re.findall(r'<(?:div class="sd-table[\w ]*"|span class="math display"|span class="wide-figure"[^>]*px")>', page) == [], path.name


def test_every_function_is_linked():
    "The page of all functions leads to each of them, to a method's class; constants and types, in capitals, have no place of their own."
    first = re.findall(r"<tr[^>]*>\s*<td[^>]*>(.*?)</td>", (DOCS / "functions.html").read_text(encoding="utf-8"), re.S)
    unlinked = {re.sub(r"<[^>]+>|\s", "", cell) for cell in first if not re.match(r'\s*<a href="[\w./]+#[\w.]+"><code>[\w.]+</code></a>\s*$', cell)}
    assert len(first) > 80 and {name for name in unlinked if not name[0].isupper()} <= {"compiled", "said"}  # variables


def test_headings_stand_above_what_they_name():
    "The first code below the heading of a function or a class defines it."
    defined = lambda code: set(re.findall(r"^(?:def|class) (\w+)", html.unescape(re.sub(r"<[^>]+>", "", code)), re.M))
    wrong, right = [], 0
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        known = defined("\n".join(re.findall(r"<pre\b.*?</pre>", page, re.S)))
        for heading in re.finditer(r"<h3\b[^>]*>(\w+)</h3>", page):
            first = page[page.find("<pre", heading.end()):].partition("</pre>")[0]
            if heading[1] in defined(first): right += 1
            elif heading[1] in known: wrong.append((path.name, heading[1]))
    assert wrong == [] and right > 300


def test_headings_come_first():
    "In the order of the definitions, whatever else the notebook has."
    cells = ["a = 1", "class A: ...\ndef f(): ...", "#| echo: false\nshow_doc(f)", "#| echo: false\nshow_doc(A)", "def g(): ...", "show_doc(g)"]
    done = build.headings_first([nbformat.v4.new_code_cell(source) for source in cells])
    assert [cell.source for cell in done] == [cells[k] for k in (0, 3, 2, 1, 5, 4)]


def test_shared_helpers_are_shown():
    "What is exported without being public is part of the text, where it is first used."
    shown = {page: (DOCS / f"{page}.html").read_text(encoding="utf-8") for page in ("normalization", "convolution", "pooling", "spatial_norm")}
    helpers = [("normalization", "read_bn_param"), ("normalization", "read_eps"), ("convolution", "check_conv"), ("pooling", "check_pool"), ("spatial_norm", "check_channels")]
    assert [name for page, name in helpers if name not in re.sub(r"<[^>]+>", "", shown[page])] == []


def test_links_name_notebooks_that_are_there():
    "Quarto needs the whole name; the other renderer takes any number for the right one."
    texts = [(path, cell.source) for path in build.notebooks().values() for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
    assert [(path.name, link) for path, text in texts for link in re.findall(r"\]\(([\w./]+\.ipynb)", text) if not (path.parent / link).exists()] == []


ORDER = [build.published(Path(name)).with_suffix(".html").as_posix() for name in re.findall(r"([\w./]+\.ipynb)", (ROOT / "_quarto.yml").read_text().partition("sidebar:")[2])]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_pages_lead_on(name):
    "To the page before and the page after, in the order of the sidebar."
    page, here = DOCS / name, ORDER.index(name)
    links = re.findall(r'<a href="([^"]+)" class="pagination-link', page.read_text(encoding="utf-8"))
    linked = [(page.parent / link).resolve().relative_to(DOCS).as_posix() for link in links]
    assert linked == ORDER[max(0, here - 1):here] + ORDER[here + 1:here + 2]


def test_names_of_pages():
    "Numbers give the order of the notebooks in a folder; a page's address has none."
    names = "index.ipynb", "06_convolution.ipynb", "10_threads.ipynb", "kernels/01_tile.ipynb"
    assert [build.published(Path(n)).as_posix() for n in names] == ["index.ipynb", "convolution.ipynb", "threads.ipynb", "kernels/tile.ipynb"]


def test_a_page_in_a_folder_is_finished(tmp_path, monkeypatch):
    "Its links to functions lead up or into its own folder, a method's to its class; its source is found; what would lead nowhere is no link."
    notebook = tmp_path / "nbs/kernels/01_tile.ipynb"
    notebook.parent.mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("word " * 400)]), notebook)
    for name, path in {"ROOT": tmp_path, "NBS": tmp_path / "nbs"}.items(): monkeypatch.setattr(build, name, path)
    settings = {"git_url": "https://x.org/o/r", "branch": "main", "user": "o", "repo": "r", "doc_host": "https://o.x", "doc_baseurl": "/r"}
    links = {"layers.html#affine": "affine", "kernels/tile.html#tile.run": "Tile.run", "kernels/tile.html#gone": "gone"}
    page = '<header id="title-block-header"></header><a href="https://x.org/o/r/edit/main/nbs/kernels/tile.ipynb">edit</a>'
    page += " ".join(f'<a href="https://o.x/r/{place}"><code>{text}</code></a>' for place, text in links.items())
    done = build.without_dead_ends(build.finish(page, notebook, settings), "kernels/tile.html", {"layers.html": {"affine"}, "kernels/tile.html": {"tile"}})
    assert build.notebooks() == {"kernels/tile.html": notebook}
    assert "2 minutes to read" in done and "labpath=nbs%2Fkernels%2F01_tile.ipynb" in done
    assert set(re.findall(r"/(?:blob|edit)/main/([^\"]+)", done)) == {"nbs/kernels/01_tile.ipynb"}
    assert re.findall(r'<a href="([^"]+)"><code>(.*?)</code></a>', done) == [("../layers.html#affine", "affine"), ("../kernels/tile.html#tile", "Tile.run")]
    assert "<code>gone</code>" in done


def test_functions_that_nbdev_does_not_know_are_linked():
    "From any folder, once, and no other word."
    page = '<td><code>parallel</code></td> <code>parallel(x)</code> <a href="x.html"><code>parallel</code></a>'
    links = {name: build.with_links(page, name, {"parallel": "threads.html"}) for name in ("index.html", "kernels/tile.html")}
    for name, way in {"index.html": "", "kernels/tile.html": "../"}.items():
        assert links[name] == page.replace("<td><code>parallel</code>", f'<td><a href="{way}threads.html#parallel"><code>parallel</code></a>')


def test_tables_with_sentences_are_marked():
    "A phone shows their cells one below the other."
    tables = ["<table><tr><td>a</td><td>1.5</td></tr></table>", f"<table><tr><td>a</td><td>{'a word ' * 9}</td></tr></table>"]
    page = build.by_keyboard("<p>".join(tables))
    assert re.findall(r'<div class="([\w -]+)" tabindex="0"><table>', page) == ["sd-table", "sd-table wordy"]


@pytest.mark.parametrize("columns, phrase, align, wordy", [(4, "right column of the filter or window", "left", True), (3, "which column of the filter or window", "left", False),
                                                           (4, "which column of the filter or window", "right", False), (4, "which column of it", "left", False),
                                                           (4, "<math><mi>x</mi><annotation>which column of the filter or window</annotation></math>", "left", False)])
def test_tables_with_phrases_in_four_columns_are_marked(columns, phrase, align, wordy):
    "Not those that need their heads: tables of numbers, and of single words. TeX behind a formula is no text."
    page = build.by_keyboard(f'<table><tr>{"<th>head</th>" * columns}</tr><tr><td>{phrase}</td>{f"""<td style="text-align: {align};">7</td>""" * (columns - 1)}</tr></table>')
    assert ("wordy" in page) == wordy


def test_numbers_in_wordy_tables_say_what_they_are():
    "Where a phone shows a cell without its column."
    table = '<table><tr><th>name</th><th>in &lt;b&gt;</th><th>of</th></tr><tr><td>a</td><td style="text-align: right;">7</td><td>{}</td></tr></table>'
    assert re.findall(r"<td[^>]*>", build.by_keyboard(table.format("a word " * 9))) == ["<td>", '<td style="text-align: right;" data-head="in &lt;b&gt;">', "<td>"]
    assert "data-head" not in build.by_keyboard(table.format("short"))


def test_what_belongs_together_stays_in_a_line():
    page = 'over <math><mi>x</mi></math>, (<math display="inline"><mi>y</mi></math>) and <math><mi>z</mi></math> by <math display="block"><mi>w</mi></math>. <code>run --seed 7</code>'
    assert re.findall(r'<span class="together">(.*?)</span>', build.kept_together(page)) == ["<math><mi>x</mi></math>,", '(<math display="inline"><mi>y</mi></math>)', "--seed"]


def test_what_a_cell_prints_is_one_box():
    stream = lambda text, name="stdout": nbformat.v4.new_output("stream", text=text, name=name)
    outputs = [stream("a\n"), stream("b\n"), stream("c\n"), stream("no", "stderr"), nbformat.v4.new_output("display_data"), stream("d\n")]
    build.join_lines(outputs)
    assert [output.get("text") for output in outputs] == ["a\nb\nc\n", "no", None, "d\n"]


def test_quarto_renders_the_processed_notebooks(tmp_path, monkeypatch):
    "It is called in _proc/, and where it fails the build fails: this one says what it was asked, and no more."
    quarto = tmp_path / "quarto"
    quarto.write_text('#!/bin/sh\necho "$PWD: $*" > asked\nexit 3\n')
    quarto.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(build, "PROC", tmp_path)
    with pytest.raises(subprocess.CalledProcessError): build.with_quarto()
    assert (tmp_path / "asked").read_text() == f"{tmp_path}: render --no-cache\n"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_captions(name):
    "Pictures and animations have the captions that their cells give them."
    plain = lambda text: re.sub(r"[\W_]+", "", build.shown(text))
    there = "\n".join(map(plain, re.findall(r"<figcaption\b[^>]*>(.*?)</figcaption>", (DOCS / name).read_text(encoding="utf-8"), re.S)))
    cells = [c.source for c in nbformat.read(ROOT / NOTEBOOKS[name], 4).cells if c.cell_type == "code" and not re.search(r"^#\| *hide", c.source, re.M)]
    assert [c for source in cells for c in re.findall(r'^#\| *fig-cap: *"(.*)"$', source, re.M) if not set("$\\") & set(c) and plain(c) not in there] == []
