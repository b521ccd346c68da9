"""A site for trying things out without cameras: generated films, and a file that plays them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from triparty.common import scenes
from triparty.common.errors import SettingsError, StateError
from triparty.common.scenes import Visit

SECONDS, RATE, GROUP = 24.0, 10, 20
PERSON, CAR = range(len(scenes.LABELS))
FILMS = {
    "meeting room": (
        Visit(PERSON, 3.0, 10.0, (-0.1, 0.6), (0.6, 0.62), 0.5, seed=1),
        Visit(PERSON, 13.0, 22.0, (1.1, 0.62), (0.3, 0.6), 0.5, seed=2),
        Visit(PERSON, 15.0, 21.0, (-0.1, 0.58), (0.55, 0.6), 0.46, seed=3),
    ),
    "yard": (
        Visit(CAR, 2.0, 9.0, (-0.2, 0.7), (1.2, 0.7), 0.26, seed=4),
        Visit(PERSON, 12.0, 20.0, (1.1, 0.6), (-0.1, 0.62), 0.44, seed=5),
    ),
    "corridor": (),
}
"""Who comes before each camera; to the corridor nobody."""


def write_example_site(folder: Path, *, detector: Path, model: str | None = None) -> Path:
    """Writes films and a `watch.toml` that plays them again and again.

    Args:
        folder: that does not exist yet.
        detector: in ONNX, trained on the same scenes ('triparty developer example-detector').
        model: a protected sentence encoder that questions are asked with.

    Returns:
        The file for `triparty device watch`.

    Raises:
        SettingsError: there is no such detector.
        StateError: `folder` exists.
    """
    if not detector.is_file():
        raise SettingsError(
            f"there is no detector {detector}: make one with 'triparty developer "
            "example-detector OUT'"
        )
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError as error:
        raise StateError(f"{folder} exists: name another folder, or remove it") from error
    for number, (name, visits) in enumerate(FILMS.items()):
        _write_film(folder / _file(name), visits, seed=100 + number)
    target = folder / "watch.toml"
    target.write_text(_configuration(detector.resolve(), model), encoding="utf-8")
    return target


def _file(name: str) -> str:
    return f"{name.replace(' ', '-')}.mp4"


def _write_film(path: Path, visits: tuple[Visit, ...], *, seed: int) -> None:
    """H.264 as a camera sends it: a group of two seconds, no B pictures."""
    import av

    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = scenes.WIDTH, scenes.HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"g": str(GROUP), "bf": "0", "preset": "veryfast"}
        pictures = scenes.film(visits, seconds=SECONDS, rate=RATE, seed=seed)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _configuration(detector: Path, model: str | None) -> str:
    cameras = "\n".join(
        f'[[cameras]]\nname = "{name}"\nurl = "{_file(name)}"\nloop = true\n' for name in FILMS
    )
    labels = ", ".join(f'"{label}"' for label in scenes.LABELS)
    tasks = "\n".join(
        f'[[tasks]]\nname = "{label}s"\nmodel = "objects"\nmeasure = "count"\n'
        f'classes = ["{label}"]\n'
        for label in scenes.LABELS
    )
    asked = f'\n[ask]\nmodel = "{model}"\n' if model else ""
    return f"""\
# A building that was generated: triparty device watch watch.toml

[gate]
budget_ms = 0.3           # of each 40 ms: a part of what decoding all takes

[defaults]
before_s = 2
after_s = 2

{cameras}
[[models]]
name = "objects"
file = {str(detector)!r}
labels = [{labels}]
least_score = 0.5

{tasks}
[results]
database = "results.db"
clips = "clips"
snapshots = "snapshots"

[page]
port = 0                  # any free one; it says which
{asked}"""
