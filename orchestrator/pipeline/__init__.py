"""Stages of a sweep in order (search, confirm, evaluate), and operations on its trials."""
