"""The agent: holds the keys of one identity, renews, follows the feed, and answers on a unix socket."""
