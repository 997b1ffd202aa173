"""The database: engine, transactions and what its errors mean."""
