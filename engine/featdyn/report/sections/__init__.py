"""Sections of the report, one an analysis: ``section(result)`` says what to show; the declaration names it.

They get the newest result as the store holds it and import no torch, so that a report needs the store alone. What is
missing in a result is left out of its section, and the page says why it is missing.
"""
