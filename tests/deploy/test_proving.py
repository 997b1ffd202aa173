"""``payments prove`` against the whole of it: through nginx, by HTTPS, within nginx's limits and the app's own."""

import json
import os
import subprocess
import sys

from tests.support.databases import ROOT
from tests.support.full_stack import PRODUCTION, Stack
from tests.support.waiting import PATIENCE_SECONDS


def test_a_deployment_is_proved_through_nginx_and_nothing_is_left(stack: Stack) -> None:
    users, lines = stack.rows.count("users"), stack.nginx.log.count("\n")
    settings = {**PRODUCTION, "DATABASE_URL": stack.database.url, "REDIS_URL": stack.redis.url}
    # As an operator of a clinic with a certificate authority of its own does.
    settings["SSL_CERT_FILE"] = str(stack.nginx.certificate)
    small = ("--clients", "4", "--rounds", "1", "--yes", "--json")

    run = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "wsgi", "payments", "prove", *small, "--url", stack.nginx.url],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE_SECONDS,
        check=False,
    )

    assert run.returncode == 0, (run.stdout, run.stderr)
    *verdicts, total = map(json.loads, run.stdout.splitlines())
    assert all(verdict["held"] for verdict in verdicts)
    assert total["rows_written_and_removed"] > 100
    assert stack.rows.count("users") == users
    assert stack.nginx.log.count("\n") - lines >= total["requests"]
