"""Run notebooks in IPython, each in a folder and a process of its own, as many at once as there are cores.

    python run_pages.py FOLDER NOTEBOOK…     prints the error of each as JSON, an empty text where there was none

`test_pages_anywhere.py` calls it with the Python of another environment. Where processes can fork, they share what every page imports:
that takes a page's start from seconds to nothing. Cells marked slow, or not to be evaluated, are left out, as `nbdev_test` does.
"""
import json
import multiprocessing
import os
import re
import sys
import traceback
from multiprocessing.connection import wait
from pathlib import Path

SKIPPED = re.compile(r"^#\| *(slow\b|eval: *false)", re.M)
LIMIT = 600  # seconds for a page


def cells(notebook):
    "The code of a notebook's cells that are to run."
    sources = ("".join(cell["source"]) for cell in json.loads(Path(notebook).read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code")
    return [source for source in sources if not SKIPPED.search(source)]


def shell():
    "IPython as in a notebook: figures are drawn where their cell ends, and results shown in every form they have."
    from IPython.core.interactiveshell import InteractiveShell
    from matplotlib_inline.backend_inline import configure_inline_support
    from traitlets.config import Config
    found = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}, "InteractiveShell": {"colors": "NoColor"}}))
    configure_inline_support(found, os.environ["MPLBACKEND"])
    return found


def run(notebook, folder):
    "Run a notebook in a folder, in this process; leave the error that ended it, if any, in error.txt, and all that was printed in said.txt."
    os.chdir(folder)
    sys.argv, sys.path[0] = [""], ""
    with open("said.txt", "w", encoding="utf-8") as said:
        for stream in (1, 2): os.dup2(said.fileno(), stream)
    ipython = shell()
    for source in cells(notebook):
        result = ipython.run_cell(source, store_history=True)
        if error := result.error_before_exec or result.error_in_exec: break
    Path(folder, "error.txt").write_text("".join(traceback.format_exception(error)) + "in the cell\n" + source if error else "", encoding="utf-8")
    os._exit(0)  # at once: a page's threads and idle workers are not waited for


def errors(notebooks, folder):
    "The error of each notebook."
    fork = "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if fork else "spawn")
    if fork: warm_up()
    todo, running, found = list(notebooks), {}, {}
    while todo or running:
        while todo and len(running) < (os.cpu_count() or 1):
            place = Path(folder, str(len(found) + len(running))).absolute()
            place.mkdir(parents=True)
            process = context.Process(target=run, args=(os.path.abspath(todo[0]), str(place)))
            process.start()
            running[process.sentinel] = todo.pop(0), place, process
        for sentinel in wait(list(running), LIMIT) or list(running):
            notebook, place, process = running.pop(sentinel)
            if process.is_alive(): process.kill()
            process.join()
            file = place / "error.txt"
            found[notebook] = file.read_text(encoding="utf-8") if file.exists() else f"its process ended with {process.exitcode}, or took {LIMIT} s"
    return found


def warm_up():
    "Import what nearly every page does."
    import cs231n_lit.cli  # noqa: F401
    import IPython.core.interactiveshell  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import matplotlib_inline.backend_inline  # noqa: F401


if __name__ == "__main__":
    os.environ |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "OPENBLAS_NUM_THREADS": "1"}  # the cores go to the pages
    print(json.dumps(errors(sys.argv[2:], sys.argv[1])))
