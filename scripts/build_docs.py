"""Build the site into docs/: with Quarto where it is installed, else with a pure-Python renderer of the same _quarto.yml.

Quarto goes through `nbdev_docs`. The fallback feeds nbdev's processed notebooks to smalldocs, which ignores
`output-file` and loads KaTeX from the network, so here the pages get their final names first and the
formulas become MathML afterwards.
"""
import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS, PROC, NBS = ROOT / "docs", ROOT / "_proc", ROOT / "nbs"
NUMBERED = re.compile(r"\b\d\d[a-z]?_(\w+)\.(ipynb|html)\b")  # 06_convolution.ipynb: the page convolution.html
MATH = re.compile(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', re.S)
KATEX = re.compile(r"<(?:link|script)\b[^>]*katex[^>]*>(?:</script>)?")


def with_quarto():
    subprocess.run(["nbdev_docs"], cwd=ROOT, check=True)


def final_names():
    "Give the processed notebooks, and every link to them, the names that the pages are published under."
    for path in [*PROC.glob("*.ipynb"), PROC / "_quarto.yml"]:
        text = path.read_text(encoding="utf-8")
        target = path.with_name(NUMBERED.sub(r"\1.\2", path.name))
        path.unlink()
        target.write_text(NUMBERED.sub(r"\1.\2", text), encoding="utf-8")


def to_mathml(page, convert):
    "One page's HTML with its TeX turned into MathML and without KaTeX."
    def formula(m):
        tex = html.unescape(m.group(2)).strip()
        return convert(tex, displaystyle=m.group(1) == "display")
    return MATH.sub(formula, KATEX.sub("", page))


def with_smalldocs():
    from math_core import LatexToMathML
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs

    shutil.rmtree(PROC, ignore_errors=True)
    refresh_quarto_yml()
    proc_nbs(str(NBS), force=True)
    shutil.copy(NBS / "nbdev.yml", PROC / "nbdev.yml")
    final_names()
    subprocess.run([sys.executable, "-m", "smalldocs.cli", "render", str(PROC)], check=True)
    convert = LatexToMathML().convert_with_local_state
    for page in (PROC / "docs").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(to_mathml(text, convert), encoding="utf-8")
    shutil.rmtree(DOCS, ignore_errors=True)
    shutil.move(PROC / "docs", DOCS)


def main():
    os.chdir(ROOT)
    keep = (DOCS / ".gitignore").read_text() if (DOCS / ".gitignore").exists() else "*\n!.gitignore\n"
    quarto = shutil.which("quarto")
    (with_quarto if quarto else with_smalldocs)()
    (DOCS / ".gitignore").write_text(keep)
    print(f"Built with {'Quarto' if quarto else 'smalldocs (Quarto is not installed)'}: open {DOCS / 'index.html'}")


if __name__ == "__main__":
    main()
