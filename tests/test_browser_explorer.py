"""The latent explorer in headless Chromium: sliders and keys show other pictures, and no request leaves the page."""

import numpy as np
import pytest

from soda_jax.report import explorer as module
from soda_jax.report import page
from soda_jax.report.explorer import Scene, Slider, explorer
from tests.chromium import By, Keys, started

AMOUNTS = [-2.0, -1.0, 0.0, 1.0, 2.0]
SLIDERS = [Slider(name=f"Direction {i}", short=str(i), group="All", words=f"{i} < 9 % of it") for i in (1, 2)]
# The middle pixel of what an <img> shows, as the browser has decoded it.
PIXEL = """const c = document.createElement('canvas'), i = document.getElementById(arguments[0]);
await i.decode(); c.width = i.naturalWidth; c.height = i.naturalHeight;
const g = c.getContext('2d'); g.drawImage(i, 0, 0); return [...g.getImageData(4, 4, 1, 1).data].slice(0, 3);"""


def flat(*colour):
    return np.full((8, 8, 3), colour, np.uint8)


def scene(number):
    """Red tells the image, green the slider, blue the amount."""
    frames = [[flat(60 * number, 100 * (i + 1), 50 * a) for a in (0, 1, 3, 4)] for i in range(2)]
    return Scene(
        image=flat(255, 255, 255), redrawn=flat(60 * number, 0, 0), frames=np.array(frames), words="a <b>"
    )


@pytest.fixture(scope="module")
def browser():
    """Headless, with the log of what went wrong."""
    yield from started()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    document = explorer([scene(1), scene(2), scene(3)], SLIDERS, AMOUNTS, "Run <x>")
    return page.write(tmp_path_factory.mktemp("explorer") / "explorer.html", document)


@pytest.fixture
def opened(browser, path):
    browser.get(path.as_uri())
    return browser


def shown(browser, name="after"):
    return browser.execute_script(f"return (async (...arguments) => {{{PIXEL}}})(arguments[0])", name)


def press(browser, name, *keys):
    browser.find_element(By.ID, name).send_keys(*keys)


def near(pixel, *colour):
    return np.abs(np.subtract(pixel, colour)).max() <= 12  # WebP is not exact


def test_moving_a_slider_shows_another_picture_and_leaves_the_one_before(opened):
    before = opened.find_element(By.ID, "after").get_attribute("src")
    assert near(shown(opened), 60, 0, 0)
    press(opened, "s0", Keys.ARROW_RIGHT)
    assert opened.find_element(By.ID, "after").get_attribute("src") != before
    assert near(shown(opened), 60, 100, 150) and near(shown(opened, "before"), 60, 0, 0)
    press(opened, "s0", Keys.END)
    assert near(shown(opened), 60, 100, 200)
    press(opened, "s0", Keys.HOME)
    assert near(shown(opened), 60, 100, 0)
    assert "Direction 1 at \u22122 standard deviations" in opened.find_element(By.ID, "state").text


def test_one_slider_acts_at_a_time(opened):
    press(opened, "s0", Keys.END)
    press(opened, "s1", Keys.ARROW_LEFT)
    assert near(shown(opened), 60, 200, 50)
    values = [opened.find_element(By.ID, name).get_attribute("value") for name in ("s0", "s1")]
    assert values == ["0", "-1"]
    assert [opened.find_element(By.ID, name).text for name in ("o0", "o1")] == ["0", "\u22121"]


def test_number_keys_and_buttons_choose_the_image_and_keep_the_edit(opened):
    press(opened, "s1", Keys.END, "3")
    assert near(shown(opened), 180, 200, 200) and near(shown(opened, "before"), 180, 0, 0)
    buttons = opened.find_elements(By.CLASS_NAME, "choice")
    assert [b.get_attribute("aria-pressed") for b in buttons] == ["false", "false", "true"]
    buttons[1].click()
    assert near(shown(opened), 120, 200, 200)
    press(opened, "s1", "0")
    assert near(shown(opened), 120, 0, 0)


def test_holding_shows_the_picture_before_until_one_lets_go(opened):
    press(opened, "s0", Keys.END)
    event = "document.dispatchEvent(new KeyboardEvent(arguments[0], {key: 'b'}))"
    opened.execute_script(event, "keydown")
    assert near(shown(opened), 60, 0, 0)
    opened.execute_script(event, "keyup")
    assert near(shown(opened), 60, 100, 200)
    point = "document.getElementById('after').dispatchEvent(new PointerEvent(arguments[0]))"
    opened.execute_script(point, "pointerdown")
    assert near(shown(opened), 60, 0, 0)
    opened.execute_script(point, "pointerup")
    assert near(shown(opened), 60, 100, 200)


def test_every_control_has_a_name_and_words_are_not_markup(opened):
    assert [s.accessible_name for s in opened.find_elements(By.CSS_SELECTOR, "input")] == [
        "Direction 1",
        "Direction 2",
    ]
    assert all(b.accessible_name for b in opened.find_elements(By.TAG_NAME, "button"))
    assert "Run <x>" in opened.find_element(By.TAG_NAME, "body").text
    assert "a <b>" in opened.find_element(By.ID, "state").text


def test_it_asks_for_nothing_and_runs_no_script_but_its_own(browser, path, tmp_path):
    browser.get(path.as_uri())
    browser.get_log("browser")
    stray = path.read_text().replace("</body>", "<script>document.title = 'ran'</script></body>")
    browser.get(page.write(tmp_path / "stray.html", stray).as_uri())
    assert browser.title == "Latent explorer"
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))
    browser.get(path.as_uri())
    assert browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 1200])
def test_it_does_not_run_over_the_side(opened, width):
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_pictures_are_as_good_as_fits(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3), dtype=np.uint8)
    busy = Scene(image=noise[0, 0], redrawn=noise[0, 0], frames=noise)
    best = len(explorer([busy], SLIDERS, AMOUNTS, ""))
    monkeypatch.setattr(module, "MOST_BYTES", 10_000)
    assert len(explorer([busy], SLIDERS, AMOUNTS, "")) < best
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="do not fit into a page: lower --count"):
        explorer([busy], SLIDERS, AMOUNTS, "")


@pytest.mark.parametrize(
    ("count", "amounts"), [(0, AMOUNTS), (10, AMOUNTS), (1, [-1.0, 1.0]), (1, [0.0, 1.0, 2.0])]
)
def test_what_cannot_be_shown_is_refused(count, amounts):
    with pytest.raises(ValueError, match=r"1 to 9 images|need a 0 in the middle"):
        explorer([scene(1)] * count, SLIDERS, amounts, "")
