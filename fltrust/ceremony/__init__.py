"""The root's ceremony: an offline root, several key holders, requests and answers as files, a transcript."""

from __future__ import annotations
