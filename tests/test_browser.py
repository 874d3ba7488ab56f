"""The built site in a real browser, with no network: nothing fails, everything is shown, and it can be read in light and dark."""
import re
from types import SimpleNamespace

import pytest
from conftest import DOCS, needs_browser

names = sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.html"))
pytestmark = needs_browser

LOOK = r"""async () => {
  const images = [...document.images];
  await Promise.all(images.map(image => image.decode().catch(() => null)));
  const text = document.body.cloneNode(true);
  text.querySelectorAll("pre, code, math, script, style").forEach(e => e.remove());
  const files = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
  return {broken: images.filter(i => !i.naturalWidth).map(i => i.alt), text: text.textContent,
          weight: files.reduce((sum, f) => sum + f.decodedBodySize, 0)};
}"""

CUT_OFF = """() => {
  const scrolls = e => e && e.matches("main *") && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const outside = [...document.querySelectorAll("main *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e));
  return [document.documentElement.scrollWidth - innerWidth, outside.slice(0, 5).map(e => e.outerHTML.slice(0, 90))];
}"""

CONTRAST = """() => {
  const pen = Object.assign(document.createElement("canvas"), {width: 1, height: 1}).getContext("2d", {willReadFrequently: true});
  const rgba = {}, read = colour => rgba[colour] ??= (pen.clearRect(0, 0, 1, 1), pen.fillStyle = colour, pen.fillRect(0, 0, 1, 1), [...pen.getImageData(0, 0, 1, 1).data]);
  const over = ([r, g, b, a], under) => [r, g, b].map((x, k) => x * a / 255 + under[k] * (1 - a / 255));
  const papers = new Map([[null, [255, 255, 255, 255]]]);
  const paper = e => {
    if (!papers.has(e)) { const own = read(getComputedStyle(e).backgroundColor); papers.set(e, own[3] === 255 ? own : over(own, paper(e.parentElement))); }
    return papers.get(e);
  };
  const luminance = c => c.slice(0, 3).map(x => x / 255).map(x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4).reduce((sum, x, k) => sum + x * [.2126, .7152, .0722][k], 0);
  const low = {}, texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement, style = getComputedStyle(e);
    if (!texts.currentNode.data.trim() || e.closest("script, style") || !e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    const under = paper(e), ink = over(read(style.color), under), [dim, bright] = [luminance(ink), luminance(under)].sort((a, b) => a - b);
    const ratio = (bright + .05) / (dim + .05);
    if (ratio < 4.5) low[`${style.color} on ${under.map(Math.round)}: ${ratio.toFixed(2)}`] = e.outerHTML.slice(0, 100);
  }
  return low;
}"""

PAPER = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"

PLAIN = """() => document.querySelectorAll("code, math").forEach(e => e.textContent = e.textContent)"""

BROKEN = """() => [...document.querySelectorAll("main :is(td, th) code")].filter(e => /^[\\w.]+$/.test(e.textContent) && e.getClientRects().length > 1).map(e => e.textContent)"""

AXE = """async (options) => {
  const {violations} = await axe.run(document, {resultTypes: ["violations"], ...options});
  const short = n => `${n.html.slice(0, 120)}: ${n.failureSummary.slice(0, 160)}`;
  return violations.filter(v => ["serious", "critical"].includes(v.impact)).map(v => [v.id, v.nodes.length, v.nodes.slice(0, 3).map(short)]);
}"""


def fonts(tab):
    "Names of the fonts that draw the formulas, and whether the site brings them."
    said = tab.context.new_cdp_session(tab)
    for domain in ("DOM", "CSS"): said.send(f"{domain}.enable")
    nodes = said.send("DOM.querySelectorAll", {"nodeId": said.send("DOM.getDocument")["root"]["nodeId"], "selector": "math :not(:has(*))"})["nodeIds"]
    return {(font["familyName"], font["isCustomFont"]) for node in nodes for font in said.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]}


def switch(tab):
    tab.locator(".quarto-color-scheme-toggle").first.dispatch_event("click")
    tab.wait_for_timeout(100)


@pytest.fixture(scope="module", params=names)
def seen(request, base, browser, axe):
    "What a browser says about one page."
    said, tab = [], browser.new_page(reduced_motion="reduce", viewport={"width": 1280, "height": 900})  # knows nothing of other pages
    tab.on("requestfailed", lambda r: said.append(f"{r.url[:100]} {r.failure}"))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("console", lambda message: said.extend([message.text] if message.type == "error" else []))
    tab.goto(f"{base}/{request.param}", wait_until="load")
    page = SimpleNamespace(name=request.param, said=said, **tab.evaluate(LOOK))
    page.fonts, page.contrast, page.paper = fonts(tab), {}, {}
    for scheme in ("light", "dark"):
        page.contrast[scheme], page.paper[scheme] = tab.evaluate(CONTRAST), tab.evaluate(PAPER)
        switch(tab)
    page.broken_names = tab.evaluate(BROKEN)
    tab.set_viewport_size({"width": 390, "height": 800})
    page.cut = tab.evaluate(CUT_OFF)
    tab.evaluate(axe)
    page.axe = {"phone": tab.evaluate(AXE, {"runOnly": ["scrollable-region-focusable", "target-size"]})}
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.evaluate(PLAIN)  # a page may have ten thousand spans of code: their colours were looked at above
    page.axe["desktop"] = tab.evaluate(AXE, {"rules": {"color-contrast": {"enabled": False}}})
    tab.close()
    return page


def test_nothing_fails(seen):
    assert seen.said == []


def test_images_are_shown(seen):
    assert seen.broken == []


def test_no_raw_tex(seen):
    assert re.findall(r".{0,20}(?:\\[a-zA-Z]+\{|\\\(|\\\[|\$\$|\\(?:frac|sum|partial|hat|cdot|times)\b).{0,20}", seen.text) == []


def test_formulas_are_drawn_in_the_sites_font(seen):
    "All of their characters, however many of the font's the build left out."
    assert seen.fonts <= {("STIX Two Math", True)}


def test_a_missing_letter_is_noticed(base, browser):
    tab = browser.new_page()
    tab.goto(f"{base}/pooling.html")
    before = fonts(tab)
    tab.evaluate("document.querySelector('math mi').textContent = '\N{CYRILLIC SMALL LETTER ZHE}'")
    after = fonts(tab)
    tab.close()
    assert before == {("STIX Two Math", True)} and len(after) == 2


def test_names_in_tables_are_whole(seen):
    "A function's name is not cut in two where its column is narrow."
    assert seen.broken_names == []


def test_phone_does_not_scroll_sideways(seen):
    "Neither does the page, nor is a part of it cut off."
    sideways, outside = seen.cut
    assert (sideways <= 0, outside) == (True, [])


@pytest.mark.parametrize("screen", ["desktop", "phone"])
def test_accessible(seen, screen):
    "No serious or critical finding of axe-core."
    assert seen.axe[screen] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(seen, scheme):
    "All text that shows has a contrast of at least 4.5 to what is behind it."
    assert (min(seen.paper[scheme]) > 200, max(seen.paper[scheme]) < 60) == (scheme == "light", scheme == "dark")
    assert seen.contrast[scheme] == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_by_axe(base, browser, axe, scheme):
    "The same by axe-core, which takes its time, on one short page."
    tab = browser.new_page(color_scheme=scheme, reduced_motion="reduce")
    tab.goto(f"{base}/index.html")
    tab.evaluate(axe)
    found = tab.evaluate(AXE, {})
    tab.close()
    assert found == []


def test_contrast_is_noticed(base, browser):
    "Grey on grey is found."
    tab = browser.new_page()
    tab.goto(f"{base}/index.html")
    before = tab.evaluate(CONTRAST)
    tab.evaluate("document.querySelector('main p').style.color = '#aaa'")
    after = tab.evaluate(CONTRAST)
    tab.close()
    assert len(after) == len(before) + 1


def test_weight(seen):
    "All that the page loads, unpacked."
    assert seen.weight <= (1e6 if seen.name == "index.html" else 1.5e6)


def test_dark_follows_the_system_and_the_switch(base, browser):
    shades = []
    for scheme in ("light", "dark"):
        tab = browser.new_page(color_scheme=scheme)
        tab.goto(f"{base}/index.html")
        shades.append(tab.evaluate(PAPER))
        switch(tab)
        shades.append(tab.evaluate(PAPER))
        tab.reload()
        shades.append(tab.evaluate(PAPER))
        tab.close()
    light, dark = shades[0], shades[1]
    assert light != dark
    assert shades == [light, dark, dark, dark, light, light]


@pytest.mark.parametrize("words, page", [
    ("col2im", "convolution"), ("batchnorm_backward_alt", "normalization"), ("learning rate", "optim"), ("max_pool_backward_naive", "pooling"),
    ("adjointness", "convolution"), ("overlapping windows", "pooling"), ("running mean", "normalization"), ("group norm", "spatial_norm"),
    ("softmax loss", "layers"), ("gradient check", "gradient_check"),
])
def test_search_leads_to_the_page(base, browser, words, page):
    "The page that explains it is the first result; Quarto's own search, which nobody here ranks, has it among its results."
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto(f"{base}/index.html")
    tab.locator("#quarto-search button").first.click()
    tab.locator("#quarto-search input, .aa-Input").first.fill(words)
    results = tab.locator(".search-result, .aa-Item a")
    results.first.wait_for()
    found = [re.search(r"(\w+)\.html", a.get_attribute("href"))[1] for a in results.all()]
    ours = tab.locator(".search-result").count() > 0
    tab.close()
    assert page in (found[:1] if ours else found), f"{words} leads to {found}"


def test_pages_can_be_read_from_a_folder(browser):
    "Without a server too: pictures, formulas and the style."
    tab = browser.new_page()
    tab.goto((DOCS / "convolution.html").as_uri())
    look = tab.evaluate(LOOK)
    font = tab.evaluate("document.fonts.ready.then(() => document.fonts.check('16px \"STIX Two Math\"'))")
    tab.close()
    assert (look["broken"], font) == ([], True)
