"""The fake Stripe is driven by Stripe's own SDK, so that what tests rely on is what the SDK would meet."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import stripe

from tests.support.fake_stripe import FakeStripe

Connect = Callable[..., Any]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeStripe]:
    fake = FakeStripe()
    yield fake
    fake.close()


@pytest.fixture
def fake(server: FakeStripe) -> Iterator[FakeStripe]:
    yield server
    server.reset()


@pytest.fixture
def connect(fake: FakeStripe) -> Connect:
    def connect(*, api_key: str = fake.api_key, timeout: float = 30, retries: int = 0) -> Any:
        client = stripe.RequestsClient(timeout=timeout)
        addresses: Any = {"api": fake.url}
        return stripe.StripeClient(
            api_key, base_addresses=addresses, http_client=client, max_network_retries=retries
        ).v1

    return connect


@pytest.fixture
def api(connect: Connect) -> Any:
    return connect()


def intent(api: Any, amount: int = 5000, key: str | None = None) -> Any:
    params = {
        "amount": amount,
        "currency": "PHP",
        "metadata": {"payment_id": "5"},
        "automatic_payment_methods": {"enabled": True},
    }
    return api.payment_intents.create(params, {"idempotency_key": key} if key else {})


def paid(fake: FakeStripe, api: Any, amount: int = 5000) -> str:
    intent_id: str = intent(api, amount).id
    fake.pay(intent_id)
    return intent_id


def refund(api: Any, intent_id: str, amount: int = 1000, key: str | None = None) -> Any:
    params = {"payment_intent": intent_id, "amount": amount, "metadata": {"refund_id": "7"}}
    return api.refunds.create(params, {"idempotency_key": key} if key else {})


def test_intent_is_made_paid_and_read(fake: FakeStripe, api: Any) -> None:
    made = intent(api)
    assert (made.status, made.amount, made.currency, made.latest_charge) == (
        "requires_payment_method",
        5000,
        "php",
        None,
    )
    assert made.client_secret.startswith(made.id)
    assert fake.received[0].params["metadata"] == {"payment_id": "5"}
    fake.decline(made.id)
    assert api.payment_intents.retrieve(made.id).last_payment_error.code == "card_declined"
    fake.pay(made.id)
    read = api.payment_intents.retrieve(made.id)
    assert (read.status, read.amount_received) == ("succeeded", 5000)
    assert fake.charges[read.latest_charge]["metadata"] == {"payment_id": "5"}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        api.payment_intents.cancel(made.id)
    assert (refused.value.http_status, refused.value.code) == (400, "payment_intent_unexpected_state")


def test_intent_is_cancelled(api: Any) -> None:
    made = intent(api)
    assert api.payment_intents.cancel(made.id, {"cancellation_reason": "abandoned"}).status == "canceled"


def test_refunds_never_exceed_what_was_paid(fake: FakeStripe, api: Any) -> None:
    intent_id = paid(fake, api)
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded amount"):
        refund(api, intent_id, 5001)

    def try_to_refund(_: int) -> str:
        try:
            refund(api, intent_id)
        except stripe.InvalidRequestError as error:
            return error.code or ""
        return "refunded"

    with ThreadPoolExecutor(20) as pool:
        outcomes = Counter(pool.map(try_to_refund, range(20)))
    assert outcomes == {"refunded": 5, "charge_already_refunded": 15}
    assert fake.refunded_total(intent_id) == 5000
    assert fake.charge_of(intent_id)["refunded"]


def test_failed_refund_gives_the_amount_back(fake: FakeStripe, api: Any) -> None:
    intent_id = paid(fake, api)
    fake.refunds_start_as = "pending"
    made = refund(api, intent_id, 5000)
    assert (made.status, fake.refunded_total(intent_id)) == ("pending", 5000)
    fake.settle_refund(made.id, "failed")
    assert api.refunds.retrieve(made.id).failure_reason == "expired_or_canceled_card"
    assert fake.refunded_total(intent_id) == 0
    refund(api, intent_id, 5000)


def test_refunds_are_listed_newest_first_and_page_by_page(fake: FakeStripe, api: Any) -> None:
    intent_id, other = paid(fake, api), paid(fake, api)
    made = [refund(api, intent_id, 100).id for _ in range(4)]
    made.append(fake.refund_in_dashboard(intent_id, 100)["id"])
    refund(api, other)
    page = api.refunds.list({"payment_intent": intent_id, "limit": 2})
    assert page.has_more
    assert [each.id for each in page.auto_paging_iter()] == made[::-1]
    assert api.refunds.list({"payment_intent": intent_id}).has_more is False


def test_same_key_brings_the_same_answer(fake: FakeStripe, api: Any) -> None:
    first, again = intent(api, key="k"), intent(api, key="k")
    assert first.id == again.id
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    with pytest.raises(stripe.IdempotencyError):
        intent(api, amount=1, key="k")
    fake.forget_keys()
    assert intent(api, key="k").id != first.id


@pytest.mark.parametrize("mode", ["drop", "error"])
def test_lost_answer_is_there_for_who_asks_again(fake: FakeStripe, connect: Connect, mode: Any) -> None:
    api = connect(retries=1)
    intent_id = paid(fake, api)
    fake.misbehave(mode)
    made = refund(api, intent_id)
    assert [each["id"] for each in fake.refunds_of(intent_id)] == [made.id]
    assert fake.count("POST", "/v1/refunds") == 2


def test_answer_stays_lost_until_it_behaves(fake: FakeStripe, connect: Connect) -> None:
    api = connect(retries=1)
    intent_id = paid(fake, api)
    fake.misbehave("drop", times=None)
    with pytest.raises(stripe.APIConnectionError):
        refund(api, intent_id, key="k")
    fake.behave()
    assert refund(api, intent_id, key="k").id == fake.refunds_of(intent_id)[0]["id"]
    assert fake.refunded_total(intent_id) == 1000


def test_error_before_and_refusal_apply_nothing(fake: FakeStripe, connect: Connect) -> None:
    api = connect(retries=1)
    intent_id = paid(fake, api)
    fake.misbehave("error_before", should_retry=False)
    with pytest.raises(stripe.APIError):
        refund(api, intent_id)
    fake.misbehave("refuse")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        refund(api, intent_id)
    assert refused.value.code == "charge_already_refunded"
    fake.misbehave("refuse", path="/v1/payment_intents")
    with pytest.raises(stripe.CardError):
        intent(api)
    assert (fake.refunded_total(intent_id), len(fake.intents)) == (0, 1)


@pytest.mark.parametrize(("mode", "applied"), [("hang", 1000), ("hang_before", 0)])
def test_client_leaves_what_hangs(fake: FakeStripe, connect: Connect, mode: Any, applied: int) -> None:
    intent_id = paid(fake, connect())
    fake.misbehave(mode)
    with pytest.raises(stripe.APIConnectionError):
        refund(connect(timeout=0.1), intent_id, key="k")
    assert fake.refunded_total(intent_id) == applied
    refund(connect(), intent_id, key="k")
    assert fake.refunded_total(intent_id) == 1000


def test_key_is_in_use_while_its_request_hangs(fake: FakeStripe, api: Any) -> None:
    intent_id = paid(fake, api)
    fake.misbehave("hang")
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(refund, api, intent_id, key="k")
        fake.wait_until_hanging()
        # To the SDK a 409 is an APIError, and those have their code only in what was sent.
        with pytest.raises(stripe.APIError) as refused:
            refund(api, intent_id, key="k")
        fake.release()
        assert hung.result().id == refund(api, intent_id, key="k").id
    assert refused.value.error is not None
    assert (refused.value.http_status, refused.value.error.code) == (409, "idempotency_key_in_use")


@pytest.mark.parametrize("asked_again", [True, False])
def test_late_effect_is_one_effect(fake: FakeStripe, api: Any, asked_again: bool) -> None:
    intent_id = paid(fake, api)
    fake.misbehave("late")
    with pytest.raises(stripe.APIConnectionError):
        refund(api, intent_id, key="k")
    assert fake.refunds_of(intent_id) == []
    if asked_again:
        refund(api, intent_id, key="k")
    fake.apply_late()
    assert fake.refunded_total(intent_id) == 1000


def test_strangers_and_strange_requests_are_refused(fake: FakeStripe, api: Any, connect: Connect) -> None:
    with pytest.raises(stripe.AuthenticationError):
        connect(api_key="sk_test_other").refunds.list()
    assert requests.get(f"{fake.url}/v1/refunds", timeout=30).status_code == 401
    for ask in (
        lambda: api.payment_intents.retrieve("pi_none"),
        lambda: api.refunds.retrieve("re_none"),
        lambda: api.charges.retrieve("ch_none"),
        lambda: refund(api, "pi_none"),
    ):
        with pytest.raises(stripe.InvalidRequestError) as missing:
            ask()
        assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL"):
        api.balance.retrieve()
    with pytest.raises(stripe.InvalidRequestError, match="successful charge"):
        refund(api, intent(api).id)


def test_webhooks_are_signed_as_the_sdk_checks(fake: FakeStripe, api: Any) -> None:
    intent_id = paid(fake, api)
    refund(api, intent_id)
    event = fake.charge_refunded(intent_id, with_refunds=True, event_id="evt_1")
    body = json.dumps(event).encode()
    read = stripe.Webhook.construct_event(body, fake.sign(body), fake.webhook_secret)
    assert (read.id, read.type, read.data.object.amount_refunded) == ("evt_1", "charge.refunded", 1000)
    assert len(read.data.object.refunds.data) == 1
    both = fake.sign(body, secret=["whsec_old", "whsec_new"])
    assert stripe.WebhookSignature.verify_header(body, both, "whsec_new", 300)
    for header in (fake.sign(body, secret="whsec_other"), fake.sign(body, at=time.time() - 301)):
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body, header, fake.webhook_secret)
    assert "refunds" not in fake.charge_refunded(intent_id)["data"]["object"]
