"""Keys, defaults and messages of the configuration and the site."""
