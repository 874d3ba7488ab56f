"""Draw the small pictures of the home page's map, a figure cut from each page or a line of its code, and the site's icon.

Run after the pages: python scripts/make_map.py writes nbs/images/map/*.webp and nbs/images/favicon.png.
"""
import io
import re
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from PIL import Image, ImageOps

from figures import ABOUT, SHOW, outputs

NBS = Path(__file__).resolve().parent.parent / "nbs"
SIZE = 300, 168

# Which figure of a page, counted from 0, and which part of it: left, top, right, bottom as fractions.
WHOLE = 0, 0, 1, 1
FIGURES = {
    "01_gradient_check": (1, WHOLE), "02_data_utils": (0, WHOLE), "03_vis_utils": (1, WHOLE), "04_layers": (1, WHOLE),
    "05_normalization": (2, WHOLE), "06_convolution": (3, (.25, 0, .75, .5)), "07_pooling": (1, WHOLE), "08_spatial_norm": (0, (0, 0, .5, 1)),
    "10_threads": (0, WHOLE), "kernels/00_getting_fast": (3, WHOLE), "kernels/21_pooling": (0, WHOLE), "kernels/22_norms": (0, WHOLE), "kernels/23_updates": (0, WHOLE),
    **{f"kernels/{page}": (0, WHOLE) for page in ("01_tile", "02_memory", "03_share", "04_windows", "05_window_gradients", "06_strips", "07_four_rows",
                                                  "08_winograd", "09_winograd_gradients", "10_matrix")},
    "11_layer_utils": (0, WHOLE),
    "12_optim": (4, (0, 0, .5, 1)), "13_schedules": (1, WHOLE), "17_solver": (0, (0, 0, .5, 1)),
}
# The pages without a figure of their own.
LINES = {
    "00_checks": "w has 4 channels\nbut x has 3", "kernels/20_traffic": "NaN NaN [0 1 2] NaN NaN", "kernels/30_compiled": "x86-64\nx86-64-v3\nx86-64-v4", "kernels/31_in_numpy": "filters @\n  columns(windows)",
    "09_fast_layers": "conv_forward_fast(\n  x, w, b, param)", "kernels/11_conv": "windows? strips?\nWinograd?", "15_fc_net": "FullyConnectedNet(\n  [100, 50])",
    "16_cnn": "conv – relu – pool\n– affine – softmax", "24_dropin": "import\ncs231n_lit.dropin", "23_cli": "$ cs231n-lit train", "25_functions": "f(x) → out, cache",
    "26_symbols": "N  C  H  W  F\nγ  β  μ  x̂", "22_teaching": "def relu_forward(x):\n    ...", "14_checkpoint": "W1.npy  b1.npy\nrunning_mean.npy", "18_runs": "load_run(\n  'runs/…')", "19_sweep": "1e-4..1e-2 log",
    "20_probes": "x: (2, 3, 4, 5)\nw: (4, 3, 2, 3)", "21_exercises": "check(\n  relu_backward)", "28_browser": "▶ Run",
    "27_bad_input": "got NoneType,\nneeds a dictionary",
}


def figure(name, k):
    "Figure number k of a notebook, and what its cell says."
    cell, data = list(outputs(NBS / f"{name}.ipynb"))[k]
    return Image.open(io.BytesIO(data)).convert("RGB"), cell.source


def line(text):
    "A picture of a line or two of code."
    fig = plt.figure(figsize=(3, 1.68), dpi=100)
    fig.text(.5, .5, text, ha="center", va="center", family="DejaVu Sans Mono", size=13, color="#1f2328", linespacing=1.5)
    fig.canvas.draw()
    return Image.fromarray(np.array(fig.canvas.buffer_rgba())[..., :3])


def card(picture, part):
    "A part of a picture on a card of the map's size."
    w, h = picture.size
    cut = picture.crop((round(part[0] * w), round(part[1] * h), round(part[2] * w), round(part[3] * h)))
    return ImageOps.pad(cut, SIZE, color="white")


def icon():
    "Three by three weights of a filter for edges."
    weights = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    return Image.fromarray((plt.get_cmap("PuOr")((weights + 2) / 4)[..., :3] * 255).astype(np.uint8)).resize((48, 48), Image.NEAREST)


def main():
    folder = NBS / "images/map"
    folder.mkdir(exist_ok=True)
    icon().save(NBS / "images/favicon.png")
    figures = {n: (*figure(n, k), part) for n, (k, part) in FIGURES.items()} | {n: (line(t), t, WHOLE) for n, t in LINES.items()}
    for name, (picture, source, part) in figures.items():
        path = folder / f"{re.sub(r'[0-9]+[a-z]*_', '', name)}.webp"
        path.parent.mkdir(exist_ok=True)
        about = Image.Exif()
        if SHOW.search(source): about[ABOUT] = "pictures"
        card(picture, part).save(path, quality=70, method=6, **({"exif": about} if about else {}))


if __name__ == "__main__":
    main()
