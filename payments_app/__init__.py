"""A Flask service that takes one payment for one medical consultation, exactly once."""

from pathlib import Path

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from config import ConfigError, Settings
from payments_app import extensions, redis_client
from payments_app.accounts import auth
from payments_app.accounts.cli import users as users_commands
from payments_app.accounts.keys_cli import keys as keys_commands
from payments_app.accounts.routes import blueprint as accounts_blueprint
from payments_app.accounts.routes import login_blueprint
from payments_app.api import https_only, openapi, problems, queue_time, rate_limits, response_headers
from payments_app.checkout import pay_page
from payments_app.checkout.routes import init_app as init_checkout_page
from payments_app.consultations.cli import consultations as consultations_commands
from payments_app.consultations.routes import blueprint as consultations_blueprint
from payments_app.db import engine, ids
from payments_app.demo.cli import demo as demo_commands
from payments_app.desk import desk_page
from payments_app.desk.routes import blueprint as desk_blueprint
from payments_app.disputes.cli import disputes as disputes_commands
from payments_app.disputes.routes import blueprint as disputes_blueprint
from payments_app.documents.cli import export_payments
from payments_app.documents.routes import blueprint as documents_blueprint
from payments_app.events import feed
from payments_app.events.routes import blueprint as events_blueprint
from payments_app.gateway_webhooks.routes import blueprint as webhooks_blueprint
from payments_app.gateways import registry
from payments_app.health import backlog_metrics, checks
from payments_app.health.cli import check
from payments_app.health.cli import gateways as gateways_commands
from payments_app.health.routes import blueprint as health_blueprint
from payments_app.i18n import locale
from payments_app.idempotency.cli import idempotency as idempotency_commands
from payments_app.idempotency.routes import blueprint as idempotency_blueprint
from payments_app.locking.cli import locks as locks_commands
from payments_app.observability import logging, metrics, request_log
from payments_app.payment_links.cli import links as links_commands
from payments_app.payment_links.routes import blueprint as links_blueprint
from payments_app.payment_links.routes import exchange_blueprint
from payments_app.payments.cli import payments as payments_commands
from payments_app.payments.routes import blueprint as payments_blueprint
from payments_app.payments.routes import methods_blueprint
from payments_app.proof.cli import prove
from payments_app.refunds.cli import refunds as refunds_commands
from payments_app.refunds.cli import resume
from payments_app.refunds.routes import blueprint as refund_blueprint
from payments_app.refunds.routes import refunds_blueprint
from payments_app.sandbox.routes import init_app as init_sandbox_page
from payments_app.webhook_endpoints.cli import webhooks as webhooks_commands
from payments_app.webhook_endpoints.routes import blueprint as webhook_endpoints_blueprint

# An absolute path: the service can be started from any folder, and the readiness check reads the migrations.
MIGRATIONS = Path(__file__).parents[1] / "migrations"


def create_app(settings: Settings | None = None) -> Flask:
    """Build the app from the given settings, by default from those of the environment.

    Raises:
        ConfigError: a setting is missing, malformed or unsafe.
    """
    app = Flask(__name__)
    settings = settings or Settings.from_environment()
    app.config.from_mapping(settings.flask_config())
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it; members in the contract's order
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine.engine_options(settings.database_url, settings.database_pooler)

    if settings.trusted_proxies:
        # Address and scheme of the client as our own proxies set them; what a client sets by itself is ignored.
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops)  # type: ignore[method-assign]  # as Flask says
    request_log.init_app(app)
    logging.init_app(app)
    response_headers.init_app(app)
    https_only.init_app(app)
    queue_time.init_app(app)
    locale.init_app(app)
    problems.init_app(app)
    try:
        extensions.db.init_app(app)
    except OSError as error:  # it makes the folder of an SQLite file whose path is relative
        raise ConfigError(
            f"DATABASE_URL is not set, or names an SQLite file whose folder cannot be made: {error}"
        ) from error
    extensions.migrate.init_app(app, extensions.db, directory=str(MIGRATIONS))
    engine.init_app(app)
    ids.init_app(app)
    redis_client.init_app(app)
    metrics.init_app(app)
    backlog_metrics.init_app(app)
    auth.init_app(app)
    rate_limits.init_app(app)
    registry.init_app(app)
    feed.init_app(app)
    checks.init_app(app)
    app.register_blueprint(health_blueprint)

    api = openapi.init_app(app)
    for blueprint in (
        login_blueprint,
        accounts_blueprint,
        consultations_blueprint,
        links_blueprint,
        exchange_blueprint,
        payments_blueprint,
        methods_blueprint,
        refund_blueprint,
        refunds_blueprint,
        disputes_blueprint,
        documents_blueprint,
        events_blueprint,
        webhook_endpoints_blueprint,
        desk_blueprint,
        idempotency_blueprint,
        webhooks_blueprint,
    ):
        api.register_blueprint(blueprint)
    init_checkout_page(app)
    pay_page.init_app(app)
    desk_page.init_app(app)
    init_sandbox_page(app)
    # From packages above payments, which payments must not import.
    payments_commands.add_command(prove)
    payments_commands.add_command(resume)
    payments_commands.add_command(export_payments)
    for commands in (
        payments_commands,
        refunds_commands,
        disputes_commands,
        users_commands,
        keys_commands,
        consultations_commands,
        links_commands,
        webhooks_commands,
        idempotency_commands,
        locks_commands,
        demo_commands,
        check,
        gateways_commands,
    ):
        app.cli.add_command(commands)
    return app
