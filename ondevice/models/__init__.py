"""Models on disk and in the catalogue: find, download, take in, pack, remove them."""

from ondevice.models._catalogue import catalogue, title_of
from ondevice.models._details import Facts, facts
from ondevice.models._folders import in_folder
from ondevice.models._import import How, import_file
from ondevice.models._library import find, find_file, installed, removable, remove, to_download
from ondevice.models._own_folder import leftovers
from ondevice.models._pack import pack, stack_name
from ondevice.models._pull import pull
from ondevice.models._quality import good_as, params_of
from ondevice.models._records import Ability, InstalledModel, PackNews, PullProgress, Recipe

__all__ = [
    "Ability",
    "Facts",
    "How",
    "InstalledModel",
    "PackNews",
    "PullProgress",
    "Recipe",
    "catalogue",
    "facts",
    "find",
    "find_file",
    "good_as",
    "import_file",
    "in_folder",
    "installed",
    "leftovers",
    "pack",
    "params_of",
    "pull",
    "removable",
    "remove",
    "stack_name",
    "title_of",
    "to_download",
]
