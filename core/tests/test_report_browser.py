"""The report under a keyboard, in the dark, on paper and in a narrow window: real key presses in headless Chromium."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

pytest.importorskip("jinja2", reason="needs the extra `report`")
pytest.importorskip("plotly", reason="needs the extra `report`")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.optional,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)"),
    pytest.mark.skipif(os.name == "nt", reason="speaks to Chromium through inherited descriptors"),
]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1200,1400", "--remote-debugging-pipe",
)  # fmt: skip
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "ArrowRight": 39, "ArrowLeft": 37}


class Browser:
    """A page in headless Chromium, driven through its debugging pipe."""

    def __init__(self, address: str) -> None:
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4.
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        shell = f'exec "$0" "$@" 3<&{read} 4>&{write}'
        words = ["bash", "-c", shell, CHROMIUM, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(words, pass_fds=(read, write), stderr=subprocess.DEVNULL)
        os.close(read)
        os.close(write)
        self._buffer, self._number, self.console, self._session = b"", 0, [], None
        pages = [t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        self._session = self("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self(f"{domain}.enable")
        self("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && typeof Plotly === 'object'")

    def __call__(self, method: str, **params):
        """Send one command; return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            if answer.get("method") == "Runtime.exceptionThrown":
                self.console.append(answer["params"]["exceptionDetails"]["text"])
            if answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error":
                self.console.append(answer["params"]["entry"]["text"])

    def _next(self):
        while b"\0" not in self._buffer:
            got = os.read(self._read, 1 << 20)
            assert got, "Chromium has gone"
            self._buffer += got
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def js(self, code: str):
        """Evaluate an expression in the page."""
        result = self("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, code: str) -> None:
        """Wait until an expression holds."""
        wait = f"new Promise((done) => {{ const f = () => (({code}) ? done(true) : setTimeout(f, 20)); f(); }})"
        assert self.js(wait)

    def press(self, key: str) -> None:
        """Press one key, as a keyboard does."""
        common = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"text": {"Enter": "\r", " ": " "}[key]} if key in ("Enter", " ") else {}
        self("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self("Input.dispatchKeyEvent", type="keyUp", **common)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A report over runs of several shapes, one of them failed, and the page of a run with plot, film and table."""
    folder = tmp_path_factory.mktemp("browser")
    store = folder / "store"
    runs = (
        ("toys/bandit", "--solver", "toys/greedy", "--solver", "toys/trained", "--seeds", "80"),
        ("toys/cart", "--solver", "toys/controller", "--seeds", "3"),
        ("toys/tools", "--solver", "toys/coder", "--runtime", "toys/forgetting", "--seeds", "2"),
        ("toys/fault", "--solver", "toys/noop", "-t", "fault=raise"),
    )
    cart = ""
    for words in runs:
        done = subprocess.run([sys.executable, "-m", "sfumato", "run", *words, "--store", str(store), "--json"], capture_output=True, text=True)
        if words[0] == "toys/cart":
            cart = json.loads(done.stdout)["run_id"]
    words = [sys.executable, "-m", "sfumato", "report", "-o", str(folder / "site"), "--store", str(store)]
    subprocess.run(words, check=True, capture_output=True)
    return folder / "site" / "index.html", folder / "site" / "runs" / f"{cart}.html"


@pytest.fixture
def browse():
    """Open pages; all are closed at the end."""
    opened = []

    def open_page(path):
        opened.append(Browser(path.as_uri()))
        return opened[-1]

    yield open_page
    for browser in opened:
        browser.close()


NAMES = """(() => {
  const name = (e) => e.getAttribute("aria-label") || (e.labels && e.labels[0] && e.labels[0].textContent) || e.textContent.trim();
  return {
    unnamed: [...document.querySelectorAll("a[href], button, input, [role=img], [role=region], [role=group]")].filter((e) => !name(e)).map((e) => e.outerHTML.slice(0, 120)),
    plots: [...document.querySelectorAll(".plot")].map((e) => e.getAttribute("aria-label")),
    pictures: [...document.querySelectorAll(".stage svg, img")].filter((e) => !e.closest("[aria-label]") && !e.getAttribute("alt")).length,
    headers: [...document.querySelectorAll("th:not([scope])")].length,
    language: document.documentElement.lang,
  };
})()"""


def test_everything_has_a_name_and_every_picture_a_text(site, browse):
    """Controls have names, plots and films say in words what they show, headers say what they head."""
    for path in site:
        browser = browse(path)
        found = browser.js(NAMES)
        assert found["unnamed"] == []
        assert found["plots"]
        assert all((len(text) > 15 and any(c.isdigit() for c in text)) or "over" in text for text in found["plots"]), found["plots"]
        assert found["pictures"] == 0
        assert found["headers"] == 0
        assert found["language"] == "en"
        assert browser.console == []


def test_every_control_is_reached_and_worked_by_the_keyboard(site, browse):
    """Tab goes through all of them in the order of the page; Enter sorts; space and arrows work the film."""
    browser = browse(site[0])
    controls = "[...document.querySelectorAll('a[href], button, input, [tabindex=\"0\"]')].filter((e) => e.offsetParent !== null)"
    wanted = browser.js(f"{controls}.length")
    seen = []
    browser.js("window.reached = new Set()")
    for _ in range(wanted + 2):
        browser.press("Tab")
        browser.js("window.reached.add(document.activeElement)")
        seen.append(browser.js("document.activeElement.className || document.activeElement.id || document.activeElement.tagName"))
    assert seen[0] == "skip", seen[:4]
    assert browser.js(f"{controls}.filter((e) => !window.reached.has(e)).map((e) => e.outerHTML.slice(0, 100))") == []
    browser.js("document.querySelector('table.sortable thead th:nth-child(2) button').focus()")
    browser.press("Enter")
    assert browser.js("document.querySelector('table.sortable thead th:nth-child(2)').getAttribute('aria-sort')") == "ascending"
    assert browser.js("getComputedStyle(document.activeElement).outlineStyle") != "none"

    browser = browse(site[1])
    browser.js("document.querySelector('.playback').focus()")
    where = "[...document.querySelectorAll('.playback .frame')].findIndex((f) => !f.hidden)"
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    browser.press("ArrowLeft")
    assert browser.js(where) == 1
    assert browser.js("document.querySelector('.playback input').getAttribute('aria-valuetext')") == "0.2 s"
    browser.press(" ")
    browser.until(f"{where} > 2")
    browser.press(" ")
    assert browser.js("document.querySelector('.playback .play').textContent") == "Play"
    assert browser.console == []


CONTRAST = """(() => {
  const parts = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = parts(c).map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (parts(c)[3] !== 0) return c; } return "rgb(255,255,255)"; };
  const poor = [];
  for (const e of document.querySelectorAll("h1, h2, h4, p, a, td, th, small, caption, figcaption, button, .status, dt, dd, pre, li, .plot text")) {
    if (!e.textContent.trim() || e.offsetParent === null && !e.ownerSVGElement) continue;
    const style = getComputedStyle(e), a = light(e.ownerSVGElement ? style.fill : style.color), b = light(ground(e.ownerSVGElement || e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([e.tagName, e.className.baseVal ?? e.className, e.textContent.trim().slice(0, 30), ratio]);
  }
  return poor;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(site, browse, scheme):
    """A contrast of 4.5 to 1 at least (WCAG 2.2, level AA), plots included, as the system asks for light or dark."""
    for path in site:
        browser = browse(path)
        browser("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser("Page.reload")
        browser.until("document.readyState === 'complete' && document.querySelector('.plot .main-svg') !== null")
        assert browser.js("matchMedia('(prefers-color-scheme: dark)').matches") is (scheme == "dark")
        assert browser.js(CONTRAST) == []


def test_a_narrow_window_scrolls_tables_and_not_the_page(site, browse):
    """At 480 pixels nothing stands out at the side, and a wide table can be focused to be scrolled by keys."""
    for path in site:
        browser = browse(path)
        browser("Emulation.setDeviceMetricsOverride", width=480, height=900, deviceScaleFactor=1, mobile=False)
        browser.until("document.documentElement.clientWidth <= 480")
        browser.js("new Promise((done) => setTimeout(done, 300))")
        assert browser.js("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert browser.js("[...document.querySelectorAll('.scroll')].every((b) => b.scrollWidth <= b.clientWidth || b.tabIndex === 0)")


def test_a_narrow_window_leaves_names_legible(site, browse):
    """The column of names, which stays in place while a table scrolls, holds eight letters a line at least."""
    browser = browse(site[0])
    for width in (320, 500, 1200):
        browser("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        browser.until(f"document.documentElement.clientWidth <= {width}")
        em = "parseFloat(getComputedStyle(document.querySelector('tbody th')).fontSize)"
        narrowest = browser.js(f"Math.min(...[...document.querySelectorAll('tbody th')].map((e) => e.getBoundingClientRect().width)) / {em}")
        assert 8 <= narrowest <= 20


def test_paper_shows_all_of_the_page_in_light_colours(site, browse):
    """Controls are left out, details unfolded, a film becomes a strip; afterwards the page is as it was."""
    browser = browse(site[1])
    browser.js("document.documentElement.dataset.theme = 'dark'; dispatchEvent(new Event('beforeprint'))")
    browser("Emulation.setEmulatedMedia", media="print")
    assert browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.js("[...document.querySelectorAll('header, .controls, .modebar')].every((e) => getComputedStyle(e).display === 'none')")
    assert browser.js("document.querySelectorAll('.playback .frame:not([hidden])').length") == 4
    assert browser.js("document.querySelectorAll('details:not([open])').length") == 0
    assert browser.js("[...document.querySelectorAll('.plot .main-svg')].every((e) => e.getBoundingClientRect().width <= 700)")
    # A film may be cut between its frames, else it takes a new page and leaves the rest of the one before blank.
    assert browser.js("getComputedStyle(document.querySelector('figure.playback')).breakInside") == "auto"
    assert browser.js("[...document.querySelectorAll('.playback .frame')].every((e) => getComputedStyle(e).breakInside === 'avoid')")
    browser("Emulation.setEmulatedMedia", media="")
    browser.js("dispatchEvent(new Event('afterprint'))")
    assert browser.js("document.documentElement.dataset.theme") == "dark"
    assert browser.js("document.querySelectorAll('.playback .frame:not([hidden])').length") == 1
    assert len(base64.b64decode(browser("Page.printToPDF")["data"])) > 10_000
    assert browser.console == []
