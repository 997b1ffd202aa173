"""What every door shares: strict bodies, fields, blueprints, pages, conditions and the OpenAPI document."""
