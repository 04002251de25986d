"""The renderer of views3d: against an analytic sphere, by what light must do, by a golden contact sheet."""

import os
import pathlib

import cv2
import numpy as np
import pytest

from data.builders import views3d, views3d_cameras, views3d_palette, views3d_render
from data.builders.views3d_render import render
from data.builders.views3d_room import LAMP, Scene, shadow_map
from data.builders.views3d_solids import SOLIDS

GOLDEN = pathlib.Path(__file__).parent / "golden" / "views3d_contact_sheet.png"
GREY = np.full(3, 0.5, np.float32)


def ball(scale=1.0, **colours):
    base = {"colour": GREY, "floor": GREY, "wall": GREY}
    return Scene(solid=SOLIDS["sphere"], scale=scale, yaw=0.0, **(base | colours))


def one_camera(azimuth=0.0, elevation=25.0, distance=5.2):
    return views3d_cameras.place(*(np.array([v]) for v in (azimuth, elevation, distance))).camera_to_world


def contact_sheet() -> np.ndarray:
    """Five views of the first scene of each shape in its own hue, [8 * 64, 5 * 64, 3] RGB."""
    plan = views3d.Plan()
    factors = views3d.draw_factors(plan)
    scenes = [int(np.flatnonzero((factors[:, :2] == kind).all(1))[0]) for kind in range(len(SOLIDS))]
    rows = [
        render(views3d.scene_of(factors[s]), views3d.cameras_of(plan, s).camera_to_world[:5]) for s in scenes
    ]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


def test_contact_sheet_is_the_golden_one():
    """A change on purpose: raise views3d.VERSION, run with UPDATE_GOLDEN=1, look at the picture."""
    sheet = contact_sheet()
    if os.environ.get("UPDATE_GOLDEN"):
        cv2.imwrite(str(GOLDEN), sheet[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    golden = cv2.imread(str(GOLDEN))[..., ::-1].astype(int)
    assert golden.shape == sheet.shape
    assert np.abs(golden - sheet).max() <= 2
    assert GOLDEN.stat().st_size < 200_000


def test_traced_sphere_is_the_analytic_one():
    radius = np.float32(0.78)
    rays = views3d_cameras.pixel_rays(np.zeros((1, 2)))[..., 0]
    origin = np.array([0, -5, radius], np.float32)
    rays = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32) @ rays  # camera to world, looking along y
    along = 5 * rays[1]
    inside = along**2 - 25 + radius**2
    depth, cover = views3d_render._hits(
        SOLIDS["sphere"], origin[:, None].repeat(4096, 1), rays, np.full(4096, 3.0)
    )
    clear = np.abs(inside) > 0.15  # not at the rim, where the cover fades
    np.testing.assert_array_equal(cover[clear], inside[clear] > 0)
    hit = clear & (inside > 0)
    np.testing.assert_allclose(depth[hit], (along - np.sqrt(np.maximum(inside, 0)))[hit], atol=5e-3)
    points = origin[:, None] + depth * rays
    normals = views3d_render._normals(SOLIDS["sphere"], points)[:, hit]
    np.testing.assert_allclose(normals, (points[:, hit] - [[0], [0], [radius]]) / radius, atol=0.02)


def test_no_pixel_that_shows_the_solid_is_passed_over():
    """The cones of the coarse pass against tracing every pixel from far away."""
    camera = one_camera(azimuth=40.0)[0]
    for name, solid in SOLIDS.items():
        rays = camera[:3, :3] @ views3d_render._FINE.reshape(3, -1)
        start = np.repeat(camera[:3, 3:], rays.shape[1], 1)
        _, cover = views3d_render._hits(solid, start, rays, np.full(rays.shape[1], 3.5, np.float32))
        shown = np.flatnonzero(cover.reshape(4096, -1).max(1) == 1)
        pixels, _ = views3d_render._touched(solid, camera[:3, 3:], camera[None, :3, :3])
        assert len(shown) > 100
        assert set(shown) <= set(pixels), name


def test_a_view_does_not_depend_on_the_others():
    plan = views3d.Plan()
    scene = views3d.scene_of(views3d.draw_factors(plan)[0])
    cameras = views3d.cameras_of(plan, 0).camera_to_world
    alone = render(scene, cameras[3:4])[0].astype(int)
    assert np.abs(alone - render(scene, cameras)[3]).max() <= 1


def test_turning_the_room_light_off_turns_everything_black():
    black = np.zeros(3, np.float32)
    image = render(ball(colour=black, floor=black, wall=black), one_camera())
    assert np.percentile(image, 85) == 0  # all but the highlight
    assert 0 < image.max() < 160


def test_the_side_towards_the_lamp_is_brighter():
    image = render(ball(1.1), one_camera())[0].astype(int).sum(-1)
    facing = image[26:30, 24:27].mean(), image[36:40, 37:40].mean()
    assert LAMP[0] < 0 < LAMP[2], "the lamp is above, on the left"
    assert facing[0] > 1.3 * facing[1]


def test_shadow_lies_where_rays_to_the_lamp_meet_the_ball():
    scene, cells, half = ball(), 96, 2.6
    lamp = shadow_map(scene)[..., 0]
    line = np.linspace(-half, half, cells)
    x, y = np.meshgrid(line, line)
    offset = np.stack([-x, -y, np.full_like(x, 0.78)], -1)
    along = offset @ LAMP
    gap = np.sqrt(np.maximum((offset**2).sum(-1) - along**2, 0))
    assert lamp[(gap < 0.6) & (along > 0)].max() < 0.1
    assert lamp[gap > 1.3].min() > 0.9
    middle = np.array([x[lamp < 0.2].mean(), y[lamp < 0.2].mean()])
    assert middle @ LAMP[:2] < 0, "behind the ball, seen from the lamp"


def test_floor_is_dimmer_at_the_foot_of_the_solid():
    sky = shadow_map(ball())[..., 1]
    assert sky[48, 48] < 0.5 < 0.9 < sky[0, 0]


def test_edges_are_smooth():
    """The cover of the ball: as many steps as four rays a pixel allow, and a sum that is its true area."""
    camera = one_camera()[0]
    black, white = (render(ball(colour=np.full(3, v, np.float32)), camera[None])[0, ..., 0] for v in (0, 1))
    changed = np.flatnonzero(black != white)
    rays = camera[:3, :3] @ views3d_render._FINE[:, changed].reshape(3, -1)
    start = np.repeat(camera[:3, 3:], rays.shape[1], 1)
    _, cover = views3d_render._hits(SOLIDS["sphere"], start, rays, np.full(rays.shape[1], 3.5, np.float32))
    cover = cover.reshape(-1, 4).mean(1)
    half_angle = np.arcsin(0.78 / np.linalg.norm(camera[:3, 3] - [0, 0, 0.78]))
    area = np.pi * (views3d_cameras.FOCAL * np.tan(half_angle)) ** 2
    assert abs(cover.sum() / area - 1) < 0.04
    assert 0.5 < ((cover > 0.05) & (cover < 0.95)).sum() / np.sqrt(4 * np.pi * area) < 1.5


def test_yaw_turns_the_solid_anticlockwise_from_above():
    above = one_camera(elevation=89.0)
    pill = Scene(solid=SOLIDS["pill"], scale=1.0, yaw=np.deg2rad(45), colour=GREY, floor=GREY, wall=GREY)
    dark = render(pill, above)[0].astype(int)
    bright = render(Scene(**{**vars(pill), "colour": np.ones(3, np.float32)}), above)[0].astype(int)
    rows, columns = np.nonzero((bright - dark).sum(-1) > 60)
    assert np.corrcoef(columns, -rows)[0, 1] > 0.5, "long side from lower left to upper right"


@pytest.mark.parametrize("code", [0, 1, 7, 100, 200, 255])
def test_srgb_of_linear_light(code):
    s = code / 255
    linear = s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4
    assert abs(int(views3d_palette.to_srgb(np.array([linear]))[0]) - code) <= 1


def test_oklch_matches_known_colours():
    """Published sRGB primaries in OKLCH."""
    known = {(0.62796, 0.25768, 29.2339): (1, 0, 0), (0.86644, 0.29483, 142.4953): (0, 1, 0)}
    known |= {(0.45201, 0.31321, 264.0520): (0, 0, 1), (1.0, 0.0, 0.0): (1, 1, 1)}
    for lch, rgb in known.items():
        np.testing.assert_allclose(views3d_palette.linear_rgb(*lch), rgb, atol=2e-3)


def test_hues_are_told_apart_on_every_surface():
    for colours in (views3d_palette.strong(), views3d._FLOORS, views3d._WALLS):
        codes = views3d_palette.to_srgb(colours).astype(int)
        gaps = np.abs(codes[:, None] - codes[None]).sum(-1) + 1000 * np.eye(8, dtype=int)
        assert gaps.min() >= 20
