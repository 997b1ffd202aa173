"""One payment for one medical consultation, once, whatever happens."""

from pathlib import Path

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from config import Settings
from payments_app import redis_client
from payments_app.accounts import auth
from payments_app.accounts.cli import users as users_commands
from payments_app.accounts.routes import blueprint as accounts_blueprint
from payments_app.accounts.routes import login_blueprint
from payments_app.api import https_only, openapi, problems, rate_limits, security_headers
from payments_app.checkout import pay_page
from payments_app.checkout import routes as checkout_page
from payments_app.consultations.cli import consultations as consultations_commands
from payments_app.consultations.routes import blueprint as consultations_blueprint
from payments_app.db import engine as engines
from payments_app.db import ids
from payments_app.demo.cli import demo as demo_commands
from payments_app.extensions import db, migrate
from payments_app.gateway_webhooks.routes import blueprint as webhooks_blueprint
from payments_app.gateways import registry
from payments_app.health import backlog_metrics as backlog
from payments_app.health import checks
from payments_app.health.cli import check
from payments_app.health.routes import blueprint as health_blueprint
from payments_app.i18n import locale as languages
from payments_app.idempotency import headers as keys
from payments_app.idempotency.cli import idempotency as idempotency_commands
from payments_app.idempotency.routes import blueprint as idempotency_blueprint
from payments_app.locking.cli import locks as locks_commands
from payments_app.observability import logging as logs
from payments_app.observability import metrics
from payments_app.observability import request_log as access
from payments_app.payment_links.cli import links as links_commands
from payments_app.payment_links.routes import blueprint as links_blueprint
from payments_app.payment_links.routes import exchange_blueprint
from payments_app.payments.cli import payments as payments_commands
from payments_app.payments.routes import blueprint as payments_blueprint
from payments_app.payments.routes import methods_blueprint
from payments_app.proof.cli import prove
from payments_app.refunds.cli import refunds as refunds_commands
from payments_app.refunds.routes import blueprint as refunds_blueprint

# Named whole: the service may be started from any folder, and asks whether its migrations have run.
MIGRATIONS = Path(__file__).parents[1] / "migrations"


def create_app(settings: Settings | None = None) -> Flask:
    """Build the app from the given settings, or from the environment's.

    Raises:
        ConfigError: a setting is missing, malformed or unsafe.
    """
    app = Flask(__name__)
    settings = settings or Settings.from_environment()
    app.config.from_mapping(settings.flask_config())
    app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it; members in the contract's order
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engines.engine_options(settings.database_url, settings.database_pooler)

    if settings.trusted_proxies:
        # The caller's address and scheme as so many proxies of ours wrote them down; what strangers write is ignored.
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops)  # type: ignore[method-assign]  # as Flask says
    access.init_app(app)
    logs.init_app(app)
    security_headers.init_app(app)
    https_only.init_app(app)
    languages.init_app(app)
    problems.init_app(app)
    db.init_app(app)
    migrate.init_app(app, db, directory=str(MIGRATIONS))
    engines.init_app(app)
    ids.init_app(app)
    redis_client.init_app(app)
    metrics.init_app(app)
    backlog.init_app(app)
    auth.init_app(app)
    rate_limits.init_app(app)
    keys.init_app(app)
    registry.init_app(app)
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
        refunds_blueprint,
        idempotency_blueprint,
        webhooks_blueprint,
    ):
        api.register_blueprint(blueprint)
    checkout_page.init_app(app)
    pay_page.init_app(app)
    payments_commands.add_command(prove)  # of a room above, which payments know nothing of
    for commands in (
        payments_commands,
        refunds_commands,
        users_commands,
        consultations_commands,
        links_commands,
        idempotency_commands,
        locks_commands,
        demo_commands,
        check,
    ):
        app.cli.add_command(commands)
    return app
