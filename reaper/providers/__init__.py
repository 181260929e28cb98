"""One file a provider: the code that speaks to one kind of endpoint."""
