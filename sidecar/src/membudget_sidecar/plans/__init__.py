"""Where the plan in force comes from, who may change it, and how it is kept."""
