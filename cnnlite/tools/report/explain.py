"""Findings about the curves of a run, in plain words, each with an override to try."""

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from cnnlite.errors import CnnliteError
from cnnlite.tools.report import rules_course, rules_fit, rules_unequal
from cnnlite.tools.report.inside import dead_units, one_by_one
from cnnlite.tools.report.record import BestNetwork, Record, Seen, load_seen, load_trained
from cnnlite.tools.report.rules import RULES, Evidence, Finding, finding
from cnnlite.utils.hints import Argument

__all__ = ["Explanation", "describe_rules", "explain", "judge", "rules_course", "rules_fit", "rules_unequal"]


@dataclass(frozen=True)
class Explanation:
    """Findings about a run, and what was left out."""

    name: str
    findings: list[Finding]
    left_out: str = ""

    def facts(self) -> dict[str, Any]:
        """Return the findings as an object for JSON."""
        return {"run": self.name, "findings": [asdict(found) for found in self.findings], "left_out": self.left_out}

    def describe(self) -> str:
        """Format the findings as text."""
        blocks = []
        for found in self.findings:
            block = f"{found.title}\n{textwrap.fill(found.text, 100, initial_indent='  ', subsequent_indent='  ')}"
            blocks.append(f"{block}\n  try: {found.command}" if found.command else block)
        return "\n\n".join([*blocks, *filter(None, [self.left_out])])


def explain(record: Record, root: str | None = None) -> Explanation:
    """Judge the curves of a run, and its network on a few batches if the dataset is found, in ``root`` if given."""
    trained = None
    try:
        trained = load_trained(record)
        return Explanation(record.name, judge(record, trained, load_seen(record, trained, root)))
    except CnnliteError as error:
        return Explanation(record.name, judge(record, trained), f"Dead ReLUs were not looked for: {error}")


def judge(record: Record, trained: BestNetwork | None = None, seen: Seen | None = None) -> list[Finding]:
    """Judge the record, and the network if images are given; see `advise`."""
    classes = record.config.data.dataset.class_count if trained is None else len(trained.classes)
    dead, validating = [], None
    if trained is not None and seen is not None:
        network = one_by_one(trained.network, trained.config)
        dead = dead_units(network, seen.images, trained.normalizer)
        validating = len(seen.images) if seen.split == "validation" else None
    if trained is None:
        return advise(Evidence(record, classes, dead, validating))
    of_classes = trained.classes, trained.class_counts, trained.validated
    return advise(Evidence(record, classes, dead, validating, *of_classes))


def advise(evidence: Evidence) -> list[Finding]:
    """Apply all rules except those that yield to another one; if no finding has a command, say that all is sound."""
    holding = [(applied, found) for applied in RULES if (found := finding(evidence, applied))]
    names = {applied.name for applied, _ in holding}
    findings = [found for applied, found in holding if not names.intersection(applied.yields_to)]
    if evidence.record.rows and not any(found.command for found in findings):
        text = f"No rule found anything to change; `cnnlite explain {Argument('rules')}` lists what they look for."
        findings.append(Finding("sound", "The curves look sound", text))
    return findings


def describe_rules() -> str:
    """Return the rules with their thresholds, one a line."""
    return "\n".join(
        f"{applied.name}: {applied.condition}{'; yields to ' * bool(applied.yields_to)}{', '.join(applied.yields_to)}"
        for applied in RULES
    )
