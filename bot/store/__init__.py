"""What is remembered, and the one function that moves state. SQLite by default, PostgreSQL by DATABASE_URL."""
