"""`membudget mcp`: one engine's memory as tools for agents, over the Model Context Protocol."""
