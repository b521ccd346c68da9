"""Four days at a vet's practice, and thirty questions about them that nothing was tuned on.

The facts were chosen first, then put into questions in other words than the site's own, before
any was asked. docs/ask.md has the score of the first run. Asked on Thursday, 11 March 2027, at
10:20.
"""

from __future__ import annotations

from made_building import Building, Stay, site, wall

NOW = wall("2027-03-11 10:20")
CAMERAS: dict[str, tuple[str, ...]] = {
    "waiting-room": ("counter",),
    "treatment-room": (),
    "staff-room": (),
    "stable": (),
    "courtyard": ("barrier", "ramp"),
    "storage-room": (),
    "side-entrance": (),
}
DESCRIPTIONS = {
    "waiting-room": "where clients sit and wait",
    "counter": "the cash desk",
    "treatment-room": "where animals are examined",
    "staff-room": "the break room of the employees",
    "stable": "the boxes of the horses",
    "courtyard": "the yard with parking spaces",
    "barrier": "the driveway gate",
    "ramp": "for deliveries",
    "storage-room": "supplies and medicine",
    "side-entrance": "the door to the alley",
}
LABELS = ("person", "car", "truck", "dog", "horse", "bicycle")


def at(day: int, time: str) -> float:
    """A time of these days, in seconds since 1970."""
    return wall(f"2027-03-{day:02d} {time}")


def _stay(camera: str, label: str, day: int, since: str, until: str, zone: str = "") -> Stay:
    return Stay(camera, zone, label, at(day, since), at(day, until))


STAYS = (
    # Monday
    _stay("stable", "person", 8, "06:45", "07:30"),
    Stay("stable", "", "horse", at(8, "07:30"), at(10, "16:00")),
    _stay("waiting-room", "person", 8, "08:05", "08:40"),
    _stay("waiting-room", "person", 8, "08:20", "09:10"),
    _stay("waiting-room", "person", 8, "08:30", "08:50"),
    _stay("treatment-room", "person", 8, "09:05", "10:00"),
    _stay("treatment-room", "dog", 8, "09:10", "09:45"),
    _stay("courtyard", "truck", 8, "11:15", "11:50", "ramp"),
    _stay("courtyard", "car", 8, "08:00", "18:20"),
    # Tuesday
    _stay("staff-room", "person", 9, "12:00", "12:45"),
    _stay("staff-room", "person", 9, "12:10", "13:00"),
    _stay("staff-room", "person", 9, "12:15", "12:40"),
    _stay("waiting-room", "person", 9, "10:30", "10:36", "counter"),
    _stay("waiting-room", "dog", 9, "16:10", "16:30"),
    _stay("storage-room", "person", 9, "15:05", "15:25"),
    _stay("storage-room", "person", 9, "17:40", "17:50"),
    _stay("side-entrance", "person", 9, "19:30", "19:33"),
    _stay("courtyard", "bicycle", 9, "07:55", "08:00", "barrier"),
    # Wednesday
    _stay("treatment-room", "person", 10, "14:15", "14:50"),
    _stay("treatment-room", "person", 10, "14:30", "15:20"),
    _stay("waiting-room", "person", 10, "13:50", "14:15"),
    _stay("storage-room", "person", 10, "22:35", "22:50"),
    _stay("courtyard", "car", 10, "08:10", "12:30"),
    _stay("courtyard", "car", 10, "09:40", "17:05"),
    _stay("courtyard", "truck", 10, "06:30", "06:55", "ramp"),
    _stay("courtyard", "truck", 10, "16:20", "16:45", "ramp"),
    _stay("stable", "person", 10, "15:40", "16:05"),
    _stay("staff-room", "person", 10, "18:10", "18:30"),
    # Thursday
    _stay("side-entrance", "dog", 11, "02:10", "02:14"),
    _stay("staff-room", "person", 11, "07:30", "07:50"),
    _stay("courtyard", "car", 11, "08:05", "17:00"),
    _stay("waiting-room", "person", 11, "08:30", "08:55"),
    _stay("treatment-room", "person", 11, "08:55", "09:40"),
    _stay("treatment-room", "dog", 11, "08:58", "09:35"),
    _stay("waiting-room", "person", 11, "09:50", "10:30"),
)
ODD = (("storage-room", at(10, "22:36")),)

Expected = bool | int | float | tuple[str, ...]
"""Whether; how many; when or how long, in seconds; where."""

QUESTIONS: tuple[tuple[str, Expected], ...] = (
    ("Was there anybody in the exam room yesterday between two and three?", True),
    ("Did anyone go into the storeroom late last night?", True),
    ("Was the break room empty yesterday morning?", True),
    ("Is anyone sitting in the waiting area right now?", True),
    ("What's the most people we had in the waiting room at one time on Monday?", 3),
    ("How many people were having lunch in the staff room on Tuesday?", 3),
    ("How many deliveries by truck came to the ramp yesterday?", 2),
    ("When did the first client walk into the waiting room today?", at(11, "08:30")),
    ("What time did the last one leave the treatment room yesterday?", at(10, "15:20")),
    ("When did the lorry arrive at the loading ramp on Monday?", at(8, "11:15")),
    ("At what time did the truck leave the ramp on Monday?", at(8, "11:50")),
    ("How long was the dog in the treatment room this morning?", 37 * 60.0),
    ("How much time did somebody spend in the supply room on Tuesday?", 30 * 60.0),
    ("Was anything suspicious reported last night?", True),
    ("Where did a dog turn up during the night?", ("side-entrance",)),
    ("Which camera spotted a bike on Tuesday?", ("courtyard", "barrier (courtyard)")),
    ("Was anybody in the stable on Monday before seven in the morning?", True),
    ("When was the horse last in its box?", at(10, "16:00")),
    ("Did someone use the side door on Tuesday evening?", True),
    ("Has there been anyone at the side entrance this morning?", False),
    ("Were there any bicycles in the yard yesterday?", False),
    ("How many cars stood in the courtyard at the same time yesterday?", 2),
    ("Was the cash desk occupied at half past ten on Tuesday?", True),
    ("Was the stable free of people yesterday afternoon?", False),
    ("How often was the storage room entered on Tuesday?", 2),
    ("Has a car come into the courtyard since eight o'clock?", True),
    ("Did anyone enter the waiting room in the past 45 minutes?", True),
    ("Did the dog leave the examination room before half past nine today?", False),
    ("The day before yesterday, was a dog in the waiting room in the afternoon?", True),
    ("Was anyone in the staff room or the storage room yesterday evening?", True),
)


def practice() -> Building:
    """The practice and its days."""
    return Building(site(CAMERAS, LABELS, DESCRIPTIONS), STAYS, ODD)
