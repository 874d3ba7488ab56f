"""Make the embedded pictures from photographs in scikit-image's wheel.

    pip install scikit-image pillow
    python scripts/make_pictures.py

writes cs231n_lit/data/pictures/*.png and SOURCES.txt (the ten classes) and cs231n_lit/data/pages/*.png (two photographs
for the pages of convolution). Only photographs that scikit-image calls CC0 or public domain are used; "no known copyright
restrictions" alone (immunohistochemistry, coins) was not enough.

A class is one photograph. It is cropped, scaled to 256 x 320 pixels by averaging, and balanced: each colour channel is
moved to the same mean, and the whole to the same spread. Without that, the average colour of a patch would give the
class away (retina red, galaxies black), and a net would have nothing to learn from.
"""
from importlib.metadata import version
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

SIZE = (256, 320)           # height and width of a stored photograph
MEAN, SPREAD = 118, 50      # grey level and standard deviation every photograph is brought to
SOURCE = Path(skimage.__file__).parent / "data"
REPO = Path(__file__).parents[1]

# class: (file, (top, left, height, width) of the crop, what it shows, who made it and where it comes from, licence)
PHOTOGRAPHS = {
    "astronaut": ("astronaut.png", (0, 0, 410, 512), "Eileen Collins, astronaut", "NASA, https://flic.kr/p/r9qvLn", "public domain"),
    "brick": ("brick.png", (0, 0, 410, 512), "brick wall", "CC0Textures, https://cc0textures.com/view.php?tex=Bricks25", "CC0"),
    "camera": ("camera.png", (60, 0, 410, 512), "man with a camera", "Lav Varshney, https://github.com/scikit-image/scikit-image/issues/3927", "CC0"),
    "cat": ("chelsea.png", (0, 20, 300, 375), "Chelsea the cat", "Stefan van der Walt", "CC0"),
    "coffee": ("coffee.png", (0, 60, 400, 500), "cup of coffee", "Rachel Michetti, courtesy of Pikolo Espresso Bar", "CC0"),
    "galaxies": ("hubble_deep_field.jpg", (100, 100, 640, 800), "Hubble eXtreme Deep Field", "NASA, http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/", "public domain"),
    "grass": ("grass.png", (0, 0, 410, 512), "grass", "linolafett, https://www.deviantart.com/linolafett/art/Grass-01-434853879", "CC0"),
    "gravel": ("gravel.png", (0, 0, 410, 512), "gravel", "CC0Textures, https://cc0textures.com/view.php?tex=Gravel04", "CC0"),
    "retina": ("retina.jpg", (285, 180, 840, 1050), "back of a human eye", "Mikael Häggström, https://commons.wikimedia.org/wiki/File:Fundus_photograph_of_normal_left_eye.jpg", "CC0"),
    "rocket": ("rocket.jpg", (87, 115, 340, 425), "Falcon 9 before its launch", "SpaceX, https://www.flickr.com/photos/spacexphotos/16511594820/", "public domain"),
}
# file in data/pages: (photograph, square crop)
PAGE_IMAGES = {"cat.png": ("chelsea.png", (0, 40, 300, 300)), "coffee.png": ("coffee.png", (0, 100, 400, 400))}


def crop(file, box, size):
    "The part of a photograph inside `box`, averaged down to `size`."
    top, left, height, width = box
    image = Image.open(SOURCE / file)
    if image.mode not in ("L", "RGB"): image = image.convert("RGB")
    return image.resize(size[::-1], Image.Resampling.BOX, box=(left, top, left + width, top + height))


def balance(image):
    "Every channel to the mean `MEAN`, the whole to the spread `SPREAD`."
    a = np.asarray(image, dtype=float)
    a = a - a.mean(axis=(0, 1))
    return Image.fromarray(np.clip(a / a.std() * SPREAD + MEAN, 0, 255).round().astype(np.uint8))


def main():
    out = REPO / "cs231n_lit" / "data" / "pictures"
    out.mkdir(parents=True, exist_ok=True)
    lines = [f"The embedded pictures, made by scripts/make_pictures.py from photographs in scikit-image {version('scikit-image')}.",
             "Each is a crop, scaled down and balanced in colour and contrast. Authors and licences as scikit-image's",
             "documentation of skimage.data and the pages named there state them.", ""]
    for name, (file, box, shows, origin, licence) in PHOTOGRAPHS.items():
        balance(crop(file, box, SIZE)).save(out / f"{name}.png", optimize=True)
        lines.append(f"{name}.png: {shows}. {origin}. {licence}. From {file}, crop (top, left, height, width) {box}.")
    (out / "SOURCES.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    images = REPO / "cs231n_lit" / "data" / "pages"
    images.mkdir(parents=True, exist_ok=True)
    for name, (file, box) in PAGE_IMAGES.items():
        crop(file, box, (200, 200)).save(images / name, optimize=True)
    (images / "SOURCES.txt").write_text(
        "cat.png: Chelsea the cat. Stefan van der Walt. CC0.\n"
        "coffee.png: cup of coffee. Rachel Michetti, courtesy of Pikolo Espresso Bar. CC0.\n"
        "Both from scikit-image, cropped and scaled down by scripts/make_pictures.py.\n", encoding="utf-8")


if __name__ == "__main__":
    main()
