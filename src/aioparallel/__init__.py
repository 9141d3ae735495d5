"""aioparallel"""


def __getattr__(name):
    if name == "ProcessExecutor":
        from ._executors.process import ProcessExecutor

        return ProcessExecutor
    raise AttributeError(name)
