"""Archives, labels, splits, the audit's parts, cached pixels."""
