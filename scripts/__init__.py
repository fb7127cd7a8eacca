"""mimflow: a folder of labelled images to a reproducible, explained, exportable classifier."""
