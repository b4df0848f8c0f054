#!/usr/bin/env python3
"""Opens a report in headless Chromium from the disk and uses it as a reader does: filters, sorts, opens a flow, copies a filter, prints.

    drive.py PAGE...                    checks every page; says what is wrong and ends with 1; 77 where there is no Chromium
    drive.py --screens FOLDER PAGE      pictures: light, dark, phone, paper

Python's standard library only: WebDriver is JSON over HTTP.
"""

import base64
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

MISSING = 77


class Browser:
    """A Chromium with nothing in its profile, and the driver that leads it."""

    def __init__(self):
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        driver = shutil.which("chromedriver")
        if not (chromium and driver):
            print("chromium and chromedriver are needed (Debian: chromium, chromium-driver)")
            sys.exit(MISSING)
        self.profile = tempfile.mkdtemp(prefix="tcpwhy-html-")
        self.process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        port = None
        for line in self.process.stdout:
            if "successfully on port" in line:
                port = int(line.rstrip().rstrip(".").rsplit(" ", 1)[1])
                break
        self.base = f"http://127.0.0.1:{port}"
        # A proxy of the surroundings is not for the driver.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                     "--disable-background-networking", f"--user-data-dir={self.profile}", "--window-size=1280,900"]
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"binary": chromium, "args": arguments},
                  "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        try:
            answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        except Exception:
            self.end()
            raise
        self.session = "/session/" + answer["sessionId"]

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=data, method=method, headers={"Content-Type": "application/json"})
        try:
            with self.opener.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"].split("\n")[0]) from None

    def do(self, method, path, body=None):
        return self.call(method, self.session + path, body)

    def script(self, text, *arguments):
        return self.do("POST", "/execute/sync", {"script": text, "args": list(arguments)})

    def cdp(self, command, **parameters):
        return self.do("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def find(self, selector):
        return next(iter(self.do("POST", "/element", {"using": "css selector", "value": selector}).values()))

    def click(self, selector):
        element = self.find(selector)
        self.script("arguments[0].scrollIntoView({block: 'center'})", {"element-6066-11e4-a52e-4f735466cecf": element})
        self.do("POST", f"/element/{element}/click", {})

    def write(self, selector, text):
        self.do("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def open(self, page):
        self.do("POST", "/url", {"url": pathlib.Path(page).resolve().as_uri()})

    def size(self, width, height, phone=False):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)

    def theme(self, name, media=""):
        self.cdp("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": name}])

    def end(self):
        try:
            if hasattr(self, "session"):
                self.call("DELETE", self.session)
        finally:
            self.process.terminate()
            self.process.wait(timeout=20)
            shutil.rmtree(self.profile, ignore_errors=True)


class Wrong(Exception):
    """What a page does not do."""


def hold(condition, what):
    if not condition:
        raise Wrong(what)


# What a screen reader needs, and what axe-core would ask first.
BASICS = r"""
const wrong = [];
const name = (one) => (one.getAttribute('aria-label') || one.textContent || one.title || '').trim();
for (const one of document.querySelectorAll('button, a[href], summary')) if (!name(one)) wrong.push('no name: ' + one.outerHTML.slice(0, 120));
for (const one of document.querySelectorAll('input, select')) if (!one.labels.length && !one.getAttribute('aria-label')) wrong.push('no label: ' + one.outerHTML);
const ids = new Set();
for (const one of document.querySelectorAll('[id]')) { if (ids.has(one.id)) wrong.push('id twice: ' + one.id); ids.add(one.id); }
for (const one of document.querySelectorAll('[aria-labelledby], [aria-controls]')) {
  const named = ((one.getAttribute('aria-labelledby') || '') + ' ' + (one.getAttribute('aria-controls') || '')).split(/\s+/).filter(Boolean);
  for (const id of named) if (!ids.has(id)) wrong.push('names no id: ' + id);
}
for (const one of document.querySelectorAll('a[href^="#"]')) if (!ids.has(one.getAttribute('href').slice(1))) wrong.push('leads nowhere: ' + one.getAttribute('href'));
let level = 0;
for (const one of document.querySelectorAll('h1, h2, h3, h4, h5')) {
  const now = Number(one.tagName[1]);
  if (now > level + 1) wrong.push('heading out of order: ' + one.outerHTML.slice(0, 120));
  level = now;
}
if (document.querySelectorAll('h1').length !== 1) wrong.push('not one h1');
for (const table of document.querySelectorAll('table')) {
  if (!table.caption) wrong.push('a table without caption');
  for (const head of table.querySelectorAll('th')) if (!head.scope) wrong.push('th without scope: ' + head.outerHTML.slice(0, 120));
}
for (const svg of document.querySelectorAll('svg')) {
  if (svg.getAttribute('role') !== 'img' || !svg.querySelector('title') || !svg.querySelector('desc')) wrong.push('a drawing without words');
}
if (!document.documentElement.lang || !document.title || document.querySelectorAll('main').length !== 1) wrong.push('no language, title or main');
return wrong.slice(0, 20);
"""

# WCAG 2 §1.4.3: contrast of every text that is shown with what is behind it.
CONTRAST = r"""
const channels = (text) => { const all = text.match(/[\d.]+/g).map(Number); return all.length < 4 ? [...all, 1] : all; };
const light = ([r, g, b]) => {
  const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const behind = (one) => {
  for (let at = one; at; at = at.parentElement) {
    const colour = channels(getComputedStyle(at).backgroundColor);
    if (colour[3] > 0.99) return colour;
  }
  return [255, 255, 255, 1];
};
const wrong = new Set();
for (const one of document.querySelectorAll('body *')) {
  if (!one.checkVisibility() || one.closest('svg .cited')) continue;
  if (![...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
  const style = getComputedStyle(one);
  const drawn = one instanceof SVGElement;
  if (drawn && one.tagName !== 'text') continue;
  if (drawn && one.classList.contains('cited')) continue;
  const [text, back] = [channels(drawn ? style.fill : style.color), behind(drawn ? one.closest('div') : one)];
  const [a, b] = [light(text), light(back)].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  if (ratio < (large ? 3 : 4.5)) wrong.add(ratio.toFixed(2) + ' ' + one.tagName + '.' + (one.getAttribute('class') || '') + ' ' + one.textContent.slice(0, 40));
}
return [...wrong].slice(0, 12);
"""


def eventually(condition, what):
    """Waits for it, five seconds at most."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    hold(condition(), what)


def rows(browser):
    return browser.script("return [...document.querySelectorAll('#flow-table tbody tr')].map((row) => row.textContent)")


def flows(browser):
    """Filters, sorts, opens a flow, goes to its drawing."""
    if not browser.script("return !!document.getElementById('flow-table')"):
        return
    before = rows(browser)
    last = browser.script("return [...document.querySelectorAll('#flow-table tbody tr')].at(-1).cells[2].textContent")
    browser.write("#flow-text", last)
    found = rows(browser)
    hold(0 < len(found) <= len(before) and all(last in row for row in found), f"the filter {last} shows {found[:2]}")
    browser.write("#flow-text", " nothing-has-these-words")
    hold(not rows(browser), "a filter that nothing fits shows flows")
    browser.script("const it = document.getElementById('flow-text'); it.value = ''; it.dispatchEvent(new Event('input'))")
    hold(len(rows(browser)) == len(before), "without a filter all are back")

    packets = "return [...document.querySelectorAll('#flow-table tbody tr')].map((row) => Number(row.cells[6].textContent))"
    browser.click("#flow-table thead th:nth-child(7) button")
    up = browser.script(packets)
    browser.click("#flow-table thead th:nth-child(7) button")
    down = browser.script(packets)
    hold(up == sorted(up) and down == sorted(down, reverse=True), f"sorted by packets: {up[:5]} and {down[:5]}")
    hold(browser.script("return document.querySelector('#flow-table thead th:nth-child(7)').ariaSort") == "descending", "aria-sort")
    browser.click("#flow-table thead th:nth-child(1) button")

    verdicts = browser.script("return [...document.querySelectorAll('#flow-verdict option')].map((one) => one.value).filter(Boolean)")
    set_verdict = "const it = document.getElementById('flow-verdict'); it.value = arguments[0]; it.dispatchEvent(new Event('change'))"
    for verdict in verdicts:
        browser.script(set_verdict, verdict)
        hold(all(verdict in row for row in rows(browser)) and rows(browser), f"only {verdict}")
    browser.script(set_verdict, verdicts[0])

    browser.click("#flow-table .opener")
    opened = browser.script("return document.querySelector('#flow-table tr.opened').textContent")
    hold("Community ID" in opened and "addr ==" in opened, f"the opened flow says {opened[:80]}")
    hold(browser.script("return document.querySelector('#flow-table .opener').ariaExpanded") == "true", "aria-expanded")
    link = browser.script("const link = document.querySelector('#flow-table tr.opened a'); return link && link.hash")
    if link:
        browser.click("#flow-table tr.opened a")
        # The page follows a link when the browser tells it to, which is not at once.
        eventually(lambda: browser.script("return document.querySelector(arguments[0]).open", link), f"{link} stays folded")
    browser.click("#flow-table .opener")
    hold(not browser.script("return !!document.querySelector('#flow-table tr.opened')"), "it closes again")


def copies(browser):
    """The clipboard holds what the button says."""
    browser.cdp("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    for selector in [".proof .copy", ".cite", ".command .copy"]:
        wanted = browser.script("""const one = [...document.querySelectorAll(arguments[0])].find((one) => one.checkVisibility());
            if (!one) return null; one.id = 'to-click'; return one.dataset.copy""", selector)
        if wanted is None:
            continue
        browser.click("#to-click")
        browser.script("document.getElementById('to-click').removeAttribute('id')")
        deadline = time.time() + 5
        held = None
        while held != wanted and time.time() < deadline:
            held = browser.do("POST", "/execute/async", {"script": """const done = arguments[arguments.length - 1];
                navigator.clipboard.readText().then(done, (error) => done('no clipboard: ' + error))""", "args": []})
        hold(held == wanted, f"{selector} copied {held!r}, not {wanted!r}")
        # Where there is no clipboard for the page it is a selected text.
        browser.script("""window.kept = null;
            Object.defineProperty(navigator, 'clipboard', {configurable: true, value: undefined});
            document.execCommand = () => { const area = document.querySelector('textarea.helper'); window.kept = area.value.slice(area.selectionStart, area.selectionEnd); return true; };
            [...document.querySelectorAll(arguments[0])].find((one) => one.checkVisibility()).click()""", selector)
        hold(browser.script("return window.kept") == wanted, f"without a clipboard {selector} copied {browser.script('return window.kept')!r}")
        browser.script("delete navigator.clipboard; delete document.execCommand")
    said = browser.script("return document.getElementById('said').textContent")
    hold(not said or said.startswith("Copied"), said)


def fetched(browser):
    """What the page asked for beside itself."""
    asked = []
    for entry in browser.do("POST", "/se/log", {"type": "performance"}):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    return [url for url in asked if not url.startswith(("data:", "file:///"))], sum(url.startswith("file:") for url in asked)


def check(browser, page):
    """Everything that must hold of any report."""
    browser.size(1280, 900)
    browser.theme("light")
    fetched(browser)
    browser.do("POST", "/se/log", {"type": "browser"})
    browser.open(page)
    took = browser.script("const it = performance.getEntriesByType('navigation')[0]; return [it.domContentLoadedEventEnd, it.loadEventEnd]")
    flows(browser)
    copies(browser)
    hold(browser.script("return document.querySelectorAll('img, iframe, object, embed, script[src], link:not([rel=icon])').length") == 0, "an injected element")
    hold(browser.script("return document.scripts.length") == 2, "an injected script")
    # A script of the capture would open an alert: every command then fails.
    hold(browser.script("return document.title"), "the page has a title, and no script of the capture ran")
    hold(not (wrong := browser.script(BASICS)), f"basics: {wrong}")
    browser.script("for (const one of document.querySelectorAll('details')) one.open = true")
    hold(not (wrong := browser.script(BASICS)), f"basics, all open: {wrong}")
    for theme in ["light", "dark"]:
        browser.theme(theme)
        hold(not (wrong := browser.script(CONTRAST)), f"contrast, {theme}: {wrong}")
    browser.size(390, 844, phone=True)
    width = browser.script("return document.documentElement.scrollWidth")
    wide = """return [...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > 391 && !one.closest('.scroll, .skip')).slice(0, 5).map((one) => one.outerHTML.slice(0, 100))"""
    hold(width <= 390, f"{width} pixels on a phone of 390: {browser.script(wide)}")
    paper = len(base64.b64decode(browser.cdp("Page.printToPDF", printBackground=False)["data"]))
    hold(paper > 5000, "it does not print")
    elsewhere, itself = fetched(browser)
    hold(not elsewhere and itself <= 1, f"fetched: {elsewhere}, {itself} files")
    console = browser.do("POST", "/se/log", {"type": "browser"})
    hold(not console, f"the console: {console[:3]}")
    without(browser, page)
    size = pathlib.Path(page).stat().st_size
    print(f"{pathlib.Path(page).name}: {size} octets, ready after {took[0]:.0f} ms, loaded after {took[1]:.0f} ms")


def without(browser, page):
    """Without scripts the incidents can be read all the same."""
    browser.size(1280, 900)
    browser.theme("light")
    browser.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        root = browser.cdp("DOM.getDocument", depth=0)["root"]["nodeId"]
        for selector in ["#verdict", ".copy"]:
            node = browser.cdp("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
            hold(node or selector == ".copy", f"{selector} is missing without scripts")
            if not node:
                continue
            try:
                shown = bool(browser.cdp("DOM.getBoxModel", nodeId=node))
            except RuntimeError:
                shown = False
            hold(shown == (selector == "#verdict"), f"without scripts {selector} is {'shown' if shown else 'hidden'}")
    finally:
        browser.cdp("Emulation.setScriptExecutionDisabled", value=False)


def picture(browser, path):
    path.write_bytes(base64.b64decode(browser.cdp("Page.captureScreenshot", format="png")["data"]))
    print(path, path.stat().st_size)


def screens(browser, folder, page):
    """What is seen first, in a window, on a phone, on paper."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = pathlib.Path(page).stem
    for theme in ["light", "dark"]:
        browser.size(1200, 1000)
        browser.theme(theme)
        browser.open(page)
        picture(browser, folder / f"{name}-{theme}.png")
        browser.script("document.querySelector('.drawing').scrollIntoView()")
        picture(browser, folder / f"{name}-{theme}-ladder.png")
    browser.theme("light")
    browser.size(390, 844, phone=True)
    browser.open(page)
    picture(browser, folder / f"{name}-phone.png")
    paper = folder / f"{name}.pdf"
    # A4, in inches.
    pdf = browser.cdp("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69)
    paper.write_bytes(base64.b64decode(pdf["data"]))
    print(paper, paper.stat().st_size)
    if shutil.which("pdftoppm"):
        subprocess.run(["pdftoppm", "-png", "-r", "60", "-l", "4", str(paper), str(folder / f"{name}-print")], check=True)


def main(arguments):
    browser = Browser()
    try:
        if arguments[:1] == ["--screens"]:
            for page in arguments[2:]:
                screens(browser, arguments[1], page)
            return 0
        bad = 0
        for page in arguments:
            try:
                check(browser, page)
            except (Wrong, RuntimeError) as wrong:
                print(f"{page}: {wrong}")
                bad = 1
        return bad
    finally:
        browser.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
