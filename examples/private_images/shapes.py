"""What both sides of the story draw: small grey pictures of three shapes."""

import random

from PIL import Image, ImageDraw

LABELS = ("cross", "disc", "frame")
SIZE = 24


def drawn(label: str, dice: random.Random) -> Image.Image:
    """A shape of some size, place and brightness on a dark ground."""
    radius = dice.randint(5, 7)
    x, y = (dice.randint(radius + 1, SIZE - radius - 2) for _ in "xy")
    box = (x - radius, y - radius, x + radius, y + radius)
    light, ground = dice.randint(150, 255), dice.randint(0, 60)
    image = Image.new("L", (SIZE, SIZE), ground)
    pen = ImageDraw.Draw(image)
    match label:
        case "disc":
            pen.ellipse(box, fill=light)
        case "frame":
            pen.rectangle(box, outline=light, width=2)
        case "cross":
            pen.line((x - radius, y, x + radius, y), fill=light, width=2)
            pen.line((x, y - radius, x, y + radius), fill=light, width=2)
    return image
