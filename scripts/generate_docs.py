"""Write anew what is generated in docs/: ``openapi.json``, ``transitions.md`` and ``roles.md``.

scripts/generate_docs.py            write
scripts/generate_docs.py --check    only say which is out of date; status 1 if any is
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from iaas.api import access
from iaas.api.app import create_app
from iaas.cloud import Cloud
from iaas.config import CloudConfig
from iaas.db.store import Store
from iaas.drivers.sim.backend import build_sim_backend
from iaas.kernel.clock import CloudClock
from iaas.kernel.ids import IdSource
from iaas.transitions import MOVES, Move

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
DOCS = Path(__file__).resolve().parent.parent / "docs"


def openapi() -> str:
    """Return the document that a server sends at /v1/openapi.json."""
    clock = CloudClock()
    config = CloudConfig(state_dir=None, database_url="sqlite://")
    cloud = Cloud(
        config=config,
        backend=build_sim_backend(":memory:", clock, zones=config.zones),
        store=Store(config.database_url, clock),
        clock=clock,
        ids=IdSource(),
    )
    try:
        answer = create_app(cloud).test_client().get("/v1/openapi.json")
        return json.dumps(answer.get_json(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    finally:
        cloud.close()


def transitions() -> str:
    """Return the page that shows ``iaas.transitions``."""
    lines = [
        "# Moves",
        "",
        "Generated from `iaas/transitions.py` by `make docs`. A resource rests in a `status`; an action moves it",
        "through a `transition` into another. At most one transition at a time: another action meanwhile is refused",
        "(409 `in_transition`), and so is one from a status that is not listed here (409 `invalid_state`). An action",
        "that fails leaves what `status` and `failure` say.",
    ]
    for resource, moves in MOVES.items():
        lines += [
            "",
            f"## {resource}",
            "",
            *_table(moves),
            "",
            "```mermaid",
            "stateDiagram-v2",
            *_diagram(moves),
            "```",
        ]
    return "\n".join(lines) + "\n"


def _table(moves: Mapping[str, Move]) -> Iterator[str]:
    yield "| action | allowed in | transition | ends in |"
    yield "|---|---|---|---|"
    for action, move in moves.items():
        sources = ", ".join(f"`{each}`" for each in sorted(move.sources)) or "(new)"
        target = f"`{move.target}`" if move.target else "the same"
        yield f"| `{action}` | {sources} | `{move.transition}` | {target} |"


def _diagram(moves: Mapping[str, Move]) -> Iterator[str]:
    for action, move in moves.items():
        for source in sorted(move.sources) or ["[*]"]:
            yield f"    {source} --> {move.target or source}: {action}"


def roles() -> str:
    """Return the page that shows ``iaas.api.access``."""
    lines = [
        "# Roles",
        "",
        "Generated from `api/access.py` by `make docs`. A credential belongs to one project and has one role in it:",
        "`reader` looks, `member` also changes the project's resources and makes credentials up to its own role,",
        "`admin` is the operator of the cloud. The table names the least role of every call; with a lesser one the",
        "answer is 403 `permission_denied`, without a valid credential 401. Whatever the role, resources of another",
        "project do not exist: 404, the same as for an id that nobody has. An admin, too, acts in the credential's own",
        "project; beyond it an admin sees and changes projects, their quotas, and what is everybody's (hosts, zones,",
        "flavors, images). Nobody makes or revokes a credential with a higher role than his own.",
        "",
        "| path | " + " | ".join(METHODS) + " |",
        "|---|" + "---|" * len(METHODS),
    ]
    for rule, methods in access.ROUTES.items():
        cells = (
            (role.value if (role := methods[method]) else "everybody") if method in methods else ""
            for method in METHODS
        )
        shown = rule.replace("<path:", "{").replace("<", "{").replace(">", "}")
        lines.append(f"| `{shown}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    only_check = sys.argv[1:] == ["--check"]
    status = 0
    for name, text in (("openapi.json", openapi()), ("transitions.md", transitions()), ("roles.md", roles())):
        path = DOCS / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if only_check:
            print(f"docs/{name} is out of date: run 'make docs'", file=sys.stderr)
            status = 1
        else:
            path.write_text(text, encoding="utf-8")
            print(f"docs/{name} written")
    return status


if __name__ == "__main__":
    sys.exit(main())
