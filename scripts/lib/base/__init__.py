"""What everything stands on: errors, files, downloads, text, units; knows nothing of images or runs."""
