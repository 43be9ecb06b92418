"""Finding recurring runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import kfp

_PAGE = 100


def recurring_run_ids(client: kfp.Client, experiment_id: str, name: str) -> list[str]:
    """The ids of an experiment's recurring runs of that display name."""
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    found: list[str] = []
    token = ""
    while True:
        page = client.list_recurring_runs(
            page_token=token,
            page_size=_PAGE,
            experiment_id=experiment_id,
            filter=json.dumps({"predicates": [predicate]}),
        )
        found += [run.recurring_run_id for run in page.recurring_runs or [] if run.display_name == name]
        token = page.next_page_token or ""
        if not token:
            return found
