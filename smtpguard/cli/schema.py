"""smtpguard schema: the JSON Schema of a configuration file, for an editor."""

from __future__ import annotations

import json

import click

from smtpguard.config.schema import settings_schema
from smtpguard.policy.schema import list_schema, policy_schema


@click.command()
@click.argument("which", type=click.Choice(["policy", "list", "settings"]), default="policy")
@click.option("--json", "as_json", is_flag=True, help="On one line.")
def command(which: str, as_json: bool) -> None:
    """Print the JSON Schema of policy.yaml, of a list's file in lists.d, or of smtpguard.yaml (settings)."""
    schema = {"policy": policy_schema, "list": list_schema, "settings": settings_schema}[which]()
    click.echo(json.dumps(schema, ensure_ascii=False, indent=None if as_json else 2))
