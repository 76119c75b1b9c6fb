"""The manifest: TOML -> strict file models -> one `Declaration` per session, with the origin of every value.

In the order in which `resolve` goes (`resolving`): `reading` takes what is valid of a document, by the file
model in `tables` with its `rules` for single values, and has the words for the rest; `layers` merges it with
what the user config, the environment and flags say; `declaring` makes declarations of that, of which `judging`
says what makes no sense together, and `host` where that leads which they name outside. The schema is that of
the same model, and `initial` has the first manifest.

This package may not write, run anything or ask git, and reads besides the manifest only what it names to be injected.
"""

from sessionctl.manifest.initial import template
from sessionctl.manifest.judging import KINDS
from sessionctl.manifest.resolving import Manifest, resolve
from sessionctl.manifest.rules import wrong
from sessionctl.manifest.tables import schema
from sessionctl.manifest.wording import near, words

__all__ = ["KINDS", "Manifest", "near", "resolve", "schema", "template", "words", "wrong"]
