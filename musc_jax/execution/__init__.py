"""Where and when the method runs: memory, devices, compiled programs, batches, schedules. No equation."""
