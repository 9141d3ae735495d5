"""What an executor places calls on: agents, worker links, threads."""
