"""How llmctl is set: where its files are, what may stand in them (pydantic is only here), and how they are loaded."""
