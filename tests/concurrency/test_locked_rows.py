"""Forty requests for a row that somebody holds: the service goes on serving everything else."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from sqlalchemy import Engine, text

from payments_app.db.row_waits import MOST_WAITING
from tests.support.dialects import on_postgresql
from tests.support.people import People
from tests.support.rows import Rows
from tests.support.service import Service, statuses
from tests.support.waiting import PATIENCE_SECONDS, wait_until

REQUESTS = 40
WORKERS = 2

# A lease in Redis has two more that wait for it, and a holder that waits for the row.
MOST_LEFT = WORKERS * (MOST_WAITING + 1)

pytestmark = pytest.mark.usefixtures("audited")


@on_postgresql
def test_forty_confirms_of_a_locked_row_keep_nobody_else_waiting(
    service: Service, people: People, engine: Engine, rows: Rows
) -> None:
    payment_id = people.patient.pay().json["data"]["payment_id"]
    path = f"/payments/{payment_id}/confirm"
    with ThreadPoolExecutor(REQUESTS) as pool, engine.connect() as holder:
        holder.execute(text("SELECT 1 FROM payments FOR UPDATE"))
        futures = [
            pool.submit(service.post, people.patient, path, {"transaction_id": "TXN-1"}) for _ in range(REQUESTS)
        ]
        wait_until(lambda: sum(future.done() for future in futures) >= REQUESTS - MOST_LEFT)
        refused = [future.result() for future in futures if future.done()]
        # Those that wait have at most half of the threads.
        for _ in range(WORKERS):
            assert requests.get(f"{service.url}/healthz", timeout=PATIENCE_SECONDS).status_code == 200
        holder.rollback()
        answers = [future.result() for future in futures]

    problems = [answer.json()["type"].rpartition("/")[2] for answer in refused]
    assert set(problems) <= {"lock-timeout", "database-busy"}
    # On the slowest machine two of a process may have waited for 6 s by then.
    assert problems.count("lock-timeout") >= REQUESTS - 2 * MOST_LEFT
    assert all(answer.json()["retryable"] and answer.headers["Retry-After"] for answer in refused)
    assert set(statuses(answers)) <= {200, 409, 503}
    assert service.post(people.patient, path, {"transaction_id": "TXN-1"}).status_code == 200
    assert rows.count("payment_events", "to_status = 'completed'") == 1
