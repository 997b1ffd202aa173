"""The Flask extensions, made once and bound to the app in ``create_app``."""

from flask_jwt_extended import JWTManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

from payments_app.db.base import Base

# Models derive from Base itself, which type checkers understand; Flask-SQLAlchemy shares its metadata.
db = SQLAlchemy(model_class=Base)
migrate = Migrate()
jwt = JWTManager()
