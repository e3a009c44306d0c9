"""Procedural video clips: one drawn object moving over a static background.

A clip is determined by an (object, background, motion) triple and a numpy generator, so a seed
reproduces it exactly. The object's alpha channel is the true foreground mask, which real footage
does not have.

Everything that moves lies on the grid of the transformer's tokens, so that few different latents
show the same object. In a clip of 128 pixels a token is 16 pixels wide. Middles are multiples of
16 pixels, paths move 4 pixels a frame (one token a latent frame), and an object is 56 or 64 pixels
long. Other sizes scale all of this.

    python training/data.py sheet.png      # a contact sheet of the data
"""

import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

import sprites

FRAMES = 17
SIZE = 128  # height and width of a clip by default, in pixels

# name: (verb, synonyms). sprites.py draws the objects.
OBJECTS = {
    "cat": ("walking", ("cat", "orange cat", "kitten")),
    "elephant": ("walking", ("elephant", "grey elephant")),
    "turtle": ("crawling", ("turtle", "green turtle")),
    "fish": ("swimming", ("fish", "yellow fish", "striped fish")),
    "butterfly": ("flying", ("butterfly", "pink butterfly")),
    "car": ("driving", ("car", "red car")),
    "boat": ("sailing", ("boat", "sailing boat")),
    "rocket": ("flying", ("rocket", "space rocket")),
    "balloon": ("floating", ("balloon", "red balloon")),
    "ball": ("rolling", ("ball", "beach ball")),
}
BACKGROUNDS = {
    "grass": ("on grass", "on the grass", "on a green meadow"),
    "desert": ("in the desert", "over the desert", "on sand dunes"),
    "snow": ("in the snow", "on snow", "in a snowy landscape"),
    "sea": ("over the sea", "at the sea", "on blue water"),
    "night": ("at night", "under the moon", "in the dark night"),
    "sunset": ("at sunset", "in front of the sunset", "in the evening sun"),
    "clouds": ("in the clouds", "in a blue sky", "among white clouds"),
    "forest": ("in the forest", "in a dark forest", "in front of green trees"),
}
# motion: (words after the verb, whether the object's verb is kept)
MOTIONS = {
    "left": (("left", "to the left"), True),
    "right": (("right", "to the right"), True),
    "up": (("up", "upwards"), True),
    "down": (("down", "downwards"), True),
    "spin": (("spinning", "spinning around", "turning around in circles"), False),
    "grow": (("growing", "coming closer", "getting bigger"), False),
}
OBJECT_NAMES, BACKGROUND_NAMES, MOTION_NAMES = (list(d) for d in (OBJECTS, BACKGROUNDS, MOTIONS))
FLYERS = {"flying", "floating"}
HELD_OUT = 76  # number of triples that training never sees, of 480


@dataclass
class Clip:
    video: np.ndarray  # (frames, height, width, 3), float32 in [-1, 1]
    mask: np.ndarray  # (frames, height, width), float32 in [0, 1]: the object's alpha
    caption: str
    triple: tuple


@lru_cache(maxsize=None)
def held_out():
    """The (object, background, motion) triples that training never sees. They are always the same,
    and training sees each pair (object, background), (object, motion), (background, motion)."""
    triples = [
        (o, b, m)
        for o in OBJECTS
        for b in BACKGROUNDS
        for m in MOTIONS
        if (o, b) != ("cat", "grass")  # the paper's prompt stays in the training set
    ]
    np.random.default_rng(2024).shuffle(triples)
    used, chosen = {}, []
    while len(chosen) < HELD_OUT:  # each object, background and motion about equally often
        best = min(triples, key=lambda t: sum(used.get((i, v), 0) * n for i, (v, n) in enumerate(zip(t, (10, 8, 6)))))
        triples.remove(best)
        chosen.append(tuple(str(v) for v in best))
        for key in enumerate(chosen[-1]):
            used[key] = used.get(key, 0) + 1
    return frozenset(chosen)


@lru_cache(maxsize=None)
def training_triples():
    """All triples that are not held out, in a fixed order."""
    every = [(o, b, m) for o in OBJECTS for b in BACKGROUNDS for m in MOTIONS]
    return tuple(t for t in every if t not in held_out())


def triple_number(triple):
    """The triple as one number, for storing."""
    return (OBJECT_NAMES.index(triple[0]) * 8 + BACKGROUND_NAMES.index(triple[1])) * 6 + MOTION_NAMES.index(triple[2])


def triple_from_number(number):
    return OBJECT_NAMES[number // 48], BACKGROUND_NAMES[number // 6 % 8], MOTION_NAMES[number % 6]


# ---------------------------------------------------------------- captions


def caption(triple, rng):
    """A caption of the triple from a random template. A few captions do not name the direction of a
    walk."""
    name, background, motion = triple
    verb, synonyms = OBJECTS[name]
    noun = synonyms[0] if rng.random() < 0.6 else str(rng.choice(synonyms))
    subject = ("an " if noun[0] in "aeiou" else "a ") + noun
    place = str(rng.choice(BACKGROUNDS[background]))
    words, keep_verb = MOTIONS[motion]
    action = words[0] if rng.random() < 0.5 else str(rng.choice(words))
    if keep_verb:
        vertical = motion in ("up", "down")
        if (vertical and verb not in FLYERS) or rng.random() < 0.2:
            verb = "moving"
        action = verb if not vertical and rng.random() < 0.15 else f"{verb} {action}"
    templates = (f"{subject} {action} {place}", f"{subject} {place}, {action}", f"{place}, {subject} {action}",
                 f"a video of {subject} {action} {place}")
    text = templates[0] if rng.random() < 0.6 else str(rng.choice(templates))
    style = rng.random()
    return text.capitalize() + "." if style < 0.15 else text


def plain_caption(triple):
    """The caption for evaluation: the first template, the first words, always with the
    direction."""
    name, background, motion = triple
    verb, synonyms = OBJECTS[name]
    words, keep_verb = MOTIONS[motion]
    if keep_verb and motion in ("up", "down") and verb not in FLYERS:
        verb = "moving"
    action = f"{verb} {words[0]}" if keep_verb else words[0]
    article = "an" if synonyms[0][0] in "aeiou" else "a"
    return f"{article} {synonyms[0]} {action} {BACKGROUNDS[background][0]}"


# ---------------------------------------------------------------- backgrounds


def _grid(height, width):
    """Pixel centres in units of the shorter side. y runs down from 0, x is centred on 0."""
    unit = min(height, width)
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / unit
    x = (np.arange(width, dtype=np.float32)[None, :] + 0.5 - width / 2) / unit
    return y * unit / height, x


def _mix(a, b, t):
    """Blends two colours or images by t, a scalar or a map (height, width)."""
    t = np.asarray(t, np.float32)[..., None]
    return a * (1 - t) + b * t


def _step(distance, softness=0.03):
    """A soft edge: 0 for distance << 0, 1 for distance >> 0."""
    return 1 / (1 + np.exp(np.clip(-distance / softness * 2, -30, 30)))


def _blob(y, x, cy, cx, ry, rx, softness=0.3):
    """A soft ellipse."""
    r = np.sqrt(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2)
    return _step(1 - r, softness)


def _hills(x, rng, height):
    """A gentle random horizon line of the given amplitude."""
    a, b = rng.uniform(0, 2 * np.pi, 2)
    return height * (np.sin(x * rng.uniform(2, 4) + a) + 0.5 * np.sin(x * rng.uniform(5, 7) + b))


def _colour(rng, r, g, b, jitter=0.05):
    return np.array([r, g, b], np.float32) + rng.uniform(-jitter, jitter, 3).astype(np.float32)


def _land(y, x, rng, sky_top, sky_low, ground_far, ground_near, hills=0.02, horizon=(0.45, 0.62)):
    """A sky gradient above a ground gradient, separated by a horizon of gentle hills."""
    h = rng.uniform(*horizon) + _hills(x, rng, hills)
    sky = _mix(sky_top, sky_low, np.clip(y / 0.6, 0, 1) + 0 * x)
    ground = _mix(ground_far, ground_near, np.clip((y - h) / 0.45, 0, 1))
    return _mix(sky, ground, _step(y - h))


def draw_background(kind, height, width, rng):
    """A random instance of a background, (height, width, 3) in [0, 1], without pixel noise."""
    y, x = _grid(height, width)
    half = width / min(height, width) / 2
    c = lambda r, g, b: _colour(rng, r, g, b)  # noqa: E731
    if kind == "grass":
        img = _land(y, x, rng, c(.45, .70, .95), c(.75, .88, .95), c(.35, .68, .25), c(.16, .45, .12))
    elif kind == "desert":
        img = _land(y, x, rng, c(.75, .82, .88), c(.98, .90, .72), c(.95, .78, .45), c(.80, .55, .25), 0.05)
    elif kind == "snow":
        img = _land(y, x, rng, c(.62, .70, .80), c(.80, .85, .90), c(.95, .96, .98), c(.78, .85, .95), 0.04)
    elif kind == "sea":
        img = _land(y, x, rng, c(.55, .85, .95), c(.85, .95, .95), c(.10, .55, .75), c(.02, .25, .55), 0.0, (.35, .5))
        waves = np.sin(y * 40 + rng.uniform(0, 6)) * np.sin(x * 5 + rng.uniform(0, 6)) * np.clip(y - .5, 0, 1)
        img = img + 0.15 * waves[..., None]
    elif kind == "night":
        img = _land(y, x, rng, c(.04, .05, .20), c(.13, .14, .38), c(.08, .10, .16), c(.03, .04, .08), 0.04, (.7, .8))
        moon = _blob(y, x, rng.uniform(.12, .25), rng.uniform(-half, half) * .75, .10, .10, 0.15)
        img = _mix(img, c(.95, .93, .75), moon)
    elif kind == "sunset":
        img = _mix(c(.40, .15, .50), c(.98, .55, .20), np.clip(y / .65, 0, 1) + 0 * x)
        sun = _blob(y, x, .62, rng.uniform(-half, half) * .6, .16, .16, 0.15)
        img = _mix(img, c(1, .88, .40), sun)
        img = _mix(img, c(.30, .10, .22), _step(y - rng.uniform(.62, .72) - _hills(x, rng, .02)))
    elif kind == "clouds":
        img = _mix(c(.20, .48, .90), c(.55, .78, .98), y + 0 * x)
        for _ in range(4):
            cy, cx = rng.uniform(.1, .9), rng.uniform(-half, half)
            img = _mix(img, c(.95, .96, .98), .9 * _blob(y, x, cy, cx, rng.uniform(.07, .13), rng.uniform(.18, .3)))
    elif kind == "forest":
        img = _land(y, x, rng, c(.35, .60, .50), c(.55, .75, .55), c(.20, .32, .14), c(.10, .20, .08), 0.0, (.72, .8))
        for cx in np.linspace(-half, half, max(3, int(6 * half + 2))) + rng.uniform(-.06, .06):
            top, base = rng.uniform(.05, .25), rng.uniform(.74, .84)
            inside = np.minimum((y - top) * .32 - np.abs(x - cx), (base - y) * .5)
            img = _mix(img, _colour(rng, .06, .26, .12, .03), _step(inside, .04))
    else:
        raise ValueError(f"no background named {kind!r}")
    return np.clip(img, 0, 1).astype(np.float32)


# ---------------------------------------------------------------- clips


@dataclass
class Poses:
    """The object in each frame: arrays of the size, the angle, and the middle's x and y."""

    size: np.ndarray
    angle: np.ndarray
    x: np.ndarray
    y: np.ndarray
    mirrored: bool


# The turn of the rocket, whose drawing points up and right, in radians clockwise on the screen.
_ROCKET_TURN = {"left": -0.75 * np.pi, "right": 0.25 * np.pi, "up": -0.25 * np.pi, "down": 0.75 * np.pi}


def rocket_turn(motion):
    """The rocket's angle. It points up unless its motion has a direction."""
    return _ROCKET_TURN.get(motion, _ROCKET_TURN["up"])


def sizes_of(motion, unit):
    """The lengths that an object can have in the middle frame of a motion, in pixels of a frame whose
    shorter side is `unit`."""
    full = [unit * 7 / 16, unit / 2]
    return [s * 0.5**0.5 for s in full] if motion == "grow" else full


def _path(name, motion, height, width, rng):
    """The poses of a random instance of the motion."""
    unit = min(height, width)
    t = np.linspace(0, 1, FRAMES)
    size = np.full(FRAMES, sizes_of("left", unit)[rng.integers(2)])
    angle = np.zeros(FRAMES)
    mirrored = motion == "right"
    step = unit / 8  # the grid

    def on_grid(length, low=0.25):
        """A middle on the grid at which an object of half of the frame is wholly visible."""
        places = np.arange(np.ceil(low * length / step), np.floor((length - unit / 4) / step) + 1)
        return np.full(FRAMES, step * rng.choice(places))

    x, y = on_grid(width), on_grid(height, 0.5 if motion in ("left", "right") else 0.25)
    if motion in ("left", "right", "up", "down"):
        length = width if motion in ("left", "right") else height
        first = unit / 4 + step * rng.integers((length - unit) // step + 1)
        line = first + unit / 2 * (t if motion in ("right", "down") else 1 - t)
        x, y = (line, y) if motion in ("left", "right") else (x, line)
    elif motion == "spin":
        angle = 2 * np.pi * t
    elif motion == "grow":
        size = size * 0.5 ** (1 - t)
    if motion in ("up", "down", "grow"):
        mirrored = bool(rng.random() < 0.5)
    if name == "rocket":
        mirrored = False
        angle = angle + rocket_turn(motion)
    return Poses(size, angle, x, y, mirrored)


def make_clip(triple, rng, height=SIZE, width=SIZE):
    """Draws a clip of the triple. The result depends only on the triple, the state of rng and the
    size."""
    name, background, motion = triple
    text = caption(triple, rng)
    back = draw_background(background, height, width, rng)
    poses = _path(name, motion, height, width, rng)
    layers = np.stack([
        sprites.place(name, poses.mirrored, *pose, height, width)
        for pose in zip(poses.size, poses.angle, poses.x, poses.y)
    ])
    alpha = layers[..., 3]
    video = back * (1 - alpha[..., None]) + layers[..., :3]
    return Clip(video * 2 - 1, alpha, text, triple)


def random_clip(rng, height=SIZE, width=SIZE):
    """A clip of a random training triple."""
    triples = training_triples()
    return make_clip(triples[rng.integers(len(triples))], rng, height, width)


def contact_sheet(videos, columns=4, frames=(0, 4, 8, 12, 16)):
    """A PIL image with `columns` clips in a row, each a strip of the given frames. Videos are in
    [-1, 1]."""
    strips = []
    for video in videos:
        pixels = ((np.clip(video, -1, 1) + 1) * 127.5).astype(np.uint8)
        strips.append(np.pad(np.concatenate([pixels[f] for f in frames], 1), ((2, 2), (2, 2), (0, 0))))
    strips += [np.zeros_like(strips[0])] * (-len(strips) % columns)
    rows = [np.concatenate(strips[i:i + columns], 1) for i in range(0, len(strips), columns)]
    return Image.fromarray(np.concatenate(rows))


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    clips = [make_clip((o, BACKGROUND_NAMES[i % 8], MOTION_NAMES[i % 6]), rng) for i, o in enumerate(OBJECTS)]
    clips += [random_clip(rng) for _ in range(16)]
    for clip in clips:
        print(clip.caption)
    contact_sheet([c.video for c in clips], 4).save(sys.argv[1])
