# SPDX-License-Identifier: GPL-2.0
"""What a job printed, judged: TAP of one kernel or of stock beside patched."""
import fnmatch
import re
from dataclasses import dataclass, field

POINT = re.compile(r"(not )?ok\b *\d* *(?:- +)?(.*?) *(?:# *((?:SKIP|TODO|XFAIL)\b.*))?$", re.I)
PLAN = re.compile(r"1\.\.(\d+)")
# How lab/boot words it if nothing but the job's cases went wrong.
CASES_FAILED = "the job ended with 1: not ok"


@dataclass
class Case:
    name: str
    passed: bool
    directive: str
    said: list  # what the job printed since the last case

    def skipped(self):
        return self.directive.upper().startswith("SKIP")


@dataclass
class Run:
    """One boot: its kernel, what lab/boot found wrong, what the job printed."""
    kernel: str
    wrong: str
    cases: list = field(default_factory=list)
    planned: int = None
    rest: list = field(default_factory=list)

    def read(self, text):
        for line in text.replace("\r", "").splitlines():
            point, plan = POINT.match(line), PLAN.match(line)
            if point:
                bad, name, directive = point.groups()
                self.cases.append(Case(name, not bad, directive or "", self.rest))
                self.rest = []
            elif plan:
                self.planned = (self.planned or 0) + int(plan.group(1))
            else:
                self.rest.append(line)
        return self

    def unsound(self):
        """Why what the job printed is not all there is to judge."""
        failed = any(not case.passed for case in self.cases)
        if self.wrong and not (failed and CASES_FAILED in self.wrong):
            return self.wrong
        if self.planned is None:
            return "the job printed no plan, so nobody knows how many cases are missing"
        if self.planned != len(self.cases):
            return f"the job announced {self.planned} cases and judged {len(self.cases)}"
        return ""


class Known:
    """Cases that are known to fail."""

    def __init__(self, job, machine):
        self.job, self.machine, self.entries = job, machine, []

    def add(self, job, kernels, machines, case, reason):
        if job == self.job and (machines == "*" or self.machine in machines.split(",")):
            self.entries.append((kernels, case, reason))

    def read_known(self, path):
        """tests/boots/known"""
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                if line.strip() and not line.startswith("#"):
                    self.add(*line.strip().split(None, 4))
        return self

    def read_stock_tests(self, path):
        """lab/stock-tests: what fails there fails on stock, too."""
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                words = line.split(None, 2)
                if len(words) == 3 and not line.startswith("#"):
                    machines, _, reason = words[2].partition(":")
                    self.add("stock-tests", "*", machines.replace(" ", ""), words[1],
                             reason.strip())
        return self

    def find(self, kernel, case):
        """Which kernels it fails on, and why."""
        mine = "stock" if kernel == "stock" else "patched"
        for kernels, pattern, reason in self.entries:
            if kernels in ("*", mine, f"{mine}?") and fnmatch.fnmatchcase(case, pattern):
                return kernels, reason
        return None, None


def point(passed, number, name, directive=""):
    return f"{'' if passed else 'not '}ok {number} - {name}" + (f" # {directive}" if directive else "")


def judge(runs, known):
    """TAP of these boots, as lines. Where stock is beside patched, a case that passes
    or runs on stock has to on patched as well."""
    lines, number = [], 0
    stock = {case.name: case for run in runs if run.kernel == "stock" for case in run.cases}
    for run in runs:
        title = f"{run.kernel}: " if len(runs) > 1 else ""
        listed = failed = 0
        for case in run.cases:
            passed, directive, name = case.passed, case.directive, case.name
            beside = stock.get(name) if run.kernel != "stock" else None
            kernels, reason = known.find(run.kernel, name)
            if kernels == "*" and beside and beside.passed:
                kernels = None
            if kernels == "stock":
                listed, failed = listed + 1, failed + (not passed)
            if kernels and not directive:
                directive = f"TODO {reason}"
            if beside and case.skipped() and beside.passed and not beside.skipped():
                passed, directive = False, ""
                name += f", which stock runs: {case.directive}"
            lines += [line for line in case.said if line.startswith("#")] if passed else \
                [line if line.startswith("#") else f"#   {line}" for line in case.said]
            number += 1
            lines.append(point(passed, number, title + name, directive))
        number += 1
        why = run.unsound()
        lines.append(point(not why, number, f"{title}the boot is sound, "
                           f"{len(run.cases)} cases" + (f": {why}" if why else "")))
        if listed:
            number += 1
            lines.append(point(failed, number, f"{title}the stock kernel fails {failed} of "
                               f"{listed} cases that it is known to fail"))
    return lines + [f"1..{number}"]
