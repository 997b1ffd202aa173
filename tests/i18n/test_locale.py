"""Everything that a caller reads is told in their language, as far as we speak it."""

from gettext import GNUTranslations

import pytest
from flask import Flask

from tests.support.apps import app_with
from tests.support.client import client_of
from tests.support.databases import Database
from tests.support.message_catalog import INDONESIAN, indonesian, placeholders, texts_in_code
from tests.support.people import People, Person

INDONESIAN_READER = {"Accept-Language": "id-ID,id;q=0.9,en;q=0.5"}


def test_every_text_is_translated_and_none_is_left_over() -> None:
    translated = {str(message.id): str(message.string) for message in indonesian() if message.id}

    assert set(translated) == texts_in_code()
    for text, translation in translated.items():
        assert translation, text
        assert placeholders(translation) == placeholders(text), text
    assert not [message.id for message in indonesian() if message.fuzzy]


def test_the_compiled_catalogue_is_the_written_one() -> None:
    # Compiled by: pybabel compile -d payments_app/translations
    with (INDONESIAN / "messages.mo").open("rb") as file:
        compiled = GNUTranslations(file)

    for message in indonesian():
        assert compiled.gettext(str(message.id)) == message.string or not message.id


def pay(person: Person, consultation_id: int, **members: object) -> dict[str, object]:
    body = {"consultation_id": consultation_id, "amount": 5000, "payment_method": "stripe", **members}
    answer: dict[str, object] = person.post("/payments", body, headers=INDONESIAN_READER).json
    return answer


def test_an_indonesian_pays_in_indonesian(people: People) -> None:
    made = pay(people.patient, 5)
    duplicate = pay(people.patient, 5)
    payment_id = made["data"]["payment_id"]  # type: ignore[index]
    confirmed = people.patient.post(
        f"/payments/{payment_id}/confirm", {"transaction_id": "TXN-1"}, headers=INDONESIAN_READER
    ).json

    assert made["message"] == "Pembayaran berhasil dibuat"
    assert duplicate["message"] == (
        "Pembayaran untuk konsultasi ini sudah ada dan berstatus menunggu; Anda tidak ditagih lagi."
    )
    assert duplicate["detail"] == duplicate["message"]
    assert confirmed["message"] == "Pembayaran berhasil dikonfirmasi"
    assert pay(people.patient, 999)["message"] == "Konsultasi tidak ditemukan"


def test_what_is_wrong_with_a_field_is_told_too(people: People) -> None:
    errors = pay(people.patient, 5, amount=1, unknown=1, idempotency_key="")["errors"]

    assert errors == {
        "amount": ["Harus dari 1.000,00 sampai 10.000.000,00."],
        "unknown": ["Tidak dikenal."],
        "idempotency_key": ["Harus terdiri dari 1 sampai 255 karakter."],
    }


@pytest.mark.parametrize(
    ("accepted", "text"),
    [
        ("id", "Pembayaran tidak ditemukan"),
        ("in, id;q=0.1", "Pembayaran tidak ditemukan"),
        ("in", "Pembayaran tidak ditemukan"),  # Android and Java, for Indonesian
        ("in-ID,en;q=0.9", "Pembayaran tidak ditemukan"),
        ("in_ID", "Pembayaran tidak ditemukan"),
        ("IN-id", "Pembayaran tidak ditemukan"),
        ("ind", "Pembayaran tidak ditemukan"),
        ("id-Latn", "Pembayaran tidak ditemukan"),
        ("ms", "Pembayaran tidak ditemukan"),
        ("ms-MY,ms;q=0.9,en;q=0.8", "Pembayaran tidak ditemukan"),
        ("zsm", "Pembayaran tidak ditemukan"),
        ("jv", "Pembayaran tidak ditemukan"),
        ("jw-ID", "Pembayaran tidak ditemukan"),
        ("su-Latn-ID", "Pembayaran tidak ditemukan"),
        ("min", "Pembayaran tidak ditemukan"),
        ("fr, ms;q=0.5, en;q=0.4", "Pembayaran tidak ditemukan"),
        ("en;q=0, *", "Pembayaran tidak ditemukan"),
        ("en, ms", "Payment not found"),
        ("ms;q=0.4, en;q=0.5", "Payment not found"),
        ("ms;q=0, en;q=0.1", "Payment not found"),
        ("*", "Payment not found"),
        ("fr, *;q=0.5", "Payment not found"),
        ("in-", "Pembayaran tidak ditemukan"),
        ("inx", "Payment not found"),
        ("-in", "Payment not found"),
        ("en", "Payment not found"),
        ("en-GB, id;q=0.5", "Payment not found"),
        ("fr", "Payment not found"),
        ("", "Payment not found"),
        ("*;q=x;;,,", "Payment not found"),
        ("x" * 4000, "Payment not found"),
    ],
)
def test_the_reader_says_which_language(people: People, accepted: str, text: str) -> None:
    answer = people.patient.get("/payments/999", headers={"Accept-Language": accepted})

    assert (answer.status_code, answer.json["message"]) == (404, text)


def test_a_clinic_may_prefer_indonesian(database: Database, people: People) -> None:
    with app_with(database.url, DEFAULT_LOCALE="id") as app:
        patient = people.seen_by(app).patient

        assert patient.get("/payments/999").json["message"] == "Pembayaran tidak ditemukan"
        for accepted, text in {
            "en": "Payment not found",
            "*": "Pembayaran tidak ditemukan",
            "fr": "Pembayaran tidak ditemukan",
            "id;q=0, *": "Payment not found",
        }.items():
            answer = patient.get("/payments/999", headers={"Accept-Language": accepted})
            assert answer.json["message"] == text, accepted


def test_a_replay_is_the_first_answer_in_the_language_of_the_first(people: People) -> None:
    first = people.patient.post(
        "/payments",
        {"consultation_id": 5, "amount": 5000, "payment_method": "stripe"},
        headers={**INDONESIAN_READER, "Idempotency-Key": "k"},
    )

    again = people.patient.pay(5, key="k")

    assert again.data == first.data


def test_what_no_page_of_ours_says_is_told_too(app: Flask) -> None:
    client = client_of(app)

    assert client.get("/nothing", headers=INDONESIAN_READER).json["message"] == "Tidak ditemukan."
    assert client.delete("/api/login", headers=INDONESIAN_READER).json["message"] == "Metode tidak diizinkan."


def test_methods_and_instructions_are_told_in_the_readers_language(people: People) -> None:
    methods = people.patient.get("/payment-methods", headers=INDONESIAN_READER)
    made = pay(people.patient, 5, payment_method="bank_transfer")
    payment_id = made["data"]["payment_id"]  # type: ignore[index]
    told = people.patient.post(f"/payments/{payment_id}/checkout", {}, headers=INDONESIAN_READER).json["data"]

    assert {method["code"]: method["name"] for method in methods.json["data"]}["bank_transfer"] == "Transfer bank"
    assert people.patient.get("/payment-methods").json["data"][0]["name"] == "Card"
    assert "Accept-Language" in methods.headers["Vary"]
    assert told["instructions"].startswith("Transfer jumlahnya ke rekening bank klinik.")
    assert f"referensi {payment_id} di" in told["instructions"]
