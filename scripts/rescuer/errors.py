"""The ways in which reading fails. Each message is one line for people: what failed, why, what to do next."""


class Failure(Exception):
    """Something the person who runs the program must know and decide about; never a bug."""


class Damaged(Failure):
    """An object is not what the format allows, or not what its name, its cluster or its writer say."""


class Missing(Failure):
    """What was asked for is not in the repository, and nothing says that it should be."""


class Diverged(Failure):
    """Two objects, each of them sound, tell different WAL for the same place. No reader may choose."""
