"""Figures on white paper and on the dark scheme's: every line and letter has the contrast to be read."""
import base64
import importlib
import sys
from collections import Counter
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

matplotlib.use("agg")
import matplotlib.pyplot as plt

from cs231n_lit import runs, vis_utils

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
build, figures = (importlib.import_module(name) for name in ("build_docs", "figures"))
PAGES = build.notebooks()
HUE = np.array([[-.574, 1.43, .144], [.426, .43, .144], [.426, 1.43, -.856]])  # hue-rotate(180deg), as the standard defines it


def swapped(rgb):
    "A colour in the dark scheme: invert(.92) hue-rotate(180deg), as styles.css has it."
    return (255 * .92 - .84 * np.asarray(rgb, float)).clip(0, 255) @ HUE.T


def luminance(rgb):
    c = np.asarray(rgb, float).clip(0, 255) / 255
    return np.where(c <= .04045, c / 12.92, ((c + .055) / 1.055) ** 2.4) @ [.2126, .7152, .0722]


def contrast(rgb):
    "With the paper, in light and dark: the smaller."
    return np.minimum(1.05 / (luminance(rgb) + .05), (luminance(swapped(rgb)) + .05) / (luminance(swapped([255] * 3)) + .05))


def inks(rgb, least=40):
    "Colours of lines and letters: pixels of one exact colour, never a square of 6 x 6 as in areas, none beside them stronger, as at blurred edges."
    code = rgb @ [65536, 256, 1]
    windows = sliding_window_view(code, (6, 6))
    areas = set(code[:-5, :-5][windows.min((2, 3)) == windows.max((2, 3))])
    strength = np.pad(1 / (luminance(rgb) + .05), 1, mode="edge")
    strongest = strength[1:-1, 1:-1] >= sliding_window_view(strength, (3, 3)).max((2, 3)) - 1e-9
    found = Counter(code[strongest].tolist())
    rgb = lambda c: np.array([c >> 16, c >> 8 & 255, c & 255])
    near_an_area = lambda c: any(abs(rgb(c) - rgb(a)).max() < 16 for a in areas)
    return [tuple(rgb(c).tolist()) for c, n in found.items() if n >= least and not near_an_area(c)]


def faint(notebook):
    "Inks with less than 3 : 1 in a notebook's figures, those with pictures left out: cell, colour, contrast."
    for cell, data in figures.outputs(notebook):
        if figures.SHOW.search(cell.source): continue
        yield from ((cell.id, f"#{r:02x}{g:02x}{b:02x}", round(float(contrast((r, g, b))), 2)) for r, g, b in inks(figures.pixels(data).astype(int)) if contrast((r, g, b)) < 3)


ORNAMENTS = {"#d6d6d6", "#cccccc"}  # matplotlib's frame around a legend, translucent or not


@pytest.mark.parametrize("page", PAGES)
def test_lines_are_told_from_the_paper(page):
    "3 : 1 in both schemes."
    assert [found for found in faint(PAGES[page]) if found[1] not in ORNAMENTS] == []


def letters(rgb):
    "What stands by itself on the paper and has the size of a letter: markers too, which have to do no less."
    for top, left, ink in figures.blocks((rgb < 250).any(2)):
        height, width = ink.shape
        if 5 <= height <= 16 and 2 <= width <= 16: yield rgb[top:top + height, left:left + width]


@pytest.mark.parametrize("page", PAGES)
def test_letters_on_the_paper_can_be_read(page):
    "The strongest pixel of each letter of a drawn figure has 4.5 : 1 in both schemes; small letters never reach their full colour, so theirs is taken for 10 % more."
    drawn = [figures.pixels(data).astype(int) for cell, data in figures.outputs(PAGES[page]) if not figures.SHOW.search(cell.source)]
    assert [round(float(c), 2) for rgb in drawn for letter in letters(rgb) if (c := contrast(letter.reshape(-1, 3)).max()) * 1.1 < 4.5] == []


def on_areas():
    "Letters on cells of a table: the text, its colour and that of its cell."
    vis_utils.show_matrix(np.arange(-8, 8).reshape(4, 4))
    runs.show_confusion(np.array([[9, 0, 1], [4, 5, 1], [2, 1, 7]]), "abc")
    for figure in map(plt.figure, plt.get_fignums()):
        for ax in figure.axes:
            cells = ax.images[0].to_rgba(ax.images[0].get_array(), bytes=True)
            yield from ((text.get_text(), to_rgb(text.get_color()), cells[round(text.get_position()[1]), round(text.get_position()[0]), :3]) for text in ax.texts)
        plt.close(figure)


def test_letters_on_cells_can_be_read():
    "4.5 : 1 in both schemes."
    def ratio(a, b):
        low, high = sorted((float(luminance(a)), float(luminance(b))))
        return (high + .05) / (low + .05)
    read = [(text, min(ratio(np.multiply(ink, 255), cell), ratio(swapped(np.multiply(ink, 255)), swapped(cell)))) for text, ink, cell in on_areas()]
    assert len(read) == 16 + 8 and [found for found in read if found[1] < 4.5] == []


def test_photographs_are_known():
    "A large box of many colours is a photograph or a filter: the cells that draw one say so."
    def colours(rgb, box):
        top, left, bottom, right = box
        inside = rgb[top:bottom, left:right].reshape(-1, 3)
        return len(np.unique(inside, axis=0)) / len(inside)
    drawn = [(page, cell.id, figures.pixels(data)) for page, notebook in PAGES.items() for cell, data in figures.outputs(notebook) if not figures.SHOW.search(cell.source)]
    assert [(page, cell) for page, cell, rgb in drawn if any(colours(rgb, box) > .25 for box in figures.pictures(rgb))] == []


def test_a_box_ends_where_the_picture_does():
    "An edge that is half picture, half paper would be a bright line on a dark page."
    rgb = np.full((80, 90, 3), 255)
    rgb[20:60, 30:70], rgb[19, 30:70], rgb[20:60, 70] = 40, 150, 200
    assert [tuple(map(int, box)) for box in figures.pictures(rgb)] == [(20, 30, 60, 70)]


def test_letters_can_be_read():
    "4.5 : 1 in both schemes for each colour of the style, on the paper and for white letters on an area of it."
    assert {colour: float(contrast(rgb)) for colour in ["#000000", *vis_utils._CYCLE] if contrast(rgb := [int(colour[i:i + 2], 16) for i in (1, 3, 5)]) < 4.5} == {}


def test_wide_figures_are_marked(tmp_path):
    "By their width, for the style sheet; narrow ones are not, nor are photographs."
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("show_images(x)", outputs=[])])
    for name, width in {"narrow": 520, "wide": 700, "shown": 701}.items(): Image.new("RGB", (width, 30), "white").save(tmp_path / f"{name}.png")
    notebook.cells[0].outputs = [nbformat.v4.new_output("display_data", {"image/png": base64.b64encode((tmp_path / "shown.png").read_bytes()).decode()})]
    nbformat.write(notebook, tmp_path / "page.ipynb")
    page = figures.mark("".join(f'<img src="{name}.png">' for name in ("narrow", "wide", "shown")), tmp_path / "page.ipynb", tmp_path)
    assert page.startswith('<img src="narrow.png"><span class="wide-figure" style="--width: 700px" tabindex="0"><img src="wide.png"></span><span class="pictures"')


def test_faint_lines_are_noticed():
    "A pale line among black letters, one of the colours that are too pale on white, and one that is strong enough."
    figure = np.full((60, 200, 3), 255)
    figure[10:20, 5:8], figure[30, 10:190], figure[40, 10:190], figure[50, 10:190] = 0, 190, (255, 127, 14), (31, 119, 180)
    figure[9, 5:8] = 127  # the blurred edge of a letter
    assert {ink for ink in inks(figure) if contrast(ink) < 3} == {(190, 190, 190), (255, 127, 14)}
    assert (31, 119, 180) in inks(figure)
