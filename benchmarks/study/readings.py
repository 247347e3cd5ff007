"""The sentences of the page, written for the results that are kept beside this file."""

READINGS: dict[str, str] = {}
