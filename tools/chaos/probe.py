"""What an undisturbed run of each update asks the cloud for, in order. Called before the points are made.

How often the pods are listed depends a little on chance: a point whose request is not sent is not counted.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tools.chaos import driver
from tools.chaos.account import Account
from tools.chaos.cases import Request
from tools.chaos.point import UPDATES, Fault, Point, Then, Update
from tools.chaos.strike import Keys, Trial, TrialFailed

FIRST_REFUSAL = 400


def probe(folder: Path, keys: Keys) -> dict[Update, list[Request]]:
    """Requests by update. Raises TrialFailed where an update fails although nothing disturbs it."""
    account = Account(folder / "account")
    account.open()
    try:
        return {update: _ops(account, folder, number, update, keys) for number, update in enumerate(UPDATES)}
    finally:
        account.close()


def _ops(account: Account, folder: Path, number: int, update: Update, keys: Keys) -> list[Request]:
    point = Point(update, Fault("nothing", {}), Then.UP)
    trial = Trial(point, account, folder / f"probe-{number}", 900000 + number, keys)
    trial.prepare()
    since = account.cloud.last_seq()
    rc = driver.run(replace(trial.order(update.to), refresh=update.looks))
    if rc:
        raise TrialFailed(f"{update} failed although nothing disturbed it; see {trial.folder}")
    events = account.cloud.events("request", since=since)
    return [Request(event["op"], event["status"] < FIRST_REFUSAL) for event in events]
