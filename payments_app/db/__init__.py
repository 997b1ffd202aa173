"""The database: engine, transactions, ids, and the meaning of its errors."""
