"""Every formula of the pages is one that both converters to MathML know: pandoc's, in Quarto, and the fallback's."""
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from math_core import LatexToMathML

NBS = Path(__file__).resolve().parent.parent / "nbs"
NOTEBOOKS = {p.relative_to(NBS).as_posix(): p for p in sorted(NBS.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts}

# Commands that pandoc 3.6 (in Quarto 1.7), pandoc 3.9 and the fallback turn into MathML, tried one by one. Try a new one in pandoc before it comes in here.
KNOWN = {r"\ "} | set(r"""
\# \, \; \Big \Delta \Longrightarrow \Rightarrow \\ \_ \approx \arg \ast \begin \beta \big \bigl \bigr \bmod \cdot \cdots \cos \delta \dots \ell \end \epsilon \eta
\frac \gamma \hat \in \infty \lambda \langle \le \left \leftarrow \lfloor \lim \log \mapsto \mathbb \mathbf \mathcal \mathrel \mathrm \max \min \mu \nabla \ne \odot
\operatorname \partial \pi \pm \qquad \quad \rangle \rfloor \rho \right \sigma \sim \sin \sqrt \star \sum \text \tfrac \tilde \times \to \top \underbrace \varepsilon \xi
""".split())


def formulas(notebook):
    "The TeX of a notebook's text and Markdown outputs, code left out."
    cells = nbformat.read(notebook, 4).cells
    texts = [c.source for c in cells if c.cell_type == "markdown"]
    texts += ["".join(o.data["text/markdown"]) for c in cells if c.cell_type == "code" for o in c.outputs if "text/markdown" in o.get("data", {})]
    text = "\n\n".join(re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S) for text in texts)
    return re.findall(r"\$\$(.+?)\$\$", text, re.S) + re.findall(r"(?<![\\$\w])\$(?![\s$])([^$\n]+?)(?<![\s\\])\$(?![\d$])", re.sub(r"\$\$.+?\$\$", "", text, flags=re.S))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_commands_are_known_to_both(name):
    assert sorted({c for f in formulas(NOTEBOOKS[name]) for c in re.findall(r"\\(?:[a-zA-Z]+|.)", f)} - KNOWN) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_fallback_converts_all(name):
    convert = LatexToMathML().convert_with_local_state
    assert [f for f in formulas(NOTEBOOKS[name]) if "<merror" in convert(f.strip(), displaystyle=True)] == []


def pandoc():
    "How to call pandoc: itself, or the one in Quarto."
    return [shutil.which("pandoc")] if shutil.which("pandoc") else [shutil.which("quarto"), "pandoc"] if shutil.which("quarto") else None


@pytest.mark.skipif(not pandoc(), reason="no pandoc was found: install it, or Quarto, which brings it")
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_pandoc_converts_all(name):
    tex = [" ".join(f.split()) for f in formulas(NOTEBOOKS[name])]
    done = subprocess.run([*pandoc(), "-f", "markdown", "-t", "html", "--mathml"], input="\n\n".join(f"$${f}$$" for f in tex), capture_output=True, text=True, check=True, encoding="utf-8")
    assert re.findall(r"Could not convert TeX math (.*)", done.stderr) == []
    assert done.stdout.count("<math ") == len(tex)


def test_there_are_formulas():
    assert sum(len(formulas(path)) for path in NOTEBOOKS.values()) > 300
