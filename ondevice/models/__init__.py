"""Models on disk and in the catalogue: find them, fetch them, take them in, remove them."""

from ondevice.models._catalogue import catalogue
from ondevice.models._facts import Facts, facts
from ondevice.models._import import How, import_file
from ondevice.models._library import find, find_file, installed, removable, remove
from ondevice.models._own import leftovers
from ondevice.models._pull import pull
from ondevice.models._records import InstalledModel, PullProgress, Recipe

__all__ = [
    "Facts",
    "How",
    "InstalledModel",
    "PullProgress",
    "Recipe",
    "catalogue",
    "facts",
    "find",
    "find_file",
    "import_file",
    "installed",
    "leftovers",
    "pull",
    "removable",
    "remove",
]
