"""Trust anchors away from the coordinator: how they change, and what a site holds that is seldom online."""
