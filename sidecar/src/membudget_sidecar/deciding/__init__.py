"""What follows from readings: pure functions and state machines, without files, sockets or clocks of their own."""
