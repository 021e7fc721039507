"""Measuring: datasets, protocols, baselines, the survey's metrics, reports."""
