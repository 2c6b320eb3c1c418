"""Drawn stand-ins for the CMU face images: 20 people, 4 poses, 4 expressions, with and without
sunglasses.

Nobody is depicted. A head is a handful of ellipsoids, lit and projected, with eyes, brows and
mouth painted on the front; turning it gives the poses. What is drawn depends on names alone: the
build on the userid, light, room and stance on the sitting (userid, pose, eyes), a little jitter
and the noise on the photo. So photos of one sitting resemble each other most, as the real ones do.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float32]
Triple = tuple[float, float, float]
Paint = Callable[[Floats, Floats, Floats], Floats]  # x, y, z on a surface -> 0-1, a hole if < 0
# Origin and rotation (3, 3) of a body part's own axes: x right, y down, z to the viewer.
Frame = tuple[Triple, NDArray[np.float64]]
POSES = ("left", "right", "straight", "up")


class Expression(NamedTuple):
    """What an expression does to a face; lengths in the face's units."""

    bend: float = 0  # of the mouth, its corners up
    slope: float = 0  # of the brows
    drop: float = 0  # of the brows
    wide: float = 1  # the mouth, times
    gape: float = 0  # half of how far the mouth is open
    inside: float = 0  # the shade of what is seen in it


EXPRESSIONS = {
    "angry": Expression(-0.8, -0.7, 3.6, 1.2, 7.0, 0.0),
    "happy": Expression(5.4, 0.05, -0.5, 1.65, 4.6, 1.0),
    "neutral": Expression(),
    "sad": Expression(-9.0, 0.8, -3.5, 1.1),
}
EYES = ("open", "sunglasses")
SIZES = ((128, 120), (64, 60), (32, 30))
HAIR = {  # y and z of the middle, half height and depth, overhang; y and slant of its lower edge
    "bald": (0, -5, 15, 18, 1.6, 0, 0.8),
    "curly": (-5.5, -4.5, 26.5, 24.5, 4.5, 7, 1.0),
    "long": (-5.5, -4.5, 24.5, 22.5, 2.5, 24, 2.0),
    "mop": (-5.5, -4.5, 25.5, 23.5, 3.5, 5, 0.9),
    "receding": (-4, -8, 22, 19, 1.6, 0, 0.8),
    "short": (-5.5, -4.5, 23.5, 21.5, 1.5, 0, 0.8),
    "side": (-5.5, -3.5, 24, 22, 1.8, 0, 0.8),
}


class Person(NamedTuple):
    """What makes one drawn person unlike the others."""

    skin: float  # shades are 0 black to 1 white
    hair: float
    style: str
    shirt: float
    pattern: str
    width: float
    jaw: float
    beard: str = ""


PEOPLE = {
    "an2i": Person(0.62, 0.07, "short", 0.35, "check", 1.00, 0.95),
    "at33": Person(0.86, 0.16, "receding", 0.92, "plain", 0.95, 1.08),
    "boland": Person(0.88, 0.22, "short", 0.14, "check", 0.90, 1.15),
    "bpm": Person(0.80, 0.12, "side", 0.90, "collar", 1.08, 1.00),
    "ch4f": Person(0.84, 0.05, "mop", 0.30, "plain", 0.98, 0.90),
    "cheyer": Person(0.90, 0.34, "long", 0.10, "plain", 0.92, 1.00),
    "choon": Person(0.68, 0.06, "mop", 0.62, "check", 1.06, 0.94),
    "danieln": Person(0.92, 0.48, "side", 0.42, "stripes", 1.00, 1.04),
    "glickman": Person(0.84, 0.20, "curly", 0.75, "collar", 1.02, 1.02, "beard"),
    "karyadi": Person(0.56, 0.05, "side", 0.20, "plain", 1.08, 0.92),
    "kawamura": Person(0.74, 0.05, "short", 0.78, "stripes", 1.04, 1.00),
    "kk49": Person(0.78, 0.10, "receding", 0.25, "suit", 0.98, 1.05, "moustache"),
    "megak": Person(0.88, 0.12, "curly", 0.07, "plain", 0.90, 0.92),
    "mitchell": Person(0.86, 0.30, "bald", 0.55, "check", 1.04, 1.06),
    "night": Person(0.80, 0.04, "short", 0.06, "suit", 0.94, 1.02, "moustache"),
    "phoebe": Person(0.94, 0.80, "long", 0.66, "plain", 0.92, 0.94),
    "saavik": Person(0.72, 0.10, "long", 0.88, "stripes", 0.96, 0.90),
    "steffi": Person(0.92, 0.62, "mop", 0.38, "collar", 0.94, 0.96),
    "sz24": Person(0.70, 0.05, "side", 0.96, "plain", 1.02, 1.00),
    "tammo": Person(0.88, 0.26, "bald", 0.12, "stripes", 1.00, 1.08, "beard"),
}
# The photos that the real collection lacks.
MISSING = """choon_left_angry_sunglasses danieln_straight_happy_sunglasses glickman_right_sad_open
    glickman_straight_angry_open karyadi_right_happy_sunglasses kawamura_up_happy_open
    megak_straight_sad_sunglasses megak_up_sad_sunglasses mitchell_right_angry_sunglasses
    mitchell_straight_angry_open mitchell_up_happy_sunglasses mitchell_up_neutral_sunglasses
    phoebe_left_angry_open sz24_left_neutral_sunglasses tammo_right_happy_open
    tammo_right_sad_open"""


def _frame(origin: Triple, yaw: float, pitch: float = 0, roll: float = 0) -> Frame:
    """Positive yaw looks to the picture's right, positive pitch up; angles in degrees."""
    (cy, sy), (cp, sp), (cr, sr) = (
        (math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (yaw, pitch, roll)
    )
    rolled = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    yawed = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitched = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return origin, np.einsum("ij,jk,kl->il", rolled, yawed, pitched)


def _rng(*names: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes("/".join(names).encode()))


class Scene:
    """A canvas of 96 x 90 units at `width / 96` pixels a unit, with a depth for each pixel."""

    def __init__(self, room: Image.Image, width: int, light: Triple, ambient: float) -> None:
        room = room.resize((width, width * 15 // 16), Image.Resampling.BILINEAR)
        self.grey = np.asarray(room, np.float32) / 255
        self.depth = np.full(self.grey.shape, -np.inf, np.float32)
        self.scale, self.light, self.ambient = width / 96, light, ambient
        self.u = (np.arange(width, dtype=np.float32) + 0.5) / self.scale
        self.v = self.u[: len(self.grey), None]

    def blob(
        self,
        frame: Frame,
        centre: Triple,
        radii: Triple,
        paint: Paint | float,
        smooth: Triple | None = None,
    ) -> None:
        """An ellipsoid at `centre` in `frame`, painted by the frame's coordinates of its surface.

        With M = diag(1/radii) R' and G = M'M its surface is d'Gd = 1; along the line of sight that
        is a quadratic in the depth, whose nearer root is seen. With `smooth` it is lit as if it
        were part of the ellipsoid of those radii round the frame's origin: that hides seams.
        """
        (origin, turn), size = frame, np.array(radii)
        reach = np.sqrt(((turn * size) ** 2).sum(1))
        middle = origin + (turn * centre).sum(1)
        edges = np.maximum(np.array((middle - reach, middle + reach)) * self.scale, 0)
        columns, rows, _ = (slice(*pair) for pair in edges.astype(int).T.tolist())
        depth, grey = self.depth[rows, columns], self.grey[rows, columns]
        u0, v0, z0 = middle.tolist()
        u, v = self.u[columns] - u0, self.v[rows] - v0
        g = np.einsum("ik,jk->ij", turn / size, turn / size).tolist()
        light = np.einsum("ij,i->j", turn, self.light).astype(np.float32)

        half = g[0][2] * u + g[1][2] * v
        root = half * half - g[2][2] * (
            (g[0][0] * u * u - 1) + g[1][1] * v * v + (2 * g[0][1] * v) * u
        )
        z = (np.sqrt(np.maximum(root, 0)) - half) / g[2][2]
        d = np.empty((3, *z.shape), np.float32)
        d[0], d[1], d[2] = u, v, z
        spot = np.einsum("ji,jhw->ihw", turn.astype(np.float32), d)
        place = spot + np.array(centre, np.float32)[:, None, None]
        shade = paint(*place) if callable(paint) else np.full_like(z, paint)
        normal = place if smooth else spot
        normal = normal / (np.array(smooth or radii, np.float32) ** 2)[:, None, None]
        facing = np.einsum("i,ihw->hw", light, normal)
        facing /= np.sqrt(np.einsum("ihw,ihw->hw", normal, normal))
        lit = shade * (self.ambient + (1 - self.ambient) * np.maximum(facing, 0))
        z += z0
        seen = (root > 0) & (z > depth) & (shade >= 0)
        np.copyto(depth, z, where=seen)
        np.copyto(grey, lit, where=seen)


@lru_cache(maxsize=1)
def _room(userid: str, pose: str, eyes: str) -> Image.Image:
    """A dim wall with pictures on it, 64 x 60, out of focus; two hang there for one sitting."""
    always, today = _rng(userid, "room"), _rng(userid, pose, eyes, "room")
    wall = int(always.integers(36, 76))
    room = Image.new("L", (64, 60), wall)
    draw = ImageDraw.Draw(room)
    for rng in (always,) * 10 + (today,) * 2:
        x, y, w, h = rng.integers((-4, -4, 4, 4), (62, 50, 12, 11)).tolist()
        draw.rectangle((x, y, x + w, y + h), int(wall * rng.uniform(0.6, 1.7)))
    return room


def _shirt(person: Person) -> Paint:
    tone = person.shirt
    other = tone - 0.28 if tone > 0.5 else tone + 0.28

    def paint(x: Floats, y: Floats, z: Floats) -> Floats:
        shade = np.full_like(x, tone)
        if person.pattern in ("stripes", "check"):
            shade[y % 9 < 3.5] = other
        if person.pattern == "check":
            shade[x % 9 < 3.5] += (other - tone) / 2
        if person.pattern in ("collar", "suit"):
            vee = np.abs(x) < (16 if person.pattern == "suit" else 9) - 0.45 * (y + 24)
            shade[vee & (z > 0)] = 0.95 if person.pattern == "suit" else person.skin
        if person.pattern == "suit":
            shade[(np.abs(x) < 2.2) & (z > 0) & (y > -20)] = 0.3
        return shade

    return paint


def _hair(person: Person, build: np.random.Generator, longer: float = 0) -> Paint:
    """Strands that end on a slant, higher towards the face."""
    strands = person.hair * build.uniform(0.8, 1.2, (64, 64)).astype(np.float32)
    *_, edge, slant = HAIR[person.style]
    curl = 1.2 if person.style == "curly" else 0.25

    def paint(x: Floats, y: Floats, z: Floats) -> Floats:
        around = 30 * x / (np.abs(x) + np.abs(z) + 1)  # as an angle, but cheaper
        lock = strands[(y * curl).astype(int) % 64, around.astype(int) % 64]
        end = edge + longer - 4 * (lock / person.hair - 1)
        return np.where((y + slant * z > end) | (y > end + 9), np.float32(-1), lock)

    return paint


def _skin(person: Person, build: np.random.Generator, expression: str, strength: float) -> Paint:
    """The face, painted on from the front: the back of the head has z < 0."""
    look = EXPRESSIONS[expression]
    apart, brow, thick, mouth = build.uniform((7.0, -10.5, 0.91, 12), (8.6, -9, 1.82, 14)).tolist()
    bend, slope, brow = look.bend * strength, look.slope * strength, brow + look.drop * strength
    wide = (1 + strength * (look.wide - 1)) * build.uniform(6.2, 7.8)
    gape = look.gape * strength

    def paint(x: Floats, y: Floats, z: Floats) -> Floats:
        tone = person.skin
        shade = np.full_like(x, tone)
        front, side = z > 0, np.abs(x)

        def put(where: NDArray[np.bool_], value: float) -> None:
            shade[front & where] = value

        eye = ((side - apart) / 4.0) ** 2 + ((y + 3) / 2.0) ** 2
        shade -= front * 0.12 * tone * np.maximum(0, 1 - eye / 4)  # the socket
        cheek = ((side - 10) / 6) ** 2 + ((y - 7) / 5) ** 2
        shade -= front * 0.07 * np.maximum(0, 1 - cheek)
        if person.beard == "beard":
            put((y > 8 + 0.04 * (x * x)) | (y > 16), person.hair + 0.08)
        if person.beard:
            put(np.abs(y - mouth + 3.4) < 1.8 - 0.15 * side, person.hair)
        put(eye < 1.25, 0.5 * tone)
        put(eye < 0.85, 0.98)
        pupil = (x - np.sign(x) * apart) ** 2 + (y + 3) ** 2
        put((pupil < 3.2) & (eye < 0.95), 0.12)
        along = side - apart
        put((np.abs(y - brow - slope * along) < thick) & (np.abs(along) < 4.6), 0.5 * person.hair)
        across = (x / wide) ** 2
        lip = np.abs(y - mouth + bend * (across - 0.4))
        put(lip < (2.4 + gape) * (1 - across), 0.6 * tone)
        if gape:
            put(lip < gape * (1 - across), look.inside)
        else:
            put((lip < 0.7) & (across < 1), 0.25 * tone)
        return shade

    return paint


def _glass(x: Floats, y: Floats, z: Floats) -> Floats:
    return np.where(y - 0.5 * np.abs(x % 15 - 7) < -8, np.float32(0.3), np.float32(0.06))


def _portrait(userid: str, pose: str, expression: str, eyes: str) -> Image.Image:
    person, build = PEOPLE[userid], _rng(userid)
    sitting, photo = _rng(userid, pose, eyes), _rng(userid, pose, expression, eyes)
    size = SIZES[photo.integers(3)]
    room, width = _room(userid, pose, eyes), max(96, size[0] * 3 // 2)
    light = (sitting.uniform(-0.3, 0.3), sitting.uniform(-0.7, -0.3), 0.75)
    scene = Scene(room, width, light, ambient=sitting.uniform(0.45, 0.6))

    def about(middle: float, by_sitting: float, by_photo: float) -> float:
        return middle + by_sitting * sitting.normal() + by_photo * photo.normal()

    x, y = about(48, 1, 0.8), about(41, 0.8, 0.8)
    yaw = about({"left": 58, "right": -58}.get(pose, 0), 4, 2)
    head = _frame((x, y, 0), yaw, about(44 if pose == "up" else 2, 3, 2), about(0, 2, 1))
    body = _frame((x, y + 59, -12), 0.4 * yaw)

    w, style = 17.5 * person.width, person.style
    skin, hair = _skin(person, build, expression, photo.uniform(0.8, 1.2)), _hair(person, build)
    scene.blob(body, (0, 0, 0), (41, 28, 17), _shirt(person))
    scene.blob(body, (0, -32, 3), (9.5, 24, 9.5), 0.88 * person.skin)
    scene.blob(head, (0, -5, -2), (w, 21.5, 21), skin, smooth=(w, 25, 20))
    scene.blob(head, (0, 8, 3), (0.84 * w, 17 * person.jaw, 16), skin, smooth=(w, 25, 20))
    scene.blob(head, (0, 4, 18), (2.6, 7, 3), person.skin)
    scene.blob(head, (0, 7.5, 19), (3.4, 2.6, build.uniform(3.2, 5)), person.skin)
    up, back, height, depth, over, *_ = HAIR[style]
    scene.blob(head, (0, up, back), (w + over, height, depth), hair)
    for side in (-1, 1):
        if style == "long":
            scene.blob(head, (side * (w - 1), 16, -6), (6, 26, 10), _hair(person, build, 60))
        else:
            scene.blob(head, (side * (w + 0.5), 1, -1), (2.2, 5.5, 3.6), 0.85 * person.skin)
        if eyes == "sunglasses":
            scene.blob(head, (side * 7.8, -3.6, 18), (7.6, 6.2, 3), _glass)
            scene.blob(head, (side * (w + 0.6), -4, 6), (1, 1, 14), 0.06)

    drawn = np.clip(scene.grey * 255 * sitting.uniform(0.92, 1.06), 0, 255).astype(np.uint8)
    image = Image.fromarray(drawn).resize(size, Image.Resampling.HAMMING)
    noisy = np.asarray(image) + 3 * photo.standard_normal(image.size[::-1], np.float32)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def make(folder: Path) -> None:
    """Write files_list.csv (column `files`) and images/USERID_POSE_EXPRESSION_EYES.png.

    624 grey ('L') photos of 128x120, 64x60 or 32x30 pixels, about a third of them each.
    """
    (folder / "images").mkdir()
    names = []
    for userid, pose, eyes, expression in product(PEOPLE, POSES, EYES, EXPRESSIONS):
        name = f"{userid}_{pose}_{expression}_{eyes}"
        if name not in MISSING:
            names.append(f"{name}.png")
            _portrait(userid, pose, expression, eyes).save(folder / "images" / names[-1])
    (folder / "files_list.csv").write_text("\n".join(["files", *sorted(names)]) + "\n")
