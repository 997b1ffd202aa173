"""A Stripe for the services: the tests' look-alike, in a process of its own, so that its work is nobody else's."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any

from tests.support.fake_stripe import FakeStripe
from tests.support.fake_stripe_state import PAYABLE

processes = multiprocessing.get_context("forkserver")


class _PaidUnseen(FakeStripe):
    """The patient pays without telling it, before the money is returned: the benchmark sends the webhook itself."""

    def _create_refund(self, params: dict[str, Any]) -> dict[str, Any]:
        intent = self.intents[params["payment_intent"]]
        if intent["status"] in PAYABLE:
            self.pay(intent["id"])
        return super()._create_refund(params)


@dataclass(frozen=True)
class Gateway:
    """A running look-alike."""

    url: str
    _pipe: "Pipe[Any, Any]"

    def forget(self) -> None:
        """Forget all payments, which it otherwise searches for each refund."""
        self._pipe.send("forget")
        self._pipe.recv()


def _serve(pipe: "Pipe[Any, Any]") -> None:
    fake = _PaidUnseen()
    pipe.send(fake.url)
    while pipe.recv() == "forget":
        fake.reset()
        pipe.send("forgotten")
    fake.close()


@contextmanager
def gateway() -> Iterator[Gateway]:
    ours, theirs = processes.Pipe()
    process = processes.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield Gateway(ours.recv(), ours)
    finally:
        ours.send("end")
        process.join()
