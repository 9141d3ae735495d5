"""What runs on the other side: the host agent and the workers that it forks.

This package uses the standard library (and, when something must travel by value,
cloudpickle) and imports nothing of ours, so that it can be sent to a machine that has
nothing but Python. There it is called ``_aioparallel_child``.
"""
