"""How often Python looks for garbage in cycles: less often than by default, and never in what stays for good.

By default it looks at all new objects after every 700, and at all there are when those have grown by a quarter. Of a
process that has just read a few thousand modules the first is a tenth of its start, and the second, in a web process,
a pause of half a second now and then in the middle of a request.
"""

import gc

_NEW_OBJECTS = 20_000


def look_rarely() -> None:
    """To be called before anything large is imported."""
    gc.set_threshold(_NEW_OBJECTS, 20, 20)


def leave_what_is_loaded() -> None:
    """What there is now is not looked at again: modules and classes, which nobody gives back."""
    gc.freeze()
