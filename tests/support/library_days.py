"""Four days at a library, and thirty more questions, for the score after the first thirty.

Written as those of `vet_practice.py` were: facts first, then questions in other words, before
any was asked. Asked on Monday, 5 July 2027, at 19:30.
"""

from __future__ import annotations

from made_building import Building, Stay, site, wall

NOW = wall("2027-07-05 19:30")
CAMERAS: dict[str, tuple[str, ...]] = {
    "reading-room": ("window seats",),
    "childrens-corner": (),
    "archive": (),
    "cafe": ("till",),
    "main-gate": (),
    "parking-lot": ("charging bays",),
    "roof-terrace": (),
}
DESCRIPTIONS = {
    "reading-room": "quiet desks for study",
    "childrens-corner": "toys and picture books",
    "archive": "old documents in the basement",
    "cafe": "coffee and cake",
    "till": "where guests pay",
    "main-gate": "the way in from the street",
    "parking-lot": "where visitors leave their cars",
    "charging bays": "for electric cars",
    "roof-terrace": "benches with a view",
}
LABELS = ("person", "car", "truck", "cat", "bicycle")


def at(day: int, time: str) -> float:
    """A time of these days, in seconds since 1970."""
    return wall(f"2027-07-{day:02d} {time}")


def _stay(camera: str, label: str, day: int, since: str, until: str, zone: str = "") -> Stay:
    return Stay(camera, zone, label, at(day, since), at(day, until))


STAYS = (
    # Friday
    _stay("reading-room", "person", 2, "09:10", "12:40", "window seats"),
    _stay("reading-room", "person", 2, "10:00", "11:30"),
    _stay("reading-room", "person", 2, "10:20", "10:50"),
    _stay("reading-room", "person", 2, "11:00", "13:15"),
    _stay("archive", "person", 2, "14:05", "14:35"),
    _stay("cafe", "person", 2, "12:45", "13:20"),
    _stay("main-gate", "truck", 2, "06:50", "07:10"),
    _stay("parking-lot", "car", 2, "09:05", "13:20", "charging bays"),
    # Saturday
    _stay("childrens-corner", "person", 3, "10:30", "11:45"),
    _stay("childrens-corner", "person", 3, "10:35", "11:40"),
    _stay("roof-terrace", "cat", 3, "21:15", "21:40"),
    _stay("cafe", "person", 3, "15:00", "16:10"),
    _stay("cafe", "person", 3, "15:30", "15:45", "till"),
    _stay("parking-lot", "bicycle", 3, "10:20", "11:55"),
    # Sunday
    _stay("archive", "person", 4, "23:05", "23:25"),
    _stay("main-gate", "person", 4, "22:58", "23:02"),
    _stay("main-gate", "cat", 4, "05:30", "05:33"),
    # Monday
    _stay("main-gate", "truck", 5, "06:45", "07:05"),
    _stay("main-gate", "person", 5, "08:52", "08:54"),
    _stay("main-gate", "person", 5, "09:10", "09:12"),
    _stay("reading-room", "person", 5, "09:15", "12:00"),
    _stay("reading-room", "person", 5, "13:30", "17:10", "window seats"),
    _stay("cafe", "person", 5, "12:05", "12:50"),
    _stay("cafe", "person", 5, "12:10", "12:55"),
    _stay("cafe", "person", 5, "12:30", "12:40", "till"),
    _stay("archive", "person", 5, "16:00", "16:45"),
    _stay("parking-lot", "car", 5, "09:00", "17:20"),
    _stay("parking-lot", "car", 5, "11:30", "15:00", "charging bays"),
    _stay("roof-terrace", "person", 5, "18:40", "20:00"),
)
ODD = (("archive", at(4, "23:06")),)

Expected = bool | int | float | tuple[str, ...]
"""Whether; how many; when or how long, in seconds; where."""

QUESTIONS: tuple[tuple[str, Expected], ...] = (
    ("Was anyone down in the archives last night?", True),
    ("Did anybody pass the front gate yesterday after ten in the evening?", True),
    ("Was the coffee shop deserted yesterday?", True),
    ("Is there still someone up on the terrace?", True),
    ("How many readers were in the reading room at once on Friday?", 3),
    ("What was the highest number of people in the café today?", 3),
    ("How often did a truck stop at the main gate since Friday?", 2),
    ("When did the first visitor come through the main gate this morning?", at(5, "08:52")),
    ("When did the last person leave the reading room on Friday?", at(2, "13:15")),
    ("What time did the lorry arrive at the gate today?", at(5, "06:45")),
    ("When was the kids' corner last used?", at(3, "11:45")),
    ("How long was the children's corner occupied on Saturday?", 75 * 60.0),
    ("For how long was somebody in the archive this afternoon?", 45 * 60.0),
    ("Did the system report anything odd on Sunday night?", True),
    ("Where was the cat on Saturday evening?", ("roof-terrace",)),
    ("Which camera saw a bike at the weekend?", ("parking-lot",)),
    ("Were any cats around on Friday?", False),
    ("Was there a vehicle at the charging stations between noon and two today?", True),
    ("Were two cars parked in the car park at the same time today?", True),
    ("Has anybody been to the archive between nine and noon today?", False),
    ("Did someone sit at the window seats on Friday morning?", True),
    ("How many people visited the café on Saturday?", 2),
    ("Was somebody at the cash register at half past twelve today?", True),
    ("Was the study room empty at ten past twelve today?", True),
    ("Did a car leave the parking lot before four this afternoon?", True),
    ("How many guests have entered the café today?", 3),
    ("Has anyone used the reading room in the last two hours?", False),
    ("Was a person in the basement archive on Friday between two and three?", True),
    ("When did the bicycle leave the parking area on Saturday?", at(3, "11:55")),
    ("Has nobody been in the children's area today?", True),
)


def library() -> Building:
    """The library and its days."""
    return Building(site(CAMERAS, LABELS, DESCRIPTIONS), STAYS, ODD)
