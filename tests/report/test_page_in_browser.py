"""The page of `report` in a real browser, under its own content security policy."""

from __future__ import annotations

import base64
import json
import time

import pytest

from browser import PATIENCE, chromium
from pages import hostile_capture, many_connections, written
from places import CAPTURES

VIOLATIONS = """
addEventListener('securitypolicyviolation', (one) => (window.violations ||= []).push(one.violatedDirective));
"""


class Shown:
    """A page in the browser."""

    def __init__(self, driver):
        self.driver = driver

    def ask(self, script, *arguments):
        return self.driver.execute_script(f"return {script}", *arguments)

    def texts(self, selector):
        return self.ask(
            "[...document.querySelectorAll(arguments[0])].map((one) => one.textContent.trim())", selector
        )

    def click(self, selector, number=0):
        self.driver.execute_script(
            "document.querySelectorAll(arguments[0])[arguments[1]].click()", selector, number
        )

    def choose(self, field, value):
        self.driver.execute_script(
            """const one = document.querySelector(`select[data-field=${arguments[0]}]`);
            one.value = arguments[1]; one.dispatchEvent(new Event("change"));""",
            field,
            value,
        )

    def search(self, text):
        self.driver.execute_script(
            """const one = document.getElementById("search");
            one.value = arguments[0]; one.dispatchEvent(new Event("input"));""",
            text,
        )
        time.sleep(0.2)

    def column(self, number):
        return self.texts(f"#table tr.row td:nth-child({number})")

    @property
    def found(self):
        return self.texts("#found")[0]

    def wait_for(self, script):
        until = time.monotonic() + PATIENCE
        while not self.ask(script):
            assert time.monotonic() < until, script
            time.sleep(0.05)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": VIOLATIONS})
        yield driver


@pytest.fixture
def show(browser):
    """Show a page; after the test, it must have violated nothing and logged nothing."""

    def opened(path, fragment=""):
        browser.get("about:blank")
        browser.get(path.as_uri() + fragment)
        return Shown(browser)

    yield opened
    assert browser.execute_script("return window.violations || []") == []
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    return written(tmp_path_factory.mktemp("leaky"), CAPTURES / "leaky-server.pcap", "--stuck-after", "2")[0]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    many_connections(folder / "busy.pcap")
    return written(folder, folder / "busy.pcap", "--stuck-after", "2", "--ladders", "20")[0]


def test_the_first_screen_shows_which_program_to_fix(show, leaky):
    page = show(leaky)
    assert page.ask("document.title").startswith("stuck-close-wait at the server 127.0.0.1:8080")
    for selector in ("h1", ".how-often", ".advice"):
        bottom = page.ask("document.querySelector(arguments[0]).getBoundingClientRect().bottom", selector)
        assert 0 < bottom < page.ask("innerHeight")
    assert page.ask("getComputedStyle(document.querySelector('h1')).color") == "rgb(196, 38, 29)"


def test_every_connection_is_a_row(show, leaky):
    page = show(leaky)
    assert page.column(1) == ["#1", "#2", "#3", "#4", "#5"]
    assert page.column(4) == ["127.0.0.1:8080"] * 5
    assert page.found == "5 of 5 connections"
    assert page.ask("document.getElementById('pages').hidden")


def test_it_sorts_up_and_down(show, many):
    page = show(many)
    ids = [int(one[1:]) for one in page.column(1)]
    assert ids == list(range(1, 51))
    page.click("[data-sort=packets]")
    up = [int(one.replace(",", "")) for one in page.column(10)]
    assert up == sorted(up)
    page.click("[data-sort=packets]")
    down = [int(one.replace(",", "")) for one in page.column(10)]
    assert down == sorted(down, reverse=True)
    assert down[0] > up[-1] >= up[0]
    assert page.ask("document.querySelector('[aria-sort]').textContent") == "packets"
    for number, key in ((5, "verdict"), (6, "initiator"), (7, "client_state"), (8, "server_state")):
        page.click(f"[data-sort={key}]")
        assert page.column(number) == sorted(page.column(number))
    page.click("[data-sort=client]")
    ports = [int(one.rpartition(":")[2]) for one in page.column(3) if one.startswith("127.0.0.1:")]
    assert ports == sorted(ports)
    page.click("[data-sort=findings]")
    assert page.ask("document.querySelector('#table tr.row td:last-child .problem') !== null")


def test_it_has_pages(show, many):
    page = show(many)
    total = int(page.found.split(" of ")[1].split()[0])
    pages = -(-total // 50)
    assert pages > 1
    seen = page.column(1)
    for number in range(2, pages + 1):
        page.click("#pages button", 1)
        assert page.texts("#pages span") == [f"page {number} of {pages}"]
        seen += page.column(1)
    assert seen == [f"#{number}" for number in range(1, total + 1)]
    assert page.ask("document.querySelectorAll('#pages button')[1].disabled")
    page.click("#pages button", 0)
    assert page.column(1)[0] == f"#{50 * (pages - 2) + 1}"


def test_it_filters_by_verdict_state_finding_and_address(show, many):
    page = show(many)
    everything = page.found
    page.choose("verdict", "reset")
    assert set(page.column(5)) == {"reset"}
    page.choose("finding", "reset-cause")
    assert set(page.column(5)) == {"reset"}
    assert all("reset-cause" in one for one in page.column(12))
    page.click("#filters button[type=reset]")
    page.wait_for(f"document.getElementById('found').textContent === {everything!r}")
    page.choose("state", "CLOSE_WAIT")
    states = list(zip(page.column(7), page.column(8), strict=True))
    assert states
    assert all("CLOSE_WAIT" in one for one in states)
    page.choose("state", "")
    first = page.column(3)[4]
    page.search(first)
    assert set(page.column(3)) == {first}
    page.search("#7")
    assert page.column(1) == ["#7"]
    page.search("c:s s:sa")
    assert page.column(1)
    page.search("nothing has this")
    assert page.column(1) == []
    assert page.found.startswith("0 of ")


def test_a_bar_filters_the_table(show, leaky):
    page = show(leaky)
    page.click(".pick[data-field=verdict][data-value=reset]")
    assert page.column(5) == ["reset", "reset"]
    assert page.found == "2 of 5 connections: reset"
    assert page.ask("document.querySelector('select[data-field=verdict]').value") == "reset"


def test_a_row_opens_its_ladder_evidence_and_record(show, leaky):
    page = show(leaky)
    page.click("#table tr.row", 2)
    assert page.ask("document.querySelectorAll('tr.detail svg.closeseq-ladder').length") == 1
    bars = page.ask(
        "[...document.querySelectorAll('tr.detail .bar.CLOSE_WAIT')].map((one) => getComputedStyle(one).fill)"
    )
    assert set(bars) == {"rgb(59, 130, 214)"}
    (first, *_) = page.texts("tr.detail .evidence li")
    assert first.startswith(
        "A stuck-close-wait at the server [proved, 4.86 s] the server received the client's FIN"
    )
    assert "fix the program at the server 127.0.0.1:8080" in first
    page.click("tr.detail summary")
    page.wait_for("document.querySelector('tr.detail pre') !== null")
    assert json.loads(page.texts("tr.detail pre")[0])["id"] == 3
    assert page.ask("document.querySelector('#c3').getAttribute('aria-expanded')") == "true"
    page.click("#table tr.row", 2)
    assert page.texts("tr.detail") == []


def test_evidence_leads_to_its_packet(show, leaky):
    page = show(leaky)
    page.click("#table tr.row", 2)
    number = page.ask("document.querySelector('tr.detail .packet').dataset.packet")
    page.click("tr.detail .packet")
    assert page.ask("[...document.querySelectorAll('.chosen')].map((one) => one.dataset.packet)") == [number]
    assert page.texts(".chosen .number") == [f"#{number}"]


def test_the_keyboard_opens_a_row(show, leaky):
    page = show(leaky)
    page.driver.execute_script("document.getElementById('c2').focus()")
    page.driver.switch_to.active_element.send_keys("\n")
    page.wait_for("document.querySelector('tr.detail svg') !== null")
    assert page.ask("document.activeElement.id") == "c2"


def test_a_link_opens_one_connection_wherever_it_is(show, many):
    page = show(many, "#c77")
    assert page.ask("document.getElementById('c77').getAttribute('aria-expanded')") == "true"
    assert page.texts("#pages span")[0].startswith("page 2 of ")


def test_what_is_not_in_the_file_is_said_with_the_command(show, many):
    whole = {
        int(one.removeprefix("ladder-"))
        for one in show(many).ask("[...document.querySelectorAll('template')].map((one) => one.id)")
    }
    assert len(whole) == 20
    number = min(set(range(1, 80)) - whole)
    page = show(many, f"#c{number}")
    (told,) = page.texts("tr.detail code")
    assert told.startswith("closeseq timeline ")
    assert told.endswith(f"busy.pcap --stuck-after 2 --connection {number}")


def test_a_hostile_capture_does_nothing(show, tmp_path):
    page = show(written(tmp_path, hostile_capture(tmp_path))[0])
    page.click("#table tr.row")
    page.click("tr.detail summary")
    page.wait_for("document.querySelector('tr.detail pre') !== null")
    time.sleep(0.2)
    assert page.ask("document.querySelectorAll('img').length") == 0
    assert page.ask("document.title") != "owned"
    assert "onerror" in page.texts(".capture")[0]
    assert "onerror" in page.texts("tr.detail")[0]


def test_the_policy_is_in_force(browser, leaky):
    browser.get(leaky.as_uri())
    browser.execute_script(
        """const one = document.createElement("script");
        try { one.textContent = "window.ran = true"; document.body.append(one); } catch { }
        const image = document.createElement("img");
        image.src = "https://198.51.100.1/x.png";
        document.body.append(image);
        const styled = document.createElement("p");
        styled.setAttribute("style", "color: red");
        try { document.body.innerHTML += "<b>html</b>"; } catch { window.html_refused = true; }"""
    )
    page = Shown(browser)
    page.wait_for("(window.violations || []).includes('img-src')")
    assert not page.ask("window.ran")
    assert page.ask("window.html_refused")
    assert {"img-src", "style-src-attr"} <= set(page.ask("window.violations"))
    browser.get_log("browser")


def test_it_is_light_or_dark_as_the_reader_wants(show, leaky):
    page = show(leaky)
    seen = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        seen.append(page.ask("getComputedStyle(document.body).backgroundColor"))
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert seen == ["rgb(255, 255, 255)", "rgb(20, 23, 28)"]


def test_it_prints_with_what_is_open(show, leaky):
    page = show(leaky)
    closed = len(base64.b64decode(page.driver.execute_cdp_cmd("Page.printToPDF", {})["data"]))
    page.click("#table tr.row")
    printed = base64.b64decode(
        page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    )
    assert printed.startswith(b"%PDF")
    assert len(printed) > closed


@pytest.mark.parametrize("width", [360, 800])
def test_it_fits_a_narrow_window(show, leaky, width):
    page = show(leaky)
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.click("#table tr.row")
    try:
        assert page.ask("document.documentElement.scrollWidth") <= width
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
