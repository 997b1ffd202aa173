"""The service refuses to start rather than guess."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from flask import Flask

import config
from config import MANUAL_METHODS, ConfigError, Settings, gunicorn_settings
from payments_app import create_app
from tests.support.apps import PRODUCTION
from tests.support.databases import ROOT

SECRET = PRODUCTION["SECRET_KEY"]
POSTGRESQL = "postgresql+psycopg://clinic:{}@db/clinic"


def test_a_laptop_needs_no_settings() -> None:
    settings = Settings.from_environment({})

    assert settings.app_env == "development"
    assert settings.database_url == "sqlite:///payments.db"
    assert settings.payment_min_amount_minor == 100_000
    assert settings.payment_max_amount_minor == 1_000_000_000
    assert settings.payment_tax_rate_basis_points == 1_200
    assert settings.sandbox_offered
    assert (settings.clinic_timezone.key, settings.clinic_name) == ("UTC", None)


def test_the_clinic_is_as_it_says() -> None:
    settings = Settings.from_environment(
        {"CLINIC_TIMEZONE": "Asia/Manila", "CLINIC_NAME": " Klinik Siti Nur'aini ", "CLINIC_TAX_NUMBER": "123-456-789"}
    )

    assert settings.clinic_timezone.key == "Asia/Manila"
    assert settings.clinic_name == "Klinik Siti Nur'aini"
    assert (settings.clinic_address, settings.clinic_tax_number) == (None, "123-456-789")


def test_addresses_that_links_lead_to_are_origins() -> None:
    settings = Settings.from_environment(
        {
            "PUBLIC_URL": "https://Pay.Example.org/",
            "RETURN_URL_ORIGINS": "https://a.example:8443, http://localhost:3000",
        }
    )

    assert settings.public_url == "https://pay.example.org"
    assert settings.return_url_origins == {"https://a.example:8443", "http://localhost:3000"}
    assert Settings.from_environment(PRODUCTION).public_url is None


def test_production_starts_with_its_secrets_and_without_the_sandbox() -> None:
    settings = Settings.from_environment(PRODUCTION)

    assert not settings.sandbox_offered
    assert Settings.from_environment({**PRODUCTION, "ALLOW_SANDBOX_GATEWAY": "1"}).sandbox_offered


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"APP_ENV": "prod"}, "APP_ENV"),
        ({"APP_ENV": "production", "JWT_SECRET_KEY": SECRET}, "SECRET_KEY"),
        ({**PRODUCTION, "JWT_SECRET_KEY": ""}, "JWT_SECRET_KEY"),
        ({**PRODUCTION, "SECRET_KEY": "short"}, "SECRET_KEY"),
        ({**PRODUCTION, "SECRET_KEY": "for-development-only-never-for-real-money"}, "SECRET_KEY"),
        ({**PRODUCTION, "SECRET_KEY": " " * 40}, "SECRET_KEY"),
        ({**PRODUCTION, "SECRET_KEY": f"  {'x1y2z3w4' * 3}  \n"}, "SECRET_KEY"),
        ({**PRODUCTION, "SECRET_KEY": "abcdefg" * 6}, "SECRET_KEY"),
        ({**PRODUCTION, "SECRET_KEY": "change-me-" * 4}, "SECRET_KEY"),
        ({**PRODUCTION, "JWT_SECRET_KEY": "your-jwt-secret-goes-in-here-please"}, "JWT_SECRET_KEY"),
        ({**PRODUCTION, "JWT_SECRET_KEY": f"{SECRET}\n"}, "JWT_SECRET_KEY"),
        ({"DATABASE_URL": "sqlite:///file:zz?mode=memory&uri=true"}, "DATABASE_URL"),
        ({"REDIS_HOST": "h", "REDIS_PORT": "70000"}, "REDIS_PORT"),
        ({"REDIS_HOST": "redis://:se/cret@h"}, "REDIS_HOST"),
        ({"PAYMENT_LOCKING": "sk_live_se/cret"}, "PAYMENT_LOCKING"),
        ({"LOG_LEVEL": "a-value-much-too-long-se/cret"}, "LOG_LEVEL"),
        ({"DATABASE_URL": "mysql://localhost/x"}, "DATABASE_URL"),
        ({"DATABASE_URL": "sqlite:///:memory:"}, "DATABASE_URL"),
        ({"DATABASE_POOLER": "session"}, "DATABASE_POOLER"),
        ({"ACCESS_TOKEN_TTL": "1h"}, "ACCESS_TOKEN_TTL"),
        ({"ACCESS_TOKEN_TTL": "0"}, "ACCESS_TOKEN_TTL"),
        ({"ACCESS_TOKEN_TTL": "٣٦٠٠"}, "ACCESS_TOKEN_TTL"),
        ({"PAYMENT_MIN_AMOUNT": "0"}, "PAYMENT_MIN_AMOUNT"),
        ({"PAYMENT_MIN_AMOUNT": "1.005"}, "PAYMENT_MIN_AMOUNT"),
        ({"REFUND_APPROVAL_ABOVE": "-1"}, "REFUND_APPROVAL_ABOVE"),
        ({"REFUND_APPROVAL_ABOVE": "1.005"}, "REFUND_APPROVAL_ABOVE"),
        ({"REFUND_APPROVAL_ABOVE": "none"}, "REFUND_APPROVAL_ABOVE"),
        ({"PAYMENT_MIN_AMOUNT": "2000", "PAYMENT_MAX_AMOUNT": "1999"}, "PAYMENT_MIN_AMOUNT"),
        ({"PAYMENT_MAX_AMOUNT": "1e13"}, "PAYMENT_MAX_AMOUNT"),
        ({"PAYMENT_MAX_AMOUNT": "NaN"}, "PAYMENT_MAX_AMOUNT"),
        ({"PAYMENT_TAX_RATE": "12"}, "PAYMENT_TAX_RATE"),
        ({"PAYMENT_TAX_RATE": "0.12345"}, "PAYMENT_TAX_RATE"),
        ({"PAYMENT_CURRENCY": "php"}, "PAYMENT_CURRENCY"),
        ({"PAYMENT_CURRENCY": "JPY"}, "PAYMENT_CURRENCY"),
        ({"IDEMPOTENCY_REPLAY": "maybe"}, "IDEMPOTENCY_REPLAY"),
        ({"ALLOW_SANDBOX_GATEWAY": "yes"}, "ALLOW_SANDBOX_GATEWAY"),
        ({"DATABASE_URL": "postgresql+psycopg://h:abc/x"}, "DATABASE_URL"),
        ({"DATABASE_URL": "sqlite:///file::memory:?uri=true"}, "DATABASE_URL"),
        ({"PAYMENT_MIN_AMOUNT": "1e999999"}, "PAYMENT_MIN_AMOUNT"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://h:abc/0"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://h:99999999/0"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://[::1/0"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://h/notanumber"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://h/0?socket_timeout=30"}, "REDIS_URL"),
        ({"REDIS_URL": "redis://:se/cret@h:1/0"}, "REDIS_URL"),
        ({"REDIS_TIMEOUT": "0"}, "REDIS_TIMEOUT"),
        ({"REDIS_TIMEOUT": "5001"}, "REDIS_TIMEOUT"),
        ({"REDIS_TIMEOUT": "0.1"}, "REDIS_TIMEOUT"),
        ({"TRUSTED_PROXIES": "-1"}, "TRUSTED_PROXIES"),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL"),
        ({"REDIS_HOST": "localhost", "REDIS_PORT": "x"}, "REDIS_PORT"),
        ({"PAYMENT_LOCKING": "none"}, "PAYMENT_LOCKING"),
        ({"PAYMENT_LOCK_MAX_ATTEMPTS": "0"}, "PAYMENT_LOCK_MAX_ATTEMPTS"),
        ({"TRANSACTION_ATTEMPTS": "1"}, "TRANSACTION_ATTEMPTS"),
        ({"TRANSACTION_ATTEMPTS": "21"}, "TRANSACTION_ATTEMPTS"),
        ({"RATELIMIT_PAYMENTS": "ten a minute"}, "RATELIMIT_PAYMENTS"),
        ({"RATELIMIT_ENABLED": "maybe"}, "RATELIMIT_ENABLED"),
        ({"STRIPE_API_KEY": "sk_test se/cret"}, "STRIPE_API_KEY"),
        ({"STRIPE_API_KEY": "sk_test_se/cret,sk_test_other"}, "STRIPE_API_KEY"),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_a, whsec se/cret"}, "STRIPE_WEBHOOK_SECRET"),
        ({"STRIPE_API_KEY": "..."}, "STRIPE_API_KEY"),
        ({"STRIPE_API_KEY": "sk_live_..."}, "STRIPE_API_KEY"),
        ({"STRIPE_API_KEY": "pk_live_se/cret"}, "STRIPE_API_KEY"),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_old,whsec_..."}, "STRIPE_WEBHOOK_SECRET"),
        ({"STRIPE_WEBHOOK_SECRET": "<your-secret>"}, "STRIPE_WEBHOOK_SECRET"),
        ({"PAYMONGO_API_KEY": "sk_live_..."}, "PAYMONGO_API_KEY"),
        ({"PAYMONGO_WEBHOOK_SECRET": "change-me"}, "PAYMONGO_WEBHOOK_SECRET"),
        ({"STRIPE_API_BASE": "api.stripe.com"}, "STRIPE_API_BASE"),
        ({"PUBLIC_URL": "pay.example.org"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://pay.example.org/clinic"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://pay.example.org?x"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://staff@pay.example.org"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://pay.example.org:99999"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://[::1"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "https://klinik ü.example"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "http://pay.example.org"}, "PUBLIC_URL"),
        ({**PRODUCTION, "PUBLIC_URL": "http://127.0.0.1:8000"}, "PUBLIC_URL"),
        ({"RETURN_URL_ORIGINS": "https://booking.example.org,*"}, "RETURN_URL_ORIGINS"),
        ({"RETURN_URL_ORIGINS": "https://booking.example.org/back"}, "RETURN_URL_ORIGINS"),
        ({"RETURN_URL_ORIGINS": "javascript://booking.example.org"}, "RETURN_URL_ORIGINS"),
        ({**PRODUCTION, "RETURN_URL_ORIGINS": "http://localhost"}, "RETURN_URL_ORIGINS"),
        ({**PRODUCTION, "STRIPE_API_BASE": "http://api.stripe.com"}, "STRIPE_API_BASE"),
        ({"PAYMONGO_API_KEY": "sk_test_se/cret,sk_test_other"}, "PAYMONGO_API_KEY"),
        ({"PAYMONGO_API_KEY": "pk_live_se/cret"}, "PAYMONGO_API_KEY"),
        ({"PAYMONGO_API_KEY": "se/cret"}, "PAYMONGO_API_KEY"),
        ({"PAYMONGO_WEBHOOK_SECRET": "whsk_a, whsk se/cret"}, "PAYMONGO_WEBHOOK_SECRET"),
        ({"PAYMONGO_API_BASE": "api.paymongo.com/v1"}, "PAYMONGO_API_BASE"),
        ({**PRODUCTION, "PAYMONGO_API_BASE": "http://api.paymongo.com/v1"}, "PAYMONGO_API_BASE"),
        ({"LOG_LEVEL": "whsk_se/cret"}, "LOG_LEVEL"),
        ({"GATEWAY_TIMEOUT": "0"}, "GATEWAY_TIMEOUT"),
        ({"GATEWAY_TIMEOUT": "60"}, "REFUND_LEASE"),
        ({"PAYMENT_PENDING_TTL": "soon"}, "PAYMENT_PENDING_TTL"),
        ({"ALLOW_SQLITE": "maybe"}, "ALLOW_SQLITE"),
        ({"PAYMENT_TAX_BASIS": "net"}, "PAYMENT_TAX_BASIS"),
        ({"DOCUMENTS_ACCREDITED": "maybe"}, "DOCUMENTS_ACCREDITED"),
        ({"CLINIC_TIMEZONE": "Manila"}, "CLINIC_TIMEZONE"),
        ({"CLINIC_TIMEZONE": "Asia"}, "CLINIC_TIMEZONE"),
        ({"CLINIC_TIMEZONE": "../../etc/passwd"}, "CLINIC_TIMEZONE"),
        ({"CLINIC_TIMEZONE": "+08:00"}, "CLINIC_TIMEZONE"),
        ({"CLINIC_NAME": "Santos\nClinic"}, "CLINIC_NAME"),
        ({"CLINIC_NAME": "S" * 201}, "CLINIC_NAME"),
        ({"CLINIC_ADDRESS": "\x1b[31m"}, "CLINIC_ADDRESS"),
        ({"CLINIC_ADDRESS": "a" * 501}, "CLINIC_ADDRESS"),
        ({"CLINIC_TAX_NUMBER": "1" * 65}, "CLINIC_TAX_NUMBER"),
        ({**PRODUCTION, "ALLOW_SQLITE": "0"}, "DATABASE_URL"),
        ({**PRODUCTION, "JWT_SECRET_KEY": PRODUCTION["SECRET_KEY"]}, "JWT_SECRET_KEY"),
        ({**PRODUCTION, "FLASK_DEBUG": "1"}, "FLASK_DEBUG"),
        ({**PRODUCTION, "DEBUG": "True"}, "DEBUG"),
        ({**PRODUCTION, "STRIPE_LOG": "debug"}, "STRIPE_LOG"),
        ({**PRODUCTION, "DATABASE_URL": POSTGRESQL.format("postgres")}, "DATABASE_URL"),
        ({**PRODUCTION, "DATABASE_URL": POSTGRESQL.format("Change-Me")}, "DATABASE_URL"),
        ({**PRODUCTION, "DATABASE_URL": POSTGRESQL.format("clinic")}, "DATABASE_URL"),
        ({**PRODUCTION, "DATABASE_URL": POSTGRESQL.format("password1")}, "DATABASE_URL"),
        ({**PRODUCTION, "DATABASE_URL": "postgresql+psycopg://u@db/x?password=a4rG&password=admin"}, "DATABASE_URL"),
        ({**PRODUCTION, "DATABASE_URL": "postgresql+psycopg://clinic@db/clinic?password=secret"}, "DATABASE_URL"),
        ({**PRODUCTION, "REDIS_URL": "redis://:foobared@cache/0"}, "REDIS_URL"),
        ({**PRODUCTION, "REDIS_HOST": "cache", "REDIS_PASSWORD": "password"}, "REDIS_PASSWORD"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_it(environment: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{named} [^\n]+$") as refusal:
        Settings.from_environment(environment)
    assert "se/cret" not in str(refusal.value)


@pytest.mark.parametrize(
    "more",
    [
        {"DATABASE_URL": POSTGRESQL.format("ein-l%40nges-Passwort"), "ALLOW_SQLITE": "0"},
        {"DATABASE_URL": "postgresql+psycopg://clinic@/clinic?host=/run/postgresql"},  # the socket knows who is there
        {"REDIS_URL": "redis://cache/0"},
        {"FLASK_DEBUG": "0", "DEBUG": "false"},
    ],
)
def test_production_starts_with_what_is_safe(more: dict[str, str]) -> None:
    assert Settings.from_environment({**PRODUCTION, **more}).is_production


def test_a_laptop_may_do_as_it_likes() -> None:
    careless = {"FLASK_DEBUG": "1", "DATABASE_URL": POSTGRESQL.format("postgres"), "REDIS_URL": "redis://:redis@h/0"}

    assert not Settings.from_environment(careless).is_production


def test_the_passwords_of_databases_are_not_shown_with_the_settings() -> None:
    settings = Settings.from_environment(
        {"DATABASE_URL": POSTGRESQL.format("hidden"), "REDIS_URL": "redis://:hidden@h"}
    )

    assert "hidden" not in repr(settings)


def test_what_a_developer_left_lying_about_is_not_taken_up_in_production_nor_from_other_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (tmp_path / ".env").write_text("PAYMENT_CURRENCY=EUR\n")
    monkeypatch.setattr(config, "__file__", str(folder / "config.py"))
    monkeypatch.chdir(folder)
    for name in ("LOG_LEVEL", "PAYMENT_CURRENCY"):
        monkeypatch.setenv(name, "")  # as it was, afterwards
        monkeypatch.delenv(name)

    config.read_env_file()
    assert "PAYMENT_CURRENCY" not in os.environ

    (folder / ".env").write_text("LOG_LEVEL=DEBUG\n")
    monkeypatch.setenv("APP_ENV", "production")
    config.read_env_file()
    assert "LOG_LEVEL" not in os.environ

    monkeypatch.setenv("APP_ENV", "development")
    config.read_env_file()
    assert os.environ["LOG_LEVEL"] == "DEBUG"


@pytest.mark.parametrize(
    "environment",
    [
        {"PORT": "http"},
        {"PORT": "70000"},
        {"WEB_CONCURRENCY": "two"},
        *({"HEALTH_BIND": value} for value in ("8001", "127.0.0.1", "127.0.0.1:0", "a b:80", "unix:/run/x", "::1:80")),
    ],
)
def test_gunicorn_too_is_told_in_one_line(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=rf"^{next(iter(environment))} [^\n]+$"):
        gunicorn_settings(environment)


@pytest.mark.parametrize("start", [["flask", "--app", "wsgi", "check"], ["gunicorn"]], ids=["command", "gunicorn"])
def test_whatever_is_started_says_that_line_and_ends_with_2(start: list[str], tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *start],
        cwd=ROOT,
        env={"PATH": "", **PRODUCTION, "FLASK_DEBUG": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("refusing to start: FLASK_DEBUG is on")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_bad_value_stops_the_start_with_that_line_alone() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import wsgi"],
        cwd=ROOT,
        env={"APP_ENV": "production", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 2
    assert result.stderr == "refusing to start: SECRET_KEY is required in production\n"


def test_the_default_database_in_a_folder_of_somebody_else_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a server whose settings have not been edited: the folder is root's."""
    monkeypatch.setattr(Flask, "auto_find_instance_path", lambda _app: "/proc/instance")

    with pytest.raises(ConfigError, match=r"^DATABASE_URL is not set, or names [^\n]+ '/proc/instance'$"):
        create_app(Settings.from_environment({}))


def test_the_page_of_settings_lists_every_setting_and_no_other() -> None:
    read_in_config = set(re.findall(r'(?:read|self)\.\w+\(\s*"([A-Z_]+)"', (ROOT / "config.py").read_text()))
    listed = set(re.findall(r"^\| `([A-Z_]+)`", (ROOT / "docs/settings.md").read_text(), flags=re.MULTILINE))

    # A password is read as it is.
    instructions = {f"PAYMENT_INSTRUCTIONS_{method.upper()}" for method in MANUAL_METHODS}
    read_in_config.remove("PAYMENT_INSTRUCTIONS")
    assert listed == read_in_config | instructions | {"REDIS_PASSWORD"}
    assert "environ.get" not in (ROOT / "gunicorn.conf.py").read_text()


def test_redis_can_be_named_by_its_parts() -> None:
    parts = {"REDIS_HOST": "cache", "REDIS_PORT": "6380", "REDIS_PASSWORD": "p@ss/word", "REDIS_CACHE_DB": "3"}

    assert Settings.from_environment(parts).redis_url == "redis://:p%40ss%2Fword@cache:6380/3"
    assert Settings.from_environment({**parts, "REDIS_URL": "redis://other/1"}).redis_url == "redis://other/1"
    assert Settings.from_environment({}).redis_url is None


def test_webhook_secrets_may_be_several_while_one_replaces_the_other() -> None:
    assert Settings.from_environment({}).stripe_webhook_secrets == ()
    settings = Settings.from_environment({"STRIPE_WEBHOOK_SECRET": "whsec_new, whsec_old,"})

    assert settings.stripe_webhook_secrets == ("whsec_new", "whsec_old")
    assert "whsec" not in repr(settings)


def test_paymongos_secrets_are_read_and_not_shown() -> None:
    assert Settings.from_environment({}).paymongo_api_key is None
    paymongo = {"PAYMONGO_API_KEY": "sk_live_a", "PAYMONGO_WEBHOOK_SECRET": "whsk_new, whsk_old,"}
    settings = Settings.from_environment(paymongo)

    assert (settings.paymongo_api_key, settings.paymongo_webhook_secrets) == ("sk_live_a", ("whsk_new", "whsk_old"))
    assert settings.paymongo_api_base == "https://api.paymongo.com/v1"
    assert "whsk" not in repr(settings)
    assert "sk_live" not in repr(settings)


def test_the_clinic_says_how_to_pay_by_hand() -> None:
    instructions = Settings.from_environment({"PAYMENT_INSTRUCTIONS_GCASH": "Send it to 0917."}).payment_instructions

    assert instructions["gcash"] == "Send it to 0917."
    assert "bank_transfer" not in instructions  # it is told our own line
