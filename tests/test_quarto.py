"""What the site's finish and style sheet make of pages in Quarto's structures, without Quarto: a page written by hand in tests/fixtures/quarto."""
import importlib
import io
import json
import re
import shutil
import sys
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from conftest import needs_browser
from test_browser import AXE, CONTRAST, CUT_OFF, LOOK, PAPER, switch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
build, figures = (importlib.import_module(name) for name in ("build_docs", "figures"))
NOTEBOOK = ROOT / "nbs/07_pooling.ipynb"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "The page as Quarto leaves it, raw.html, and finished, pooling.html, with our theme and figures of a notebook."
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "tests/fixtures/quarto", folder, dirs_exist_ok=True)
    for name in ("theme", "fonts"): shutil.copytree(ROOT / "nbs" / name, folder / name)
    kinds = {"PNG": "cell-6-output-1.png", "JPEG": "cell-7-output-1.jpeg", "GIF": "animation.gif"}
    (folder / "pooling_files/figure-html").mkdir(parents=True)
    for _, data in figures.outputs(NOTEBOOK): (folder / "pooling_files/figure-html" / kinds[Image.open(io.BytesIO(data)).format]).write_bytes(data)
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    page = (folder / "pooling.html").read_text(encoding="utf-8")
    (folder / "raw.html").write_text(page, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "DOCS", folder)
        page = build.without_dead_ends(build.finish(page, NOTEBOOK, config["DEFAULT"]), "pooling.html", {"pooling.html": {"max_pool_forward_naive"}})
    (folder / "pooling.html").write_text(page, encoding="utf-8")
    build.used_rules(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder): return (folder / "pooling.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere(page, folder):
    elsewhere = r"<script[^>]*src=\"https?:|define\('jquery'"
    assert len(re.findall(elsewhere, (folder / "raw.html").read_text(encoding="utf-8"))) == 3
    assert re.findall(elsewhere, page) == []


def test_an_animation_is_sent_once(page, folder):
    "Quarto gives the page's first picture as the address of its preview, also where the picture is written into the page."
    preview = 'property="og:image"'
    assert preview in (folder / "raw.html").read_text(encoding="utf-8") and preview not in page
    plain = '<meta property="og:image" content="https://o.x/r/a.png">'
    assert build.offline(plain) == plain


def test_unused_icons_go(tmp_path):
    "The font keeps what a style sheet names."
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from fontTools.ttLib import TTFont
    names = {0xf229: "used", 0xf52a: "unused"}
    font = FontBuilder(1000)
    font.setupGlyphOrder([".notdef", *names.values()])
    font.setupCharacterMap(names)
    font.setupGlyf({name: TTGlyphPen(None).glyph() for name in font.font.getGlyphOrder()})
    font.setupHorizontalMetrics({name: (500, 0) for name in font.font.getGlyphOrder()})
    for setup in (font.setupHorizontalHeader, font.setupNameTable, font.setupOS2, font.setupPost): setup(*([{}] if setup == font.setupNameTable else []))
    font.font.flavor = "woff"
    (tmp_path / "site_libs").mkdir()
    font.save(tmp_path / "site_libs/bootstrap-icons.woff")
    (tmp_path / "site_libs/icons.css").write_text('.bi-used::before{content:"\\f229"}')
    build.used_icons(tmp_path)
    assert list(TTFont(io.BytesIO((tmp_path / "site_libs/bootstrap-icons.woff").read_bytes())).getBestCmap()) == [0xf229]


def test_letters_no_formula_shows_go(tmp_path):
    "The font keeps a formula's characters, the italics, minus signs and roots that a browser makes of them, and the sizes and pieces of those that stretch; a bracket comes with its mirror image."
    from fontTools.ttLib import TTFont
    shutil.copytree(ROOT / "nbs/fonts", tmp_path / "fonts")
    (tmp_path / "page.html").write_text('z<math><mi>h</mi><mo>(</mo><mover><mi>&gamma;</mi><mo>^</mo></mover><annotation encoding="application/x-tex">q</annotation></math>z')
    build.used_letters(tmp_path)
    font = TTFont(tmp_path / "fonts/stix-two-math.woff")
    assert set(map(chr, font.getBestCmap())) == set("h()γ^\N{PLANCK CONSTANT}\N{MATHEMATICAL ITALIC SMALL GAMMA}\N{MINUS SIGN}\N{SQUARE ROOT}")
    table = font["MATH"].table.MathVariants
    tall = dict(zip(table.VertGlyphCoverage.glyphs, table.VertGlyphConstruction))[font.getBestCmap()[ord("(")]]
    assert tall.VariantCount > 5 and tall.GlyphAssembly.PartCount >= 3


def test_search_shows_formulas_once(tmp_path):
    "And finds the code that looks like one."
    formula = lambda shown, tex: f"<math><semantics>{shown}<annotation encoding=\"application/x-tex\">{tex}</annotation></semantics></math>"
    (tmp_path / "a.html").write_text(f"<p>Of {formula('<mi>x</mi>', 'x')} and {formula('<mi>x</mi><mo>&gt;</mo><mn>0</mn>', 'x &gt; 0')}: {formula('<mi>α</mi>', chr(92) + 'alpha')}.</p>", encoding="utf-8")
    (tmp_path / "b.html").write_text("<p>x</p>", encoding="utf-8")
    index = [{"href": "a.html#top", "text": "Of xx and x&gt;0x &gt; 0:\nα \\alpha. x = 0"}, {"href": "b.html", "text": "xx\nx"}]
    (tmp_path / "search.json").write_text(json.dumps(index), encoding="utf-8")
    build.plain_search(tmp_path)
    assert [entry["text"] for entry in json.loads((tmp_path / "search.json").read_text(encoding="utf-8"))] == ["Of x and x&gt;0: α . x = 0", "xx\nx"]


def test_the_page_leads_to_its_notebook(page):
    assert set(re.findall(r"/(?:edit|blob)/main/([^\"]+)", page)) == {"nbs/07_pooling.ipynb"}
    assert len(re.findall(r'<p class="page-facts">\d+ minutes', page)) == 1


def test_functions_lead_to_their_place(page):
    assert '<a href="pooling.html#max_pool_forward_naive"><code>max_pool_forward_naive</code></a>' in page
    assert "<td><code>no_such_place_on_any_page</code></td>" in page


def test_what_scrolls_or_unfolds_is_reached_by_keyboard(page):
    assert '<span class="math display" tabindex="0"><math display="block"' in page and page.count('class="math display"') == 1
    assert page.count('<pre tabindex="0"><code>') == page.count('<pre class="text" tabindex="0"><code>') == page.count('<div class="sd-table" tabindex="0">') == 1
    assert re.findall(r"<pre[^>]*sourceCode[^>]*tabindex", page) == []
    assert len(re.findall(r'<div role="button" tabindex="0" class="callout-header', page)) == 1 and "role=\"navigation\"" not in page


def test_pictures_are_told_from_ink(page):
    "The photographs of one figure are cut out, the drawn figure and the animation are not."
    assert re.findall(r'<span class="pictures"[^>]*><img src="[^"]*/([\w.-]+)"', page) == ["cell-7-output-1.jpeg"]
    assert len(re.findall(r"[\d.]+% [\d.]+%", re.search(r"--around: ([^\"]*)", page)[1])) >= 4 * 5


def test_unused_rules_go(folder):
    sheet = (folder / "site_libs/quarto.css").read_text(encoding="utf-8")
    assert ".accordion-button" not in sheet and ".callout-header" in sheet and ":not(.show)" in sheet and "@media (min-width: 992px)" in sheet


def test_the_theme_names_the_colours_of_the_navigation_bar():
    "Quarto compiles them into the search's icon and the scheme's switch, where a style sheet comes too late."
    def luminance(colour):
        channels = (int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5))
        return sum(w * (x / 12.92 if x <= .04045 else ((x + .055) / 1.055) ** 2.4) for w, x in zip((.2126, .7152, .0722), channels))
    for scheme in ("light", "dark"):
        said = dict(re.findall(r"^\$navbar-(bg|fg|hl): (#\w{6});", (ROOT / f"nbs/theme/{scheme}.scss").read_text(), re.M))
        low, high = sorted((luminance(said["bg"]), luminance(said["fg"])))
        assert (high + .05) / (low + .05) >= 4.5 and "hl" in said


@pytest.fixture(scope="module")
def base(folder, serve): return serve(folder)


def shot(tab, place):
    "The pixels of a part of the page."
    return np.array(Image.open(io.BytesIO(tab.locator(place).first.screenshot())).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def seen(base, browser, axe):
    "What a browser says about the page, finished and raw."
    seen = SimpleNamespace(asked=[], contrast={}, paper={}, drawn={}, photographs={})
    tab = browser.new_page(reduced_motion="reduce", viewport={"width": 1280, "height": 900})
    asked = seen.asked
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(f"{base}/pooling.html")
    seen.broken = tab.evaluate(LOOK)["broken"]
    for scheme in ("light", "dark"):
        seen.contrast[scheme], seen.paper[scheme] = tab.evaluate(CONTRAST), tab.evaluate(PAPER)
        seen.drawn[scheme], seen.photographs[scheme] = shot(tab, "#fig-drawn img"), shot(tab, ".pictures")
        switch(tab)
    left = lambda place: tab.locator(place).first.bounding_box()["x"]
    seen.edges = {place: left(place) for place in ("#fig-drawn img", "#fig-drawn figcaption", ".pictures", ".cell-output > .wide-figure img", "#figures > h2")}
    seen.above = tab.evaluate("[...document.querySelectorAll('main section > h2:first-child')].map(h => getComputedStyle(h).marginTop)")
    tab.evaluate(axe)
    seen.axe = {"desktop": tab.evaluate(AXE, {"rules": {"color-contrast": {"enabled": False}}})}
    tab.set_viewport_size({"width": 390, "height": 800})
    seen.cut = tab.evaluate(CUT_OFF)
    seen.axe["phone"] = tab.evaluate(AXE, {"runOnly": ["scrollable-region-focusable", "target-size"]})
    seen.switch = tab.locator(".quarto-color-scheme-toggle").bounding_box()["x"]
    seen.asked = list(seen.asked)
    tab.goto(f"{base}/raw.html")
    seen.raw_cut = tab.evaluate(CUT_OFF)
    tab.close()
    return seen


@needs_browser
def test_no_request_leaves(seen, base):
    asked = [url for url in seen.asked if not url.startswith("data:")]
    assert len(asked) > 5 and [url for url in asked if not url.startswith(base)] == [] and seen.broken == []


@needs_browser
def test_phone(seen):
    "Nothing scrolls sideways or is cut off, as it would be without the finish; the switch stands at the right."
    assert seen.cut == [0, []] and seen.raw_cut[0] > 0
    assert seen.switch > 390 / 2


@needs_browser
def test_figures_and_headings_keep_their_place(seen):
    "All figures begin where the text does, though Quarto centres some; the first heading stands as far from the text before it as the others."
    assert len(set(seen.edges.values())) == 1, seen.edges
    assert len(seen.above) == 4 and len(set(seen.above)) == 1 and float(seen.above[0][:-2]) > 40


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(seen, scheme):
    assert (min(seen.paper[scheme]) > 200, max(seen.paper[scheme]) < 60) == (scheme == "light", scheme == "dark")
    assert seen.contrast[scheme] == {}


@needs_browser
@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_accessible(seen, screen):
    assert seen.axe[screen] == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_have_the_page_for_paper(seen, scheme):
    "The corner of a figure and the page have one colour, and so has the border of a figure with photographs."
    for figure in (seen.drawn[scheme], seen.photographs[scheme]): assert np.abs(figure[2, 2] - seen.paper[scheme][:3]).max() <= 2


@needs_browser
def test_photographs_stay_as_they_are(seen):
    "In the dark scheme the drawn figure changes all over; of the other the photographs do not."
    light, dark = seen.photographs["light"], seen.photographs["dark"]
    same = (np.abs(light - dark).max(2) <= 2).mean()
    inside = 4 * 162 ** 2 / (201 * 750)
    assert abs(same - inside) < .05
    assert (np.abs(seen.drawn["light"] - seen.drawn["dark"]).max(2) <= 2).mean() < .25


@needs_browser
def test_no_line_around_photographs(base, browser):
    "In the dark scheme, whose filter ends within a pixel where the figure's size is no whole number of them: the rim is paper at every width."
    tab = browser.new_page(reduced_motion="reduce", color_scheme="dark", viewport={"width": 390, "height": 800})
    tab.goto(f"{base}/pooling.html")
    if max(tab.evaluate(PAPER)[:3]) > 60: switch(tab)
    paper, rims, heights = tab.evaluate(PAPER)[:3], [], set()
    for width in range(383, 391):
        tab.set_viewport_size({"width": width, "height": 800})
        heights.add(tab.locator(".pictures").first.bounding_box()["height"] % 1 > .1)
        figure = shot(tab, ".pictures")
        rims += [np.abs(edge - paper).max() for edge in (figure[0], figure[-1], figure[:, 0], figure[:, -1])]
    tab.close()
    assert True in heights and max(rims) <= 8
