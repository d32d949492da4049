"""A project folder: project.yaml to typed settings, features.py to definitions."""

from raypipe.project.load import Project, load_project
from raypipe.project.settings import Settings

__all__ = ["Project", "Settings", "load_project"]
