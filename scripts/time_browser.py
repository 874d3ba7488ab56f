"""Time the same code natively and in the browser, in turn and on one thread each, for the page *Python in the browser*; smallest of several rounds.

Needs Chromium, and a site with Python beside it: `make docs VENDOR=1`.
"""
import json
import os
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported; a browser has one thread for Python

import nbformat
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 5


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


def native(cells):
    "A function that times all ways natively."
    names = {}
    for cell in cells: exec(cell.source, names)
    return lambda: {name: names["milliseconds"](way) for name, way in names["ways"].items()}


def main():
    code = [c for c in nbformat.read(ROOT / "nbs/28_browser.ipynb", 4).cells if c.cell_type == "code"]
    needed = [c for c in code if re.search(r"^import .*timeit$|^def convolve|^ways = |^def milliseconds", c.source, re.M)]
    here, seen = native(needed), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(ROOT / "docs")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), chromium_sandbox=False)
        tab = browser.new_page()
        tab.set_default_timeout(600e3)
        tab.goto(f"http://127.0.0.1:{server.server_port}/browser.html")
        cell = tab.locator(f'[data-run="{needed[-1].id}"]')
        button = cell.get_by_role("button", name=re.compile("^Run cell"))
        for _ in range(ROUNDS):
            button.click()
            button.wait_for()
            there = dict(re.findall(r"'([\w, ]+)': ([\d.]+)", cell.locator(".run-out").text_content()))
            seen.append((here(), {name: float(ms) for name, ms in there.items()}))
            print(seen[-1], flush=True)
        version = browser.version
    times = {name: {"native": round(min(n[name] for n, _ in seen), 4), "browser": min(b[name] for _, b in seen)} for name in seen[0][0]}
    (ROOT / "cs231n_lit/data/pages/browser_times.json").write_text(json.dumps({"browser": f"Chromium {version}", "times": times}, indent=1) + "\n")


if __name__ == "__main__":
    main()
