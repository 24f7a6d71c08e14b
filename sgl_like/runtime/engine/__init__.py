"""Scheduler, step loop and the public engine."""
