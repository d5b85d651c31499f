"""What the engine is asked to do, and how it is verified from outside that it was done."""
