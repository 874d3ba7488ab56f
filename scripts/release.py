"""A release's version and its entry among the changes, in one step, and the check that all places agree.

    python scripts/release.py 0.2.0          settings.ini, CHANGELOG.md, CITATION.cff and the package say 0.2.0, from today
    python scripts/release.py --check v0.2.0 does what this tag says stand in all of them, with a date? Exit code 1 if not

The top entry of CHANGELOG.md is the one that is being written: `## 0.2.0 (unreleased)`. A release gives it its number and date.
"""
import argparse
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NUMBER = r"\d+\.\d+\.\d+"
PLACES = {"settings.ini": rf"^version = ({NUMBER})$", "cs231n_lit/__init__.py": rf'^__version__ = "({NUMBER})"$',
          "CITATION.cff": rf"^version: ({NUMBER})$", "CHANGELOG.md": rf"^## ({NUMBER}) \(.*\)$"}


def found(root, name):
    "The version that a file states (the first, for the changes: the newest); None if it states none."
    match = re.search(PLACES[name], (root / name).read_text(encoding="utf-8"), re.M)
    return match and match[1]


def disagreements(root, version):
    "What does not fit a release of this version, as sentences."
    wrong = [f"{name} says {found(root, name)}, not {version}" for name in PLACES if found(root, name) != version]
    heading = re.search(r"^## .*$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    if not heading or not re.fullmatch(rf"## {NUMBER} \(\d{{4}}-\d\d-\d\d\)", heading[0]): wrong.append(f"the newest entry of CHANGELOG.md has no date: {heading and heading[0]}")
    return wrong


def release(root, version, day):
    "Write the version where it stands, and the day into the changes. The package's own number comes from settings.ini, by exporting."
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    top = re.search(r"^## .*$", changes, re.M)
    if not top or not top[0].endswith("(unreleased)"): raise ValueError(f"CHANGELOG.md needs an entry at its top that ends in (unreleased); got {top and top[0]!r}")
    given, before = ([int(n) for n in v.split(".")] for v in (version, found(root, "settings.ini")))
    if given < before: raise ValueError(f"{version} is older than {found(root, 'settings.ini')}, the version in settings.ini")
    (root / "CHANGELOG.md").write_text(changes[:top.start()] + f"## {version} ({day})" + changes[top.end():], encoding="utf-8")
    for name in "settings.ini", "CITATION.cff":
        text = (root / name).read_text(encoding="utf-8")
        (root / name).write_text(re.sub(PLACES[name], lambda m: m[0].replace(m[1], version), text, flags=re.M), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("version", help="such as 0.2.0; with --check a tag, such as v0.2.0")
    parser.add_argument("--check", action="store_true", help="change nothing; say what does not agree with the tag")
    args = parser.parse_args()
    match = re.fullmatch(rf"{'v' * args.check}({NUMBER})", args.version)
    if not match: parser.error(f"{'a tag such as v0.2.0' if args.check else 'a version such as 0.2.0'} is needed; got {args.version!r}")
    if args.check:
        print(*(wrong := disagreements(ROOT, match[1])), sep="\n")
        return int(bool(wrong))
    try: release(ROOT, match[1], date.today())
    except ValueError as e: return f"release: {e}"
    subprocess.run(["nbdev_export"], cwd=ROOT, check=True)
    print(*disagreements(ROOT, match[1]), f"Now: git commit -am 'Release {match[1]}' && git tag v{match[1]} && git push origin HEAD v{match[1]}", sep="\n")


if __name__ == "__main__": sys.exit(main())
