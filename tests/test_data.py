"""Data that are what they claim: broken, false and hostile files, downloads that fail, and pictures that do not overlap."""
import errno
import hashlib
import http.server
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from cs231n_lit import data_utils as du

NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
RECORD = 3073


def images(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, 10, n)


def binary(X, y):
    return np.column_stack([y.astype(np.uint8), X]).tobytes()


def batch(X, y, protocol=2, **more):
    return pickle.dumps({"data": X, "labels": y.tolist(), **more}, protocol=protocol)


@pytest.fixture
def cifar(tmp_path):
    "A little CIFAR-10, binary version, ten images a file."
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for k, name in enumerate(NAMES):
        (folder / f"{name}.bin").write_bytes(binary(*images(10, k)))
    return folder


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    "No test sees this machine's CIFAR-10, cache or course folder."
    monkeypatch.delenv("CS231N_LIT_CIFAR10", raising=False)
    monkeypatch.setattr(du, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setenv("NO_PROXY", "*")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


# The embedded pictures

def test_pictures_are_small_and_named():
    folder = Path(du.__file__).parent / "data"
    files = [f for f in folder.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 2_000_000
    sources = (folder / "pictures" / "SOURCES.txt").read_text(encoding="utf-8")
    for name in du.CLASSES["pictures"]:
        line = next(line for line in sources.splitlines() if line.startswith(f"{name}.png"))
        assert "CC0" in line or "public domain" in line
    assert {f.name for f in files if f.parent.name == "pictures"} == {"SOURCES.txt", *(f"{name}.png" for name in du.CLASSES["pictures"])}
    sources = (folder / "pages" / "SOURCES.txt").read_text(encoding="utf-8")
    assert all(f.name in sources for f in (folder / "pages").glob("*.png"))


def test_no_pixel_serves_two_parts():
    numbers = np.repeat(np.arange(256 * 320).reshape(256, 320, 1), 3, axis=2)
    sets = [set(du.cut_patches(numbers, part).ravel().tolist()) for part in ("train", "val", "test")]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])


def test_no_two_photographs_or_patches_are_the_same_across_parts():
    data = du.get_pictures_data(9720, 3240, 3240, subtract_mean=False, dtype=np.float32)
    seen = [{x.tobytes() for x in data[f"X_{part}"]} for part in ("train", "val", "test")]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def test_pictures_data():
    state = np.random.get_state()[1].copy()
    data = du.get_pictures_data()
    assert np.array_equal(state, np.random.get_state()[1]), "the caller's random numbers were used up"
    assert list(data) == ["X_train", "y_train", "X_val", "y_val", "X_test", "y_test"]
    assert data["X_train"].shape == (9000, 3, 32, 32) and data["X_train"].dtype == np.float64
    assert abs(data["X_train"].mean(axis=0)).max() < 1e-10
    for part in ("train", "val", "test"):
        assert np.bincount(data[f"y_{part}"], minlength=10).min() >= 80
    again = du.get_pictures_data()
    assert all(np.array_equal(data[k], again[k]) for k in data)


@pytest.mark.parametrize("options, error, words", [
    ({"num_training": 9721}, ValueError, "num_training is 9721, but there are only 9720"),
    ({"num_test": 5000}, ValueError, "num_test is 5000"),
    ({"num_validation": -1}, ValueError, "num_validation needs to be at least 0; got -1"),
    ({"num_training": 0}, ValueError, "num_training needs to be at least 1"),
    ({"num_training": 10.5}, TypeError, "num_training needs a whole number"),
    ({"dtype": int}, TypeError, "dtype needs to be a floating-point type; got int64"),
])
def test_bad_requests(options, error, words):
    with pytest.raises(error, match=words):
        du.get_pictures_data(**options)


def test_picture_part_has_a_known_name():
    with pytest.raises(ValueError, match="'train', 'val', 'test'; got 'valid'"):
        du.picture_blocks("valid")


# One's own pictures

def picture(path, color="red", size=(40, 30), mode="RGB", **options):
    from PIL import Image
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **options)
    return path


@pytest.fixture
def mine(tmp_path):
    "Two classes of ten pictures each, red and blue, in shades that differ."
    for name, channel in ("red", 0), ("blue", 2):
        for n in range(10): picture(tmp_path / "mine" / name / f"{n}.png", tuple(200 + n if c == channel else n for c in range(3)))
    return tmp_path / "mine"


def everything(data): return [(int(y), float(x)) for part in ("train", "val", "test") for x, y in zip(data[f"X_{part}"][:, 0, 0, 0], data[f"y_{part}"])]


def test_a_folder_of_pictures(mine):
    data = du.get_folder_data(mine, subtract_mean=False)
    assert du.folder_classes(mine) == ("blue", "red") and list(data) == ["X_train", "y_train", "X_val", "y_val", "X_test", "y_test"]
    assert [data[f"X_{part}"].shape for part in ("train", "val", "test")] == [(16, 3, 32, 32), (2, 3, 32, 32), (2, 3, 32, 32)]
    assert sorted(everything(data)) == [(0, n) for n in range(10)] + [(1, 200 + n) for n in range(10)]  # each picture once, under its own label
    assert all(set(data[f"y_{part}"]) == {0, 1} for part in ("train", "val", "test"))
    assert everything(du.get_folder_data(str(mine), subtract_mean=False)) == everything(data)
    centred = du.get_folder_data(mine, dtype=np.float32)
    assert centred["X_train"].dtype == np.float32 and np.abs(centred["X_train"].mean(axis=0)).max() < 1e-4
    assert np.allclose(centred["X_val"] + data["X_train"].mean(axis=0), data["X_val"], atol=1e-4)
    loaded, name = du.get_data(str(mine), subtract_mean=False)
    assert name == str(mine) and everything(loaded) == everything(data)


def test_names_in_any_script(tmp_path):
    for name in "Käfer", "象", "two words": [picture(tmp_path / "mine" / name / f"été {n}.JPG") for n in range(3)]
    assert du.folder_classes(tmp_path / "mine") == tuple(sorted(["Käfer", "象", "two words"]))
    assert len(du.get_folder_data(tmp_path / "mine")["X_train"]) == 3


@pytest.mark.parametrize("size", [(32, 32), (8, 20), (1, 1), (100, 3)])
def test_sizes(mine, size):
    picture(mine / "red" / "9.png", size=(1, 500))
    picture(mine / "blue" / "9.png", size=(3, 2))
    data = du.get_folder_data(mine, size)
    assert data["X_train"].shape == (16, 3, *size) and data["X_test"].shape == (2, 3, *size)


@pytest.mark.parametrize("size, error", [(32, TypeError), ((32,), TypeError), ("32", TypeError), ((0, 8), ValueError), ((8, -1), ValueError), ((8, 2.5), TypeError), (None, TypeError)])
def test_bad_sizes(mine, size, error):
    with pytest.raises(error, match="read_image: size needs"): du.get_folder_data(mine, size)


def test_odd_pictures_become_three_channels(tmp_path):
    from PIL import Image
    kinds = {"grey.png": ("L", 77), "grey alpha.png": ("LA", (77, 255)), "palette.gif": ("P", 3), "one bit.tif": ("1", 1), "cmyk.jpg": ("CMYK", (0, 0, 0, 100)),
             "alpha.webp": ("RGBA", (10, 20, 30, 255)), "plain.bmp": ("RGB", (10, 20, 30)), "lab.tiff": ("LAB", (50, 128, 128)), "UPPER.PNG": ("RGB", "red")}
    for name, (mode, color) in kinds.items(): assert du.read_image(picture(tmp_path / name, color, mode=mode)).shape == (3, 32, 32)
    assert len(du.find_images(tmp_path)) == len(kinds)
    assert (du.read_image(picture(tmp_path / "a.png", 77, mode="L")) == 77).all()
    assert (du.read_image(picture(tmp_path / "b.png", (9, 9, 9, 0), mode="RGBA")) == 255).all()  # what shines through is white
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    turned = du.read_image(picture(tmp_path / "c.jpg", size=(60, 20), exif=exif), (60, 20))
    assert (turned[0] > 200).all()
    frames = [Image.new("P", (9, 9), k) for k in (1, 2)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert du.read_image(tmp_path / "film.gif").shape == (3, 32, 32)


def cut_jpeg(path): path.write_bytes(picture(path).read_bytes()[:200])


UNREADABLE = {"text": lambda p: p.write_text("not a picture"), "empty": lambda p: p.write_bytes(b""), "cut": cut_jpeg,
              "16 bits": lambda p: picture(p.with_suffix(".png"), 3000, mode="I;16").rename(p), "a folder": lambda p: p.mkdir(), "a link to nothing": lambda p: p.symlink_to("nowhere")}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable_pictures_are_named(mine, kind):
    if kind == "a link to nothing" and sys.platform == "win32": pytest.skip("links need rights there")
    UNREADABLE[kind](mine / "red" / "broken.jpg")
    with pytest.raises((ValueError, OSError), match="broken.jpg"): du.get_folder_data(mine)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user whom rights can keep out")
def test_a_picture_that_may_not_be_read(mine):
    (mine / "red" / "3.png").chmod(0)
    with pytest.raises(PermissionError, match="3.png"): du.get_folder_data(mine)


def test_what_is_not_a_picture_is_left_out(mine):
    "Hidden files and folders, and files of other kinds."
    for name in ".DS_Store", ".hidden.png", "notes.txt", "thumbs.db": (mine / "red" / name).write_text("x")
    for name in ".git", ".ipynb_checkpoints": (mine / name).mkdir()
    (mine / "readme.png").write_text("x")
    assert len(everything(du.get_folder_data(mine))) == 20 and du.folder_classes(mine) == ("blue", "red")


def test_folders_with_too_little(mine, tmp_path):
    for k in range(8): (mine / "red" / f"{k}.png").unlink()
    with pytest.raises(ValueError, match="red has 2 pictures, 1 for validation and 1 for the test: none is left for training"): du.get_folder_data(mine)
    assert len(du.get_folder_data(mine, test_share=0)["X_test"]) == 0
    with pytest.raises(ValueError, match="blue has 10 pictures, 5 for validation and 5 for the test"): du.get_folder_data(mine, (8, 8), 0.5, 0.5)
    (mine / "green").mkdir()
    with pytest.raises(ValueError, match="green has 0 pictures"): du.get_folder_data(mine)
    picture(tmp_path / "one" / "class" / "a.png")
    with pytest.raises(ValueError, match=r"root needs two subfolders or more, one a class; .* has \['class'\]"): du.get_folder_data(tmp_path / "one")
    for folder in mine / "blue", tmp_path / "empty":
        with pytest.raises(ValueError, match=r"root needs two subfolders or more"): du.get_folder_data(folder)
    with pytest.raises(FileNotFoundError, match="nowhere"): du.get_folder_data(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="0.png"): du.get_folder_data(mine / "blue" / "0.png")


@pytest.mark.parametrize("options, error, words", [
    ({"val_share": -.1}, ValueError, "val_share needs a number of at least 0 and at most 0.9"), ({"test_share": 1}, ValueError, "test_share"),
    ({"val_share": "half"}, TypeError, "val_share"), ({"test_share": np.nan}, ValueError, "test_share"), ({"dtype": int}, TypeError, "dtype")])
def test_bad_options_for_a_folder(mine, options, error, words):
    with pytest.raises(error, match=f"get_folder_data: {words}"): du.get_folder_data(mine, **options)


# CIFAR-10: right answers

def test_both_versions_give_the_same(tmp_path, cifar):
    python = tmp_path / "py"
    python.mkdir()
    for k, name in enumerate(NAMES):
        (python / name).write_bytes(batch(*images(10, k), protocol=k % 5, filenames=["a.png"] * 10, batch_label=f"batch {k}"))
    one, two = du.get_CIFAR10_data(40, 10, 10, root=cifar), du.get_CIFAR10_data(40, 10, 10, root=python)
    assert all(np.array_equal(one[k], two[k]) for k in one)


def test_python_two_pickles():
    "The genuine files were written by Python 2: byte strings everywhere, and numpy.core."
    X, y = images(3)
    raw = X.tobytes()
    program = (b"\x80\x02}q\x00(U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07"
               b"(K\x01K\x03M\x00\x0c\x86q\x08cnumpy\ndtype\nq\tU\x02u1q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01|q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb"
               b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"q\x0ftq\x10bU\x06labelsq\x11]q\x12(" + b"".join(b"K" + bytes([k]) for k in y) + b"eu.")
    got, labels = du._unpickle(program)
    assert np.array_equal(got, X) and labels == y.tolist()


def test_course_way(cifar):
    "float64, channels last, and the course's own arithmetic gives the same numbers."
    X, y, Xte, yte = du.load_CIFAR10(str(cifar))
    assert X.shape == (50, 32, 32, 3) and X.dtype == Xte.dtype == np.float64 and y.dtype == np.int64
    train = X[:40] - np.mean(X[:40], axis=0)
    data = du.get_CIFAR10_data(40, 10, 10, root=cifar)
    assert np.array_equal(data["X_train"], train.transpose(0, 3, 1, 2)) and np.array_equal(data["y_test"], yte)
    assert np.array_equal(du.get_CIFAR10_data(40, 10, 10, root=cifar, dtype="f4")["X_train"], data["X_train"].astype("f4"))
    raw = du.get_CIFAR10_data(40, 10, 10, subtract_mean=False, root=cifar)
    assert np.array_equal(raw["X_val"], X[40:].transpose(0, 3, 1, 2))


def test_places(tmp_path, cifar, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="cs231n-lit download.*CS231N_LIT_CIFAR10"):
        du.find_cifar10()
    course = tmp_path / "cs231n" / "datasets" / "cifar-10-batches-py"
    course.mkdir(parents=True)
    (course / "data_batch_1").write_bytes(b"")
    assert du.find_cifar10().resolve() == course
    (tmp_path / "cache").mkdir()
    cifar.rename(tmp_path / "cache" / cifar.name)
    assert du.find_cifar10().parent == tmp_path / "cache"
    monkeypatch.setenv("CS231N_LIT_CIFAR10", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        du.find_cifar10()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        du.get_data()
    assert du.find_cifar10(tmp_path / "cache").name == "cifar-10-batches-bin"


def test_whichever_there_is(cifar):
    data, name = du.get_data()
    assert name == "pictures" and data["X_train"].dtype == np.float32
    data, name = du.get_data(root=cifar, num_training=40, num_validation=10, num_test=10)
    assert name == "cifar10" and data["X_train"].shape == (40, 3, 32, 32)
    with pytest.raises(ValueError, match="'cifar10', 'pictures'; got 'cifar'"):
        du.get_data("cifar")
    with pytest.raises(FileNotFoundError):
        du.get_data("cifar10")


# CIFAR-10: broken files

@pytest.mark.parametrize("content, words", [
    (b"", "0 bytes are not 1 to 10000 records"),
    (bytes(RECORD - 1), "3072 bytes"),
    (bytes(RECORD * 10 + 1), "30731 bytes"),
    (bytes(RECORD * 10_001), "30732 ?073|30733073 bytes"),
    (bytes([10]) + bytes(3072), "labels need to be 0 to 9 but go from 10 to 10"),
    (bytes([255]) + bytes(3072), "255"),
    (b"<!DOCTYPE html>" * 100, "1500 bytes"),
])
def test_broken_binary(cifar, content, words):
    (cifar / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(ValueError, match=words) as e:
        du.load_CIFAR10(cifar)
    assert "data_batch_3.bin" in str(e.value)


@pytest.mark.parametrize("name", ["data_batch_4.bin", "test_batch.bin"])
def test_missing_file(cifar, name):
    (cifar / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} missing"):
        du.get_CIFAR10_data(root=cifar)


def test_fewer_images_than_asked_for(cifar):
    with pytest.raises(ValueError, match="num_test is 1000, but there are only 10 images for it"):
        du.get_CIFAR10_data(40, 10, root=cifar)
    with pytest.raises(ValueError, match="num_training is 49000, but there are only 50 images for it"):
        du.get_CIFAR10_data(root=cifar)


class Call:
    "Pickles as a call."
    def __init__(self, function, *args): self.call = function, args
    def __reduce__(self): return self.call


def hostile(marker):
    X, y = images(1)
    command = f"touch {marker}"
    ok = {"data": X, "labels": y.tolist()}
    yield "os.system", pickle.dumps({**ok, "x": Call(os.system, command)})
    yield "eval", pickle.dumps({**ok, "x": Call(eval, f"open({str(marker)!r}, 'w')")})
    yield "exec", pickle.dumps({**ok, "x": Call(exec, f"open({str(marker)!r}, 'w')")})
    yield "getattr", pickle.dumps({**ok, "x": Call(getattr, "", "join")})
    yield "import", pickle.dumps({**ok, "x": Call(__import__, "antigravity")})
    yield "Popen", pickle.dumps({**ok, "x": Call(subprocess.Popen, ["touch", str(marker)])})
    yield "in place of the data", pickle.dumps({"data": Call(os.system, command), "labels": [1]})
    yield "the whole", pickle.dumps(Call(os.system, command))
    yield "text protocol", f"cos\nsystem\n(S'{command}'\ntR.".encode()
    yield "dotted name", f"\x80\x04\x8c\x05numpy\x8c\x0eos.path.genericp\x93.".encode("latin1")
    yield "numpy.load", pickle.dumps({**ok, "x": Call(np.load, str(marker))})
    yield "numpy.memmap", pickle.dumps({**ok, "x": Call(np.memmap, str(marker), "u1", "w+", 0, (9,))})
    yield "inst", f"(S'{command}'\nios\nsystem\n.".encode()
    yield "persistent id", b"\x80\x02U\x03abcQ."
    yield "extension", b"\x80\x02\x82\x01."
    yield "state of a stand-in", b"\x80\x02cnumpy\nndarray\n}U\x0c__setstate__K\x01sb."


@pytest.mark.parametrize("kind", [kind for kind, _ in hostile("x")])
def test_hostile_pickles_run_nothing(kind, tmp_path):
    marker = tmp_path / "marker"
    path = tmp_path / "data_batch_1"
    path.write_bytes(dict(hostile(marker))[kind])
    with pytest.raises(ValueError, match="not a batch of CIFAR-10's Python version"):
        du.read_pickle(path)
    assert not marker.exists()


def false():
    X, y = images(4)
    yield "empty", b""
    yield "not a pickle", b"hello"
    yield "a number", pickle.dumps(3)
    yield "a list", pickle.dumps([X, y.tolist()])
    yield "no labels", pickle.dumps({"data": X})
    yield "no data", pickle.dumps({"labels": [1]})
    yield "float images", pickle.dumps({"data": X / 255, "labels": y.tolist()}, protocol=2)
    yield "objects", pickle.dumps({"data": np.array([None] * 3072, object), "labels": [1]}, protocol=2)
    yield "too few pixels", pickle.dumps({"data": X[:, :3071], "labels": y.tolist()}, protocol=2)
    yield "images as a list", pickle.dumps({"data": X.tolist(), "labels": y.tolist()})
    yield "one axis", pickle.dumps({"data": X.ravel(), "labels": y.tolist()}, protocol=2)
    yield "too few labels", batch(X, y[:3])
    yield "labels as text", pickle.dumps({"data": X, "labels": list("abcd")}, protocol=2)
    yield "labels as an array", pickle.dumps({"data": X, "labels": y}, protocol=2)
    yield "label 10", batch(X, np.array([1, 2, 3, 10]))
    yield "negative label", batch(X, np.array([1, 2, 3, -1]))
    yield "huge memo index", b"\x80\x02}r\xff\xff\xff\x7f."
    yield "huge string", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc."
    yield "huge frame", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}."
    yield "huge shape", batch(X, y).replace(b"K\x04M\x00\x0c\x86", b"J\xff\xff\xff\x7fM\x00\x0c\x86")
    yield "deep nesting", b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    for cut in (1, 2, 100, 1000, 6000):
        yield f"cut at {cut}", batch(X, y)[:cut]


@pytest.mark.parametrize("kind", [kind for kind, _ in false()])
def test_false_pickles(kind, tmp_path):
    path = tmp_path / "data_batch_1"
    path.write_bytes(dict(false())[kind])
    with pytest.raises(ValueError, match="data_batch_1"):
        du.read_pickle(path)


def test_oversized_pickle(tmp_path):
    with open(tmp_path / "big", "wb") as f:
        f.truncate(70_000_000)
    with pytest.raises(ValueError, match="70000000 bytes are too many"):
        du.read_pickle(tmp_path / "big")


def test_damaged_pickles_never_surprise(tmp_path):
    "Random bytes changed: either still a batch of the right shape, or a ValueError."
    rng = np.random.default_rng(0)
    X, y = images(1)
    good, path = bytearray(batch(X, y)), tmp_path / "b"
    structure = [k for k in range(len(good)) if k < 200 or k > len(good) - 60]
    refused = 0
    for _ in range(300):
        bad = bytearray(good)
        for k in rng.choice(structure, rng.integers(1, 4)):
            bad[k] = rng.integers(256)
        path.write_bytes(bad)
        try:
            got, labels = du.read_pickle(path)
        except ValueError:
            refused += 1
        else:
            assert got.shape == (len(labels), 3, 32, 32) and labels.min() >= 0 and labels.max() <= 9
    assert refused > 50


# Archives

def archive(members, folder="cifar-10-batches-bin"):
    "A .tar.gz of (TarInfo or name, bytes)."
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for info, content in members:
            info = info if isinstance(info, tarfile.TarInfo) else tarfile.TarInfo(f"{folder}/{info}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def six():
    return [(f"{name}.bin", binary(*images(2, k))) for k, name in enumerate(NAMES)]


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


FOLDER = "cifar-10-batches-bin"
BAD_MEMBERS = {
    "absolute path": (tarfile.TarInfo("/tmp/cs231n_lit_evil"), b"x"),
    "leaving path": (tarfile.TarInfo(f"{FOLDER}/../../evil"), b"x"),
    "leaving path, allowed name": (tarfile.TarInfo("../data_batch_1.bin"), b"x"),
    "deeper path": (tarfile.TarInfo(f"{FOLDER}/a/data_batch_1.bin"), b"x"),
    "other folder": (tarfile.TarInfo("etc/data_batch_1.bin"), b"x"),
    "unknown name": (tarfile.TarInfo(f"{FOLDER}/setup.py"), b"x"),
    "backslashes": (tarfile.TarInfo(f"{FOLDER}\\..\\evil"), b"x"),
    "symbolic link": special(f"{FOLDER}/readme.html", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": special(f"{FOLDER}/readme.html", tarfile.LNKTYPE, "/etc/passwd"),
    "device": special(f"{FOLDER}/readme.html", tarfile.CHRTYPE),
    "pipe": special(f"{FOLDER}/readme.html", tarfile.FIFOTYPE),
    "folder elsewhere": special("../evil", tarfile.DIRTYPE),
    "link in place of the folder": special(FOLDER, tarfile.SYMTYPE, "/tmp"),
    "too large": (tarfile.TarInfo(f"{FOLDER}/readme.html"), bytes(62_000_000)),
    "twice": (tarfile.TarInfo(f"{FOLDER}/data_batch_1.bin"), b"x"),
}


@pytest.mark.parametrize("kind", BAD_MEMBERS)
@pytest.mark.parametrize("first", [True, False])
def test_bad_archives(kind, first, tmp_path):
    members = [BAD_MEMBERS[kind], *six()] if first else [*six(), BAD_MEMBERS[kind]]
    (tmp_path / "a.tar.gz").write_bytes(archive(members))
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    with open(tmp_path / "a.tar.gz", "rb") as f, pytest.raises(ValueError, match="not the archive of CIFAR-10"):
        du._unpack(f, out, "binary")
    written = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert written <= {"a.tar.gz", *(f"deep/out/{name}.bin" for name in NAMES)}
    assert not Path("/tmp/cs231n_lit_evil").exists()


@pytest.mark.parametrize("content, words", [
    (b"", "not the archive"), (b"hello", "not the archive"), (archive([]), "data_batch_1.bin"),
    (archive(six()[:5]), "test_batch.bin missing"), (archive(six())[:5000], "not the archive"),
])
def test_broken_archives(content, words, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(content)
    (tmp_path / "out").mkdir()
    with open(tmp_path / "a.tar.gz", "rb") as f, pytest.raises(ValueError, match=words):
        du._unpack(f, tmp_path / "out", "binary")


# Downloads, from a server of our own

class Server(http.server.BaseHTTPRequestHandler):
    "Serves one file; `faults` says what goes wrong, answer by answer. Writes down what was asked for and how much was sent."
    content, faults, ranges = b"", [], True
    asked, sent = [], []

    def do_GET(self):
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "moved":
            self.send_response(302)
            self.send_header("Location", "/b.tar.gz")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        if fault == "missing":
            return self.send_error(404)
        start = int(wanted[6:-1]) if wanted and self.ranges else 0
        body = self.content[start:]
        if fault == "damaged": body = body[:-9] + b"!" * 9
        if fault == "longer": body += b"!" * 5000
        if fault == "page": body = b"<html>Please log in</html>"
        self.send_response(206 if wanted and self.ranges else 200)
        if fault not in ("unannounced", "endless"): self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "cut": body = body[:len(body) // 2]
        if fault == "endless": body += b"!" * 10_000_000
        self.sent.append(0)
        try:
            for k in range(0, len(body), 1000):
                if fault == "slow": time.sleep(2 / (1 + len(body) // 1000))
                if fault == "reset" and 2 * k > len(body): return self.connection.close()
                self.sent[-1] += self.wfile.write(body[k:k + 1000])
        except OSError: pass  # the other side is gone

    def log_message(self, *args): pass


@pytest.fixture
def server(monkeypatch):
    class Mine(Server): faults, asked, sent = [], [], []
    Mine.content = archive(six())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mine) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
        checksum = hashlib.sha256(Mine.content).hexdigest()
        monkeypatch.setitem(du.ARCHIVES, "binary", (f"http://127.0.0.1:{httpd.server_port}/a.tar.gz", len(Mine.content), checksum))
        yield Mine
        httpd.shutdown()


PART = "cifar-10-batches-bin.tar.gz.part"


def left(folder):
    "The names in a folder; an empty file that waits for its first byte does not count."
    return sorted(p.name for p in folder.iterdir() if p.is_dir() or p.stat().st_size)


def test_download(server, tmp_path):
    folder = du.download_cifar10()
    assert folder == tmp_path / "cache" / "cifar-10-batches-bin" and du.find_cifar10() == folder
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["cifar-10-batches-bin"]
    assert du.load_CIFAR10()[0].shape == (10, 32, 32, 3)
    assert du.download_cifar10() == folder and server.asked == [None]


@pytest.mark.parametrize("fault, error, words", [
    ("missing", ConnectionError, "could not fetch.*404"), ("damaged", ValueError, "is not CIFAR-10, and nothing of it was kept.*SHA-256"),
    ("page", ValueError, "server offers 26 bytes, but the archive has"), ("longer", ValueError, "server offers [0-9]+ bytes"),
])
def test_failed_download_leaves_nothing_and_can_be_repeated(server, tmp_path, fault, error, words):
    server.faults.append(fault)
    with pytest.raises(error, match=words):
        du.download_cifar10()
    assert left(tmp_path / "cache") == []
    assert du.get_data(num_training=1, num_validation=0, num_test=0)[1] == "pictures"
    assert len(left(du.download_cifar10())) == 6 and left(tmp_path / "cache") == ["cifar-10-batches-bin"]


@pytest.mark.parametrize("fault", ["cut", "reset"])
def test_an_interrupted_download_goes_on(server, tmp_path, fault):
    server.faults += [fault, fault]
    n = len(server.content)
    for _ in range(2):
        with pytest.raises(ConnectionError, match="could not fetch"):
            du.download_cifar10()
        assert left(tmp_path / "cache") == [PART]
        with pytest.raises(FileNotFoundError): du.find_cifar10()
    have = (tmp_path / "cache" / PART).stat().st_size
    assert n / 2 < have < n
    assert len(left(du.download_cifar10())) == 6 and left(tmp_path / "cache") == ["cifar-10-batches-bin"]
    assert server.asked[0] is None and server.asked[2] == f"bytes={have}-" and server.sent[2] == n - have
    if fault == "cut": assert sum(server.sent) == n, "no byte came twice"


def test_a_broken_connection_says_how_far_it_came(server):
    server.faults.append("cut")
    n = len(server.content)
    with pytest.raises(ConnectionError, match=f"broke off after {n // 2} of {n} bytes, and the next try goes on from there"):
        du.download_cifar10()


def test_a_server_that_sends_whole_files_only(server):
    server.ranges = False
    server.faults.append("cut")
    with pytest.raises(ConnectionError): du.download_cifar10()
    assert len(left(du.download_cifar10())) == 6
    assert server.sent == [len(server.content) // 2, len(server.content)]


@pytest.mark.parametrize("fault", ["", "unannounced"])
def test_pieces_that_do_not_fit_together_start_over(server, tmp_path, fault):
    "The file behind the address changed in between, or the piece was damaged on disk."
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / PART).write_bytes(b"?" * 1000)
    server.faults += [fault, fault]
    assert len(left(du.download_cifar10())) == 6
    assert server.asked == ["bytes=1000-", None] and server.sent == [len(server.content) - 1000, len(server.content)]


@pytest.mark.parametrize("more", [0, 1, 100_000])
def test_a_false_piece_as_long_as_the_archive_or_longer(server, tmp_path, more):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / PART).write_bytes(b"?" * (len(server.content) + more))
    assert len(left(du.download_cifar10())) == 6 and server.asked == [None]


def test_a_whole_archive_that_was_not_unpacked_yet(server, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / PART).write_bytes(server.content)
    assert len(left(du.download_cifar10())) == 6 and server.asked == []


def test_starting_over_happens_once(server, tmp_path):
    server.faults += ["cut", "damaged", "damaged"]
    for error in (ConnectionError, ValueError):
        with pytest.raises(error): du.download_cifar10()
    assert len(server.asked) == 3 and left(tmp_path / "cache") == []


def test_no_more_is_taken_than_the_archive_has(server, tmp_path):
    "A server that announces no length and does not stop."
    server.faults.append("endless")
    assert len(left(du.download_cifar10())) == 6
    server.faults += ["endless", "endless"]
    server.content = b"!" * len(server.content)
    with pytest.raises(ValueError, match="SHA-256"): du.download_cifar10(folder=tmp_path / "other")
    assert left(tmp_path / "other") == []


def test_no_length_announced_and_cut(server, tmp_path):
    server.faults.append("unannounced")
    server.content, whole = server.content[:9000], server.content
    with pytest.raises(ConnectionError, match="broke off after 9000"): du.download_cifar10()
    server.content = whole
    assert len(left(du.download_cifar10())) == 6 and server.asked == [None, "bytes=9000-"]


def test_redirect(server):
    server.faults += ["moved", "cut", "moved"]
    with pytest.raises(ConnectionError): du.download_cifar10()
    assert len(left(du.download_cifar10())) == 6
    assert sum(server.sent) == len(server.content), "the range went along"


def test_redirect_without_end(server, tmp_path):
    server.faults += ["moved"] * 50
    with pytest.raises(ConnectionError, match="could not fetch.*redirect"): du.download_cifar10()
    assert left(tmp_path / "cache") == []


def test_offline_is_said_at_once(monkeypatch, tmp_path):
    monkeypatch.setitem(du.ARCHIVES, "binary", ("http://127.0.0.1:9/a.tar.gz", 9, "0"))
    start = time.time()
    with pytest.raises(ConnectionError, match="could not fetch.*Without a network.*unpack it.*CS231N_LIT_CIFAR10"):
        du.download_cifar10()
    assert time.time() - start < 5 and left(tmp_path / "cache") == []


def test_a_server_that_says_nothing(monkeypatch, tmp_path):
    "It accepts the connection and keeps silent."
    import socket
    import urllib.request
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setitem(du.ARCHIVES, "binary", (f"http://127.0.0.1:{silent.getsockname()[1]}/a", 9, "0"))
        opened = urllib.request.urlopen
        monkeypatch.setattr(urllib.request, "urlopen", lambda request, timeout: opened(request, timeout=timeout / 50))
        with pytest.raises(ConnectionError, match="timed out"): du.download_cifar10()


def test_an_answer_that_is_not_http(monkeypatch, tmp_path):
    import socket
    with socket.create_server(("127.0.0.1", 0)) as babble:
        def answer():
            connection, _ = babble.accept()
            connection.recv(1000)
            connection.sendall(b"SSH-2.0-hello\r\n")
            connection.close()
        threading.Thread(target=answer, daemon=True).start()
        monkeypatch.setitem(du.ARCHIVES, "binary", (f"http://127.0.0.1:{babble.getsockname()[1]}/a", 9, "0"))
        with pytest.raises(ConnectionError, match="could not fetch.*SSH-2.0-hello"): du.download_cifar10()


def test_full_disk_while_unpacking_and_no_permission(server, tmp_path, monkeypatch):
    def full(*args): raise OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as m:
        m.setattr(du.shutil, "copyfileobj", full)
        with pytest.raises(OSError, match="could not write to .*No space left"):
            du.download_cifar10()
    assert left(tmp_path / "cache") == [PART]
    assert len(left(du.download_cifar10())) == 6 and server.asked == [None], "the archive had come whole"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="could not write to"):
        du.download_cifar10(folder=tmp_path / "file" / "below")
    with monkeypatch.context() as m:
        m.setattr(du.Path, "mkdir", lambda *a, **k: (_ for _ in ()).throw(PermissionError(errno.EACCES, "Permission denied")))
        with pytest.raises(PermissionError, match="could not write to"):
            du.download_cifar10(folder=tmp_path / "locked")


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
def test_full_disk_while_downloading(server, tmp_path):
    "The operating system refuses to write more than half of the archive; later there is room, and it goes on."
    half = len(server.content) // 2
    code = (f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({half}, {half})); "
            f"from cs231n_lit import data_utils as du; du.ARCHIVES['binary'] = {du.ARCHIVES['binary']!r}; "
            f"du.download_cifar10(folder={str(tmp_path / 'cache')!r})")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "OSError: [Errno 27] download_cifar10: could not write to" in ran.stderr and "File too large" in ran.stderr
    assert left(tmp_path / "cache") == [PART] and (tmp_path / "cache" / PART).stat().st_size <= half
    assert len(left(du.download_cifar10())) == 6


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users")
def test_a_folder_that_may_not_be_written(server):
    "The administrator may write everywhere, and becomes nobody for a moment."
    folder, user = Path(tempfile.mkdtemp()), os.geteuid()
    folder.chmod(0o555)
    if user == 0: os.seteuid(65534)
    try:
        with pytest.raises(PermissionError, match="could not write to"): du.download_cifar10(folder=folder)
    finally:
        if user == 0: os.seteuid(0)
    assert left(folder) == []
    folder.rmdir()


def test_ctrl_c_keeps_what_came(server, tmp_path, monkeypatch):
    def interrupt(*args): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(du, "_unpack", interrupt)
        with pytest.raises(KeyboardInterrupt):
            du.download_cifar10()
    assert left(tmp_path / "cache") == [PART]
    assert len(left(du.download_cifar10())) == 6 and server.asked == [None]


def another_process(server_entry, folder):
    code = (f"from cs231n_lit import data_utils as du; du.ARCHIVES['binary'] = {server_entry!r}; "
            f"print(du.download_cifar10(folder={str(folder)!r}))")
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_three_processes_at_once(server, tmp_path):
    server.faults += ["slow"]
    all_three = [another_process(du.ARCHIVES["binary"], tmp_path / "cache") for _ in range(3)]
    for process in all_three:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out.strip().endswith("cifar-10-batches-bin")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["cifar-10-batches-bin"]
    assert len(left(du.find_cifar10())) == 6 and server.asked == [None], "one downloads, two wait"


def test_killed_while_downloading(server, tmp_path):
    "What had come is used, the lock is gone with the process, and a folder that was half unpacked is made again."
    server.faults.append("slow")
    process, part = another_process(du.ARCHIVES["binary"], tmp_path / "cache"), tmp_path / "cache" / PART
    while not part.exists() or part.stat().st_size == 0:
        time.sleep(0.02)
        assert process.poll() is None
    process.kill()
    process.communicate()
    have = part.stat().st_size
    (tmp_path / "cache" / "cifar-10-batches-bin.unfinished").mkdir()
    (tmp_path / "cache" / "cifar-10-batches-bin.unfinished" / "data_batch_1.bin").write_bytes(b"half")
    with pytest.raises(FileNotFoundError):
        du.find_cifar10()
    assert len(left(du.download_cifar10())) == 6 and server.asked[1] == f"bytes={have}-"
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["cifar-10-batches-bin"]


def test_the_cache_is_where_systems_keep_theirs(monkeypatch):
    monkeypatch.undo()
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"): monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    for platform, folder in {"linux": ".cache", "darwin": "Library/Caches", "win32": "AppData/Local"}.items():
        with monkeypatch.context() as m:
            m.setattr(sys, "platform", platform)
            assert du.cache_folder() == Path("/home/ann") / folder / "cs231n_lit"
            m.setenv("LOCALAPPDATA" if platform == "win32" else "XDG_CACHE_HOME", "/scratch")
            assert du.cache_folder() == Path("/scratch/cs231n_lit")


def test_the_official_archives():
    assert {v: (url.rsplit("/", 1)[1], size) for v, (url, size, _) in du.ARCHIVES.items()} == {
        "binary": ("cifar-10-binary.tar.gz", 170_052_171), "python": ("cifar-10-python.tar.gz", 170_498_071)}
    assert all(len(bytes.fromhex(checksum)) == 32 for *_, checksum in du.ARCHIVES.values())


def test_unknown_version():
    with pytest.raises(ValueError, match="'binary', 'python'; got 'matlab'"):
        du.download_cifar10("matlab")


# What is imported when

def test_importing_stays_light():
    code = ("import sys, cs231n_lit, cs231n_lit.data_utils, cs231n_lit.vis_utils; "
            "print([m for m in ('matplotlib', 'imageio', 'urllib.request', 'tqdm') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
