"""The report in headless Chromium: every picture is drawn, nothing is fetched, any screen will do."""

import http.server
import json
import threading

import pytest

from experiments.report import report
from soda_jax.report import page
from tests.chromium import started
from tests.made_up_run import LABELS, write_run

IMAGES = """return [...document.images].map(i => ({
    drawn: i.complete && i.naturalWidth > 0, source: i.src.slice(0, 22),
    width: i.getBoundingClientRect().width,
    ratio: i.naturalWidth / i.naturalHeight / (i.width / i.height)}))"""
CHARTS = """return [...document.querySelectorAll('svg')].map(s => ({
    width: s.getBoundingClientRect().width,
    marks: [...s.querySelectorAll('path, rect, circle, polygon')].filter(
        m => m.getBBox().width + m.getBBox().height > 0).length}))"""


@pytest.fixture(scope="module")
def browser():
    """One headless Chromium for all tests, which logs its requests."""
    yield from started()


@pytest.fixture(scope="module")
def report_path(tmp_path_factory):
    """The page of a whole run."""
    return report(write_run(tmp_path_factory.mktemp("run") / "full"))


@pytest.fixture
def opened(browser, report_path):
    """The browser with that page, everything unfolded."""
    browser.get(report_path.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    return browser


@pytest.fixture
def server():
    """A local address, and the paths that were asked of it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", asked
        listening.shutdown()
        thread.join()


def requests(browser):
    """Addresses that the browser has asked for since this was last called."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:")]


def test_every_image_is_drawn_in_its_own_proportions(opened):
    images = opened.execute_script(IMAGES)
    assert len(images) == 5
    for image in images:
        assert image["drawn"] and image["width"] > 50 and image["source"] == "data:image/png;base64,"
        assert image["ratio"] == pytest.approx(1, abs=0.02)


def test_every_chart_is_drawn(opened):
    charts = opened.execute_script(CHARTS)
    assert len(charts) == 1 + len(LABELS) + 4 + 2
    assert all(chart["width"] > 200 and chart["marks"] for chart in charts)


def test_nothing_is_fetched_but_the_page_itself(browser, report_path):
    requests(browser)
    browser.get(report_path.as_uri())
    assert requests(browser) == [report_path.as_uri()]
    assert browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("guarded", [True, False])
def test_the_policy_keeps_a_stray_address_from_being_asked(browser, server, tmp_path, guarded):
    address, asked = server
    stray = f'<img src="{address}/stray.png"><script>document.title = "ran"</script>'
    document = page.page("quiet", [stray])
    path = page.write(tmp_path / "a.html", document if guarded else document.replace(page.POLICY, ""))
    browser.get(path.as_uri())
    assert asked == ([] if guarded else ["/stray.png"])
    assert browser.title == ("quiet" if guarded else "ran")


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_does_not_run_over_the_side(opened, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def brightness(browser, selector, prop):
    style = f"return getComputedStyle(document.querySelector('{selector}')).{prop}"
    return sum(map(int, browser.execute_script(style).strip("rgb()").split(",")))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_on_a_light_and_on_a_dark_screen(opened, scheme):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    paper, ink = brightness(opened, "body", "backgroundColor"), brightness(opened, "body", "color")
    chart = brightness(opened, "svg text", "fill")
    assert (paper > 600) == (scheme == "light")
    assert abs(paper - ink) > 450 and abs(paper - chart) > 250


def test_the_page_of_a_newborn_run_opens_too(browser, tmp_path):
    young = write_run(tmp_path / "young", steps=0, probes=(), pictures=False)
    browser.get(report(young).as_uri())
    assert "Nothing has been measured yet" in browser.find_element("tag name", "body").text
