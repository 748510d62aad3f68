"""What a sweep does, in order: search, confirm, evaluate; and what can be done with its trials."""
