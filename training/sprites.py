"""The demo model's objects: our own drawings, flat colours with strong outlines.

A drawing is a list of parts from back to front. A part is a shape, and a shape is a function of the
places (x, y) that gives the signed distance to its edge (negative inside). So a drawing can be
rendered at any size and angle with smooth edges. Units: the drawing lies within about -1..1 in both
axes, x to the right and y down, and is then scaled so that its longer side is 2. All objects face
left, except the rocket, which points up and right.

    python training/sprites.py sheet.png      # a picture of all objects
"""

import sys
from functools import lru_cache

import numpy as np
from PIL import Image

INK = (0.10, 0.09, 0.16)
OUTLINE = 0.10  # width of the outlines, in units
WHITE = (0.98, 0.98, 0.97)


# ---------------------------------------------------------------- shapes


def ellipse(cx, cy, rx, ry=None, turn=0.0):
    """An ellipse, turned clockwise by `turn` radians. The distance is exact to first order."""
    ry = rx if ry is None else ry
    cos, sin = np.cos(turn), np.sin(turn)

    def distance(x, y):
        u, v = cos * (x - cx) + sin * (y - cy), cos * (y - cy) - sin * (x - cx)
        near = np.sqrt((u / rx) ** 2 + (v / ry) ** 2)
        slope = np.sqrt((u / rx**2) ** 2 + (v / ry**2) ** 2)
        return near * (near - 1) / np.maximum(slope, 1e-6) + (near < 1e-6) * -min(rx, ry)

    return distance


def line(radius, *points):
    """A stroke with round ends through points."""

    def distance(x, y):
        return np.min([_to_segment(x, y, a, b) for a, b in zip(points, points[1:])], axis=0) - radius

    return distance


def polygon(*points, rounding=0.0):
    """A polygon. `rounding` grows it and rounds its corners."""
    edges = list(zip(points, points[1:] + points[:1]))

    def distance(x, y):
        to_edge = np.min([_to_segment(x, y, a, b) for a, b in edges], axis=0)
        inside = np.zeros(np.broadcast(x, y).shape, bool)
        for (ax, ay), (bx, by) in edges:
            crosses = (ay > y) != (by > y)
            inside ^= crosses & (x < (bx - ax) * (y - ay) / ((by - ay) or 1) + ax)
        return np.where(inside, -to_edge, to_edge) - rounding

    return distance


def _to_segment(x, y, a, b):
    dx, dy = b[0] - a[0], b[1] - a[1]
    t = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy + 1e-12), 0, 1)
    return np.hypot(x - a[0] - t * dx, y - a[1] - t * dy)


def union(*shapes):
    return lambda x, y: np.min([s(x, y) for s in shapes], axis=0)


def both(*shapes):
    return lambda x, y: np.max([s(x, y) for s in shapes], axis=0)


def below(y0):
    """The half plane under a height."""
    return lambda x, y: y0 - y + 0 * x


def above(y0):
    return lambda x, y: y - y0 + 0 * x


def curve(start, control, end, steps=8):
    """Points of a quadratic Bezier curve, for `line` and `polygon`."""
    t = np.linspace(0, 1, steps + 1)
    a, b, c = (np.array(p) for p in (start, control, end))
    return [tuple(((1 - u) ** 2 * a + 2 * u * (1 - u) * b + u * u * c).tolist()) for u in t]


def part(shape, colour, *details, outline=OUTLINE):
    """A shape filled with a colour inside an outline. `details` are pairs (shape, colour) that are
    drawn on it without outlines and cut off at its edge."""
    return shape, colour, details, outline


def spot(shape, colour):
    """A part without an outline."""
    return part(shape, colour, outline=0.0)


def _eye(cx, cy, radius):
    return [spot(ellipse(cx, cy, radius, radius * 1.25), INK),
            spot(ellipse(cx - radius * 0.3, cy - radius * 0.5, radius * 0.4), WHITE)]


# ---------------------------------------------------------------- objects


def _cat():
    orange, dark, pink = (1.0, 0.60, 0.13), (0.80, 0.36, 0.05), (1.0, 0.62, 0.62)
    tail = line(0.12, *curve((0.62, 0.30), (1.10, 0.20), (0.86, -0.55)))
    legs = [line(0.145, (x, 0.3), (x, 0.78)) for x in (-0.30, 0.0, 0.35, 0.63)]
    body = union(ellipse(0.18, 0.25, 0.62, 0.37), tail, *legs)
    stripes = [(line(0.07, (x, -0.2), (x + 0.04, 0.20)), dark) for x in (0.15, 0.45)]
    rings = [(line(0.07, (0.70, y), (1.1, y - 0.05)), dark) for y in (-0.10, -0.42)]
    ears = [polygon((-0.86, -0.38), (-0.84, -0.93), (-0.42, -0.62), rounding=0.05),
            polygon((-0.08, -0.38), (-0.10, -0.93), (-0.52, -0.62), rounding=0.05)]
    inner = [(polygon((-0.76, -0.55), (-0.76, -0.78), (-0.58, -0.64)), pink),
             (polygon((-0.18, -0.55), (-0.18, -0.78), (-0.36, -0.64)), pink)]
    head = union(ellipse(-0.47, -0.28, 0.48, 0.40), *ears)
    muzzle = [(ellipse(-0.47, -0.08, 0.24, 0.17), WHITE), (ellipse(-0.47, -0.17, 0.075, 0.055), pink),
              (line(0.035, (-0.60, -0.06), (-0.47, 0.0), (-0.34, -0.06)), INK)]
    return [part(body, orange, *stripes, *rings), part(head, orange, *inner, *muzzle),
            *_eye(-0.66, -0.33, 0.085), *_eye(-0.28, -0.33, 0.085)]


def _elephant():
    grey, ear, pink = (0.60, 0.69, 0.80), (0.47, 0.56, 0.68), (0.98, 0.70, 0.74)
    legs = [line(0.17, (x, 0.3), (x, 0.62)) for x in (-0.12, 0.22, 0.66)]
    trunk = line(0.135, *curve((-0.62, -0.1), (-0.86, 0.28), (-0.80, 0.55)), (-0.92, 0.62))
    tail = line(0.08, *curve((0.86, 0.0), (1.04, 0.1), (1.0, 0.42)))
    body = union(ellipse(0.30, 0.08, 0.62, 0.48), *legs)
    toes = [(ellipse(x + d, 0.75, 0.065, 0.07), WHITE) for x in (-0.12, 0.22, 0.66) for d in (-0.07, 0.07)]
    head = union(ellipse(-0.46, -0.20, 0.38, 0.42), trunk)
    return [part(tail, INK, outline=0.0), part(body, grey, *toes), part(head, grey),
            part(ellipse(-0.10, -0.22, 0.32, 0.42, 0.2), ear, (ellipse(-0.10, -0.20, 0.17, 0.26, 0.2), pink)),
            *_eye(-0.58, -0.26, 0.075)]


def _fish():
    yellow, blue, orange = (1.0, 0.85, 0.15), (0.12, 0.28, 0.75), (1.0, 0.55, 0.10)
    tail = polygon((0.42, 0.0), (0.92, -0.50), (0.80, 0.0), (0.92, 0.50), rounding=0.06)
    fins = union(polygon((-0.35, -0.40), (0.25, -0.72), (0.35, -0.30), rounding=0.06),
                 polygon((-0.20, 0.40), (0.22, 0.70), (0.30, 0.30), rounding=0.06))
    stripes = [(line(0.085, *curve((x, -0.6), (x + 0.14, 0.0), (x, 0.6))), blue) for x in (-0.28, 0.20)]
    body = ellipse(-0.20, 0.0, 0.78, 0.50)
    return [part(union(tail, fins), orange), part(body, yellow, *stripes, (line(0.045, (-0.90, 0.22), (-0.68, 0.18)), INK)),
            spot(ellipse(-0.62, -0.12, 0.15), WHITE), spot(ellipse(-0.65, -0.12, 0.085), INK)]


def _turtle():
    skin, shell, light = (0.56, 0.84, 0.26), (0.58, 0.34, 0.14), (0.83, 0.58, 0.28)
    legs = [line(0.16, (-0.36, 0.35), (-0.48, 0.60)), line(0.16, (0.44, 0.35), (0.56, 0.60))]
    tail = polygon((0.78, 0.22), (1.02, 0.42), (0.70, 0.42), rounding=0.03)
    head = union(line(0.15, (-0.55, 0.30), (-0.80, 0.02)), ellipse(-0.80, -0.04, 0.24, 0.22))
    dome = both(ellipse(0.06, 0.36, 0.78, 0.94), above(0.36))
    plates = [(polygon((-0.16, -0.34), (0.28, -0.34), (0.36, 0.04), (0.06, 0.22), (-0.24, 0.04)), light),
              (polygon((-0.66, 0.30), (-0.40, -0.20), (-0.36, 0.10), (-0.10, 0.30)), light),
              (polygon((0.78, 0.30), (0.52, -0.20), (0.48, 0.10), (0.22, 0.30)), light)]
    rim = line(0.11, (-0.70, 0.36), (0.82, 0.36))
    return [part(union(*legs, tail, head), skin), part(dome, shell, *plates), part(rim, light, outline=0.07),
            *_eye(-0.86, -0.08, 0.07)]


def _butterfly():
    pink, violet, light = (0.95, 0.35, 0.65), (0.56, 0.30, 0.82), (1.0, 0.86, 0.40)
    wings = []
    for s in (-1, 1):
        lower = ellipse(s * 0.46, 0.42, 0.30, 0.42, -s * 0.6)
        upper = ellipse(s * 0.54, -0.28, 0.38, 0.54, s * 0.9)
        wings += [part(lower, violet, (ellipse(s * 0.48, 0.44, 0.13, 0.18, -s * 0.6), light)),
                  part(upper, pink, (ellipse(s * 0.60, -0.32, 0.17, 0.26, s * 0.9), light))]
    feelers = union(*(line(0.05, *curve((0, -0.45), (s * 0.05, -0.75), (s * 0.26, -0.86))) for s in (-1, 1)))
    return [spot(feelers, INK), *wings, part(line(0.12, (0, -0.45), (0, 0.55)), (0.35, 0.22, 0.30), outline=0.06)]


def _car():
    red, glass, grey = (0.90, 0.13, 0.15), (0.70, 0.90, 1.0), (0.80, 0.82, 0.86)
    cabin = polygon((-0.48, -0.05), (-0.26, -0.42), (0.40, -0.42), (0.62, -0.05), rounding=0.10)
    body = polygon((-0.88, 0.02), (-0.45, -0.10), (0.86, -0.10), (0.90, 0.34), (-0.90, 0.34), rounding=0.08)
    windows = [(polygon((-0.38, -0.07), (-0.22, -0.34), (0.02, -0.34), (0.02, -0.07)), glass),
               (polygon((0.14, -0.07), (0.14, -0.34), (0.36, -0.34), (0.50, -0.07)), glass)]
    wheels = [part(ellipse(x, 0.40, 0.25), INK, (ellipse(x, 0.40, 0.11), grey)) for x in (-0.52, 0.52)]
    return [part(union(cabin, body), red, *windows, (line(0.025, (-0.98, 0.26), (0.98, 0.26)), (0.62, 0.05, 0.08))),
            spot(ellipse(-0.82, 0.10, 0.10, 0.08), (1.0, 0.93, 0.45)), *wheels]


def _boat():
    hull = polygon((-0.88, 0.42), (0.88, 0.42), (0.58, 0.84), (-0.58, 0.84), rounding=0.07)
    main = polygon((0.12, -0.84), (0.12, 0.22), (0.80, 0.22), rounding=0.05)
    jib = polygon((-0.16, -0.62), (-0.16, 0.22), (-0.74, 0.22), rounding=0.05)
    return [part(line(0.075, (-0.02, -0.90), (-0.02, 0.5)), (0.62, 0.40, 0.20), outline=0.05),
            part(main, WHITE, (below(0.02), (0.98, 0.80, 0.16)), outline=0.075), part(jib, (0.98, 0.80, 0.16), outline=0.075),
            part(hull, (0.76, 0.22, 0.12), (below(0.66), WHITE))]


def _rocket():
    """Upright here. `DRAWINGS` turns it by an eighth."""
    white, red, blue = (0.93, 0.94, 0.96), (0.90, 0.15, 0.18), (0.25, 0.65, 0.95)
    side = curve((0.0, -1.0), (0.40, -0.60), (0.30, 0.52))
    body = polygon(*side, *[(-x, y) for x, y in reversed(side[1:])])
    fins = union(*(polygon((s * 0.20, 0.08), (s * 0.60, 0.42), (s * 0.60, 0.74), (s * 0.20, 0.56), rounding=0.05)
                   for s in (-1, 1)))
    flame = polygon((-0.20, 0.45), (-0.24, 0.74), (0.0, 1.10), (0.24, 0.74), (0.20, 0.45), rounding=0.04)
    core = polygon((-0.10, 0.45), (0, 0.92), (0.10, 0.45)), (1.0, 0.92, 0.35)
    return [part(flame, (1.0, 0.55, 0.10), core, outline=0.07),
            part(fins, red), part(body, white, (above(-0.48), red), (below(0.38), red)),
            part(ellipse(0, -0.16, 0.165), blue, outline=0.06)]


def _balloon():
    red, shine = (0.92, 0.16, 0.22), (1.0, 0.66, 0.66)
    string = line(0.05, *curve((0.0, 0.48), (0.16, 0.64), (0.02, 0.78)),
                  *curve((0.02, 0.78), (-0.10, 0.90), (0.04, 1.06)))
    body = union(ellipse(0, -0.28, 0.60, 0.68), polygon((-0.34, 0.16), (0.34, 0.16), (0.0, 0.44)))
    knot = polygon((0, 0.38), (0.10, 0.52), (-0.10, 0.52), rounding=0.03)
    return [spot(string, INK), part(knot, red, outline=0.06), part(body, red, (ellipse(-0.25, -0.52, 0.11, 0.20, 0.5), shine))]


def _ball():
    colours = ((0.93, 0.20, 0.20), WHITE, (0.20, 0.50, 0.92), WHITE, (1.0, 0.82, 0.15), WHITE)
    centre, far = (-0.12, -0.16), 3.0

    def wedge(a, b):
        return polygon(centre, *((centre[0] + far * np.cos(t), centre[1] + far * np.sin(t)) for t in (a, (a + b) / 2, b)))

    step = 2 * np.pi / len(colours)
    return [part(ellipse(0, 0, 0.95), WHITE, *((wedge(i * step, (i + 1) * step), c) for i, c in enumerate(colours)),
                 (ellipse(*centre, 0.17), INK), (ellipse(*centre, 0.11), WHITE))]


DRAWINGS = {"cat": _cat, "elephant": _elephant, "fish": _fish, "turtle": _turtle, "butterfly": _butterfly, "car": _car,
            "boat": _boat, "rocket": _rocket, "balloon": _balloon, "ball": _ball}
TURNED = {"rocket": np.pi / 4}  # the turn of the drawing itself


# ---------------------------------------------------------------- rendering


def _over(image, coverage, colour):
    """Puts a colour over a premultiplied image (height, width, 4), where it covers."""
    image *= 1 - coverage[..., None]
    image += coverage[..., None] * np.array([*colour, 1], np.float32)


def _paint(name, x, y, pixels):
    """The drawing at places (height, width), premultiplied RGBA in [0, 1]. A unit has `pixels`
    pixels, which is the sharpness of the edges."""
    cover = lambda d: np.clip(0.5 - d * pixels, 0, 1).astype(np.float32)  # noqa: E731
    image = np.zeros((*x.shape, 4), np.float32)
    for shape, colour, details, outline in _parts(name):
        edge = shape(x, y)
        if outline:
            _over(image, cover(edge), INK)
        fill = cover(edge + outline)
        _over(image, fill, colour)
        for detail, ink in details:
            _over(image, np.minimum(fill, cover(detail(x, y))), ink)
    return image


@lru_cache(maxsize=None)
def _parts(name):
    return DRAWINGS[name]()


@lru_cache(maxsize=None)
def _frame(name):
    """Centre (x, y) and half of the longer side of the drawing after its own turn."""
    places = np.linspace(-1.5, 1.5, 301)
    x, y = np.meshgrid(places, places)
    turn = TURNED.get(name, 0.0)
    alpha = _paint(name, np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x, 200)[..., 3] > 0.5
    columns, rows = places[alpha.any(0)], places[alpha.any(1)]
    half = max(columns[-1] - columns[0], rows[-1] - rows[0]) / 2
    return (columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2, half


def draw(name, mirrored, size, angle, cx, cy, height, width):
    """An object whose longer side has `size` pixels, turned clockwise by `angle`, with its middle at
    (cx, cy): premultiplied RGBA in [0, 1], float32 (height, width, 4)."""
    mid_x, mid_y, half = _frame(name)
    y, x = np.mgrid[:height, :width].astype(np.float32) + np.float32(0.5)
    x, y = (x - cx) * 2 / size, (y - cy) * 2 / size
    x, y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    x, y = (-x if mirrored else x) * half + mid_x, y * half + mid_y
    turn = TURNED.get(name, 0.0)
    x, y = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    return _paint(name, x, y, size / 2 / half)


@lru_cache(maxsize=8192)
def sprite(name, mirrored, size, angle, fraction_x=0.0, fraction_y=0.0):
    """The object in the middle of a square that holds it at every angle, as `draw` gives it. The
    middle is (side / 2 + fraction_x, side / 2 + fraction_y)."""
    side = 2 * int(np.ceil(size * 0.71 + 1))
    image = draw(name, mirrored, size, angle, side / 2 + fraction_x, side / 2 + fraction_y, side, side)
    image.setflags(write=False)
    return image


def place(name, mirrored, size, angle, cx, cy, height, width):
    """What `draw` gives, from the cache of sprites. Places are rounded to an eighth of a pixel."""
    whole_x, whole_y = int(np.floor(cx)), int(np.floor(cy))
    fraction = round((cx - whole_x) * 8) / 8, round((cy - whole_y) * 8) / 8
    image = sprite(name, mirrored, round(float(size), 3), round(float(angle), 5), *fraction)
    out = np.zeros((height, width, 4), np.float32)
    half = len(image) // 2
    top, left = whole_y - half, whole_x - half
    rows, columns = slice(max(top, 0), min(top + 2 * half, height)), slice(max(left, 0), min(left + 2 * half, width))
    if rows.start < rows.stop and columns.start < columns.stop:
        out[rows, columns] = image[rows.start - top:rows.stop - top, columns.start - left:columns.stop - left]
    return out


if __name__ == "__main__":
    rows = []
    for size in (150, 64, 32):
        tiles = []
        for name in DRAWINGS:
            image = draw(name, False, size, 0.0, 80, size / 2 + 5, size + 10, 160)
            back = np.array([0.55, 0.75, 0.45], np.float32)
            tiles.append(image[..., :3] + back * (1 - image[..., 3:]))
        rows += [np.concatenate(tiles[:5], 1), np.concatenate(tiles[5:], 1)]
    Image.fromarray((np.concatenate(rows) * 255).astype(np.uint8)).save(sys.argv[1])
