"""What the curves of a run say, in plain words, with an override to try."""

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from cnnlite.errors import CnnliteError
from cnnlite.tools.report import rules_course, rules_fit
from cnnlite.tools.report.evidence import RULES, Evidence, Finding, finding
from cnnlite.tools.report.inside import dead_units, one_by_one
from cnnlite.tools.report.record import BestNetwork, Record, Seen, load_seen, load_trained
from cnnlite.utils.hints import Argument

__all__ = ["Explanation", "describe_rules", "explain", "judge", "rules_course", "rules_fit"]


@dataclass(frozen=True)
class Explanation:
    """What was found, and what could not be looked at."""

    name: str
    findings: list[Finding]
    left_out: str = ""

    def facts(self) -> dict[str, Any]:
        """The same for programs."""
        return {"run": self.name, "findings": [asdict(found) for found in self.findings], "left_out": self.left_out}

    def describe(self) -> str:
        """The same for readers."""
        blocks = []
        for found in self.findings:
            block = f"{found.title}\n{textwrap.fill(found.text, 100, initial_indent='  ', subsequent_indent='  ')}"
            blocks.append(f"{block}\n  try: {found.command}" if found.command else block)
        return "\n\n".join([*blocks, *filter(None, [self.left_out])])


def explain(record: Record, root: str | None = None) -> Explanation:
    """Judge the curves, and the network on a few batches if its dataset is at hand, in ``root`` or its usual folder."""
    trained = None
    try:
        trained = load_trained(record)
        return Explanation(record.name, judge(record, trained, load_seen(record, trained, root)))
    except CnnliteError as error:
        return Explanation(record.name, judge(record, trained), f"Dead ReLUs were not looked for: {error}")


def judge(record: Record, trained: BestNetwork | None = None, seen: Seen | None = None) -> list[Finding]:
    """Look at the record, and at the network where images were seen; see `advise`."""
    classes = record.config.data.dataset.class_count if trained is None else len(trained.classes)
    dead, validating = [], None
    if trained is not None and seen is not None:
        network = one_by_one(trained.network, trained.config)
        dead = dead_units(network, seen.images, trained.normalizer)
        validating = len(seen.images) if seen.split == "validation" else None
    return advise(Evidence(record, classes, dead, validating))


def advise(evidence: Evidence) -> list[Finding]:
    """Apply all rules, less those that yield to another one; if nothing is found that could be changed, say so."""
    holding = [(applied, found) for applied in RULES if (found := finding(evidence, applied))]
    names = {applied.name for applied, _ in holding}
    findings = [found for applied, found in holding if not names.intersection(applied.yields_to)]
    if evidence.record.rows and not any(found.command for found in findings):
        text = f"No rule found anything to change; `cnnlite explain {Argument('rules')}` lists what they look for."
        findings.append(Finding("sound", "The curves look sound", text))
    return findings


def describe_rules() -> str:
    """List the rules with their thresholds."""
    return "\n".join(
        f"{applied.name}: {applied.condition}{'; yields to ' * bool(applied.yields_to)}{', '.join(applied.yields_to)}"
        for applied in RULES
    )
