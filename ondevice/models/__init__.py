"""Models on disk and in the catalogue: find them, fetch them."""

from ondevice.models._catalogue import catalogue
from ondevice.models._library import find, installed, remove
from ondevice.models._own import partly_fetched
from ondevice.models._pull import pull
from ondevice.models._records import InstalledModel, PullProgress, Recipe

__all__ = [
    "InstalledModel",
    "PullProgress",
    "Recipe",
    "catalogue",
    "find",
    "installed",
    "partly_fetched",
    "pull",
    "remove",
]
