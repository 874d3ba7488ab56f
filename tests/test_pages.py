"""What puts the pages together: nbdev's processors of ours, and its index of names."""
from importlib import import_module

from fastcore.basics import AttrDict

from cs231n_lit._modidx import d
from cs231n_lit._pages import hide_setup, keep_heading


def cell(source, cell_type="code", directives=None, text=""):
    return AttrDict(cell_type=cell_type, source=source, directives_=directives, outputs=[{"data": {"text/markdown": [text]}}])


def test_of_a_documented_name_the_heading_stays():
    text = "---\n\n### sgd\n\n```python\nsgd(w, dw)\n```\n"
    shown, others = cell("show_doc(sgd)", text=text), [cell("show_doc(sgd)", "markdown", text=text), cell("sgd", text=text)]
    for c in shown, *others: keep_heading(c)
    assert shown.outputs[0]["data"]["text/markdown"] == ["### sgd"]
    assert all(c.outputs[0]["data"]["text/markdown"] == [text] for c in others)


def test_set_up_is_hidden():
    hidden, seen = [cell("x", directives={k: []}) for k in ("export", "hide", "default_exp")], [cell("x"), cell("x", directives={"fig-cap": []})]
    for c in hidden + seen: hide_setup(c)
    assert not any("source" in c for c in hidden) and all(c.source == "x" for c in seen)


def test_the_index_has_every_public_function():
    "nbdev links names in the text by it."
    for name, known in d["syms"].items():
        module = import_module(name)
        own = [n for n in module.__all__ if getattr(getattr(module, n), "__module__", "") == name and callable(getattr(module, n))]
        assert {f"{name}.{n}" for n in own} <= known.keys()
