"""A week in a small office: the building that the questions of the tests are about.

Asked on Friday, 20 November 2026, at 16:40.
"""

from __future__ import annotations

from made_building import Building, Stay, site, wall

NOW = wall("2026-11-20 16:40")
CAMERAS: dict[str, tuple[str, ...]] = {
    "meeting-room": (),
    "kitchen": (),
    "lobby": ("front desk", "sofa"),
    "car-park": ("gate", "loading bay"),
    "warehouse": (),
    "back-door": (),
    "server-room": (),
}
DESCRIPTIONS = {
    "meeting-room": "the room for meetings and conferences",
    "kitchen": "where people cook and have lunch",
    "lobby": "the entrance hall",
    "front desk": "the reception",
    "car-park": "the yard where cars are parked",
    "warehouse": "the storage hall",
    "back-door": "the rear exit",
    "server-room": "the room with the computers",
    "person": "a human being",
    "truck": "a lorry, a delivery van",
    "dog": "a pet",
}
LABELS = ("person", "car", "truck", "dog", "bicycle")


def _stay(camera: str, label: str, day: int, since: str, until: str, zone: str = "") -> Stay:
    date = f"2026-11-{day:02d}"
    return Stay(camera, zone, label, wall(f"{date} {since}"), wall(f"{date} {until}"))


STAYS = (
    # Monday
    _stay("meeting-room", "person", 16, "09:30", "10:45"),
    _stay("meeting-room", "person", 16, "09:32", "10:45"),
    _stay("kitchen", "person", 16, "12:10", "12:50"),
    _stay("car-park", "truck", 16, "07:40", "08:05", "loading bay"),
    _stay("warehouse", "person", 16, "08:00", "11:30"),
    # Tuesday
    _stay("lobby", "person", 17, "08:55", "09:05", "front desk"),
    _stay("lobby", "person", 17, "09:02", "09:20", "sofa"),
    _stay("kitchen", "dog", 17, "18:15", "18:25"),
    _stay("server-room", "person", 17, "22:40", "23:10"),
    _stay("car-park", "car", 17, "08:30", "17:45"),
    # Wednesday
    _stay("meeting-room", "person", 18, "13:00", "15:30"),
    _stay("meeting-room", "person", 18, "13:05", "15:10"),
    _stay("meeting-room", "person", 18, "13:20", "14:00"),
    _stay("back-door", "person", 18, "21:58", "22:03"),
    _stay("car-park", "bicycle", 18, "08:10", "16:20", "gate"),
    # Thursday
    _stay("meeting-room", "person", 19, "10:00", "11:20"),
    _stay("kitchen", "person", 19, "07:50", "08:10"),
    _stay("kitchen", "person", 19, "12:00", "12:35"),
    _stay("kitchen", "person", 19, "12:05", "12:40"),
    _stay("lobby", "person", 19, "18:30", "18:42", "front desk"),
    _stay("warehouse", "person", 19, "23:15", "23:50"),
    _stay("car-park", "car", 19, "09:00", "18:45"),
    _stay("car-park", "car", 19, "09:20", "17:30"),
    _stay("car-park", "truck", 19, "14:20", "14:55", "loading bay"),
    # Friday
    _stay("server-room", "person", 20, "01:20", "01:35"),
    _stay("kitchen", "person", 20, "08:15", "08:30"),
    _stay("lobby", "person", 20, "08:40", "08:50", "front desk"),
    _stay("meeting-room", "person", 20, "13:40", "14:25"),
    _stay("meeting-room", "person", 20, "14:05", "14:25"),
    _stay("warehouse", "person", 20, "16:05", "16:15"),
    _stay("back-door", "dog", 20, "11:12", "11:14"),
    _stay("car-park", "car", 20, "08:35", "17:00"),
)
ODD = (("server-room", wall("2026-11-20 01:21")),)


def office() -> Building:
    """The office and its week."""
    return Building(site(CAMERAS, LABELS, DESCRIPTIONS), STAYS, ODD)
