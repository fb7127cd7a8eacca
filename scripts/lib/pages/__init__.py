"""The pages of the report, from templates."""
