"""Leakage probes: each tries to prove that a feature knows what it cannot know, before anything is trained.

A probe is a function of `Sample` that returns `Probed`. They are listed in raypipe.evaluation.data_evidence.
"""
