"""The HTML report in a real browser, driven by the DevTools protocol over a pipe; the standard library suffices."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metrics.gap_report import Example, GapReport, Kept, Measurement, Row, SetSummary
from metrics.report import to_html

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser on PATH (looked for {', '.join(NAMES)})")
FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",  # containers and root have none; only pages made here are opened
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-background-networking",
)
PATIENCE = 60  # seconds that any one reply may take
# The browser speaks on file descriptors 3 and 4: this moves the two pipe ends there and becomes the browser.
LAUNCH = (
    "import fcntl, os, sys; r, w = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 16) for n in sys.argv[1:3]); "
    "os.dup2(r, 3); os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class Browser:
    """A headless Chromium with one page."""

    def __init__(self, folder: Path) -> None:
        commands, self._commands = os.pipe()
        self._replies, replies = os.pipe()
        arguments = [BROWSER, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(commands), str(replies), *arguments],
            pass_fds=(commands, replies),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(replies)
        self._buffer, self._number, self._session, self.events = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters):
        """Send one command and wait for its result; events that arrive meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._receive()
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return reply["result"]

    def _receive(self):
        while b"\0" not in self._buffer:
            assert select.select([self._replies], [], [], PATIENCE)[0], "the browser does not answer"
            chunk = os.read(self._replies, 1 << 20)
            assert chunk, "the browser ended"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, page: Path, width: int = 1440, height: int = 900, scheme: str = "light") -> None:
        """Load a file in a window of this size and colour scheme, and wait until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def run(self, script: str):
        """The value of a JavaScript expression on the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release Tab or Enter."""
        number, text = {"Tab": (9, {}), "Enter": (13, {"text": "\r"})}[key]
        common = {"key": key, "code": key, "windowsVirtualKeyCode": number}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def close(self) -> None:
        self._session = None
        try:
            self.call("Browser.close")
            self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._commands)
            os.close(self._replies)


FACTS = {"accuracy before": 0.98, "accuracy after": 0.86, "chance": 0.001, "classes": 1000.0}


def measured(name, value, se=None, warnings=()):
    low, high = (None, None) if se is None else (value - 2 * se, value + 2 * se)
    return Measurement(f"{name}@efficientnet-lite0", value, se, low, high, 1_281_167, 50_000, tuple(warnings))


def write_page(folder: Path, text: str = "class0001/instance_00012") -> Path:
    """A page with everything on it; ``text`` stands wherever untrusted text may stand."""
    rng = np.random.default_rng(0)
    files = []
    for name, size in (("content", 48), ("style", 400), ("result", 224)):
        coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((size, size)).save(folder / f"{name}.png")
        files.append(str(folder / f"{name}.png"))
    content, style, result = files
    values = {"before": (0.0482, 0.0011), "after": (0.029, 0.0009), "floor": (0.0013, 0.0004)}
    long_path = "/data/projects/domain-gap/" + "very_long_folder_name_without_any_break_" * 3
    rows = tuple(
        Row(
            role,
            SetSummary(long_path + text, 10_000, 80, ((text, "empty file (0 bytes)"),)),
            (measured("kid", value, se, [f"Only 80 photos: {text}"]), measured("fid", value * 2600 + 60)),
        )
        for role, (value, se) in values.items()
    )
    source = "https://commons.example.org/wiki/File:" + "a_rather_long_file_name_" * 5 + ".jpg"
    report = GapReport(
        SetSummary(long_path, 5_000, 100),
        rows,
        (measured("kid", 0.41, 0.06),),
        {"name": "efficientnet-lite0", "fingerprint": "sha256:" + "9f3c" * 16, "note": text},
        {"seed": 0, "versions": {"torch": "2.9.0", text: text}},
        ({"key": text, "title": text, "licence": "CC0-1.0", "author": text, "source": source},),
        (
            Example(text, content, style, (100, 100, 200), result),
            Example(text, str(folder / "gone.png"), None, None, result),
        ),
        kept=(
            Kept("gradient-correlation", 0.921, 0.006, 0.91, 0.932, 200),
            Kept("edge-f-score", 0.892, 0.005, 0.882, 0.903, 200),
            Kept("label-probe@efficientnet-lite0", 0.88, 0.02, 0.84, 0.92, 10_000, FACTS),
        ),
    )
    page = folder / "report.html"
    page.write_text(to_html(report), encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_page(tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_the_page_fits_and_is_quiet(browser, page, width, scheme):
    browser.open(page, width, 900, scheme)
    assert browser.run("innerWidth") == width
    too_wide = """[...document.body.querySelectorAll('*')]
        .filter(e => !e.closest('.scroll') && !e.closest('details:not([open])'))
        .filter(e => { const box = e.getBoundingClientRect(); return box.right > innerWidth + 1 || box.left < -1; })
        .map(e => e.outerHTML.slice(0, 80))"""
    browser.run("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert browser.run("document.documentElement.scrollWidth - innerWidth") <= 0
    assert browser.run(too_wide) == []
    talk = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
    assert [event for event in browser.events if event["method"] in talk] == []
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked
    assert [url for url in asked if not url.startswith("data:") and url != page.as_uri()] == []


def test_every_image_is_loaded_and_named(browser, page):
    browser.open(page)
    images = browser.run(
        "[...document.images].map(i => [i.complete, i.naturalWidth, i.naturalHeight, i.width - i.height, i.alt])"
    )
    sizes = [(48, 48), (200, 200), (224, 224), (224, 224)]
    assert [image[:4] for image in images] == [[True, width, height, 0] for width, height in sizes]
    assert images[0][4] == "Content of class0001/instance_00012"
    assert "the file is gone" in browser.run("document.querySelector('#examples').innerText")


CONTRASTS = """(() => {
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
    if (!walker.currentNode.data.trim()) continue;
    const style = getComputedStyle(e);
    const text = luminance(numbers(e.closest('svg') ? style.fill : style.color).slice(0, 3));
    const ground = luminance(behind(e));
    const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    found.push([ratio, walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found; })()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser, page, scheme):
    browser.open(page, scheme=scheme)
    contrasts = browser.run(CONTRASTS)
    assert len(contrasts) > 80
    assert [entry for entry in contrasts if entry[0] < 4.5] == []  # WCAG 2.2, level AA


def test_dark_mode_turns_the_page_dark(browser, page):
    grounds, inks = [], []
    for scheme in ("light", "dark"):
        browser.open(page, scheme=scheme)
        for selector, colours in (("body", grounds), (".plot .value", inks)):
            kind = "backgroundColor" if selector == "body" else "fill"
            colour = browser.run(f"getComputedStyle(document.querySelector('{selector}')).{kind}")
            colours.append(sum(int(part) for part in colour[4:-1].split(",")))
    assert grounds[0] > 700 > 100 > grounds[1]
    assert inks[0] < 150 < 600 < inks[1]


@pytest.mark.parametrize("width", [360, 1440])
def test_chart_texts_do_not_touch(browser, page, width):
    browser.open(page, width)
    charts = browser.run(
        "[...document.querySelectorAll('.plot svg')].map(svg => [...svg.querySelectorAll('text')].map(t => {"
        " const b = t.getBoundingClientRect(); return [t.textContent, b.left, b.top, b.right, b.bottom]; }))"
    )
    assert len(charts) == 2
    for texts in charts:
        assert len(texts) >= 9
        for i, (one, left, top, right, bottom) in enumerate(texts):
            for two, other_left, other_top, other_right, other_bottom in texts[:i]:
                apart = left >= other_right or other_left >= right or top >= other_bottom or other_top >= bottom
                assert apart, (one, two)


def test_everything_is_reached_by_keyboard(browser, page):
    browser.open(page, 360)
    places = []
    for _ in range(40):
        browser.press("Tab")
        place = browser.run(
            "(e => e === document.body ? null : [e.tagName, e.getAttribute('href') || e.ariaLabel || e.innerText,"
            " getComputedStyle(e).outlineStyle, e.getBoundingClientRect().top + scrollY])(document.activeElement)"
        )
        if place is None or place in places:
            break
        places.append(place)
    names = [name for _, name, _, _ in places]
    assert names[:6] == ["#metrics", "#kept", "#examples", "#sets", "#run", "#licences"]
    assert names[6:8] == ["Values of kid@efficientnet-lite0", "Values of fid@efficientnet-lite0"]
    assert names[8] == "Structure and labels"
    assert [name for tag, name, _, _ in places if tag == "SUMMARY"] == ["3 skipped images", "3 settings"]
    assert names[-1].startswith("https://commons.example.org/")
    assert all(outline == "solid" for _, _, outline, _ in places)
    tops = [top for _, _, _, top in places]
    assert tops == sorted(tops)


def test_enter_opens_the_skipped_images(browser, page):
    browser.open(page)
    browser.run("document.querySelector('#sets summary').focus()")
    assert browser.run("document.querySelector('#sets details').open") is False
    browser.press("Enter")
    assert browser.run("document.querySelector('#sets details').open") is True
    assert "empty file (0 bytes)" in browser.run("document.querySelector('#sets details').innerText")


def test_hostile_text_runs_nothing(browser, tmp_path):
    hostile = "</style></title></svg>\"'><script>window.hit = 1</script><img src=x onerror='window.hit = 1'>{{ 7 * 7 }}"
    hostile_page = write_page(tmp_path, hostile)
    browser.open(hostile_page, 360)
    assert browser.run("window.hit === undefined && document.scripts.length") == 0
    assert browser.run("document.documentElement.scrollWidth") <= 360
    assert hostile in browser.run("document.querySelector('.note').innerText")
    assert browser.run("document.title").startswith("The stylised set closed")
