"""The one place that retries: attempts, budgets, and the circuit breaker of each endpoint."""
