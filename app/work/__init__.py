"""What runs in the background: the queue of jobs, and trainings."""
