"""aioparallel"""
