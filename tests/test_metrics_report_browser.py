"""The HTML report in a real browser: what is seen, reached by keyboard, and asked of the network."""

import shutil
from itertools import pairwise

import numpy as np
import pytest
from gap_reports import write_page
from PIL import Image

from metrics.copy_audit.report import Case, CopyReport, ScaleRate
from metrics.report import audit_to_html

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser on PATH (looked for {', '.join(NAMES)})")
FLAGS = (
    "--no-sandbox",  # containers and root have none; only pages made here are opened
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZES = [(width, scheme) for width in (360, 1440) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page"))


@pytest.fixture
def visit(browser):
    """Open a file: ``visit(path, width=1440, scheme="light", script=True)``. Afterwards nothing may have been said.

    The page's ``talk`` holds console messages and errors, and addresses that were asked for.
    """
    opened = []

    def make(path, width=1440, scheme="light", script=True):
        viewport = {"width": width, "height": 900}
        context = browser.new_context(viewport=viewport, color_scheme=scheme, java_script_enabled=script)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.talk = []
        page.on("console", lambda message: page.talk.append(message.text))
        page.on("pageerror", lambda error: page.talk.append(str(error)))
        page.on("request", lambda r: r.url.startswith(("data:", path.as_uri())) or page.talk.append(r.url))
        page.goto(path.as_uri())
        opened.append((context, page))
        return page

    yield make
    for context, page in opened:
        context.close()
        assert page.talk == []


CONTRASTS = """() => {
  const luminance = rgb => { const [r, g, b] = rgb.map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const numbers = colour => colour.match(/[0-9.]+/g).map(Number);
  const behind = e => { for (; e; e = e.parentElement) {
    const c = numbers(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c.slice(0, 3); } };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || e.tagName === 'SCRIPT') continue;
    const style = getComputedStyle(e);
    const text = luminance(numbers(e.closest('svg') ? style.fill : style.color).slice(0, 3));
    const ground = luminance(behind(e));
    const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    found.push([ratio, walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found; }"""
TOO_WIDE = """() => [...document.body.querySelectorAll('*')]
  .filter(e => !e.closest('.scroll') && e.checkVisibility())
  .filter(e => { const box = e.getBoundingClientRect(); return box.right > innerWidth + 1 || box.left < -1; })
  .map(e => e.outerHTML.slice(0, 80))"""
OVERFLOW = "() => document.documentElement.scrollWidth - innerWidth"


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_the_page_fits_is_readable_and_is_quiet(visit, file, width, scheme):
    page = visit(file, width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert page.evaluate(OVERFLOW) <= 0
    assert page.evaluate(TOO_WIDE) == []
    page.locator("svg.map.tips circle").first.hover()  # the tooltip's text counts as well
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 200
    assert [entry for entry in contrasts if entry[0] < 4.5] == []  # WCAG 2.2, level AA
    page.locator(".enlarge").first.click()
    assert page.locator("dialog").is_visible()
    assert page.evaluate(OVERFLOW) <= 0
    box = page.locator("dialog").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    assert box["y"] >= 0 and box["y"] + box["height"] <= 900


def column(page, table, number):
    return page.locator(f"{table} tbody tr").evaluate_all(f"rows => rows.map(row => row.cells[{number}].textContent)")


def test_tables_are_sorted_by_mouse_and_keyboard(visit, file):
    page = visit(file)
    table = "#slices table"
    heads = page.locator(f"{table} thead th")
    assert column(page, table, 1) == ["40.0\u00a0±\u00a05.0", "10.0\u00a0±\u00a04.0", "undefined"]
    assert heads.nth(1).get_attribute("aria-sort") == "descending"
    heads.nth(1).locator("button").click()
    assert column(page, table, 1) == ["10.0\u00a0±\u00a04.0", "40.0\u00a0±\u00a05.0", "undefined"]
    assert heads.nth(1).get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Tab")  # p at 95 % CI
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert column(page, table, 3) == ["0.002", "0.3", "–"]
    page.keyboard.press("Space")
    assert column(page, table, 3) == ["0.3", "0.002", "–"]  # what has no number stays last
    assert [heads.nth(i).get_attribute("aria-sort") for i in range(4)] == [None, None, None, "descending"]
    heads.nth(0).locator("button").click()
    assert [text[:4] for text in column(page, table, 0)] == ["bark", "empt", "rock"]
    heads.nth(1).locator("button").click()
    assert column(page, table, 1)[-1] == "undefined"  # although it stood between the others
    assert page.locator("#low-level thead td").count() == 1  # the bars are no column to sort by


def test_images_are_enlarged_and_closed_by_keyboard(visit, file):
    page = visit(file)
    first = page.locator("#explained .enlarge").first
    first.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    assert dialog.locator("p").inner_text() == "Synthetic image s/0 (1 of 22)"
    assert dialog.locator("img").evaluate("e => e.getBoundingClientRect().height") > 500
    for key, text in (
        ("ArrowRight", "Nearest real image p/0 (2 of 22)"),
        ("ArrowLeft", "Synthetic image s/0 (1 of 22)"),
        ("ArrowLeft", "Result of b class0001/instance_00012 (22 of 22)"),
        ("ArrowRight", "Synthetic image s/0 (1 of 22)"),
    ):
        page.keyboard.press(key)
        assert dialog.locator("p").inner_text() == text
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert first.evaluate("e => e === document.activeElement")
    first.click()
    dialog.get_by_role("button", name="Next").click()
    assert dialog.locator("p").inner_text().startswith("Nearest")
    dialog.get_by_role("button", name="Close").click()
    assert dialog.is_hidden()
    first.click()
    page.mouse.click(5, 5)  # beside the dialog
    assert dialog.is_hidden()


def test_the_map_tells_its_points_on_hover_and_focus(visit, file):
    page = visit(file)
    tip = page.locator(".tip")
    points = page.locator("svg.map.tips circle")
    assert points.count() == 16
    assert tip.is_hidden()
    points.nth(3).hover()
    told = tip.inner_text()
    assert told == points.nth(3).get_attribute("aria-label")
    page.mouse.move(0, 0)
    assert tip.is_hidden()
    assert page.locator("svg.map.tips circle[tabindex='0']").count() == 1  # one stop on the way of the Tab key
    page.evaluate("scrollTo(0, 0)")
    points.first.focus()
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")  # it was scrolled to
    assert tip.inner_text() == points.first.get_attribute("aria-label")
    box = tip.bounding_box()
    at = points.first.bounding_box()
    assert abs(box["x"] + box["width"] / 2 - at["x"]) < 20 and abs(box["y"] + box["height"] - at["y"]) < 60
    assert box["x"] >= 0 and box["y"] >= 0 and box["x"] + box["width"] <= 1440 and box["y"] + box["height"] <= 900
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_the_arrow_keys_walk_the_map(visit, file):
    page = visit(file)
    page.locator("svg.map.tips circle[aria-label='Under test: s/2']").focus()
    walked = []
    for key in ("ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown", "ArrowDown", "End", "Home"):
        page.keyboard.press(key)
        walked.append(page.evaluate("document.activeElement.ariaLabel"))
    assert walked[:5] == ["Under test: s/3", "Real: p/3", "Real: p/2", "Under test: s/2", "Under test: s/2"]
    labels = page.locator("svg.map.tips circle").evaluate_all("marks => marks.map(mark => mark.ariaLabel)")
    assert walked[5:] == [labels[-1], labels[0]]
    page.locator("svg.map.tips circle[aria-label='Under test: s/2']").focus()
    assert page.locator(".tip img").evaluate("e => e.naturalWidth") == 224  # its image is on the page
    page.keyboard.press("Enter")
    assert page.locator("dialog p").inner_text().startswith("Synthetic image s/2 (")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.ariaLabel") == "Under test: s/2"


def test_charts_tell_their_bars(visit, file):
    page = visit(file, 360)
    plot = page.locator("#layers svg.tips")
    plot.locator("g").first.hover()
    assert page.locator(".tip").inner_text().startswith("Stem: 200 ± 20, 95 % interval 160 to 240")
    plot.locator("g").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator(".tip").inner_text().startswith("Head: 50 ± 5")


def test_every_image_is_loaded_and_named(visit, file):
    page = visit(file)
    images = page.evaluate("[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt])")
    assert len(images) == 22
    assert all(loaded and alt for loaded, alt in images)
    assert "the file is gone" in page.locator("#examples").inner_text()


def test_landmarks_and_headings_are_in_order(visit, file):
    page = visit(file)
    for role in ("banner", "main", "contentinfo", "navigation"):
        assert page.get_by_role(role).count() == 1, role
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    links = page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href').slice(1))")
    assert links == page.evaluate("[...document.querySelectorAll('main > section[id]')].map(s => s.id)")
    assert page.evaluate("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size") == len(links) + 2


@pytest.mark.parametrize("width", [360, 1440])
def test_chart_texts_do_not_touch(visit, file, width):
    page = visit(file, width)
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    charts = page.evaluate(
        "[...document.querySelectorAll('.plot svg')].map(svg => [...svg.querySelectorAll('text')].map(t => {"
        " const b = t.getBoundingClientRect(); return [t.textContent, b.left, b.top, b.right, b.bottom]; }))"
    )
    assert len(charts) == 5
    for texts in charts:
        assert len(texts) >= 7
        for i, (one, left, top, right, bottom) in enumerate(texts):
            for two, other_left, other_top, other_right, other_bottom in texts[:i]:
                apart = left >= other_right or other_left >= right or top >= other_bottom or other_top >= bottom
                assert apart, (one, two)


def test_everything_is_reached_by_keyboard(visit, file):
    page = visit(file, 360)
    places = []
    for _ in range(150):
        page.keyboard.press("Tab")
        place = page.evaluate(
            "(e => e === document.body ? null : [e.tagName.toLowerCase(), e.ariaLabel || e.innerText,"
            " getComputedStyle(e).outlineStyle, e.getBoundingClientRect().top + scrollY])(document.activeElement)"
        )
        if place is None:
            break
        places.append(place)
    tags = [tag for tag, _, _, _ in places]
    assert tags.count("circle") == 1
    assert tags.count("g") == 3  # two charts of metrics and the layers
    assert tags.count("summary") == 4
    assert tags.count("a") == 11 + 1
    assert tags.count("button") == 18 + 5 + 6 + 7  # images outside details, and the heads of three tables
    assert all(outline == "solid" for _, _, outline, _ in places)
    tops = [top for tag, _, _, top in places if tag in ("a", "summary")]
    assert tops == sorted(tops)


def test_dark_mode_turns_the_page_dark(visit, file):
    grounds, inks = [], []
    for scheme in ("light", "dark"):
        page = visit(file, scheme=scheme)
        for selector, kind, colours in (("body", "backgroundColor", grounds), (".plot .value", "fill", inks)):
            colour = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{kind}")
            colours.append(sum(int(part) for part in colour[4:-1].split(",")))
    assert grounds[0] > 700 > 100 > grounds[1]
    assert inks[0] < 150 < 600 < inks[1]


def test_the_page_is_whole_without_its_script_and_on_paper(visit, file):
    page = visit(file, script=False)
    assert "rock class0001/instance_00012" in page.locator("#slices").inner_text()
    assert page.locator("button:visible").count() == 0  # none that would do nothing
    assert page.locator("svg.map.tips circle title").count() == 16
    assert page.locator("#explained img").first.is_visible()
    page = visit(file)
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator("#sets details table").bounding_box()["height"] > 40  # paper cannot be opened
    assert page.locator("#slices table").is_visible()


def test_hostile_text_runs_nothing(visit, tmp_path):
    hostile = "</style></title></svg></script>\"'><script>window.hit = 1</script><img src=x onerror='window.hit=1'>"
    page = visit(write_page(tmp_path, hostile), 360)
    assert page.evaluate("window.hit === undefined && document.scripts.length") == 1
    assert page.evaluate(OVERFLOW) <= 0
    assert hostile in page.locator(".note").inner_text()
    assert page.title().startswith("The stylised set closed")
    add = "(e => { e.textContent = 'window.hit = 1'; document.body.append(e); })(document.createElement('script'))"
    page.evaluate(add)
    assert page.evaluate("window.hit === undefined")
    (refused,) = page.talk
    assert "Content Security Policy" in refused
    page.talk.clear()


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_the_audit_page_fits_is_readable_and_is_quiet(visit, tmp_path, width, scheme):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)).save(tmp_path / "a.png")
    image = str(tmp_path / "a.png")
    case = Case("class/1", image, (1, 2, 24), "photo", image, (3, 4, 48), True, "s", 0.98, 0.6, 1.0, True, "photo")
    scales = (ScaleRate("s", 0.19, 0.9, 0.2, 0.02, 800, 20, 0.01, 0.005, 300),)
    path = tmp_path / "audit.html"
    path.write_text(audit_to_html(CopyReport(0.2, 0.02, 0.01, 0.005, 100, scales, (case,), {"seed": 0})))
    page = visit(path, width, scheme)
    assert page.evaluate(OVERFLOW) <= 0
    assert [entry for entry in page.evaluate(CONTRASTS) if entry[0] < 4.5] == []
    page.locator(".enlarge").first.click()
    assert page.locator("dialog p").inner_text() == "Result, patch framed: class/1 (1 of 2)"
