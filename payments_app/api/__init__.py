"""What all endpoints share: strict JSON bodies, fields, blueprints, pagination, errors, the OpenAPI document."""
