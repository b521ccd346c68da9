"""The words that the terminal and the page share."""

from __future__ import annotations

from collections.abc import Mapping

from triparty.developer.audit.attack import Findings
from triparty.developer.audit.exposure import Exposure
from triparty.developer.audit.levels import Level
from triparty.developer.audit.report import Report

NOT_ENCRYPTION = (
    "This is re-keying, not encryption. Only the attacks above were tried: what they do not "
    "recover, another one may."
)
NOTHING = "No attack recovered clearly more than it does where there is nothing to find."
UNCHECKED = "claimed by the attack and not checked: the recording is of another key"

ATTACKERS: Mapping[Level, str] = {
    Level.K0: "the cloud alone: the hosted model and the rows that reach it",
    Level.K1: "the cloud with some known plaintext, as every chat template gives it",
    Level.K2: "the cloud with the embedding table: public, or from any registered user",
    Level.K3: "the cloud with the public weights that the model was trained from",
    Level.K4: "the cloud with the help of one user of the cohort",
}


def percent(share: float) -> str:
    """A share for people."""
    return f"{100 * share:.1f} %"


def recovered(found: Findings) -> str:
    """The share that an attack recovered, marked if nobody could check it."""
    return percent(found.recovered) + ("" if found.checked else " ?")


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def number(value: float) -> str:
    """A figure for people: whole ones whole, others in four digits."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def warnings(exposure: Exposure) -> list[str]:
    """What must not be overlooked, the worst first."""
    said = []
    if exposure.public_base is not None:
        said.append(
            f"PUBLIC BASE RECOGNISED: the hosted weights come from {exposure.public_base}. "
            f"Whoever has it is an attacker of level K3: read the figures of K3 as what "
            f"everybody can do."
        )
    if exposure.public_table is not None:
        said.append(
            f"THE EMBEDDING TABLE IS PUBLIC: {percent(exposure.table_share)} of its rows are "
            f"those of {exposure.public_table}. Read the figures of K2 as what everybody can "
            f"do."
        )
    if exposure.declared_base is not None and exposure.public_base is None:
        said.append(
            f"THE ORIGINAL NAMES A BASE: {exposure.declared_base}. If the public can download "
            f"it, K2 and K3 are everybody; --base FOLDER compares the weights."
        )
    if exposure.shape_of is not None and exposure.public_base is None:
        said.append(
            f"IT HAS THE SHAPE OF A PUBLIC MODEL: {exposure.shape_of}. If it was trained from "
            f"that, K2 and K3 are everybody; --base FOLDER compares the weights."
        )
    return said


def subject(report: Report) -> str:
    """What was attacked, in one sentence."""
    what = report.subject
    return (
        f"{what.out}: {what.architecture}, scheme {what.scheme}, interface {what.interface}, "
        f"width {what.width:,}, vocabulary {what.vocabulary:,}. Traffic: {what.rows:,} rows in "
        f"{what.requests:,} requests, {what.traffic}."
    )


def assumptions(report: Report) -> list[str]:
    """What the figures rest on."""
    said = []
    if Level.K3 in report.levels:
        said.append(f"The public base of level K3 is {report.subject.base}.")
    if report.subject.other is not None:
        said.append(f"The second instance was {report.subject.other}.")
    if not all(found.checked for found in report.audit.findings):
        said.append(f"? is {UNCHECKED}.")
    return said
