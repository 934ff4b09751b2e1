"""Runs inside a process that goes on: one at a time, in a thread, seen and steered from pages and the API."""
