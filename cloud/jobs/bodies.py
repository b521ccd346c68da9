"""The JSON bodies of the jobs' routes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from triparty.cloud.bodies import Bytes, Request, Signature
from triparty.cloud.jobs.tasks import Task
from triparty.common.errors import ArtifactError, RequestError, SettingsError
from triparty.common.jobs import JOB_ID
from triparty.common.nets.course import Course
from triparty.common.nets.design import MOST_INPUTS, MOST_TASKS, Design
from triparty.common.nets.inputs import InputSpec

Side = Annotated[int, Field(ge=1, le=1 << 24)]
MOST_SEED = 2**53 - 1


class InputBody(Request):
    """One input of a filter, as `common/nets/inputs.py` knows it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    modality: Literal["text", "image", "video", "audio", "vector", "series"]
    shape: list[Side] = Field(min_length=1, max_length=4)
    vocabulary: int = Field(0, ge=0, le=1 << 20)


class DesignBody(Request):
    """A network; what is left out is as published."""

    inputs: list[InputBody] = Field(min_length=1, max_length=MOST_INPUTS)
    tasks: int = Field(1, ge=1, le=MOST_TASKS)
    units: int = Field(128, ge=1, le=4096)
    embedding: int = Field(200, ge=1, le=4096)
    filters: int = Field(32, ge=1, le=512)
    text_width: int = Field(32, ge=1, le=512)
    dropout: float = Field(0.5, ge=0, lt=1)
    resolution: int = Field(112, ge=0, le=4096)


class CourseBody(Request):
    """How it is trained; what is left out is as published."""

    epochs: int = Field(20, ge=1)
    patience: int = Field(6, ge=1)
    held_out: float = Field(0.15, ge=0, le=0.5)
    rate: float = Field(1e-3, gt=0, le=1)
    batch: int = Field(32, ge=1, le=1024)
    loss: Literal["pairs", "contrastive"] = "pairs"
    seed: int = Field(0, ge=0, le=MOST_SEED)


class JobRequest(Request):
    """`POST /v1/jobs`: a data set that is uploaded, and what becomes of it."""

    job: str = Field(pattern=JOB_ID)
    manifest: Bytes
    signature: Signature
    kind: Literal["skip", "reuse"]
    design: DesignBody
    course: CourseBody = Field(default_factory=lambda: CourseBody.model_validate({}))

    def task(self) -> Task:
        """What is asked for.

        Raises:
            RequestError: a design or course that cannot be.
        """
        design = self.design
        try:
            inputs = tuple(
                InputSpec(one.name, one.modality, tuple(one.shape), one.vocabulary)
                for one in design.inputs
            )
            sizes = design.model_dump(exclude={"inputs"})
            course = Course(**self.course.model_dump(), accelerated=True)
            return Task(Design(self.kind, inputs, **sizes), course)
        except (SettingsError, ArtifactError) as error:
            raise RequestError(error.message) from error


class JobReply(BaseModel):
    """A job: how far it is, and its result once it is done."""

    job: str
    kind: str
    state: Literal["waiting", "running", "done", "failed"]
    created: str
    rows: int
    bytes: int
    epochs: int
    epoch: int
    training_loss: float | None
    loss: float | None
    seconds_left: float | None
    cpu_s: float
    problem: str | None
    kept_until: str | None
    manifest: str | None
    signature: str | None


class JobsReply(BaseModel):
    """A device's jobs, newest first."""

    jobs: list[JobReply]
