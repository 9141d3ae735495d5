"""What users say: decorators, maps, ambient executors."""
