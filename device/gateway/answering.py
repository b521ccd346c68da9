"""What becomes of what models saw: answers, news, events, and rewards for the policy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from triparty.device.gateway.answers import Answer, Held, answer, judge
from triparty.device.gateway.auditing import Auditing
from triparty.device.gateway.camera import Camera
from triparty.device.gateway.frames import Purpose
from triparty.device.gateway.questions import Question, folded
from triparty.device.gateway.recorder import Recorder
from triparty.device.gateway.rounds import Judged
from triparty.device.gateway.stages import Outcome
from triparty.device.gateway.stand_ins import stood_in


class Answering:
    """Answers the tasks of all cameras; used by the loop's thread alone.

    Args:
        recorder: writes answers and events.
        audits: hear what is held, and their own frames.
    """

    def __init__(self, recorder: Recorder, audits: Auditing) -> None:
        """Has heard nothing."""
        self._recorder, self._audits = recorder, audits

    def hear(self, camera: Camera, outcome: Outcome) -> list[Judged]:
        """Takes in what stages made of a frame; returns the rewards the policy should hear."""
        frame = outcome.frame
        if frame.group is not None:
            self._hear_truth(camera, outcome, frame.group)
            return []
        if outcome.failed:
            return []
        if frame.purpose is Purpose.DEPENDENCY:
            camera.observed += 1
            if not (outcome.seen or outcome.redundant or outcome.filtered):
                return []
        camera.looks += bool(outcome.seen) or frame.purpose is not Purpose.DEPENDENCY
        before = camera.held
        asked = camera.questions
        filtered = [each for each in asked if each.task.model in outcome.filtered]
        answers = _answers(camera, outcome) | _stood_in(filtered, outcome, before)
        camera.held, given = judge(
            [each.task for each in asked],
            before,
            answers,
            frame.time,
            redundant=outcome.redundant,
            filtered=[each.name for each in filtered],
        )
        if camera.held is not before:
            self._audits.hear_held(camera, frame.time)
        if frame.purpose is Purpose.CHOSEN:
            camera.heard = max(camera.heard, frame.time)
            self._audits.finish(camera)
        is_new = any(reward == 1 for reward in given)
        camera.news += is_new
        if outcome.seen or is_new or frame.purpose is not Purpose.DEPENDENCY:
            self._recorder.result(camera, outcome, answers)
        self._look_for_events(camera, outcome, answers)
        if camera.whole is not None:
            return []
        rewards = np.full(len(camera.asked), np.nan)
        rewards[np.flatnonzero(camera.asked)] = folded(camera.tasks, asked, given)
        return [Judged(camera.row, frame.time, rewards.tolist(), frame.selected)]

    def _look_for_events(
        self, camera: Camera, outcome: Outcome, answers: dict[str, Answer]
    ) -> None:
        for question in camera.questions:
            name, debounce = question.name, camera.debounces.get(question.name)
            if debounce is None or name not in answers:
                continue
            camera.debounces[name], change = debounce.look(answers[name], outcome.frame.time)
            if change is not None:
                self._recorder.event(camera, question, change, outcome)

    def _hear_truth(self, camera: Camera, outcome: Outcome, number: int) -> None:
        """What models saw in a frame of an audited group; traces learn it too."""
        if number not in camera.audits:
            return
        if not outcome.failed:
            self._recorder.truth(camera, outcome)
        answers = None if outcome.failed else _answers(camera, outcome)
        self._audits.hear_truth(camera, number, outcome.frame.time, answers)


def _answers(camera: Camera, outcome: Outcome) -> dict[str, Answer]:
    """What models' results say to the questions of a camera."""
    found = dict[str, Answer]()
    for question in camera.questions:
        seen = outcome.seen.get(question.task.model)
        if seen is not None and (part := question.part(seen)) is not None:
            found[question.name] = answer(question.task, part)
    return found


def _stood_in(filtered: Sequence[Question], outcome: Outcome, held: Held) -> dict[str, Answer]:
    """What filters' words say to the questions whose models were not run."""
    found = dict[str, Answer]()
    for question in filtered:
        model = question.task.model
        if (said := question.stand_in(outcome.filtered[model])) is not None:
            found |= stood_in([question.task], {model: said}, held.answers)
    return found
