"""An import from its first look at the server to its summary."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bridge.importing.ledger import Ledger
from bridge.importing.packing import pack
from bridge.importing.progress import Progress
from bridge.importing.reading import Source
from bridge.importing.remote import CannotImport, Key, Remote
from bridge.importing.report import FAILED, SKIPPED, UNSENT, Report
from bridge.importing.sending import send
from bridge.importing.spool import Spool
from bridge.importing.spooling import Spooling


@dataclass(frozen=True, slots=True)
class Options:
    """How to import."""

    batch: int = 200
    jobs: int = 4
    state: Path | None = None
    report: Path | None = None
    skip_unsupported: bool = False
    run: str = ""


def run(
    files: Sequence[Source], remote: Remote, key: Key | None, options: Options, progress: Progress
) -> bool:
    """Imports the files. Returns whether nothing failed. Raises `CannotImport` when it cannot begin."""
    began = time.monotonic()
    supported = remote.supported()
    remote.log_in(key)
    with ExitStack() as held:
        spool = held.enter_context(Spool(options.run))
        ledger = None
        if options.state is not None:
            ledger = held.enter_context(Ledger(options.state, f"{remote.url}\0{remote.login}"))
            ledger.tell(spool)
        report = Report(options.report)
        held.callback(report.close, len(files))
        Spooling(spool, supported, report, progress).read(files)
        _refuse_unsupported(report, options)
        pack(spool, options.batch)
        stopped = send(spool, remote, files, report, progress, jobs=options.jobs, ledger=ledger)
    seconds = time.monotonic() - began
    for text in report.failures:
        progress.say(text)
    more = report.total(FAILED) - len(report.failures)
    if report.failures and more > 0:
        progress.say(f"{more:,} more failed" + ("." if options.report else "; --report FILE tells of each."))
    if stopped:
        progress.say(
            f"{stopped} Run it again{'' if options.state else ', with --state'}: what is done stays done."
        )
    progress.summarise(report, seconds)
    return not (report.total(FAILED) or report.total(UNSENT))


def _refuse_unsupported(report: Report, options: Options) -> None:
    """Raises `CannotImport` when there is something that the server has no place for and that may not be left out."""
    if options.skip_unsupported:
        return
    left = {kind: counted[SKIPPED] for kind, counted in sorted(report.counts.items()) if counted[SKIPPED]}
    if left:
        told = ", ".join(f"{many:,} {kind}" for kind, many in left.items())
        raise CannotImport(
            f"The server does not take these: {told}. Nothing was sent; --skip-unsupported leaves them out."
        )
