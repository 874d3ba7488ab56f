"""Build the site into docs/: with Quarto where it is installed, else with a pure-Python renderer of the same _quarto.yml.

Both render the notebooks that nbdev processes into _proc/. The fallback, smalldocs, ignores `output-file` and loads
KaTeX from the network, so for it the pages get their final names first and the formulas become MathML afterwards.
Both get the same finish: reading time, links to the notebook, and boxes that scroll reachable by keyboard.
Nothing but docs/, _proc/ and nbs/nbdev.yml is written, none of which git follows.
"""
import html
import io
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
import unicodedata
from configparser import ConfigParser
from itertools import groupby, pairwise
from pathlib import Path
from urllib.parse import quote

import nbformat

import figures

ROOT = Path(__file__).resolve().parent.parent
DOCS, PROC, NBS = ROOT / "docs", ROOT / "_proc", ROOT / "nbs"
NUMBERED = re.compile(r"\b\d\d[a-z]*_(\w+)\.(ipynb|html)\b")  # 06_convolution.ipynb: the page convolution.html
MATH = re.compile(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', re.S)
MATHML = re.compile(r"<math\b.*?</math>", re.S)
KATEX = re.compile(r"<(?:link|script)\b[^>]*katex[^>]*>(?:</script>)?")
ANNOTATION = re.compile(r"<annotation\b.*?</annotation>", re.S)
TAGS = re.compile(r"<[^>]+>")


def notebooks():
    "The pages' notebooks, those in folders of nbs/ too, and the page of the site that each becomes."
    paths = [p.relative_to(NBS) for p in sorted(NBS.rglob("*.ipynb"))]
    return {published(p).with_suffix(".html").as_posix(): NBS / p for p in paths if not any(part[0] in "._" for part in p.parts)}


def published(path):
    "A path without the number of its file."
    return path.with_name(NUMBERED.sub(r"\1.\2", path.name))


def process():
    "Let nbdev prepare the notebooks for either renderer, in an empty _proc/."
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs

    shutil.rmtree(PROC, ignore_errors=True)
    refresh_quarto_yml()
    proc_nbs(str(NBS), force=True)
    for path in PROC.rglob("*.ipynb"):
        notebook = nbformat.read(path, 4)
        notebook.cells = headings_first(notebook.cells)
        for cell in notebook.cells:
            join_lines(cell.get("outputs", []))
            with_caption(cell)
        nbformat.write(notebook, path)


def headings_first(cells):
    "The names that a cell defines, as headings above it and in its order; nbdev puts them below it, the last one first."
    found = []
    for heading, group in groupby(cells, lambda c: c.cell_type == "code" and bool(re.search(r"^show_doc\(", c.source, re.M))):
        if heading: found[-1:-1] = reversed(list(group))
        else: found += group
    return found


def join_lines(outputs):
    "What a cell prints in several pieces becomes one: each would get a box of its own."
    for last, output in reversed(list(pairwise(outputs))):
        if output.output_type == "stream" and output.get("name") == last.get("name"):
            last.text += output.text
            outputs.remove(output)


def with_caption(cell):
    "An animation becomes a figure with its caption: to the renderers it is HTML, and one makes a paragraph of the caption, the other nothing."
    caption = re.search(r'^#\| *fig-cap: *(".*")\n', cell.source, re.M)
    for data in [output.get("data", {}) for output in cell.get("outputs", [])] if caption else []:
        if "<img" in data.get("text/html", ""):
            data["text/html"] = f'<figure class="figure">{data["text/html"]}<figcaption>{html.escape(json.loads(caption[1]))}</figcaption></figure>'
            cell.source = cell.source.replace(caption[0], "")


def with_quarto():
    "As `nbdev_docs` does it, but README.md is left to make_readme.py."
    subprocess.run(["quarto", "render", "--no-cache"], cwd=PROC, check=True)


def final_names():
    "Give the processed notebooks, and every link to them, the names that the pages are published under."
    for path in [*PROC.rglob("*.ipynb"), PROC / "_quarto.yml"]:
        text = path.read_text(encoding="utf-8")
        target = published(path)
        path.unlink()
        target.write_text(NUMBERED.sub(r"\1.\2", re.sub(r"output-file: [\w.]+\\n", "", text)), encoding="utf-8")


def to_mathml(page, convert):
    "One page's HTML with its TeX turned into MathML, as Quarto does it, and without KaTeX."
    return MATH.sub(lambda m: convert(html.unescape(m[2]).strip(), displaystyle=m[1] == "display"), KATEX.sub("", page))


def with_smalldocs():
    from math_core import LatexToMathML

    final_names()
    subprocess.run([sys.executable, "-m", "smalldocs.cli", "render", str(PROC)], check=True)
    convert = LatexToMathML().convert_with_local_state
    for page in (PROC / "docs").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(to_mathml(text, convert), encoding="utf-8")


def reading_time(notebook):
    "Minutes to read a notebook, at 200 words of text or 12 lines of code a minute."
    cells = [c for c in nbformat.read(notebook, 4).cells if not re.search(r"^#\| *hide", c.source, re.M)]
    words = sum(len(c.source.split()) for c in cells if c.cell_type == "markdown")
    lines = sum(len(c.source.splitlines()) for c in cells if c.cell_type == "code")
    return max(1, round(words / 200 + lines / 12))


def facts(notebook, settings):
    "The line under a page's title."
    minutes = reading_time(notebook)
    path = notebook.relative_to(ROOT).as_posix()
    source = f"{settings['git_url']}/blob/{settings['branch']}/{path}"
    run = f"https://mybinder.org/v2/gh/{settings['user']}/{settings['repo']}/{settings['branch']}?labpath={quote(path, safe='')}"
    colab = f"https://colab.research.google.com/github/{settings['user']}/{settings['repo']}/blob/{settings['branch']}/{path}"
    time = f"{minutes} minute{'s' * (minutes > 1)}"
    return f'<p class="page-facts">{time} to read · <a href="{source}">View source</a> · <a href="{run}">Run this notebook</a>, <a href="{colab}">on Colab</a></p>'


def offline(page):
    "Without what Quarto adds to a page with an animation: two scripts from elsewhere that it has no use for, and all of the animation once more, as the address of the page's picture."
    page = re.sub(r'<meta [^>]*\bcontent="[^"]*data:image/[^>]*>\s*', "", page)
    page = re.sub(r'<script\b[^>]*\bsrc="(?:https?:)?//[^"]*/(?:require|jquery)[\w.]*\.js"[^>]*>\s*</script>\s*', "", page)
    return re.sub(r"<script\b[^>]*>\s*define\('jquery'.*?</script>\s*", "", page, flags=re.S)


def shown(markup):
    "What is read of some HTML: no tags, and of a formula not its TeX."
    return html.unescape(TAGS.sub("", ANNOTATION.sub("", markup)))


def sd_table(m):
    "A table in its box; one with sentences in it, or with phrases in four columns, is called wordy: on a phone its cells stand one below the other, and numbers are told by the heads of their columns."
    text = lambda cell: shown(cell).strip()
    longest = max((len(text(cell)) for cell in re.findall(r"<td\b.*?</td>", m[1], re.S)), default=0)
    heads = [html.escape(text(cell)) for cell in re.findall(r"<th\b.*?</th>", m[1], re.S)]
    wordy = longest > 60 or longest > 35 and len(heads) > 3 and not re.search(r'style="[^"]*right', m[1])
    def told(row):
        columns = iter(heads)
        return re.sub(r'<td\b([^>]*)', lambda cell: f'<td{cell[1]} data-head="{head}"' if (head := next(columns, "")) and "right" in cell[1] else cell[0], row[0])
    table = re.sub(r"<tr\b.*?</tr>", told, m[1], flags=re.S) if wordy else m[1]
    return f'<div class="sd-table{" wordy" if wordy else ""}" tabindex="0">{table}'


def by_keyboard(page):
    "Boxes that may scroll can be reached by keyboard; what unfolds a part of the sidebar or of the text is a button."
    def wide(m):
        return f'{m[1]} tabindex="0">{m[2]}' if max(map(len, shown(m[3]).split("\n"))) > 40 else m[0]
    page = re.sub(r'(<pre(?: class="(?!sourceCode)[^"]*")?)>((<code\b.*?)</code>)', wide, page, flags=re.S)
    page = re.sub(r'<math\b[^>]*\bdisplay="block".*?</math>', r'<span class="math display" tabindex="0">\g<0></span>', page, flags=re.S)
    page = re.sub(r"<colgroup>.*?</colgroup>", "", page, flags=re.S)  # by the hyphens below a table's head, in Markdown: too narrow for what is in some columns
    if '<div class="sd-table">' not in page: page = re.sub(r"<table\b.*?</table>", r'<div class="sd-table">\g<0></div>', page, flags=re.S)
    page = re.sub(r'<div class="sd-table">(.*?</table>)', sd_table, page, flags=re.S)
    page = re.sub(r'<div(?=[^>]* class="callout-header)(?=[^>]* data-bs-toggle="collapse")', r'\g<0> role="button" tabindex="0"', page)
    page = re.sub(r'(<div class="cell-output cell-output-display"[^>]*)(>\s*(?:<div>\s*)?<div class="check-report">)', r'\1 tabindex="0"\2', page)
    return re.sub(r'<a(?=[^>]* class="sidebar-item-)([^>]*) role="navigation"', r'<a\1 role="button" tabindex="0"', page)


def without_dead_ends(page, name, ids):
    "Methods have no heading to lead to, nor have private functions: a method's name leads to its class, a private one is no link."
    def alive(m):
        file, anchor, text = m.groups()
        there = ids.get(posixpath.normpath(posixpath.join(posixpath.dirname(name), file)), ())
        found = [a for a in (anchor, anchor.partition(".")[0]) if a in there]
        return f'<a href="{file}#{found[0]}">{text}</a>' if found else text
    return re.sub(r'<a href="([\w./]+\.html)#([\w.]+)">(<code>.*?</code>)</a>', alive, page)


def unlisted(ids):
    "Places of the functions whose modules nbdev's index of names leaves out, as these begin with an underscore: name, page and anchor."
    for name, notebook in notebooks().items():
        module = re.search(r"default_exp (_\w+)", notebook.read_text(encoding="utf-8"))
        path = ROOT / f"cs231n_lit/{module[1]}.py" if module else None
        if path: yield from ((n, name) for n in re.findall(r"'(\w+)'", path.read_text(encoding="utf-8").partition("__all__ = ")[2].partition("]")[0]) if n in ids[name])


def with_links(page, name, places):
    "Names of functions in the text, which nbdev did not know, lead to their place."
    def linked(m):
        if m[1] or m[2] not in places: return m[0]
        return f'<a href="{posixpath.relpath(places[m[2]], posixpath.dirname(name) or ".")}#{m[2]}"><code>{m[2]}</code></a>'
    return re.sub(r"(<a\b[^>]*>)?<code>(\w+)</code>", linked, page)


def used_rules(folder):
    "Leave the rules of the renderer's style sheets whose classes some page or script of the site names: of Quarto's two themes, 130 kB each instead of 450."
    words = {word for p in [*folder.rglob("*.html"), *folder.rglob("*.js")] for word in re.findall(r"[\w-]+", p.read_text(encoding="utf-8"))}
    def used(m):
        named = lambda selector: set(re.findall(r"\.([a-zA-Z][\w-]*)", re.sub(r":not\([^)]*\)|\[[^]]*\]", "", selector)))
        kept = [selector for selector in re.split(r",(?![^(]*\))", m[1]) if named(selector) <= words]
        return f"{','.join(kept)}{{{m[2]}}}" if kept else ""
    for sheet in folder.glob("site_libs/**/*.css"):
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text(encoding="utf-8"), flags=re.S)
        sheet.write_text(re.sub(r"([^{};]+)\{([^{}]*)\}", used, text), encoding="utf-8")


def cut_down(path, characters):
    "Leave in a font only some characters, with all shapes that its tables make of them."
    from fontTools import subset
    options = subset.Options(flavor="woff", layout_features=["*"])
    font, subsetter = subset.load_font(io.BytesIO(path.read_bytes()), options), subset.Subsetter(options)
    subsetter.populate(unicodes=characters)
    subsetter.subset(font)
    subset.save_font(font, str(path), options)


def used_icons(folder):
    "Leave the icons of the renderer's font that some style sheet names: a few kB instead of 176."
    named = {int(code, 16) for p in folder.rglob("*.css") for code in re.findall(r'content:\s*"\\([0-9a-f]{4})"', p.read_text(encoding="utf-8"))}
    for path in folder.glob("site_libs/**/bootstrap-icons.woff"): cut_down(path, named)


def used_letters(folder):
    "Leave the characters of the mathematical font that some formula shows, 65 kB of 350: the pages' own, and the italics, minus signs and roots that a browser makes of them."
    pages = (p.read_text(encoding="utf-8") for p in folder.rglob("*.html"))
    written = set(shown("".join(m for page in pages for m in MATHML.findall(page))))
    italic = {c for c in map(chr, range(0x1D400, 0x1D800)) if unicodedata.name(c, "").startswith("MATHEMATICAL ITALIC") and unicodedata.normalize("NFKC", c) in written}
    cut_down(folder / "fonts/stix-two-math.woff", map(ord, written | italic | set("\N{PLANCK CONSTANT}\N{MINUS SIGN}\N{SQUARE ROOT}")))


def named_search(folder):
    "Quarto's search field takes away a label that points nowhere; it and its button get a name instead."
    old = 'inputEl.removeAttribute("aria-labelledby");'
    new = old + ' for (const e of [inputEl, ...inputEl.querySelectorAll("button")]) e.setAttribute("aria-label", "Search");'
    for path in folder.glob("site_libs/quarto-search/quarto-search.js"):
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def plain_search(folder):
    "Quarto's index of words has each formula twice, as it shows and in TeX, and so would the results; leave what shows."
    path, text = folder / "search.json", lambda markup: " ".join(TAGS.sub("", markup).replace("&amp;", "&").split())  # as the index writes it
    entries = json.loads(path.read_text(encoding="utf-8"))
    for name, own in groupby(entries, lambda entry: entry["href"].partition("#")[0]):
        formulas = {(text(ANNOTATION.sub("", f)), text(ANNOTATION.search(f)[0])) for f in MATHML.findall((folder / name).read_text(encoding="utf-8")) if "<annotation" in f}
        for entry in own if formulas else ():
            entry["text"] = " ".join(entry["text"].split())
            for shown, tex in sorted(formulas, key=lambda f: len(f[1]), reverse=True):
                entry["text"] = entry["text"].replace(shown + tex, shown)
                if "\\" in tex: entry["text"] = entry["text"].replace(tex, "")  # where spaces came between
    path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")


def kept_together(page):
    "No line ends between a formula and what stands close to it, nor within an option: browsers would break there."
    page = re.sub(r'([(\[]*)(<math\b(?![^>]*"block")[^>]*>.*?</math>)([.,;:!?)\]]*)', lambda m: f'<span class="together">{m[0]}</span>' if m[1] + m[3] else m[0], page, flags=re.S)
    option = lambda code: re.sub(r"(?<![\w-])--[\w-]+", r'<span class="together">\g<0></span>', code[0])
    return re.sub(r"<code>[^<\n]*--[^<\n]*</code>", option, page)


def finish(page, notebook, settings):
    "One page's HTML with what neither renderer has."
    path = notebook.relative_to(ROOT)
    page = re.sub(r'(<header\b[^>]*title-block-header.*?)(</header>)', lambda m: m[1] + facts(notebook, settings) + m[2], page, count=1, flags=re.S)
    page = page.replace(f'/{published(path).as_posix()}"', f'/{path.as_posix()}"')  # links to the source, by smalldocs
    page = page.replace(f'<a href="{settings["doc_host"]}{settings["doc_baseurl"]}/', '<a href="' + "../" * (len(path.parts) - 2))  # links of functions' names, by nbdev
    page = figures.mark(page, notebook, (DOCS / published(notebook.relative_to(NBS))).parent)
    page = re.sub(r"(?<=\d) (?=[✓✗])", "\N{NO-BREAK SPACE}", page)  # a number and its verdict stay in one line
    return kept_together(by_keyboard(offline(page)))


def main():
    import run_cells  # beside this script
    os.chdir(ROOT)
    keep = (DOCS / ".gitignore").read_text() if (DOCS / ".gitignore").exists() else "*\n!.gitignore\n"
    quarto = shutil.which("quarto")
    process()
    (with_quarto if quarto else with_smalldocs)()
    shutil.rmtree(DOCS, ignore_errors=True)
    shutil.move(PROC / "docs", DOCS)
    (DOCS / ".gitignore").write_text(keep)  # at once: it is in the repository
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    pages = {name: finish((DOCS / name).read_text(encoding="utf-8"), notebook, config["DEFAULT"]) for name, notebook in notebooks().items()}
    ids = {name: set(re.findall(r'\bid="([^"]+)"', page)) for name, page in pages.items()}
    places = dict(unlisted(ids))
    run_cells.write_engine(DOCS, config["DEFAULT"])
    for name, page in pages.items():
        page = with_links(without_dead_ends(page, name, ids), name, places)
        (DOCS / name).write_text(run_cells.with_run(DOCS, name, page, notebooks()[name]), encoding="utf-8")
    used_rules(DOCS)
    used_icons(DOCS)
    used_letters(DOCS)
    named_search(DOCS)
    if quarto: plain_search(DOCS)
    if os.environ.get("VENDOR"): run_cells.vendor(DOCS, os.environ.get("CS231N_LIT_WHEELS"))
    print(f"Built with {'Quarto' if quarto else 'smalldocs (Quarto is not installed)'}: open {DOCS / 'index.html'}")


if __name__ == "__main__":
    main()
