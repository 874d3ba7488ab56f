"""The page of symbols: its letters stand in the formulas of the pages that it names, and those with several meanings on no others."""
import ast
import re
from pathlib import Path

import nbformat
import pytest

NBS = Path(__file__).resolve().parent.parent / "nbs"
PAGES = {p.stem: p for p in NBS.glob("*.ipynb") if p.stem not in ("26_symbols", "index")}  # those of kernels explain their own


def rows(name):
    "A list of rows as the page of symbols writes it down."
    [source] = [c.source for c in nbformat.read(NBS / "26_symbols.ipynb", 4).cells if re.search(rf"^{name} = ", c.source, re.M)]
    tree = ast.parse(re.sub(r"^#.*", "", source, flags=re.M))
    return next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == name)


def formulas(page):
    "All that stands between dollar signs on a page."
    text = "\n\n".join(re.sub(r"(?s)```.*?```|`[^`\n]*`", " ", c.source) for c in nbformat.read(PAGES[page], 4).cells if c.cell_type == "markdown")
    return "\n".join(a or b for a, b in re.findall(r"(?s)\$\$(.*?)\$\$|\$([^$\n]+(?:\n[^$\n]+)?)\$", text))


def stands_in(tex, page):
    "Whether the formulas of a page hold a symbol: a command, or a letter outside of words and commands."
    if tex.startswith("\\"): return re.search(re.escape(tex) + r"(?![a-zA-Z])", formulas(page)) is not None
    plain = re.sub(r"\\(?:text|mathrm|operatorname|mathcal|mathbb)\s*\{[^}]*\}|\\[a-zA-Z]+", " ", formulas(page))
    return re.search(rf"(?<![A-Z]){tex}(?![A-Z])" if tex.isupper() and len(tex) == 1 else re.escape(tex), plain) is not None


@pytest.mark.parametrize("name", ["sizes", "indices", "arrays", "numbers"])
def test_each_letter_stands_on_the_page_that_explains_it(name):
    assert [(tex, page) for tex, _, _, page in rows(name) if not stands_in(tex, page)] == []


@pytest.mark.parametrize("tex", sorted({tex for tex, *_ in rows("several")}))
def test_a_letter_with_several_meanings_is_named_wherever_it_stands(tex):
    "Whoever uses it on another page has to say there which of its meanings it has, and here."
    named = {page for other, _, pages in rows("several") if other == tex for page in pages.split()}
    assert {page for page in PAGES if stands_in(tex, page)} == named


def test_a_letter_has_one_row_in_the_first_tables():
    letters = [tex for name in ("sizes", "indices", "arrays", "numbers") for tex, *_ in rows(name)]
    assert len(letters) == len(set(letters)) and not set(letters) & {tex for tex, *_ in rows("several")}


def test_a_missing_letter_is_noticed():
    assert not stands_in("\\Xi", "06_convolution") and not stands_in("Z", "06_convolution") and stands_in("S", "06_convolution")
