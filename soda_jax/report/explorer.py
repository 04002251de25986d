"""The latent explorer: one page with sliders whose pictures were drawn beforehand. No request leaves it.

Its content policy allows no script but the one in it, by its hash. Pictures are WebP files inside the page, as good as
fits into `MOST_BYTES`.
"""

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import UInt8
from PIL import Image as Pillow

from soda_jax.report import page as html
from soda_jax.report.explorer_script import SCRIPT
from soda_jax.report.explorer_style import STYLE
from soda_jax.report.page import Html

MOST_IMAGES = 9  # one a number key
MOST_BYTES = 5_000_000  # of the pictures of a page, as text
QUALITIES = (90, 75, 60, 40)  # of WebP; the best that fits
KEYS = (
    "Keys: 1 to {last} choose an image; Tab goes from slider to slider, the arrow keys, Home and End move one; hold b, "
    "or press on the picture, to see it before the edit; 0 puts all sliders back."
)
Picture = UInt8[np.ndarray, "h w c"]


@dataclass(frozen=True, kw_only=True)
class Slider:
    """What it is called, in words and in short, under which heading it stands, and what is known of it."""

    name: str
    short: str
    group: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A real image, the drawing from its z, and the drawings of each slider at each amount but 0, [sliders, a, ...]."""

    image: Picture
    redrawn: Picture
    frames: UInt8[np.ndarray, "m a h w c"]
    words: str = ""


def explorer(
    scenes: Sequence[Scene], sliders: Sequence[Slider], amounts: Sequence[float], about: str
) -> Html:
    """The document. amounts: of every slider, ascending, 0 in the middle.

    Raises ValueError for more images than number keys, amounts without a middle, or pictures that do not fit.
    """
    if not 1 <= len(scenes) <= MOST_IMAGES:
        raise ValueError(f"the explorer shows 1 to {MOST_IMAGES} images, found {len(scenes)}")
    if len(amounts) % 2 == 0 or amounts[len(amounts) // 2] != 0:
        raise ValueError(f"the amounts of a slider need a 0 in the middle, found {list(amounts)}")
    pictures = (_pictures(scenes, quality) for quality in QUALITIES)
    found = next((one for one in pictures if _size(one) <= MOST_BYTES), None)
    if found is None:
        raise ValueError(f"the pictures of {len(scenes)} images do not fit into a page: lower --count")
    data = json.dumps({"scenes": found, "amounts": list(amounts)}).replace("<", "\\u003c")
    body = [
        f"<h1>Latent explorer</h1>{html.paragraph(about, 'soft')}",
        html.paragraph(
            "Every picture was drawn beforehand, from the z of a test image moved along one principal direction of it "
            "or of a section, with noise and camera held. Sliders count standard deviations; one acts at a time: "
            "moving it puts the others back to 0. eta²: how much of the score along a direction a factor explains."
        ),
        f'<main class="bench">{_stage(scenes)}<div class="desk">{_desk(sliders, amounts)}</div></main>',
        html.paragraph(KEYS.format(last=len(scenes)), "soft"),
        f'<script id="data" type="application/json">{data}</script><script>{SCRIPT}</script>',
    ]
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return html.page("Latent explorer", body, policy=f"; script-src 'sha256-{digest}'", style=STYLE)


def _pictures(scenes: Sequence[Scene], quality: int) -> list[dict]:
    return [
        {
            "words": scene.words,
            "image": data_uri(scene.image, quality),
            "redrawn": data_uri(scene.redrawn, quality),
            "frames": [[data_uri(frame, quality) for frame in row] for row in scene.frames],
        }
        for scene in scenes
    ]


def _size(pictures: list[dict]) -> int:
    return sum(len(uri) for one in pictures for row in one["frames"] for uri in row)


def data_uri(image: Picture, quality: int) -> str:
    """A picture of 1 or 3 channels as a WebP file inside an address."""
    file = io.BytesIO()
    Pillow.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGB").save(
        file, "WEBP", quality=quality, method=4
    )
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _stage(scenes: Sequence[Scene]) -> Html:
    """The image, before, after, and which image it is."""
    frames = [
        _figure("real", "The image", "the image itself"),
        _figure("before", "Before", "drawn from its z"),
        _figure("after", "After", "drawn from z as the sliders have it"),
    ]
    buttons = "".join(
        f'<button type="button" class="choice" data-scene="{i}" aria-pressed="false" '
        f'aria-label="Image {i + 1}: {escape(scene.words, quote=True)}"><img alt=""><kbd>{i + 1}</kbd></button>'
        for i, scene in enumerate(scenes)
    )
    return (
        f'<section class="stage" aria-label="Pictures"><div class="views">{html.join(frames)}</div>'
        '<p id="state" role="status" aria-live="polite"></p>'
        '<p><button type="button" id="compare" aria-pressed="false">Hold to see before</button> '
        '<button type="button" id="reset">All sliders to 0</button></p>'
        f'<div class="choices" role="group" aria-label="Test images">{buttons}</div></section>'
    )


def _figure(name: str, title: str, words: str) -> Html:
    return f'<figure class="view"><figcaption>{title}</figcaption><img id="{name}" alt="{words}"></figure>'


def _desk(sliders: Sequence[Slider], amounts: Sequence[float]) -> Html:
    groups = list(dict.fromkeys(slider.group for slider in sliders))
    return html.join([_group(group, sliders, len(amounts) // 2) for group in groups])


def _group(group: str, sliders: Sequence[Slider], steps: int) -> Html:
    rows = "".join(_row(i, slider, steps) for i, slider in enumerate(sliders) if slider.group == group)
    return f"<fieldset><legend>{escape(group)}</legend>{rows}</fieldset>"


def _row(number: int, slider: Slider, steps: int) -> Html:
    """Its value is the place among the amounts, counted from the middle."""
    return (
        f'<div class="row"><label for="s{number}">{escape(slider.name)}</label>'
        f'<input type="range" id="s{number}" data-slider="{number}" min="-{steps}" max="{steps}" step="1" value="0" '
        f'aria-describedby="w{number}"><output for="s{number}" id="o{number}">0</output>'
        f'<small id="w{number}">{escape(slider.words)}</small></div>'
    )
