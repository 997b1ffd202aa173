"""payment-client.js in a real browser, on a network that loses requests and answers: one intention, one payment."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import Engine

from tests.browser.people import pay_in_sandbox
from tests.support.browser import visitor
from tests.support.cutting_proxy import EMPTY_PAGE, Canned, CuttingProxy, Mode, proxy_to
from tests.support.databases import ROOT, Database
from tests.support.dialects import on_sqlite
from tests.support.fake_stripe import FakeStripe
from tests.support.links import payer_of
from tests.support.people import PASSWORD, People
from tests.support.raw_rows import Raw
from tests.support.rows import MADE_TOGETHER, Rows
from tests.support.service import Service
from tests.support.stripe_apps import StripeApp, pay_by_card, resume_refunds, stripe_settings

pytestmark = [on_sqlite, pytest.mark.usefixtures("audited")]

ONE_PAYMENT = dict.fromkeys(MADE_TOGETHER, 1)
NOTHING = dict.fromkeys(MADE_TOGETHER, 0)
KEYS = "/api/v1/idempotency-keys/"

# A client whose pauses are short, what it says of its progress, and its errors as plain values.
CLIENT = """
const { PaymentClient } = await import('/checkout/static/payment-client.js');
const steps = [];
const client = new PaymentClient({ token, firstPauseMs: 10, onProgress: (step) => steps.push(step), ...options });
const told = (promise) => promise.catch((error) => ({ ...error, error: error.name }));
const pay = (wanted, call) =>
  told(client.createPayment({ consultationId: 5, amount: 5000, paymentMethod: 'stripe', ...wanted }, call));
"""


class Tab:
    """A page of the service's origin, with somebody's token in hand."""

    def __init__(self, page: Page, url: str, token: str | None) -> None:
        self.page = page
        self.url = url
        self.token = token
        page.goto(url + EMPTY_PAGE)

    def run(self, script: str, **options: Any) -> Any:
        """What the script returns: the body of a function that has ``client``, ``pay``, ``translate`` and ``steps``."""
        given = {"token": self.token, "options": options}
        return self.page.evaluate(f"async ({{ token, options }}) => {{ {CLIENT} {script} }}", given)

    def begin(self, script: str, **options: Any) -> None:
        """The same, without waiting: ``awaited`` gives what it returns."""
        given = {"token": self.token, "options": options}
        body = f"(async () => {{ {CLIENT} {script} }})()"
        self.page.evaluate(f"({{ token, options }}) => {{ window.begun = {body}; }}", given)

    def awaited(self) -> Any:
        return self.page.evaluate("() => window.begun")

    def pay(self, **options: Any) -> Any:
        return self.run("return pay();", **options)

    def kept_keys(self) -> list[str]:
        kept = self.page.evaluate("() => Object.entries(localStorage)")
        assert all(name.startswith("payment-intention:") for name, _ in kept)
        return [json.loads(value)["key"] for _, value in kept]

    def beside(self) -> "Tab":
        """Another tab of the same person."""
        return Tab(self.page.context.new_page(), self.url, self.token)


@pytest.fixture(scope="module")
def session_proxy(session_service: Service) -> Iterator[CuttingProxy]:
    with proxy_to(session_service.url) as proxy:
        yield proxy


@pytest.fixture
def proxy(session_proxy: CuttingProxy) -> CuttingProxy:
    session_proxy.behave()
    return session_proxy


@pytest.fixture
def tab(chromium: Browser, proxy: CuttingProxy, people: People) -> Iterator[Tab]:
    """The patient's tab, on the service behind the proxy."""
    with visitor(chromium, proxy.url) as page:
        yield Tab(page, proxy.url, people.patient.token)
        proxy.behave()


@pytest.fixture(scope="module")
def card_proxy(database: Database, session_stripe_app: tuple[FakeStripe, Flask]) -> Iterator[CuttingProxy]:
    """Before a service whose cards Stripe carries, and where a replayed create is a conflict."""
    settings = stripe_settings(session_stripe_app[0], IDEMPOTENCY_REPLAY="conflict")
    with Service.started(database.url, 1, **settings) as service, proxy_to(service.url) as proxy:
        yield proxy


@pytest.fixture
def card_tab(chromium: Browser, card_proxy: CuttingProxy, stripe_app: StripeApp) -> Iterator[Tab]:
    with visitor(chromium, card_proxy.url) as page:
        yield Tab(page, card_proxy.url, stripe_app.people.patient.token)
        card_proxy.behave()


def keys(proxy: CuttingProxy, path: str = "/api/v1/payments") -> list[str | None]:
    return [seen.key for seen in proxy.posts(path)]


def same(sent: list[str | None], count: int) -> bool:
    return len(sent) == count and None not in sent and len(set(sent)) == 1


def problem(status: int, headers: Mapping[str, str] | None = None, *, retryable: bool = True) -> Canned:
    body = {"type": "/problems/some-trouble", "message": "Please wait.", "status": status, "retryable": retryable}
    return Canned(status, json.dumps(body).encode(), {"Content-Type": "application/problem+json", **(headers or {})})


# Lost on the way.


@pytest.mark.parametrize("mode", ["lose_request", "lose_answer", "halve_answer"])
def test_a_cut_connection_makes_one_payment(mode: Mode, tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    proxy.misbehave(mode)

    outcome = tab.pay()

    assert (outcome["success"], outcome["type"], outcome["status"]) == (True, "new", 201)
    assert outcome["message"] == "Payment created successfully"
    assert outcome["replayed"] == (mode != "lose_request")
    assert outcome["data"]["payment_id"] == rows.one("SELECT id FROM payments")["id"]
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT
    assert same(keys(proxy), 2)
    assert tab.kept_keys() == []


def test_after_a_timeout_the_key_tells_what_it_made(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    proxy.misbehave("silent_after")

    outcome, phases = tab.run("return [await pay(), steps.map(({ phase }) => phase)];", timeoutMs=2000)

    assert (outcome["success"], outcome["type"], outcome["status"]) == (True, "new", 201)
    assert phases == ["sending", "asking"]
    assert len(proxy.posts()) == len(proxy.gets(KEYS)) == 1
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT
    assert tab.kept_keys() == []


def test_a_key_that_made_nothing_so_far_is_sent_again(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    proxy.misbehave("silent_before")

    outcome, steps = tab.run("return [await pay(), steps];", timeoutMs=2000)

    assert (outcome["type"], outcome["replayed"]) == ("new", False)
    assert [step["phase"] for step in steps] == ["sending", "asking", "waiting", "again"]
    assert [(step["attempt"], step["of"]) for step in steps] == [(1, 6), (1, 6), (2, 6), (2, 6)]
    assert same(keys(proxy), 2)
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT


def test_what_nobody_answers_is_unknown_and_goes_on_after_a_reload(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    proxy.misbehave("lose_request", times=None)
    proxy.misbehave("lose_request", method="GET", path=KEYS, times=None)

    unknown = tab.pay(maxAttempts=2)

    assert unknown["error"] == "PaymentUnknown"
    assert tab.kept_keys() == [unknown["key"]]
    assert keys(proxy) == [unknown["key"]] * 2
    assert rows.counts(*MADE_TOGETHER) == NOTHING

    proxy.behave()
    tab.page.reload()
    assert tab.pay()["type"] == "new"
    assert keys(proxy) == [unknown["key"]]
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT
    assert tab.kept_keys() == []


def test_the_last_lost_answer_is_found_by_its_key(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    proxy.misbehave("lose_answer", times=None)

    assert tab.pay(maxAttempts=1)["type"] == "new"

    assert len(proxy.posts()) == len(proxy.gets(KEYS)) == 1
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT


# Once more, and by more than one.


def test_a_reload_in_mid_request_goes_on_with_the_same_key(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    proxy.misbehave("silent_after")
    tab.begin("return pay();")
    proxy.wait_until_silent()
    (key,) = keys(proxy)

    tab.page.reload()
    assert tab.kept_keys() == [key]
    outcome = tab.pay()

    assert (outcome["type"], outcome["replayed"]) == ("new", True)
    assert same(keys(proxy), 2)
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT
    assert tab.kept_keys() == []


def test_two_tabs_at_once_make_one_payment(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    proxy.misbehave("silent_before", times=2)
    tabs = [tab, tab.beside()]
    for each in tabs:
        each.begin("return pay();")
    proxy.wait_until_silent(2)
    assert same(keys(proxy), 2)

    proxy.behave()
    outcomes = [each.awaited() for each in tabs]

    assert [(outcome["success"], outcome["type"]) for outcome in outcomes] == [(True, "new")] * 2
    assert sorted(outcome["replayed"] for outcome in outcomes) == [False, True]
    assert same(keys(proxy), 2)
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT
    assert tab.kept_keys() == []


def test_two_clicks_are_one_request(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    first, second = tab.run("return Promise.all([pay(), pay({ consultationId: '5', amount: '5000.00' })]);")

    assert first == second
    assert first["type"] == "new"
    assert len(proxy.posts()) == 1
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT


def test_whoever_leaves_leaves_alone(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    proxy.misbehave("silent_before")
    tab.begin("""
        const leaving = new AbortController();
        window.leave = () => leaving.abort();
        return Promise.all([pay({}, { signal: leaving.signal }), pay({}, { signal: new AbortController().signal })]);
    """)
    proxy.wait_until_silent()

    tab.page.evaluate("() => window.leave()")
    proxy.behave()
    left, stayed = tab.awaited()

    assert left["error"] == "AbortError"
    assert stayed["type"] == "new"
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT
    assert tab.kept_keys() == []


def test_when_all_have_left_nothing_more_is_sent_and_the_key_stays(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    proxy.misbehave("silent_after")
    tab.begin("""
        const leaving = [new AbortController(), new AbortController()];
        window.leave = () => leaving.forEach((each) => each.abort());
        window.again = () => pay();
        return Promise.all(leaving.map(({ signal }) => pay({}, { signal })));
    """)
    proxy.wait_until_silent()
    (key,) = keys(proxy)

    tab.page.evaluate("() => window.leave()")
    assert [left["error"] for left in tab.awaited()] == ["AbortError"] * 2
    assert tab.kept_keys() == [key]

    outcome = tab.page.evaluate("() => window.again()")
    assert (outcome["type"], outcome["replayed"]) == ("new", True)
    assert keys(proxy) == [key, key]
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT


# What is said, and what it means.


@pytest.mark.parametrize(
    ("wanted", "no"),
    [
        ("{ amount: 5 }", (422, "validation-failed")),
        ("{ consultationId: 21 }", (403, "forbidden")),
        ("{ consultationId: 99 }", (404, "consultation-not-found")),
    ],
)
def test_a_no_is_not_asked_again(wanted: str, no: tuple[int, str], tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    refusal = tab.run(f"return pay({wanted});")

    assert (refusal["error"], (refusal["status"], refusal["code"])) == ("PaymentError", no)
    assert refusal["retryable"] is False
    assert len(proxy.posts()) == 1
    assert tab.kept_keys() == []
    assert rows.counts(*MADE_TOGETHER) == NOTHING


def test_what_is_paid_already_is_an_answer(tab: Tab, proxy: CuttingProxy, people: People, rows: Rows) -> None:
    payment_id = people.patient.pay(5).json["data"]["payment_id"]

    outcome = tab.pay(language="id")

    assert (outcome["success"], outcome["type"], outcome["status"]) == (False, "existing", 409)
    assert outcome["data"]["payment_id"] == payment_id
    assert outcome["message"].startswith("Pembayaran untuk konsultasi ini sudah ada")
    assert len(proxy.posts()) == 1
    assert tab.kept_keys() == []
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT


@pytest.mark.parametrize(
    ("answer", "least_wait_ms"),
    [
        (problem(503, {"Retry-After": "1"}), 1000),
        (problem(429, {"Retry-After": "1"}), 1000),
        (problem(409), 0),
        (problem(500), 0),
        (Canned(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"}), 0),
        (Canned(200, b"<html>Welcome to our network</html>", {"Content-Type": "text/html"}), 0),
        (Canned(302, b"", {"Location": "/api/v1/me"}), 0),
    ],
    ids=["503", "429", "409", "500", "a proxy's 502", "somebody else's 200", "a redirect"],
)
def test_what_passes_is_waited_for(
    answer: Canned, least_wait_ms: int, tab: Tab, proxy: CuttingProxy, rows: Rows
) -> None:
    proxy.misbehave("answer_instead", answer=answer)

    outcome, steps = tab.run("return [await pay(), steps];")

    assert outcome["type"] == "new"
    assert [step["waitMs"] >= least_wait_ms for step in steps if step["phase"] == "waiting"] == [True]
    assert same(keys(proxy), 2)
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT


def test_a_longer_wait_than_anybodys_is_told_and_the_key_stays(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    proxy.misbehave("answer_instead", answer=problem(429, {"Retry-After": "60"}))

    told = tab.pay()

    assert (told["error"], told["status"], told["retryable"]) == ("PaymentError", 429, True)
    assert told["retryAfterMs"] >= 60_000
    assert tab.kept_keys() == keys(proxy)
    assert tab.pay()["type"] == "new"
    assert same(keys(proxy), 2)
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT


def test_over_the_limit_a_lost_answer_is_found_by_its_key(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    proxy.misbehave("lose_answer")
    proxy.misbehave("lose_request", method="GET", path=KEYS)
    assert tab.pay(maxAttempts=1)["error"] == "PaymentUnknown"
    proxy.misbehave("answer_instead", answer=problem(429, {"Retry-After": "60"}))

    assert tab.pay()["type"] == "new"

    assert same(keys(proxy), 2)
    assert tab.kept_keys() == []
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT


# Who asks, and what is kept.


def test_a_401_keeps_the_key_for_whoever_signs_in_again(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    proxy.misbehave("lose_answer")
    proxy.misbehave("lose_request", method="GET", path=KEYS)
    key = tab.pay(maxAttempts=1)["key"]
    valid = tab.token
    assert valid is not None

    tab.token = valid[:-8] + "AAAAAAAA"
    refusal = tab.pay()
    assert (refusal["error"], refusal["status"], refusal["code"]) == ("PaymentError", 401, "not-authenticated")
    assert tab.kept_keys() == [key]

    tab.token = valid
    assert tab.pay()["type"] == "new"
    assert keys(proxy) == [key] * 3
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT


def test_the_token_stays_in_the_tab_and_the_key_until_it_is_answered(
    tab: Tab, proxy: CuttingProxy, people: People, rows: Rows
) -> None:
    tab.token = None
    refused, signed_in = tab.run("return [await told(client.signIn('patient@example.com', 'no')), client.signedIn];")
    assert (refused["error"], refused["status"], signed_in) == ("PaymentError", 401, False)
    proxy.misbehave("answer_instead", path="/api/login", answer=problem(429, {"Retry-After": "1"}))
    assert tab.run("return told(client.signIn('patient@example.com', 'no'));")["status"] == 429
    assert len(proxy.posts("/api/login")) == 2  # a refusal is not asked for again
    assert tab.pay()["status"] == 401
    assert proxy.posts() == []

    proxy.misbehave("lose_answer", path="/api/login")
    proxy.misbehave("silent_after")
    tab.begin(f"await client.signIn('{people.patient.email}', '{PASSWORD}'); return [client.signedIn, await pay()];")
    proxy.wait_until_silent()
    assert len(proxy.posts("/api/login")) == 4
    (token,) = tab.page.evaluate("() => Object.values(sessionStorage).map((kept) => JSON.parse(kept).token)")
    assert token.count(".") == 2
    assert token not in tab.page.evaluate("() => JSON.stringify(localStorage)")
    assert tab.kept_keys() == keys(proxy)

    proxy.behave()
    signed_in, outcome = tab.awaited()
    assert (signed_in, outcome["type"]) == (True, "new")
    assert tab.kept_keys() == []
    assert tab.run("client.signOut(); return [client.signedIn, sessionStorage.length];") == [False, 0]
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT


def test_keys_belong_to_users(tab: Tab, proxy: CuttingProxy, people: People, rows: Rows) -> None:
    proxy.misbehave("lose_request", times=None)
    patients = tab.pay(maxAttempts=1)["key"]
    proxy.behave()

    tab.token = people.other.token
    assert tab.pay()["status"] == 403

    assert tab.kept_keys() == [patients]
    assert patients not in keys(proxy)
    assert rows.counts(*MADE_TOGETHER) == NOTHING


def test_attempts_belong_to_whoever_made_the_first(tab: Tab, proxy: CuttingProxy, people: People, rows: Rows) -> None:
    proxy.misbehave("silent_after")  # so that the payment is read afresh, too
    tab.page.evaluate("(token) => { window.token = token; }", people.patient.token)
    tab.begin("""
        const mine = new PaymentClient({ token: () => window.token, firstPauseMs: 10 });
        return told(mine.createPayment({ consultationId: 5, amount: 5000, paymentMethod: 'stripe' }));
    """)
    proxy.wait_until_silent()

    tab.page.evaluate("(token) => { window.token = token; }", people.other.token)
    proxy.behave()

    assert tab.awaited()["type"] == "new"
    assert rows.one("SELECT user_id FROM payments")["user_id"] == people.patient.id
    assert tab.kept_keys() == []


@pytest.mark.parametrize(
    "refusing",
    [
        "const storage = { getItem() { throw 1; }, setItem() { throw 1; }, removeItem() { throw 1; } };",
        "const storage = { getItem: () => null, setItem() { throw 1; }, removeItem() {} };",
        "Object.defineProperty(window, 'localStorage', { get() { throw 1; } }); const storage = undefined;",
    ],
    ids=["broken", "full", "switched off"],
)
def test_storage_that_refuses_stops_no_payment(refusing: str, tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    proxy.misbehave("lose_answer", times=2)
    proxy.misbehave("lose_request", method="GET", path=KEYS)

    unknown, outcome = tab.run(
        refusing
        + """
        const paying = (maxAttempts) =>
          told(
            new PaymentClient({ token, storage, firstPauseMs: 10, maxAttempts })
              .createPayment({ consultationId: 5, amount: 5000, paymentMethod: 'stripe' }));
        return [await paying(1), await paying(6)];
        """
    )

    assert unknown["error"] == "PaymentUnknown"
    assert (outcome["type"], outcome["status"]) == ("new", 201)
    assert same(keys(proxy), 3)
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT


def test_where_the_browser_has_no_locks_and_no_uuids_there_is_one_payment(
    tab: Tab, proxy: CuttingProxy, rows: Rows
) -> None:
    proxy.misbehave("lose_answer")

    outcome = tab.run("""
        for (const [owner, name] of [[navigator, 'locks'], [crypto, 'randomUUID']]) {
          Object.defineProperty(owner, name, { value: undefined });  // as on plain http
        }
        return pay();
    """)

    assert (outcome["type"], outcome["replayed"]) == ("new", True)
    assert same(keys(proxy), 2)
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT


# Old keys.


def lose_a_payment(tab: Tab, proxy: CuttingProxy) -> str:
    """A payment that is made, whose answer never comes, and its key."""
    proxy.misbehave("lose_answer")
    proxy.misbehave("lose_request", method="GET", path=KEYS)
    unknown = tab.pay(maxAttempts=1)
    assert unknown["error"] == "PaymentUnknown"
    key: str = unknown["key"]
    return key


def test_to_pay_again_after_the_payment_ended_is_another_intention(
    tab: Tab, proxy: CuttingProxy, people: People, rows: Rows
) -> None:
    old_key = lose_a_payment(tab, proxy)
    ended = rows.one("SELECT id FROM payments")["id"]
    assert people.patient.post(f"/payments/{ended}/cancel").status_code == 200

    outcome = tab.pay()

    assert (outcome["success"], outcome["type"], outcome["replayed"]) == (True, "new", False)
    assert outcome["data"]["payment"]["status"] == "pending"
    assert rows.one("SELECT id FROM payments WHERE status = 'pending'")["id"] == outcome["data"]["payment_id"] != ended
    assert rows.count("payments") == 2
    assert keys(proxy)[:2] == [old_key, old_key]
    assert len(set(keys(proxy))) == 2
    assert tab.kept_keys() == []


def test_a_payment_that_ends_while_its_answer_is_awaited_is_not_made_again(
    tab: Tab, proxy: CuttingProxy, people: People, rows: Rows
) -> None:
    proxy.misbehave("silent_after")
    tab.begin("return pay();")
    proxy.wait_until_silent()
    assert people.patient.post(f"/payments/{rows.one('SELECT id FROM payments')['id']}/cancel").status_code == 200

    proxy.behave()
    outcome = tab.awaited()

    assert (outcome["data"]["payment"]["status"], outcome["data"]["status"]) == ("cancelled", "cancelled")
    assert rows.count("payments") == 1
    assert tab.kept_keys() == []


def test_a_replay_tells_of_the_payment_as_it_is_now(tab: Tab, proxy: CuttingProxy, people: People, rows: Rows) -> None:
    lose_a_payment(tab, proxy)
    payment_id = rows.one("SELECT id FROM payments")["id"]
    assert people.patient.confirm(payment_id).status_code == 200

    outcome = tab.pay()

    assert (outcome["type"], outcome["replayed"], outcome["data"]["payment_id"]) == ("new", True, payment_id)
    assert (outcome["data"]["payment"]["status"], outcome["data"]["invoice"]["status"]) == ("completed", "paid")
    assert rows.count("payments") == 1


def test_another_amount_is_another_intention_and_back_is_the_first(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    key = lose_a_payment(tab, proxy)

    other = tab.run("return pay({ amount: 6000 });")
    assert (other["success"], other["type"]) == (False, "existing")
    assert tab.kept_keys() == [key]

    back = tab.pay()
    assert (back["success"], back["type"], back["replayed"]) == (True, "new", True)
    assert keys(proxy)[0] == keys(proxy)[2] == key != keys(proxy)[1]
    assert tab.kept_keys() == []
    assert rows.one("SELECT amount_minor FROM payments")["amount_minor"] == 500_000


# Ids, which the service counts in 64 bits and JavaScript in 53.

FAR = 2**53 + 1  # read as a number of JavaScript it is 2**53


def test_the_consultation_that_is_paid_is_the_one_with_these_digits(
    tab: Tab, proxy: CuttingProxy, people: People, rows: Rows
) -> None:
    people.add_consultations("patient", FAR - 1, FAR)
    proxy.misbehave("lose_answer")
    proxy.misbehave("lose_request", method="GET", path=KEYS)

    ids, unknown = tab.run(
        """
        const { data } = await client.read('/consultations');
        const ids = data.map(({ id }) => id).slice(-3);
        return [ids, await pay({ consultationId: ids.at(-1) })];
        """,
        maxAttempts=1,
    )
    tab.page.reload()
    outcome = tab.run(f"return pay({{ consultationId: '{FAR}' }});")

    assert ids == [20, str(FAR - 1), str(FAR)]
    assert unknown["error"] == "PaymentUnknown"
    assert [json.loads(post.body)["consultation_id"] for post in proxy.posts()] == [FAR, FAR]
    assert same(keys(proxy), 2)
    assert (outcome["type"], outcome["data"]["payment"]["consultation_id"]) == ("new", str(FAR))
    assert outcome["data"]["payment"]["amount"] == 5000
    assert rows.all("SELECT consultation_id FROM payments") == [{"consultation_id": FAR}]
    assert tab.kept_keys() == []


def test_the_payment_that_is_meant_is_the_one_with_these_digits(
    tab: Tab, people: People, engine: Engine, rows: Rows
) -> None:
    raw = Raw(engine)
    people.add_consultations("patient", FAR - 1, FAR)
    for number in (FAR - 1, FAR):
        raw.payment(people.patient.id, number, id=number)
        raw.invoice(number, id=number)
        raw.tax_record(number)
        raw.event(number)
        raw.key(people.patient.id, number, key=f"key-of-{number}")

    read, listed, existing, kept, confirmed, cancelled = tab.run(f"""
        const [near, far] = ['{FAR - 1}', '{FAR}'];
        const listed = await client.listPayments({{ consultationId: far }});
        const existing = await pay({{ consultationId: far }});
        const kept = await client.keyStatus(`key-of-${{far}}`);
        await client.openCheckout(far);
        const confirmed = await client.confirmPayment(existing.data.existing_payment_id, {{ transactionId: '0123' }});
        const cancelled = await client.cancelPayment(near);
        return [await client.getPayment(far), listed.data, existing, kept, confirmed, cancelled];
    """)
    tab.token = people.admin.token
    refunded = tab.run(f"return client.refundPayment('{FAR}', {{ amount: 1500 }});")

    assert [each["id"] for each in listed] == [read["id"]] == [str(FAR)]
    assert (read["invoices"][0]["id"], read["tax_records"][0]["payment_id"]) == (str(FAR), str(FAR))
    assert existing["data"] == {
        "type": "existing", "payment_id": str(FAR), "existing_payment_id": str(FAR), "status": "pending",
    }  # fmt: skip
    assert kept["payment_id"] == str(FAR)
    assert (confirmed["data"]["payment"]["id"], cancelled["data"]["payment"]["id"]) == (str(FAR), str(FAR - 1))
    assert (refunded["data"]["refund"]["payment_id"], refunded["data"]["refund_amount"]) == (str(FAR), 1500)
    assert rows.all("SELECT id, status, transaction_id, refunded_minor FROM payments ORDER BY id") == [
        {"id": FAR - 1, "status": "cancelled", "transaction_id": None, "refunded_minor": 0},
        {"id": FAR, "status": "partially_refunded", "transaction_id": "0123", "refunded_minor": 150_000},
    ]


def test_what_is_no_id_is_an_error_before_anything_is_sent(tab: Tab, proxy: CuttingProxy) -> None:
    calls, errors = tab.run("""
        const none = [
          9007199254740993, 2 ** 63, 1.5, 0, -5, NaN, Infinity, '1e3', '+5', '-5', '05', ' 5', '5 ', '', '5.0', '0x5',
          '5n', '\u0665', '9223372036854775808', '5/cancel', true, [5], {}, 5n,
        ];
        const without = [null, undefined];
        const calls = [...none, ...without].flatMap((id) => [
          client.createPayment({ consultationId: id, amount: 5000, paymentMethod: 'stripe' }),
          client.confirmPayment(id, { transactionId: 'TXN-1' }),
          client.cancelPayment(id),
          client.refundPayment(id),
          client.openCheckout(id),
          client.getPayment(id),
        ]).concat(none.map((id) => client.listPayments({ consultationId: id })));
        const ends = await Promise.allSettled(calls);
        return [calls.length, ends.filter(({ reason }) => reason instanceof TypeError).length];
    """)

    assert errors == calls > 150
    assert [seen for seen in proxy.seen if seen.path.startswith("/api/")] == []
    assert tab.kept_keys() == []


def test_only_whole_numbers_that_would_be_rounded_become_strings(tab: Tab, proxy: CuttingProxy) -> None:
    body = (
        r'{"data":{"id":9007199254740993,"most":9223372036854775807,"below":-9007199254740993,"safe":9007199254740991,'
        r'"list":[1,9007199254740993 , 0],"fraction":1.0000000000000000001,"large":1e20,"also":10000000000000000.5,'
        r'"text":"9007199254740993, \"9007199254740993\" \\","9007199254740993\\":0.12,"none":null}}'
    )
    proxy.misbehave("answer_instead", method="GET", path="/api/v1/me", answer=Canned(200, body.encode()))

    assert tab.run("return client.read('/me');")["data"] == {
        **json.loads(body)["data"],
        "id": "9007199254740993",
        "most": "9223372036854775807",
        "below": "-9007199254740993",
        "list": [1, "9007199254740993", 0],
    }


# All the others.


def test_a_payment_is_confirmed_once_and_read(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    payment_id = tab.pay()["data"]["payment_id"]
    proxy.misbehave("lose_answer")

    confirmed, payment, page, key, none = tab.run(f"""
        const session = await client.openCheckout({payment_id});
        const confirming = client.confirmPayment({payment_id}, {{ transactionId: session.reference }});
        return [await confirming, await client.getPayment({payment_id}),
                await client.listPayments({{ status: 'completed', perPage: 1 }}),
                await client.keyStatus('{keys(proxy)[0]}'), await client.keyStatus('never')];
    """)

    assert (confirmed["success"], confirmed["data"]["status"]) == (True, "completed")
    assert payment["status"] == "completed"
    assert (payment["tax_records"][0]["amount"], len(payment["invoices"]), payment["refunds"]) == (600, 1, [])
    assert ([each["id"] for each in page["data"]], page["meta"]["next_cursor"]) == ([payment_id], None)
    assert (key["operation"], key["payment_id"], none) == ("create", payment_id, None)
    assert rows.count("payment_events", "to_status = 'completed'") == 1


def test_a_cancel_that_was_lost_is_done_once(tab: Tab, proxy: CuttingProxy, rows: Rows) -> None:
    payment_id = tab.pay()["data"]["payment_id"]
    proxy.misbehave("lose_answer")

    cancelled = tab.run(f"return client.cancelPayment({payment_id});")

    assert (cancelled["success"], cancelled["data"]["payment"]["status"]) == (True, "cancelled")
    assert rows.one("SELECT status, version FROM payments") == {"status": "cancelled", "version": 1}


def test_a_lost_refund_is_sent_again_with_its_first_request(
    tab: Tab, proxy: CuttingProxy, people: People, rows: Rows
) -> None:
    payment_id = tab.pay()["data"]["payment_id"]
    assert people.patient.confirm(payment_id).status_code == 200
    tab.token = people.admin.token
    proxy.misbehave("lose_answer", path=f"/api/v1/payments/{payment_id}/refund")
    proxy.misbehave("lose_request", method="GET", path=KEYS)

    unknown = tab.run(
        f"return told(client.refundPayment({payment_id}, {{ amount: 1500, reason: 'asked for' }}));", maxAttempts=1
    )
    refunded = tab.run(f"return client.refundPayment({payment_id}, {{ amount: '1500.00', reason: 'asked' }});")

    assert unknown["error"] == "PaymentUnknown"
    assert (refunded["success"], refunded["status"], refunded["replayed"]) == (True, 200, True)
    assert refunded["data"]["refund"]["reason"] == "asked for"
    assert rows.all("SELECT amount_minor FROM refunds") == [{"amount_minor": 150_000}]
    assert tab.kept_keys() == []


def test_the_example_in_the_documentation_pays(tab: Tab, people: People, rows: Rows) -> None:
    document = (ROOT / "docs" / "javascript-client.md").read_text()
    sample = document.split("```html\n")[1].split("```")[0]
    tab.page.route("**/sample", lambda route: route.fulfill(body=sample, content_type="text/html"))
    tab.page.goto(f"{tab.url}/sample")

    tab.page.get_by_label("E-mail").fill(people.patient.email)
    tab.page.get_by_label("Password").fill(PASSWORD)
    tab.page.get_by_role("button", name="Sign in").click()
    expect(tab.page.get_by_role("status")).to_have_text("Signed in.")
    tab.page.get_by_role("button", name="Pay").click()
    pay_in_sandbox(tab.page)
    expect(tab.page.get_by_role("status")).to_have_text("Paid. Thank you.")

    assert rows.all("SELECT status FROM payments") == [{"status": "completed"}]


def test_who_comes_back_to_the_documentations_example_without_paying_has_not_paid(
    tab: Tab, people: People, rows: Rows
) -> None:
    payment_id = tab.pay()["data"]["payment_id"]
    document = (ROOT / "docs" / "javascript-client.md").read_text()
    sample = document.split("```html\n")[1].split("```")[0]
    tab.page.route("**/sample", lambda route: route.fulfill(body=sample, content_type="text/html"))
    tab.run(f"const other = new PaymentClient(); await other.signIn('{people.patient.email}', '{PASSWORD}');")

    tab.page.goto(f"{tab.url}/sample#payment={payment_id}")

    expect(tab.page.get_by_role("status")).to_have_text("Not paid yet.")
    assert rows.all("SELECT status FROM payments") == [{"status": "pending"}]


def test_a_payers_token_pays_like_any_other(tab: Tab, proxy: CuttingProxy, people: People, rows: Rows) -> None:
    payer = payer_of(people, 5)
    proxy.misbehave("lose_answer")

    opened, outcome, payment = tab.run(f"""
        const payer = new PaymentClient({{ firstPauseMs: 10 }});
        const opened = await payer.openLink('{payer.link_token}');
        const wanted = {{ consultationId: opened.consultationId, amount: 5000, paymentMethod: 'stripe' }};
        const outcome = await payer.createPayment(wanted);
        return [opened, outcome, await payer.refreshPayment(outcome.data.payment_id)];
    """)

    assert opened == {"consultationId": 5, "returnUrl": None, "readOnly": False}
    assert (outcome["success"], outcome["replayed"], payment["status"]) == (True, True, "pending")
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT
    assert tab.page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]


def test_the_way_back_from_a_gateway_leads_to_our_own_pages_only(tab: Tab) -> None:
    found = tab.run("""
        const { wayBack, forgetWayBack } = await import('/checkout/static/payment-client.js');
        const keep = (to, until) => localStorage.setItem('payment-return', JSON.stringify({ to, until }));
        const found = [wayBack()];
        const [soon, past] = [Date.now() + 1e6, Date.now() - 1];
        for (const [to, until] of [
          ['/pay/x', soon], ['/pay/x', past], ['https://elsewhere.example/', soon], ['//elsewhere.example', soon],
        ]) {
          keep(to, until);
          found.push(wayBack());
        }
        keep('/pay/x', soon);
        forgetWayBack('/pay/other');
        found.push(wayBack());
        forgetWayBack('/pay/x');
        return [...found, wayBack()];
    """)

    assert found == [None, "/pay/x", None, None, None, "/pay/x", None]


def test_a_refund_on_its_way_keeps_its_key_until_its_outcome_is_known(
    card_tab: Tab, stripe_app: StripeApp, rows: Rows
) -> None:
    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    stripe_app.fake.misbehave("drop")
    card_tab.token = stripe_app.people.admin.token
    refund = f"return client.refundPayment({payment_id}, {{ amount: 1500 }});"

    on_its_way = card_tab.run(refund)
    assert (on_its_way["success"], on_its_way["status"]) == (True, 202)
    assert on_its_way["data"]["refund"]["status"] == "unknown"
    (key,) = card_tab.kept_keys()
    assert card_tab.run(refund)["status"] == 202
    assert card_tab.kept_keys() == [key]

    resume_refunds(stripe_app.app)
    settled = card_tab.run(refund)
    assert (settled["status"], settled["replayed"], settled["data"]["refund_amount"]) == (200, True, 1500)
    assert settled["data"]["refund"]["status"] == "succeeded"
    assert card_tab.kept_keys() == []
    assert (stripe_app.fake.count("POST", "/v1/refunds"), rows.count("refunds")) == (1, 1)
    assert rows.one("SELECT refunded_minor FROM payments")["refunded_minor"] == 150_000


def test_after_a_timeout_a_refund_is_found_by_its_key(
    card_tab: Tab, card_proxy: CuttingProxy, stripe_app: StripeApp, rows: Rows
) -> None:
    payment_id = pay_by_card(stripe_app.people, stripe_app.fake, 5)
    stripe_app.fake.misbehave("drop")
    card_tab.token = stripe_app.people.admin.token
    refund_path = f"/api/v1/payments/{payment_id}/refund"
    card_proxy.misbehave("silent_after", path=refund_path, times=None)
    refund = f"return client.refundPayment({payment_id}, {{ amount: 1500 }});"

    outcomes = [card_tab.run(refund, timeoutMs=2000)]
    resume_refunds(stripe_app.app)
    outcomes.append(card_tab.run(refund, timeoutMs=2000))

    told = [(outcome["status"], outcome["type"], outcome["data"]["refund"]["status"]) for outcome in outcomes]
    assert told == [(202, "new", "unknown"), (200, "new", "succeeded")]
    assert same(keys(card_proxy, refund_path), 2)
    assert card_tab.kept_keys() == []
    assert (stripe_app.fake.count("POST", "/v1/refunds"), rows.count("refunds")) == (1, 1)


def test_where_a_replay_is_a_conflict_the_payment_is_known(card_tab: Tab, card_proxy: CuttingProxy, rows: Rows) -> None:
    card_proxy.misbehave("lose_answer")

    outcome = card_tab.pay()

    assert (outcome["success"], outcome["type"], outcome["status"]) == (False, "existing", 409)
    assert outcome["data"]["payment"]["id"] == rows.one("SELECT id FROM payments")["id"]
    assert rows.counts(*MADE_TOGETHER) == ONE_PAYMENT
    assert card_tab.kept_keys() == []
