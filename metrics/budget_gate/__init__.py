"""A gap report and budgets to a verdict."""
