"""Figures in the dark scheme and on a phone: the style sheet does it, with what is marked here.

A figure of these pages is ink on white paper, and the dark scheme turns both around. Some hold photographs, filters or what
a net sees, which must stay as they are. The cells tell which figures do, by the functions they call; the pixels tell where
in them. On a phone a wide figure keeps letters that can be read, and scrolls.
"""
import base64
import io
import re

import nbformat
import numpy as np
from PIL import Image

SHOW = re.compile(r'\b(?:show_images|show_filters|show_predictions|animate_filters)\(|\.imshow\((?!.*cmap="Blues")')  # in blue: tables of numbers
IMG = re.compile(r'<img\b[^>]*\bsrc="([^"]+)"[^>]*>')
WHITE, SMALLEST = 230, 20  # of 255; pixels a side
WIDE = 520  # pixels: wider ones would be shown on a phone at less than two thirds of their size
ABOUT = 0x010E  # what EXIF calls ImageDescription: says "pictures" in the map's cards that have some


def outputs(notebook):
    "The figures among a notebook's outputs: cell and bytes."
    for cell in nbformat.read(notebook, 4).cells:
        for data in (o.get("data", {}) for o in cell.get("outputs", [])):
            coded = [data[kind] for kind in ("image/png", "image/jpeg") if kind in data] + re.findall(r"data:image/gif;base64,([\w+/=]+)", data.get("text/html", ""))
            yield from ((cell, base64.b64decode(text)) for text in coded)


def pixels(data):
    "A picture file's first frame, (H, W, 3)."
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def blocks(ink, top=0, left=0):
    "Cut along empty rows and columns until no part has any: the place and the pixels of each."
    for axis in (0, 1):
        edges = np.flatnonzero(np.diff(ink.any(1 - axis), prepend=False, append=False))
        if len(edges) > 2 or (len(edges) and np.diff(edges)[0] < ink.shape[axis]):
            for a, b in edges.reshape(-1, 2):
                yield from blocks(ink[a:b], top + a, left) if axis == 0 else blocks(ink[:, a:b], top, left + a)
            return
    if ink.any(): yield top, left, ink


def pictures(rgb):
    "Boxes (top, left, bottom, right) of what fills a rectangle of a figure, too large for a letter."
    for top, left, ink in blocks(rgb.min(2) < WHITE):
        rows, columns = (np.flatnonzero(ink.mean(axis) >= .5) for axis in (1, 0))
        if min(len(rows), len(columns)) < SMALLEST: continue
        yield without_seam(rgb, top + rows[0], left + columns[0], top + rows[-1] + 1, left + columns[-1] + 1)


def without_seam(rgb, top, left, bottom, right):
    "A box without the edges that are half picture, half paper: a bright line around it on a dark page."
    lighter = lambda edge, inner: edge.mean() > inner.mean() + 20
    box = rgb[top:bottom, left:right].astype(float)
    return top + lighter(box[0], box[1]), left + lighter(box[:, 0], box[:, 1]), bottom - lighter(box[-1], box[-2]), right - lighter(box[:, -1], box[:, -2])


def around(boxes, size):
    "All of a figure but the boxes, as a shape for the style sheet."
    H, W = size
    points = ["0 0, 100% 0, 100% 100%, 0 100%, 0 0"]
    for top, left, bottom, right in boxes:
        y, x, v, u = (f"{100 * n:.4g}%" for n in (top / H, left / W, bottom / H, right / W))
        points.append(f"{x} {y}, {u} {y}, {u} {v}, {x} {v}, {x} {y}, 0 0")
    return f"polygon(evenodd, {', '.join(points)})"


def mark(page, notebook, folder):
    "One page's HTML, in which figures with pictures say where these are, and wide ones without any how wide they are."
    shows = {data for cell, data in outputs(notebook) if SHOW.search(cell.source)}
    def marked(m):
        if m[1].startswith(("http:", "https:", "//")): return m[0]
        data = base64.b64decode(m[1].partition(",")[2]) if m[1].startswith("data:image") else (folder / m[1]).read_bytes()
        image = Image.open(io.BytesIO(data))
        if data in shows or image.getexif().get(ABOUT) == "pictures":
            rgb = pixels(data)
            return f'<span class="pictures" style="--around: {around(pictures(rgb), rgb.shape[:2])}">{m[0]}</span>'
        return f'<span class="wide-figure" style="--width: {image.width}px" tabindex="0">{m[0]}</span>' if image.width > WIDE else m[0]
    return IMG.sub(marked, page)
